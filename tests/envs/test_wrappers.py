"""Test gymnax's own wrappers around environment objects."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import TINY, refused
from gymnax.environments import spaces
from gymnax.environments.classic_control.pendulum import Pendulum
from gymnax.wrappers import (
    FlattenObservationWrapper,
    GymnaxToDmEnvWrapper,
    GymnaxToGymWrapper,
    LegacyStepAPIWrapper,
    LogWrapper,
)

from sacjax import load, resume, run
from sacjax.envs.names import make_env
from sacjax.report.render import render


class Picture(Pendulum):
    """An environment whose observations have two axes."""

    def reset_env(self, key, params):
        obs, state = super().reset_env(key, params)
        return jnp.broadcast_to(obs[None], (2, *obs.shape)), state

    def step_env(self, key, state, action, params):
        obs, *rest = super().step_env(key, state, action, params)
        return jnp.broadcast_to(obs[None], (2, *obs.shape)), *rest

    def observation_space(self, params):
        space = super().observation_space(params)
        return spaces.Box(space.low, space.high, (2, *space.shape))


@pytest.mark.parametrize(
    "wrap",
    [
        LogWrapper,
        FlattenObservationWrapper,
        lambda env: LogWrapper(FlattenObservationWrapper(env)),
        lambda env: FlattenObservationWrapper(LogWrapper(env)),
    ],
)
def test_a_gymnax_wrapper_does_not_change_the_steps(wrap):
    plain, wrapped = make_env(Pendulum())(3), make_env(wrap(Pendulum()))(3)
    assert wrapped.name == plain.name
    params = plain.default_params.replace(max_steps_in_episode=4)
    key = jax.random.key(0)
    (state, obs), (other, other_obs) = plain.reset(key, params), wrapped.reset(key, params)
    np.testing.assert_array_equal(obs, other_obs)
    for i in range(9):
        action = plain.random_action(jax.random.fold_in(key, i))
        state, step = plain.step(state, action, key, params)
        other, other_step = wrapped.step(other, action, key, params)
        step, other_step = (x._replace(info=None) for x in (step, other_step))
        jax.tree.map(np.testing.assert_array_equal, step, other_step)


def test_a_gymnax_wrapper_causes_no_warning(caplog):
    make_env(LogWrapper(Pendulum()))
    assert not caplog.text


def test_flattened_images_can_be_observations():
    with refused("observation_space"):
        make_env(Picture())
    flat = FlattenObservationWrapper(Picture())
    env = make_env(flat)(2)
    state, obs = env.reset(jax.random.key(0), env.default_params)
    assert obs.shape == (2, *env.example.obs.shape)
    assert env.step(state, env.random_action(jax.random.key(1)), jax.random.key(2), None)


@pytest.mark.parametrize("wrap", [GymnaxToDmEnvWrapper, LegacyStepAPIWrapper, GymnaxToGymWrapper])
def test_wrappers_that_change_the_gymnax_interface_are_refused(wrap):
    with refused("env"):
        make_env(wrap(Pendulum()))


@pytest.mark.processes
def test_training_with_a_wrapped_environment_works(tmp_path):
    env = LogWrapper(Pendulum())
    config = dataclasses.replace(TINY, env=env)
    done = run(config, seeds=1, directory=tmp_path / "run")
    plain = run(dataclasses.replace(TINY, env=Pendulum()), seeds=1)
    np.testing.assert_array_equal(done.metrics["eval_return"], plain.metrics["eval_return"])
    again = load(tmp_path / "run", env=env)
    assert again.completed
    render(again, 0, tmp_path / "policy.gif", frames=2)
    with refused("algorithm"):  # the state has other arrays
        resume(tmp_path / "run", env=Pendulum(), extend_to=56)
