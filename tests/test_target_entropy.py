"""Test that sacjax rejects a target entropy that no policy can reach.

With such a target, the temperature would grow without bound."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from checks import TINY, refused

from sacjax import Hyperparams, make_sac, make_train, mlp, run
from sacjax.validation import check_target_entropy, largest_entropy


def test_a_target_entropy_that_no_policy_reaches_is_rejected():
    train, key = make_train(TINY), jax.random.key(0)
    for start in (train, lambda key, hp: run(TINY, hp, seeds=1)):
        with refused("target_entropy_per_dim"):
            start(key, Hyperparams(target_entropy_per_dim=0.69))
    narrow = make_train(dataclasses.replace(TINY, log_std_min=-5.0, log_std_max=-3.0))
    with refused("target_entropy_per_dim"):
        narrow(key, Hyperparams())


@pytest.mark.parametrize(("target", "lr"), [(0.68, 3e-4), (0.9, 0.0), (-1.0, 3e-4)])
def test_a_target_entropy_is_accepted_if_it_is_reachable_or_unused(target, lr):
    check_target_entropy(TINY, Hyperparams(target_entropy_per_dim=target, alpha_lr=lr))


def test_target_entropy_is_not_checked_for_custom_networks_or_traced_values():
    own = partial(make_sac, nets=mlp(TINY, 1))
    hp = Hyperparams(target_entropy_per_dim=0.9)
    jax.eval_shape(make_train(TINY, own), jax.random.key(0), hp)
    jax.eval_shape(lambda hp: check_target_entropy(TINY, hp), hp)


def test_largest_entropy_matches_an_estimate_from_sampled_actions():
    """Estimate the entropy for many standard deviations from 200,000 samples. Take the largest."""
    noise = np.random.default_rng(0).normal(size=200_000)
    u = np.exp(np.linspace(-1, 1, 41))[:, None] * noise
    entropy = (np.log(2 * np.pi * np.e) / 2 + np.linspace(-1, 1, 41)) + np.log1p(
        -np.minimum(np.tanh(u) ** 2, 1 - 1e-12)
    ).mean(1)
    assert abs(largest_entropy(-20, 2) - entropy.max()) < 0.005
