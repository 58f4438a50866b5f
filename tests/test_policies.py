"""Test policies with actions in the units of the environment and with actions in [-1, 1]."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import CONFIG, TINY, refused
from probes import Aim

import sacjax
from sacjax import Config, Hyperparams, make_sac
from sacjax.envs.names import make_env
from sacjax.sac import CLIPPED_DOUBLE_Q


def agent_of(config):
    env = make_env(config.env)(1)
    return make_sac(config, env).init(jax.random.key(0), Hyperparams())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brax raises it
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
def test_policy_returns_actions_within_the_bounds_of_the_environment(env, low, high):
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


def test_policy_gets_the_same_return_in_the_original_gymnax_environment():
    """gymnax's environment receives the actions of the policy without rescaling."""
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


def test_a_policy_rejects_unknown_action_units_and_wrong_observation_sizes():
    agent = agent_of(CONFIG)
    with refused("units"):
        sacjax.policy(CONFIG, agent, units="rad")  # pyright: ignore[reportArgumentType]
    with refused("obs"):
        sacjax.policy(CONFIG, agent)(jnp.zeros(2))


@pytest.mark.parametrize("env", ["Pendulum-v1", "gymnasium/Pendulum-v1", Aim()])
@pytest.mark.parametrize("units", ["environment", "unit"])
def test_a_pickled_policy_returns_the_same_actions_as_the_original(env, units):
    config = Config(env, total_steps=500, warmup_steps=100, eval_every=50, normalize_obs=True)
    policy = sacjax.policy(config, agent_of(config), units=units)
    again = pickle.loads(pickle.dumps(policy))
    obs = jax.random.normal(jax.random.key(1), (5, make_env(env)(1).example.obs.size))
    np.testing.assert_array_equal(again(obs), policy(obs))
    assert repr(again) == repr(policy)


def test_a_pickled_policy_keeps_the_algorithm():
    algorithm = partial(make_sac, rule=CLIPPED_DOUBLE_Q)
    done = sacjax.run(TINY, seeds=1, algorithm=algorithm)
    again = pickle.loads(pickle.dumps(done.policy(0)))
    np.testing.assert_array_equal(again(jnp.ones(3)), done.policy(0)(jnp.ones(3)))
    assert again.__reduce__()[0].keywords["algorithm"].keywords == algorithm.keywords


def test_the_repr_of_a_policy_or_a_distribution_is_one_line():
    policy = sacjax.policy(CONFIG, agent_of(CONFIG))
    wanted = "observations [..., 3] to actions [..., 1] from -2 to 2"
    assert repr(policy) == f"<greedy policy for Pendulum-v1: {wanted}>"
    assert "from -1 to 1>" in repr(sacjax.policy(CONFIG, agent_of(CONFIG), units="unit"))
    actor = sacjax.mlp(CONFIG, 1).actor
    params = actor.init(jax.random.key(0), jnp.zeros((5, 3)))
    shown = "<SquashedGaussian over actions (5, 1) in [-1, 1]>"
    assert repr(actor.apply(params, jnp.zeros((5, 3)))) == shown
    assert repr(jax.eval_shape(actor.apply, params, jnp.zeros((5, 3)))) == shown  # no arrays
