"""The gymnax adapter: one contract for all environments, checked against gymnax stepped by hand."""

import math
from functools import cache
from typing import Any

import contract
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import Rollout
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState
from probes import Chain, Noise, quick_jit

from sacjax import Config, make_train
from sacjax.envs import names
from sacjax.envs.gymnax import base_env, continuous_envs
from sacjax.envs.names import make_env
from sacjax.types import InputError

# name: (observation size, action size, bounds of the actions)
ENVS = {
    "Pendulum-v1": (3, 1, 2.0),
    "MountainCarContinuous-v0": (2, 1, 1.0),
    "Reacher-misc": (8, 2, 1.0),
    "Swimmer-misc": (16, 2, 1.0),
    "PointRobot-misc": (6, 2, 0.1),
}
COPIES, STEPS, LIMIT = 2, 1000, 25  # a rounding of the pendulum grows until the time limit


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
    """gymnax's environment in a loop of Python, its resets and time limit made here."""
    env, _ = gymnax.make(name)
    params, bound = params_of(name), ENVS[name][2]
    reset = quick_jit(jax.vmap(lambda *given: env.reset_env(*given, params)))
    step = quick_jit(jax.vmap(lambda *given: env.step_env(*given, params)))
    actions, keys = actions_and_keys(name)
    keys = jax.vmap(lambda key: jax.vmap(jax.random.split)(jax.random.split(key, COPIES)))(keys)
    obs, state = reset(jax.random.split(jax.random.key(0), COPIES))
    first_obs, rows = obs, []
    for action, key in zip(actions, keys, strict=True):  # key [E, 2]: of the step, of the reset
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
def test_rollout_equals_gymnax_stepped_by_hand(name):
    contract.assert_equal(rollout(name), rollout_by_hand(name))


@pytest.mark.parametrize("name", ENVS)
def test_shapes_and_dtypes_are_those_of_the_contract(name):
    contract.assert_shapes(make_env(name)(COPIES), name, *ENVS[name][:2], rollout(name))


@pytest.mark.parametrize("name", ENVS)
def test_time_limit_truncates_and_does_not_terminate(name):
    steps = rollout(name)
    assert not steps.terminated.any()
    ends = np.arange(1, STEPS + 1) % LIMIT == 0
    np.testing.assert_array_equal(steps.truncated, np.stack([ends] * COPIES, axis=1))


@pytest.mark.parametrize("name", ENVS)
def test_next_observation_is_a_reset_only_where_the_episode_ended(name):
    contract.assert_resets_are_seen_only_at_ends(rollout(name))


@pytest.mark.parametrize("name", ENVS)
def test_state_keeps_its_types_and_has_no_weak_ones(name):
    contract.assert_state_keeps_its_types(make_env(name)(COPIES), COPIES)


def test_every_continuous_environment_of_gymnax_is_known():
    assert continuous_envs().keys() == ENVS.keys()


# Environments of a user's own.


@struct.dataclass
class EchoParams(EnvParams):
    max_steps_in_episode: int = 3
    bound: float = 1.0


class Echo(Environment[EnvState, EchoParams]):
    """The observation is the raw action just taken, flat; reward 1 as an integer."""

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
def test_actions_from_minus_one_to_one_span_the_bounds(low, high, shape):
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


def test_no_action_is_past_its_bounds_by_a_rounding():
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


class OfItsOwn(Echo):
    """Draws and keeps what only JAX's own keys can be drawn and kept as."""

    def reset_env(self, key: Any, params: Any) -> Any:
        return jnp.zeros(1), Keyed(jax.random.key(7))

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        seen = jax.random.poisson(key, 3.0, (1,)).astype(float)
        state = Keyed(jax.random.fold_in(key, 1), state.time + 1)
        return seen, state, seen[0], jnp.array(False), {}


def test_an_environments_keys_are_jaxs_own():
    sizes = {"total_steps": 12, "warmup_steps": 8, "eval_every": 4, "batch_size": 2}
    config = Config(OfItsOwn(-1.0, 1.0, (1,)), hidden=(4,), eval_episodes=2, **sizes)
    trained = quick_jit(make_train(config))(jax.random.key(0))
    assert (trained.metrics["eval_return"] > 0).all()


class Still(Chain):
    """Does not count its steps."""

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, _, *others = super().step_env(key, state, action, params)
        return obs, state.replace(x=-state.x), *others


class StillButEnding(Still):
    def is_truncated(self, state: Any, params: Any) -> Any:
        return jnp.array(True)


@pytest.mark.parametrize(
    ("env", "said"), [(Still(), True), (StillButEnding(), False), (Chain(), False)]
)
def test_an_environment_that_does_not_count_its_steps_is_warned_of(env, said, caplog):
    make_env(env)
    assert (f"step_env of {type(env).__name__} leaves state.time as it is" in caplog.text) == said


def test_integer_rewards_become_floats():
    env = make_env(Echo(-1.0, 1.0, (1,)))(2)
    state, _ = env.reset(jax.random.key(0), env.default_params)
    _, timestep = env.step(state, jnp.zeros((2, 1)), jax.random.key(0), env.default_params)
    assert timestep.reward.dtype == np.float32


def test_random_actions_fill_the_interval_uniformly():
    action = make_env(Echo(0.0, 4.0, (2,)))(5_000).random_action(jax.random.key(0))
    assert action.shape == (5_000, 2)
    quantiles = np.quantile(action, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
    np.testing.assert_allclose(quantiles, np.stack([np.linspace(-1, 1, 5)] * 2, 1), atol=0.03)
    assert len(np.unique(action)) > 9_000


def test_params_of_a_member_move_its_bounds_and_its_time_limit():
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


def test_point_robot_scales_actions_by_the_force_of_the_member():
    env = make_env("PointRobot-misc")(1)
    force = jnp.array([0.1, 0.7])

    def last_action(force):
        params = env.default_params.replace(max_force=force)
        state, _ = env.reset(jax.random.key(0), params)
        action = jnp.array([[1.0, -0.5]])
        return env.step(state, action, jax.random.key(0), params)[1].final_obs[0, 3:5]

    raw = quick_jit(jax.vmap(last_action))(force)
    np.testing.assert_allclose(raw, np.outer(force, [1.0, -0.5]), rtol=1e-6)


def test_both_flags_can_be_set_at_once():
    env = make_env(Chain())(1)
    params = env.default_params.replace(length=2, max_steps_in_episode=2)
    state, _ = env.reset(jax.random.key(0), params)
    flags = []
    for _ in range(4):
        state, timestep = env.step(state, jnp.zeros((1, 1)), jax.random.key(0), params)
        flags.append((bool(timestep.terminated[0]), bool(timestep.truncated[0])))
    assert flags == [(False, False), (True, True)] * 2


def test_same_keys_give_the_same_steps_and_other_keys_give_others():
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
    assert len(np.unique(every)) == len(every) == 16  # each copy has random numbers of its own


def test_typed_and_legacy_keys_give_the_same_steps():
    env = make_env("Pendulum-v1")(2)

    @quick_jit
    def run(key):
        state, obs = env.reset(key, env.default_params)
        action = env.random_action(key)
        return obs, action, env.step(state, action, key, env.default_params)

    typed, legacy = run(jax.random.key(3)), run(jax.random.PRNGKey(3))
    assert all(map(np.array_equal, jax.tree.leaves(typed), jax.tree.leaves(legacy)))


def test_name_is_made_once_so_that_it_compiles_once():
    assert all(base_env(name) is base_env(name) for name in ENVS)


@pytest.mark.parametrize("name", ["PointRobot-misc", "Reacher-misc", "Swimmer-misc"])
def test_environment_can_be_made_inside_of_a_jitted_function(name):
    jax.eval_shape(lambda key: make_env(name)(1).random_action(key), jax.random.key(0))


# Errors come before tracing and name the remedy.


class WithSpaces(Echo):
    """An environment with these spaces."""

    def __init__(self, action_space: Any = None, observation_space: Any = None):
        box = spaces.Box(-1.0, 1.0, (1,))
        self.space = -1.0, 1.0, (1,)
        self.spaces = action_space or box, observation_space or box

    def action_space(self, params: Any = None) -> Any:
        return self.spaces[0]

    def observation_space(self, params: Any = None) -> Any:
        return self.spaces[1]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Pendulum-v0", "did you mean .*Pendulum-v1"),
        ("pendulum", "did you mean .*Pendulum-v1"),
        ("reacher", "did you mean .*Reacher-misc"),
        ("zzz", "see `sacjax envs`$"),
        ("HalfCheetah-v5", r"did you mean gymnasium/HalfCheetah-v5\?"),
        ("Ant-v4", r"did you mean gymnasium/Ant-v4\?"),
        ("Reacher-v2", r"did you mean gymnasium/Reacher-v5\?"),
        ("CartPole-v1", r"Discrete\(2, .*a continuous one \(a Box of floats\): `sacjax envs`"),
        (7, "must be a name or a gymnax Environment"),
        (Chain, "must be a name or a gymnax Environment"),  # the class, not an object
        (WithSpaces(action_space=spaces.Discrete(3)), "WithSpaces has the action space Discrete"),
        (WithSpaces(spaces.Box(-np.inf, 1.0, (1,))), "bounds must be finite: wrap"),
        (WithSpaces(spaces.Box(0.0, np.array([1.0, np.inf]), (2,))), "bounds must be finite"),
        (WithSpaces(spaces.Box(-1.0, np.nan, (1,))), "bounds must be finite"),
        (WithSpaces(observation_space=spaces.Discrete(3)), "a flat Box is needed: wrap"),
        (
            WithSpaces(observation_space=spaces.Box(0.0, 255.0, (8, 8, 3))),
            r"observation space Box of shape \[8, 8, 3\], but a flat Box is needed: wrap",
        ),
        (
            WithSpaces(observation_space=spaces.Box(0.0, 1.0, (2,))),
            r"returns observations of shape \[1\], but its observation_space says \[2\]",
        ),
        (
            WithSpaces(observation_space=spaces.Dict({"x": spaces.Box(0.0, 1.0, (1,))})),
            "a flat Box is needed: wrap",
        ),
    ],
)
def test_unusable_environment_is_refused(env, message):
    with pytest.raises(InputError, match=message):
        make_env(env)


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
def test_a_name_is_a_path_below_where_it_is_put(name, path):
    assert names.path_of(name) == path
