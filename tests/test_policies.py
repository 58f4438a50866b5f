"""Policies act in the environment's units, unless asked otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import CONFIG
from probes import Aim

import sacjax
from sacjax import Config, Hyperparams, InputError, make_sac
from sacjax.envs.names import make_env


def agent_of(config):
    env = make_env(config.env)(1)
    return make_sac(config, env).init(jax.random.key(0), Hyperparams())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brax's own
@pytest.mark.parametrize(
    ("env", "low", "high"),
    [
        ("Pendulum-v1", [-2.0], [2.0]),
        ("gymnasium/Pendulum-v1", [-2.0], [2.0]),
        ("brax/fast", [-1.0], [1.0]),
        (Aim(), [0.0, -3.0], [4.0, -2.0]),
    ],
    ids=["gymnax", "gymnasium", "brax", "object"],
)
def test_actions_are_within_the_bounds_of_the_environment(env, low, high):
    config = Config(env, total_steps=500, warmup_steps=100, eval_every=50, batch_size=8)
    agent = agent_of(config)
    size = make_env(env)(1).example.obs.size
    obs = 30 * jax.random.normal(jax.random.key(1), (50, size))
    action, unit = (
        np.asarray(sacjax.policy(config, agent, units=units)(obs))
        for units in ("environment", "unit")
    )
    middle, half = (np.add(low, high) / 2, np.subtract(high, low) / 2)
    np.testing.assert_allclose(action, middle + half * unit, rtol=1e-5, atol=1e-6)
    assert (action >= low).all()
    assert (action <= high).all()
    np.testing.assert_array_equal(sacjax.policy(config, agent)(obs), action)


def test_a_policy_is_stepped_through_the_environment_as_the_evaluation_is():
    """The return of gymnax's own environment, given the policy's actions as they are."""
    config = CONFIG
    agent = agent_of(config)
    policy, env = sacjax.policy(config, agent), make_env(config.env)(1)
    state, obs = env.reset(jax.random.key(3), env.default_params)
    raw = jax.tree.map(lambda x: x[0], state)
    from sacjax.envs.gymnax import base_env

    base, total, wanted = base_env("Pendulum-v1"), 0.0, 0.0
    unit = sacjax.policy(config, agent, units="unit")
    ours, theirs = jax.jit(env.step), jax.jit(base.step_env)
    raw_obs = obs[0]
    for key in jax.random.split(jax.random.key(4), 20):
        state, timestep = ours(state, unit(obs), key, env.default_params)
        obs, wanted = timestep.obs, wanted + float(timestep.reward[0])
        raw_obs, raw, reward, *_ = theirs(key, raw, policy(raw_obs), base.default_params)
        total += float(reward)
    np.testing.assert_allclose(total, wanted, rtol=1e-4)


def test_wrong_units_and_sizes_are_refused():
    agent = agent_of(CONFIG)
    with pytest.raises(InputError, match=r"units \('rad'\) must be one of environment, unit"):
        sacjax.policy(CONFIG, agent, units="rad")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"obs of shape \(2,\) must be \[..., 3\]"):
        sacjax.policy(CONFIG, agent)(jnp.zeros(2))
