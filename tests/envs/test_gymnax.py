"""Compare the adapter for gymnax with gymnax itself."""

import math
from functools import cache
from typing import Any

import contract
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import refused
from contract import Rollout
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState
from probes import Chain, Noise, quick_jit

from sacjax import Config, make_train
from sacjax.envs import names
from sacjax.envs.gymnax import base_env, continuous_envs
from sacjax.envs.names import make_env

# name: (observation size, action size, bounds of the actions)
ENVS = {
    "Pendulum-v1": (3, 1, 2.0),
    "MountainCarContinuous-v0": (2, 1, 1.0),
    "Reacher-misc": (8, 2, 1.0),
    "Swimmer-misc": (16, 2, 1.0),
    "PointRobot-misc": (6, 2, 0.1),
}
COPIES, STEPS, LIMIT = 2, 1000, 25  # the limit is short, because rounding errors grow until a reset


@pytest.fixture(autouse=True)
def _swimmer_promotes_ranks(request):
    with jax.numpy_rank_promotion("allow" if "Swimmer" in request.node.name else "raise"):
        yield


def params_of(name):
    return gymnax.make(name)[1].replace(max_steps_in_episode=LIMIT)


def actions_and_keys(name):
    return contract.inputs(STEPS, COPIES, ENVS[name][1])


@cache
def rollout(name: str) -> Rollout:
    run = contract.rollouts(make_env(name)(COPIES), params_of(name))
    return run(jax.random.key(0), *actions_and_keys(name))


@cache
def rollout_by_hand(name: str) -> Rollout:
    """Step gymnax's environment in a Python loop. The loop applies resets and a time limit."""
    env, _ = gymnax.make(name)
    params, bound = params_of(name), ENVS[name][2]
    reset = quick_jit(jax.vmap(lambda *given: env.reset_env(*given, params)))
    step = quick_jit(jax.vmap(lambda *given: env.step_env(*given, params)))
    actions, keys = actions_and_keys(name)
    keys = jax.vmap(lambda key: jax.vmap(jax.random.split)(jax.random.split(key, COPIES)))(keys)
    obs, state = reset(jax.random.split(jax.random.key(0), COPIES))
    first_obs, rows = obs, []
    for action, key in zip(actions, keys, strict=True):  # key [E, 2]: for the step and the reset
        raw_action = bound * np.clip(action, -1, 1)
        final_obs, state, reward, terminated, _ = step(key[:, 0], state, raw_action)
        truncated = np.asarray(state.time) >= LIMIT
        obs, begun = final_obs, reset(key[:, 1])
        for i in np.flatnonzero(terminated | truncated):
            begin = jax.tree.map(lambda x, first, i=i: x.at[i].set(first[i]), (obs, state), begun)
            obs, state = begin
        rows.append((obs, final_obs, reward, terminated, truncated))
    return Rollout(first_obs, *map(np.stack, zip(*rows, strict=True)))


@pytest.mark.parametrize("name", ENVS)
def test_the_adapter_returns_the_same_steps_as_gymnax(name):
    contract.assert_equal(rollout(name), rollout_by_hand(name))


@pytest.mark.parametrize("name", ENVS)
def test_shapes_and_dtypes_match_the_environment_interface(name):
    contract.assert_shapes(make_env(name)(COPIES), name, *ENVS[name][:2], rollout(name))


@pytest.mark.parametrize("name", ENVS)
def test_time_limit_truncates_an_episode_and_does_not_terminate_it(name):
    steps = rollout(name)
    assert not steps.terminated.any()
    ends = np.arange(1, STEPS + 1) % LIMIT == 0
    np.testing.assert_array_equal(steps.truncated, np.stack([ends] * COPIES, axis=1))


@pytest.mark.parametrize("name", ENVS)
def test_each_environment_copy_resets_only_when_its_episode_ends(name):
    contract.assert_resets_are_seen_only_at_ends(rollout(name))


@pytest.mark.parametrize("name", ENVS)
def test_step_changes_no_dtype_of_the_state_and_creates_no_weak_types(name):
    contract.assert_state_keeps_its_types(make_env(name)(COPIES), COPIES)


def test_the_list_of_gymnax_environments_contains_all_continuous_ones():
    assert continuous_envs().keys() == ENVS.keys()


# Custom environments


@struct.dataclass
class EchoParams(EnvParams):
    max_steps_in_episode: int = 3
    bound: float = 1.0


class Echo(Environment[EnvState, EchoParams]):
    """An environment whose observation is the flattened action. The reward is the integer 1."""

    def __init__(self, low: Any, high: Any, shape: tuple[int, ...]):
        self.space = low, high, shape

    @property
    def default_params(self) -> EchoParams:
        return EchoParams()

    def reset_env(self, key: Any, params: Any) -> Any:
        obs = jnp.zeros(self.space[2]).ravel()
        return obs, EnvState(time=0)  # a weakly typed leaf

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        assert action.shape == self.space[2]
        state = EnvState(time=state.time + 1)
        return action.ravel(), state, jnp.array(1), jnp.array(False), {}

    def action_space(self, params: Any = None) -> spaces.Box:
        low, high, shape = self.space
        return spaces.Box(low * params.bound, high * params.bound, shape)

    def observation_space(self, params: Any = None) -> spaces.Space:
        return spaces.Box(-9.0, 9.0, (math.prod(self.space[2]),))


@pytest.mark.parametrize(
    ("low", "high", "shape"),
    [
        (-2.0, 2.0, (1,)),
        (0.0, 4.0, (3,)),  # scalar bounds for many actions
        (np.array([0.0, -3.0]), np.array([4.0, -2.0]), (2,)),
        (jnp.array([[0.0], [-3.0]]), jnp.array([[4.0], [5.0]]), (2, 1)),
        (-1.0, 0.5, ()),
        (0, 4, (1,)),  # integers
    ],
)
def test_actions_from_minus_one_to_one_are_scaled_to_the_bounds(low, high, shape):
    env = make_env(Echo(low, high, shape))(1)
    size = int(np.prod(shape))
    assert env.action_size == size
    state, _ = env.reset(jax.random.key(0), env.default_params)

    def raw(unit):
        action = jnp.full((1, size), unit)
        return env.step(state, action, jax.random.key(0), env.default_params)[1].final_obs[0]

    low, high = (np.broadcast_to(b, shape).ravel().astype(float) for b in (low, high))
    np.testing.assert_array_equal(raw(-1.0), low)
    np.testing.assert_array_equal(raw(1.0), high)
    np.testing.assert_allclose(raw(0.5), low + 0.75 * (high - low), rtol=1e-6)
    np.testing.assert_array_equal(raw(-1.7), low)
    np.testing.assert_array_equal(raw(9.0), high)


def test_scaled_actions_stay_within_their_bounds_after_rounding():
    low, high = np.sort(np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32), 0)
    env = make_env(Echo(low, high, (500,)))(1)
    state, _ = env.reset(jax.random.key(0), env.default_params)
    for unit, bound in (-1.0, low), (1.0, high):
        action = jnp.full((1, 500), unit)
        raw = env.step(state, action, jax.random.key(0), env.default_params)[1].final_obs[0]
        assert ((low <= raw) & (raw <= high)).all()
        np.testing.assert_allclose(raw, bound, rtol=1e-5, atol=1e-6)


@struct.dataclass
class Keyed:
    key: jax.Array
    time: int = 0


class NeedsStandardKeys(Echo):
    """An environment that uses its keys in ways that only the standard keys of JAX allow."""

    def reset_env(self, key: Any, params: Any) -> Any:
        return jnp.zeros(1), Keyed(jax.random.key(7))

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        seen = jax.random.poisson(key, 3.0, (1,)).astype(float)
        state = Keyed(jax.random.fold_in(key, 1), state.time + 1)
        return seen, state, seen[0], jnp.array(False), {}


def test_custom_environments_receive_standard_jax_keys():
    sizes = {"total_steps": 12, "warmup_steps": 8, "eval_every": 4, "batch_size": 2}
    config = Config(NeedsStandardKeys(-1.0, 1.0, (1,)), hidden=(4,), eval_episodes=2, **sizes)
    trained = quick_jit(make_train(config))(jax.random.key(0))
    assert (trained.metrics["eval_return"] > 0).all()


class Still(Chain):
    """An environment that does not count its steps."""

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, _, *others = super().step_env(key, state, action, params)
        return obs, state.replace(x=-state.x), *others


class StillButEnding(Still):
    def is_truncated(self, state: Any, params: Any) -> Any:
        return jnp.array(True)


@pytest.mark.parametrize(
    ("env", "warns"), [(Still(), True), (StillButEnding(), False), (Chain(), False)]
)
def test_a_warning_reports_environments_that_do_not_count_steps(env, warns, caplog):
    make_env(env)
    assert (f"step_env of {type(env).__name__} does not change state.time" in caplog.text) == warns


def test_integer_rewards_are_converted_to_floats():
    env = make_env(Echo(-1.0, 1.0, (1,)))(2)
    state, _ = env.reset(jax.random.key(0), env.default_params)
    _, timestep = env.step(state, jnp.zeros((2, 1)), jax.random.key(0), env.default_params)
    assert timestep.reward.dtype == np.float32


def test_random_actions_are_uniformly_distributed():
    action = make_env(Echo(0.0, 4.0, (2,)))(5_000).random_action(jax.random.key(0))
    assert action.shape == (5_000, 2)
    quantiles = np.quantile(action, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
    np.testing.assert_allclose(quantiles, np.stack([np.linspace(-1, 1, 5)] * 2, 1), atol=0.03)
    assert len(np.unique(action)) > 9_000


def test_each_member_has_its_own_bounds_and_time_limit():
    env = make_env(Echo(-1.0, 1.0, (1,)))(2)
    params = EchoParams(bound=jnp.array([0.1, 0.5, 3.0]), max_steps_in_episode=jnp.array([1, 2, 3]))

    @quick_jit
    @jax.vmap
    def run(params):
        state, _ = env.reset(jax.random.key(0), params)
        keys = jax.random.split(jax.random.key(0), 6)
        return jax.lax.scan(
            lambda state, key: env.step(state, jnp.ones((2, 1)), key, params), state, keys
        )[1]

    steps = run(params)
    for i, (bound, limit) in enumerate([(0.1, 1), (0.5, 2), (3.0, 3)]):
        np.testing.assert_allclose(steps.final_obs[i], bound, rtol=1e-6)
        ends = np.stack([np.arange(1, 7) % limit == 0] * 2, axis=1)
        np.testing.assert_array_equal(steps.truncated[i], ends)


def test_point_robot_scales_actions_by_the_maximum_force_of_each_member():
    env = make_env("PointRobot-misc")(1)
    force = jnp.array([0.1, 0.7])

    def last_action(force):
        params = env.default_params.replace(max_force=force)
        state, _ = env.reset(jax.random.key(0), params)
        action = jnp.array([[1.0, -0.5]])
        return env.step(state, action, jax.random.key(0), params)[1].final_obs[0, 3:5]

    raw = quick_jit(jax.vmap(last_action))(force)
    np.testing.assert_allclose(raw, np.outer(force, [1.0, -0.5]), rtol=1e-6)


def test_one_step_can_both_terminate_and_truncate_an_episode():
    env = make_env(Chain())(1)
    params = env.default_params.replace(length=2, max_steps_in_episode=2)
    state, _ = env.reset(jax.random.key(0), params)
    flags = []
    for _ in range(4):
        state, timestep = env.step(state, jnp.zeros((1, 1)), jax.random.key(0), params)
        flags.append((bool(timestep.terminated[0]), bool(timestep.truncated[0])))
    assert flags == [(False, False), (True, True)] * 2


def test_equal_keys_give_equal_steps_and_different_keys_differ():
    env = make_env(Noise())(4)

    @quick_jit
    def run(key_reset, key_step):
        state, obs = env.reset(key_reset, env.default_params)
        _, timestep = env.step(state, jnp.zeros((4, 1)), key_step, env.default_params)
        return obs, timestep.obs

    keys = jax.random.split(jax.random.key(0), 4)
    obs, next_obs = run(keys[0], keys[1])
    same = run(keys[0], keys[1])
    others = run(keys[2], keys[3])
    assert np.array_equal(obs, same[0])
    assert np.array_equal(next_obs, same[1])
    every = np.concatenate([obs, next_obs, *others])
    assert len(np.unique(every)) == len(every) == 16  # each copy draws different numbers


def test_typed_and_legacy_jax_keys_produce_the_same_steps():
    env = make_env("Pendulum-v1")(2)

    @quick_jit
    def run(key):
        state, obs = env.reset(key, env.default_params)
        action = env.random_action(key)
        return obs, action, env.step(state, action, key, env.default_params)

    typed, legacy = run(jax.random.key(3)), run(jax.random.PRNGKey(3))
    assert all(map(np.array_equal, jax.tree.leaves(typed), jax.tree.leaves(legacy)))


def test_make_env_returns_the_same_object_for_the_same_name():
    assert all(base_env(name) is base_env(name) for name in ENVS)


@pytest.mark.parametrize("name", ["PointRobot-misc", "Reacher-misc", "Swimmer-misc"])
def test_make_env_works_inside_jit(name):
    jax.eval_shape(lambda key: make_env(name)(1).random_action(key), jax.random.key(0))


# Errors (tests/test_messages.py holds their wording)


class WithSpaces(Echo):
    """An environment with the given spaces."""

    def __init__(self, action_space: Any = None, observation_space: Any = None):
        box = spaces.Box(-1.0, 1.0, (1,))
        self.space = -1.0, 1.0, (1,)
        self.spaces = action_space or box, observation_space or box

    def action_space(self, params: Any = None) -> Any:
        return self.spaces[0]

    def observation_space(self, params: Any = None) -> Any:
        return self.spaces[1]


@pytest.mark.parametrize(
    ("env", "field"),
    [
        ("Pendulum-v0", "env"),
        ("CartPole-v1", "action_space"),
        ("gymnax/Pendulum-v1?a=1", "a"),
        (7, "env"),
        (Chain, "env"),  # a class, not an object
        (WithSpaces(action_space=spaces.Discrete(3)), "action_space"),
        (WithSpaces(spaces.Box(-np.inf, 1.0, (1,))), "action_space"),
        (WithSpaces(spaces.Box(0.0, np.array([1.0, np.inf]), (2,))), "action_space"),
        (WithSpaces(spaces.Box(-1.0, np.nan, (1,))), "action_space"),
        (WithSpaces(observation_space=spaces.Discrete(3)), "observation_space"),
        (
            WithSpaces(observation_space=spaces.Box(0.0, 255.0, (8, 8, 3))),
            "observation_space",
        ),
        (WithSpaces(observation_space=spaces.Box(0.0, 1.0, (2,))), "observation"),
        (
            WithSpaces(observation_space=spaces.Dict({"x": spaces.Box(0.0, 1.0, (1,))})),
            "observation_space",
        ),
    ],
)
def test_an_unsupported_environment_raises_an_input_error(env, field):
    with refused(field):
        make_env(env)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Pendulum-v0", "Pendulum-v1"),
        ("gymnax/pendulum", "Pendulum-v1"),
        ("reacher", "Reacher-misc"),
        ("HalfCheetah-v5", "gymnasium/HalfCheetah-v5"),
        ("Ant-v4", "gymnasium/Ant-v4"),
        ("Reacher-v2", "gymnasium/Reacher-v5"),
    ],
)
def test_error_for_an_unknown_environment_suggests_the_closest_name(name, suggestion):
    with refused("env") as caught:
        make_env(name)
    assert f"did you mean {suggestion}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("Pendulum-v1", "Pendulum-v1"),
        ("brax/ant?backend=spring&limit=500", "brax/ant-backend-spring-limit-500"),
        ("gymnasium/Ant-v5?xml_file=/a/../../b.xml", "gymnasium/Ant-v5-xml_file-a-..-..-b.xml"),
        ("gymnasium/module:Mine-v0", "gymnasium/module-Mine-v0"),
        ("../..//x", "-/-/-/x"),
        ("gymnasium/Ant-v5?xml_file=" + 300 * "a", "gymnasium/Ant-v5-xml_file-" + 134 * "a"),
    ],
)
def test_the_path_for_an_environment_name_stays_inside_runs(name, path):
    assert names.path_of(name) == path
