"""Compare the adapters for all suites with the environments of these suites."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import contract
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import refused
from contract import Rollout
from flax import struct
from PIL import Image
from probes import quick_jit, stack

from sacjax import (
    Config,
    Hyperparams,
    evaluate_run,
    load,
    make_program,
    make_sac,
    make_train,
    mlp,
    preset,
    resume,
    run,
)
from sacjax.envs import names
from sacjax.envs.autoreset import FIRST_STATES
from sacjax.envs.base import rescale
from sacjax.envs.host import errors_named, read_spaces
from sacjax.envs.names import adapter, make_env
from sacjax.envs.simulators import Copies
from sacjax.replay import ended, make_replay
from sacjax.report.render import render, without_a_screen
from sacjax.runs.result import Run
from sacjax.types import InputError, RunError, Step

without_a_screen()  # must come before MuJoCo is imported
pytest.importorskip("brax")
pytest.importorskip("mujoco_playground")

# Brax reads deprecated fields of MJX. Playground warns that a CPU has no Warp.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
COPIES, STEPS = 2, 1000
# name: (observation size, action size, bound of the simulator's actions)
STEPPED = {
    "brax/fast?limit=300": (2, 1, 1.0),
    "brax/inverted_pendulum?backend=spring&limit=300": (4, 1, 1.0),
    **{f"{suite}/Echo?limit=300": (1, 1, 1.0) for suite in ("brax", "playground")},
    "playground/CartpoleBalance?limit=100": (
        5,
        1,
        1.0,
    ),  # rounding errors grow tenfold in 100 steps
}
HOSTED = {
    "gymnasium/Pendulum-v1": (3, 1, 2.0),
    "gymnasium/InvertedPendulum-v5?max_episode_steps=300": (4, 1, 3.0),
    "gymnasium/HalfCheetah-v5?max_episode_steps=300": (17, 6, 1.0),
}
POOLED = {  # envpool has wheels for Linux on x86 only
    "envpool/Pendulum-v1": (3, 1, 2.0),
    "envpool/InvertedPendulum-v5?max_episode_steps=300": (4, 1, 3.0),
}
if find_spec("envpool") is None:
    POOLED = {}
ALL = STEPPED | HOSTED | POOLED
LONG_COMPILED = (
    "brax/inverted_pendulum?backend=spring&limit=300",
    "playground/CartpoleBalance?limit=100",
)


def some_nightly(found):
    """Mark simulators that compile slowly as nightly. Faster simulators test the same code."""
    nightly = pytest.mark.nightly
    return [pytest.param(x, marks=nightly) if x in LONG_COMPILED else x for x in found]


@pytest.fixture(autouse=True)
def _others_promote_ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def limit_of(name):
    options = names.parse(name).options
    return options.get("limit", options.get("max_episode_steps", 200))


def inputs(name):
    return contract.inputs(STEPS, COPIES, ALL[name][1])


@cache
def program(name):
    return contract.rollouts(make_env(name)(COPIES))


def rolled_out(name, seed=0) -> Rollout:
    return program(name)(jax.random.key(seed), *inputs(name))


@cache
def rollout(name: str) -> Rollout:
    return rolled_out(name)


@cache
def rollout_by_hand(name: str) -> Rollout:
    by_hand = {"gymnasium": hosted_by_hand, "envpool": pooled_by_hand}
    return by_hand.get(names.parse(name).suite, stepped_by_hand)(name)


def stepped_by_hand(name: str) -> Rollout:
    """Step an environment of Brax or Playground in a loop with resets and a time limit."""
    parsed = names.parse(name)
    raw = adapter(parsed.suite).raw(name, parsed)
    actions, keys = inputs(name)
    firsts = quick_jit(jax.vmap(raw.reset))(jax.random.split(jax.random.key(0), FIRST_STATES))
    step = quick_jit(jax.vmap(raw.step))
    state = jax.tree.map(lambda x: x[:COPIES], firsts)
    first_obs, rows, age = np.asarray(state.obs), [], np.zeros(COPIES, int)
    for action, key in zip(actions, keys, strict=True):
        state = step(state, jnp.clip(action, -1, 1))
        final, reward, age = np.asarray(state.obs), np.asarray(state.reward), age + 1
        terminated, truncated = np.asarray(state.done) == 1, age == limit_of(name)
        ended = terminated | truncated
        if ended.any():
            drawn = jax.random.randint(jax.random.split(key)[0], (COPIES,), 0, FIRST_STATES)
            for i in np.flatnonzero(ended):
                begin = jax.tree.map(lambda x, k=drawn[i]: x[k], firsts)
                state = jax.tree.map(lambda x, y, i=i: x.at[i].set(y), state, begin)
            age[ended] = 0
        rows.append((np.asarray(state.obs), final, reward, terminated, truncated))
    return Rollout(first_obs, *map(np.stack, zip(*rows, strict=True)))


def hosted_by_hand(name: str) -> Rollout:
    """Step Gymnasium's environments in a loop with the same seeds as the adapter."""
    parsed, bound = names.parse(name), ALL[name][2]
    actions, _ = inputs(name)
    seed = int(jax.random.bits(jax.random.key(0), (), jnp.uint32))
    copies = []
    for i in range(COPIES):
        env: Any = gymnasium.make(parsed.id, **parsed.options)
        episode, rows = 0, []

        def seed_of(episode, i=i):
            words = np.random.SeedSequence([seed, i, episode]).generate_state(1)
            return int(words[0]) % 2**31

        first, _ = env.reset(seed=seed_of(0))
        for action in actions[:, i]:
            raw = -bound + (np.clip(action, -1, 1) + 1) / 2 * (2 * np.float32(bound))
            obs, reward, terminated, truncated, _ = env.step(raw)
            final = obs
            if terminated or truncated:
                episode += 1
                obs, _ = env.reset(seed=seed_of(episode))
            rows.append((obs, final, reward, terminated, truncated))
        copies.append((first, *map(np.stack, zip(*rows, strict=True))))
    first, *fields = zip(*copies, strict=True)
    return Rollout(np.stack(first), *(np.stack(field, axis=1) for field in fields))


def pooled_by_hand(name: str) -> Rollout:
    """Step one EnvPool environment per copy in a loop that applies the time limit."""
    import envpool

    id, bound, limit = names.parse(name).id, ALL[name][2], limit_of(name)
    actions, _ = inputs(name)
    reset_seed = int(jax.random.bits(jax.random.key(0), (), jnp.uint32))
    seed = int(np.random.SeedSequence([reset_seed, 0]).generate_state(1)[0]) % 2**31
    copies = []
    for i in range(COPIES):
        env: Any = envpool.make_gymnasium(id, num_envs=1, seed=seed + i, max_episode_steps=10**6)
        rows, age, only = [], 0, np.zeros(1, np.int32)
        first, _ = env.reset()
        for action in actions[:, i]:
            raw = -bound + (np.clip(action, -1, 1) + 1) / 2 * (2 * np.float32(bound))
            obs, reward, terminated, _, _ = env.step(raw[None].astype(env.action_space.dtype))
            final, age = obs, age + 1
            truncated = np.array([age == limit])
            if terminated or truncated:
                obs, age = env.reset(only)[0], 0
            rows.append([x[0] for x in (obs, final, reward, terminated, truncated)])
        copies.append((first[0], *map(np.stack, zip(*rows, strict=True))))
        env.close()
    first, *fields = zip(*copies, strict=True)
    return Rollout(np.stack(first), *(np.stack(field, axis=1) for field in fields))


@pytest.mark.parametrize("name", some_nightly(ALL))
def test_the_adapter_returns_the_same_steps_as_the_raw_environment(name):
    contract.assert_equal(rollout(name), rollout_by_hand(name))


@pytest.mark.parametrize("name", some_nightly(ALL))
def test_shapes_and_dtypes_match_the_environment_interface(name):
    contract.assert_shapes(make_env(name)(COPIES), name, *ALL[name][:2], rollout(name))


@pytest.mark.parametrize("name", some_nightly(ALL))
def test_each_environment_copy_resets_only_when_its_episode_ends(name):
    steps = rollout(name)
    ended = steps.terminated | steps.truncated
    assert ended.sum() >= COPIES * (STEPS // limit_of(name))
    contract.assert_resets_are_seen_only_at_ends(steps)


@pytest.mark.parametrize("name", some_nightly(ALL))
def test_a_time_limit_truncates_an_episode_and_a_fall_terminates_it(name):
    steps = rollout(name)
    limit = limit_of(name)
    for i in range(COPIES):
        age = 0
        for terminated, truncated in zip(
            steps.terminated[:, i], steps.truncated[:, i], strict=True
        ):
            age = age + 1
            assert truncated == (age == limit)
            age = 0 if terminated or truncated else age
    falls = "inverted" in name or "Inverted" in name
    assert steps.terminated.any() == falls
    assert steps.truncated.any() != falls


@pytest.mark.parametrize("name", some_nightly(ALL))
def test_equal_keys_give_equal_steps_and_different_keys_differ(name):
    one, same, other = rollout(name), rolled_out(name), rolled_out(name, seed=7)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not np.array_equal(one.first_obs, other.first_obs) or name.startswith("brax/fast")


@pytest.mark.parametrize("name", some_nightly(STEPPED))
def test_vmap_works_over_seeds_and_time_limits_of_an_environment(name):
    env = make_env(name)(COPIES)
    limits = env.default_params.replace(max_steps_in_episode=jnp.array([2, 3]))
    actions = jnp.zeros((6, COPIES, env.action_size))

    @quick_jit
    @jax.vmap
    def run(key, params):
        state, obs = env.reset(key, params)
        keys = jax.random.split(key, 6)
        steps = jax.lax.scan(lambda s, x: env.step(s, *x, params), state, (actions, keys))[1]
        return obs, steps

    obs, steps = run(jax.random.split(jax.random.key(0)), limits)
    assert not np.array_equal(obs[0], obs[1]) or "fast" in name
    for i, limit in enumerate([2, 3]):
        ends = np.arange(1, 7) % limit == 0
        np.testing.assert_array_equal(steps.truncated[i], np.stack([ends] * COPIES, axis=1))


@pytest.mark.parametrize("name", some_nightly(ALL))
def test_step_changes_no_dtype_of_the_state_and_creates_no_weak_types(name):
    contract.assert_state_keeps_its_types(make_env(name)(COPIES), COPIES)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["brax/inverted_pendulum?backend=spring&limit=2&reset=fresh"])
def test_every_episode_starts_in_a_new_state_if_reset_is_fresh(name):
    env = make_env(name)(3)

    @quick_jit
    def run(key):
        state, obs = env.reset(key, env.default_params)
        keys = jax.random.split(key, 40)
        zero = jnp.zeros((3, 1))
        steps = jax.lax.scan(lambda s, k: env.step(s, zero, k, env.default_params), state, keys)[1]
        return obs, steps

    obs, steps = run(jax.random.key(0))
    firsts = np.concatenate([obs, steps.obs[steps.truncated]])
    assert len(np.unique(firsts, axis=0)) == len(firsts) == 3 + 3 * 20


# Environments that the tests register with each suite


@struct.dataclass
class State:
    """A state with the fields that both Brax and Playground use."""

    obs: Any
    reward: Any
    done: Any
    info: Any


class Forever:
    """An environment with reward 1 in every step. Its episodes terminate after `length` steps."""

    action_size, length = 1, 10**6

    def __init__(self, **_):
        pass

    def reset(self, rng):
        zero = jnp.zeros(())
        return State(jnp.ones(1), zero, zero, {"age": jnp.zeros((), jnp.int32), "rng": rng})

    def step(self, state, action):
        assert action.shape == (1,)
        age = state.info["age"] + 1
        done = (age >= self.length).astype(float)
        return state.replace(reward=jnp.ones(()), done=done, info=state.info | {"age": age})


class Three(Forever):
    length = 3


class Echo(Forever):
    """An environment with random first states. The reward is the action."""

    def reset(self, rng):
        return super().reset(rng).replace(obs=jax.random.uniform(rng, (1,)))

    def step(self, state, action):
        new = super().step(state, action)
        return new.replace(obs=state.obs + 1, reward=action[0])


class Camera(Forever):
    def reset(self, rng):
        return super().reset(rng).replace(obs=jnp.zeros((8, 8, 3)))


class Sensors(Forever):
    def reset(self, rng):
        return super().reset(rng).replace(obs={"state": jnp.zeros(3)})


class Hosted(gymnasium.Env):
    """A Gymnasium environment with reward 1 in every step."""

    observation_space: Any = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space: Any = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, length=10**6, fails_at=-1, forgets=False, space=None, obs_space=None):
        self.length, self.fails_at, self.forgets = length, fails_at, forgets
        self.action_space = space or self.action_space
        self.observation_space = obs_space or self.observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age = 0
        return self._obs(), {}

    def step(self, action):
        self.age += 1
        if self.age == self.fails_at:
            raise FloatingPointError("the physics blew up")
        return self._obs(), 1.0, self.age >= self.length, False, {}

    def _obs(self):
        rng = np.random.default_rng() if self.forgets else self.np_random
        return rng.uniform(0.9, 1, 1).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _registered():
    import brax.envs
    from mujoco_playground import registry

    suite = registry.dm_control_suite
    for name, made in {
        "Forever": Forever,
        "Three": Three,
        "Echo": Echo,
        "Image": Camera,
        "Dict": Sensors,
    }.items():
        brax.envs.register_environment(name, made)
        suite.register_environment(name, made, lambda: SimpleNamespace(episode_length=5))
    gymnasium.register("Hosted-v0", entry_point=Hosted, max_episode_steps=5)
    yield
    for name in ("Forever", "Three", "Echo", "Image", "Dict"):
        del vars(brax.envs)["_envs"][name], vars(suite)["_envs"][name], vars(suite)["_cfgs"][name]
    del gymnasium.registry["Hosted-v0"]


HOPS = (  # this hopper gets a constant reward and cannot fall within five steps
    "envpool/Hopper-v5?max_episode_steps=5&forward_reward_weight=0&ctrl_cost_weight=0"
    "&healthy_angle_min=-9&healthy_angle_max=9"
)


@pytest.mark.parametrize(
    "name",
    [
        *("brax/Forever?limit=5", "playground/Forever?reset=fresh", "gymnasium/Hosted-v0"),
        *([HOPS] if POOLED else []),
    ],
)
def test_the_learned_value_of_constant_rewards_ignores_the_time_limit(name):
    """With reward 1 in every step, the value is 1 / (1 - gamma) = 5.

    The value would be below 3.4 if the time limit of 5 steps counted as a termination. The actor
    does not learn. A learning actor would reach states where the critics were not trained.
    """
    config = Config(
        name,
        total_steps=80 + 4000,
        eval_every=4000,
        num_envs=8,
        warmup_steps=80,
        utd=0.25,
        batch_size=128,
        hidden=(16, 16),
        eval_episodes=1,
    )
    hp = Hyperparams(
        gamma=0.8, tau=0.05, critic_lr=3e-3, actor_lr=0.0, alpha_lr=0.0, init_alpha=0.0
    )
    result = quick_jit(make_train(config))(jax.random.key(0), hp)
    critic, env = mlp(config, 1).critic, make_env(name)(1)
    _, obs = env.reset(jax.random.key(1), env.default_params)
    for action in (-1.0, 0.0, 1.0):
        actions = jnp.full((1, env.action_size), action)
        q = critic.apply(result.agent.critic_params, obs, actions)
        np.testing.assert_allclose(q, 1 / (1 - 0.8), rtol=0.05)
    np.testing.assert_array_equal(result.metrics["eval_length"], 5)


CHEETAH = "HalfCheetah-v5?max_episode_steps=5"
PARTS = {  # name: entries whose sum is this metric
    "brax/Forever?limit=5": (("age:last",), "train_length"),
    "playground/Forever?limit=5": (("age:last",), "train_length"),
    f"gymnasium/{CHEETAH}": (("reward_forward:sum", "reward_ctrl:sum"), "train_return"),
    f"envpool/{CHEETAH}": (("reward_run:sum", "reward_ctrl:sum"), "train_return"),
}


@pytest.mark.parametrize("name", [x for x in PARTS if POOLED or not x.startswith("envpool")])
def test_log_info_works_in_every_suite(name):
    entries, whole = PARTS[name]
    config = Config(
        name,
        log_info=entries,
        num_envs=2,
        warmup_steps=20,
        eval_every=12,
        total_steps=44,
        batch_size=8,
        hidden=(8,),
        eval_episodes=1,
    )
    metrics = run(config, seeds=1).metrics
    total = sum(x for metric, x in metrics.items() if metric.startswith("info_"))
    np.testing.assert_array_equal(metrics["train_episodes"], 2)
    np.testing.assert_allclose(total, metrics[whole], rtol=1e-4)
    with refused("log_info"):
        make_program(replace(config, log_info=("nope:sum",)))


def flags(name, steps=6):
    """Return the flags `terminated` and `truncated` [steps] of one copy."""
    env = make_env(name)(1)

    @quick_jit
    def run(key):
        state, _ = env.reset(key, env.default_params)
        keys = jax.random.split(key, steps)
        zero = jnp.zeros((1, 1))
        return jax.lax.scan(lambda s, k: env.step(s, zero, k, env.default_params), state, keys)[1]

    found = run(jax.random.key(0))
    return np.asarray(found.terminated)[:, 0], np.asarray(found.truncated)[:, 0]


@pytest.mark.parametrize(
    "name", ["brax/Three?limit=3", "playground/Three?limit=3", "gymnasium/Hosted-v0?length=5"]
)
def test_one_step_can_both_terminate_and_truncate_an_episode(name):
    terminated, truncated = flags(name)
    last = 4 if "length" in name else 2
    assert terminated[last]
    np.testing.assert_array_equal(terminated, truncated)


@pytest.mark.parametrize(
    "name", ["brax/Three?limit=5", "playground/Three?limit=5", "gymnasium/Hosted-v0?length=3"]
)
def test_an_episode_that_terminates_early_is_not_truncated(name):
    terminated, truncated = flags(name)
    np.testing.assert_array_equal(terminated, [False, False, True] * 2)
    assert not truncated.any()


def test_episodes_that_start_in_the_same_state_use_different_keys():
    env = make_env("brax/Forever?limit=1")(2)

    @quick_jit
    def run(key):
        state, _ = env.reset(key, env.default_params)
        keys = jax.random.split(key, 40)
        zero = jnp.zeros((2, 1))

        def step(state, key):
            state, _ = env.step(state, zero, key, env.default_params)
            return state, jax.random.key_data(state.inner.info["rng"])

        return jax.lax.scan(step, state, keys)[1]

    rngs = np.asarray(run(jax.random.key(0))).reshape(-1, 2)
    assert len(np.unique(rngs, axis=0)) == 80  # more than the number of first states


# Errors (tests/test_messages.py holds their wording)

_SPACES = gymnasium.spaces
UNUSABLE_POOLS = {
    "envpool/HalfCheetah-v9": "env",
    "envpool/CartPole-v1": "action_space",
    "envpool/CarRacing-v3": "observation_space",
}
UNUSABLE = {
    "brax/antt": "env",
    "playground/Qwertz": "env",
    "gymnasium/HalfCheetah-v9": "env",
    "brux/ant": "env",
    "zzz/ant": "env",
    "brax/ant?backend": "env",
    "brax/ant?backend=bullet": "backend",
    "brax/ant?speed=2": "speed",
    "brax/ant?reset=often": "reset",
    "brax/ant?limit=often": "limit",
    "brax/ant?limit=0": "limit",
    "brax/swimmer?backend=spring": "env",
    "playground/CartpoleBalance?impl=foo": "impl",
    "gymnasium/Pendulum-v1?weight=2": "env",
    "gymnasium/CartPole-v1": "action_space",
    "brax/Dict": "observation_space",
    "playground/Image": "observation_space",
    **(UNUSABLE_POOLS if POOLED else {}),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unsupported_environment_raises_an_input_error(name):
    with refused(UNUSABLE[name]):
        make_env(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("brax/antt", "brax/ant"),
        ("playground/cheetahrun", "playground/CheetahRun"),
        ("gymnasium/HalfCheetah-v9", "gymnasium/HalfCheetah-v5"),
        *([("envpool/HalfCheetah-v9", "envpool/HalfCheetah-v5")] if POOLED else ()),
    ],
)
def test_error_for_an_unknown_environment_suggests_the_closest_name(name, suggestion):
    with refused("env") as caught:
        make_env(name)
    assert f"did you mean {suggestion}" in str(caught.value)


@pytest.mark.parametrize(
    ("space", "obs_space"),
    [
        (_SPACES.MultiDiscrete([2, 3]), None),
        (_SPACES.Box(-np.inf, 1.0, (1,)), None),
        (_SPACES.Box(0, 255, (1,), np.uint8), None),
        (None, _SPACES.Dict({"x": _SPACES.Box(0, 1, (1,))})),
        (None, _SPACES.Box(0, 255, (8, 8, 3), np.uint8)),
    ],
)
def test_unsupported_gymnasium_spaces_raise_an_input_error(monkeypatch, space, obs_space):
    monkeypatch.setattr(Hosted, "action_space", space or Hosted.action_space)
    monkeypatch.setattr(Hosted, "observation_space", obs_space or Hosted.observation_space)
    with refused("action_space" if space else "observation_space"):
        make_env("gymnasium/Hosted-v0")


@pytest.mark.parametrize("suite", ["brax", "playground", "gymnasium", "envpool"])
def test_error_for_a_missing_suite_says_which_extra_to_install(monkeypatch, suite):
    for module in ("brax", "brax.envs", "mujoco_playground", "gymnasium", "envpool"):
        monkeypatch.setitem(sys.modules, module, None)
    with refused("env") as caught:
        make_env(f"{suite}/ant")
    assert f"pip install 'sacjax[{suite}]'" in str(caught.value)


def test_a_missing_or_broken_dependency_raises_an_input_error(monkeypatch, tmp_path):
    """For example, gymnax installs gymnasium, but not MuJoCo."""

    def make(*_, **__):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    (tmp_path / "half_installed.py").write_text("import the_other_half")
    monkeypatch.syspath_prepend(tmp_path)
    with refused("env") as caught:
        names.import_suite("half_installed", "half/x", "half")
    assert "the_other_half" in str(caught.value)
    monkeypatch.setattr(gymnasium, "make", make)
    with refused("env") as caught:
        make_env("gymnasium/HalfCheetah-v5")
    assert "pip install 'sacjax[gymnasium]'" in str(caught.value)


# Presets


def test_presets_for_playground_equal_its_settings_for_brax_sac():
    from mujoco_playground import dm_control_suite
    from mujoco_playground.config.dm_control_suite_params import brax_sac_config

    tasks = set(dm_control_suite.ALL_ENVS) - {"Forever", "Three", "Echo", "Image", "Dict"}
    assert len(tasks) > 20
    for task in tasks:
        theirs, (config, hp) = brax_sac_config(task), preset(f"playground/{task}")
        assert (
            *(config.num_envs, config.batch_size, config.utd * config.num_envs),
            *(config.replay_size, config.warmup_steps, config.normalize_obs, config.layer_norm),
            *(hp.gamma, hp.actor_lr, hp.critic_lr, hp.reward_scale, theirs.action_repeat),
        ) == (
            *(theirs.num_envs, theirs.batch_size, theirs.grad_updates_per_step),
            *(theirs.max_replay_size, theirs.min_replay_size),
            *(theirs.normalize_observations, theirs.network_factory.q_network_layer_norm),
            *(theirs.discounting, theirs.learning_rate, theirs.learning_rate),
            *(theirs.reward_scaling, 1),
        ), task
        epochs, shortest = config.num_epochs, theirs.num_timesteps / config.eval_every
        assert shortest <= epochs < shortest + 1, task  # the last epoch may end later


# Environments outside of JAX


def test_two_runs_cannot_share_environments_outside_of_jax():
    env = make_env("gymnasium/Hosted-v0")(1)
    reset = quick_jit(lambda key: env.reset(key, None))
    step = quick_jit(lambda state: env.step(state, jnp.zeros((1, 1)), jax.random.key(0), None)[0])
    first, _ = reset(jax.random.key(0))
    jax.block_until_ready(step(first))
    jax.block_until_ready(reset(jax.random.key(1)))
    with pytest.raises(
        jax.errors.JaxRuntimeError, match="another run has stepped the environments"
    ):
        jax.block_until_ready(step(first))


def test_vmap_over_a_non_jax_environment_raises_an_input_error():
    train = make_train(
        Config(
            "gymnasium/Hosted-v0",
            total_steps=100,
            warmup_steps=50,
            eval_every=50,
            batch_size=8,
            hidden=(8,),
        )
    )
    with refused("env"):
        jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0)))


@pytest.mark.parametrize("how", [{"devices": 2}, {"members_per_batch": 3}])
def test_environments_outside_of_jax_reject_devices_and_members_per_batch(how):
    with pytest.raises(InputError, match="outside of JAX"):
        run(Config("gymnasium/Hosted-v0"), seeds=4, **how)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaled_actions_stay_within_their_bounds_after_rounding(dtype):
    low, high = np.sort(np.random.default_rng(0).normal(size=(2, 500)).astype(dtype), 0)
    for unit, bound in (-1.0, low), (1.0, high):
        (raw,) = rescale(np.full((1, 500), unit), low, high)
        assert ((low <= raw) & (raw <= high)).all()
        np.testing.assert_allclose(raw, bound, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 3, 5, 12])
def test_resume_restores_unfinished_episodes_by_repeating_their_actions(steps):
    name = "gymnasium/HalfCheetah-v5?max_episode_steps=5"
    actions = np.asarray(jax.random.uniform(jax.random.key(0), (20, 2, 6), minval=-1.0))

    def play(envs, first, last):
        return [envs.step((np.uint32(3), np.int32(i)), actions[i]) for i in range(first, last)]

    whole, other = (make_env(name)(2).host for _ in range(2))
    whole.reset(np.uint32(3))
    play(whole, 0, steps)
    saved = whole.save()
    assert other.load(saved)
    np.testing.assert_array_equal(other.obs, whole.obs)
    for fields in zip(play(whole, steps, 20), play(other, steps, 20), strict=True):
        for x, y in zip(*fields, strict=True):
            np.testing.assert_array_equal(x, y)


def test_resume_repeats_actions_in_float64_exactly():
    class Sum(Hosted):
        action_space = gymnasium.spaces.Box(-0.3, 0.7, (1,), np.float64)
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)

        def reset(self, *, seed=None, options=None):
            self.total = 1.0
            return super().reset(seed=seed)

        def step(self, action):
            assert action.dtype == np.float64
            self.total = (self.total * 1e7 + action[0]) % 1.0  # rounding any digit changes the sum
            return super().step(action)

        def _obs(self):
            return np.array([self.total])

    spaces = read_spaces("sum", Sum().action_space, Sum().observation_space)
    one, other = Copies(Sum, spaces, 2), Copies(Sum, spaces, 2)
    one.reset(np.uint32(1))
    for i in range(5):
        one.step((np.uint32(1), np.int32(i)), np.full((2, 1), 0.1 * i, np.float32))
    assert other.load(one.save())


def test_an_environment_may_reuse_and_modify_its_arrays():
    class OneBuffer(Hosted):
        buffer = np.zeros(1, np.float32)

        def _obs(self):
            self.buffer[:] = self.age
            return self.buffer

        def step(self, action):
            action *= 0.5  # changes its argument
            obs, *rest = super().step(action)
            return obs, np.array([1.0]), self.age >= 3, *rest[2:]

    spaces = read_spaces("one", Hosted.action_space, Hosted.observation_space)
    one, other = Copies(OneBuffer, spaces, 1), Copies(OneBuffer, spaces, 1)
    one.reset(np.uint32(1))
    for i in range(3):
        obs, final_obs, reward, terminated, _ = one.step(
            (np.uint32(1), np.int32(i)), np.ones((1, 1), np.float32)
        )
    assert (obs[0], final_obs[0], reward, terminated) == (0, 3, 1, True)
    one.step((np.uint32(1), np.int32(3)), np.ones((1, 1), np.float32))
    assert other.load(one.save())
    np.testing.assert_array_equal(other.save()["actions"], 2)


def test_an_error_during_the_repetition_of_actions_names_the_environment():
    one = Copies(Hosted, read_spaces("h", Hosted.action_space, Hosted.observation_space), 1)
    other = Copies(lambda: Hosted(fails_at=2), one.spaces, 1)
    one.reset(np.uint32(1))
    for i in range(3):
        one.step((np.uint32(1), np.int32(i)), np.ones((1, 1), np.float32))
    with refused("env", RunError) as caught, errors_named(other, "h"):
        other.load(one.save())
    assert "FloatingPointError: the physics blew up" in str(caught.value)


def test_close_waits_until_a_running_environment_step_ends():
    """After a second Ctrl-C, the compiled epoch still runs in another thread."""
    began, finish, happened = threading.Event(), threading.Event(), []

    class Slow(Hosted):
        def step(self, action):
            began.set()
            assert finish.wait(60)
            happened.append("stepped")
            return super().step(action)

        def close(self):
            happened.append("closed")

    envs = Copies(Slow, read_spaces("h", Hosted.action_space, Hosted.observation_space), 1)
    envs.reset(np.uint32(1))
    with ThreadPoolExecutor(2) as pool:
        step = pool.submit(envs.step, (np.uint32(1), np.int32(0)), np.ones((1, 1), np.float32))
        assert began.wait(60)
        closed = pool.submit(envs.close_all)
        with pytest.raises(TimeoutError):
            closed.result(timeout=0.1)
        finish.set()
        step.result(timeout=60)
        closed.result(timeout=60)
    assert happened == ["stepped", "closed"]


@pytest.mark.parametrize(("limit", "warns"), [(-1, True), (7, False)])
def test_sacjax_warns_if_an_environment_has_no_time_limit(limit, warns, caplog):
    make_env(f"gymnasium/Hosted-v0?max_episode_steps={limit}")
    assert ("has no time limit" in caplog.text) == warns
    assert ("set max_episode_steps=1000" in caplog.text) == warns


@pytest.mark.processes
def test_callbacks_do_not_deadlock_if_all_threads_are_busy():
    """Step 16 environments 2,000 times between matrix products that keep all threads busy."""
    env = make_env("gymnasium/Hosted-v0")(16)

    @quick_jit
    def run(key, w):
        state, obs = env.reset(key, None)

        def step(carry, key):
            state, _, w = carry
            w = jnp.tanh(w @ w)
            action = jnp.broadcast_to(w[0, :1], (16, 1))
            state, timestep = env.step(state, action, key, None)
            return (state, timestep.obs, w + timestep.reward[0]), timestep.reward.sum()

        return jax.lax.scan(step, (state, obs, w), jax.random.split(key, 2_000))[1]

    pool = ThreadPoolExecutor(1)
    done = pool.submit(lambda: np.asarray(run(jax.random.key(0), jnp.ones((384, 384)))))
    assert done.result(timeout=240).sum() == 16 * 2_000


SMALL: dict[str, Any] = {
    "total_steps": 300,
    "warmup_steps": 100,
    "eval_every": 50,
    "hidden": (8,),
    "batch_size": 8,
    "eval_episodes": 2,
    "num_envs": 2,
}


@pytest.mark.exact
def test_resumed_gymnasium_runs_equal_uninterrupted_runs_bit_for_bit(tmp_path):
    config = Config("gymnasium/InvertedPendulum-v5", **SMALL)
    whole, stopped, epochs = tmp_path / "whole", tmp_path / "stopped", []
    done = run(config, seeds=2, directory=whole, checkpoint_every=1)
    assert done.completed
    assert [member["seed"] for member in done.members] == [0, 1]
    part = run(
        config,
        seeds=2,
        directory=stopped,
        on_epoch=[lambda step, metrics: epochs.append(step)],
        should_stop=lambda: len(epochs) >= 2,
    )
    assert not part.completed
    assert resume(stopped).completed
    assert (whole / "metrics.csv").read_bytes() == (stopped / "metrics.csv").read_bytes()
    one, other = load(whole), load(stopped)
    jax.tree.map(np.testing.assert_array_equal, one.agents, other.agents)
    returns, lengths = evaluate_run(one)
    np.testing.assert_array_equal(returns, done.metrics["eval_return"][:, -1])
    np.testing.assert_array_equal(lengths, done.metrics["eval_length"][:, -1])
    assert not any(envs._envs for envs in one.program.host.family)  # all are closed
    alone = jax.jit(make_train(config))(jax.random.key(1))
    np.testing.assert_array_equal(alone.metrics["eval_return"], done.metrics["eval_return"][1])


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name", ["brax/inverted_pendulum?backend=spring", "playground/CartpoleBalance"]
)
def test_resumed_brax_and_playground_runs_equal_uninterrupted_runs(name, tmp_path):
    config, epochs = Config(name, **SMALL), []
    whole = run(config, seeds=2, directory=tmp_path / "whole")
    part = run(
        config,
        seeds=2,
        directory=tmp_path / "part",
        on_epoch=[lambda step, metrics: epochs.append(step)],
        should_stop=lambda: len(epochs) >= 2,
    )
    assert not part.completed
    done = resume(tmp_path / "part")
    assert done.completed
    jax.tree.map(np.testing.assert_array_equal, whole.agents, done.agents)
    one, other = ((tmp_path / x / "metrics.csv").read_bytes() for x in ("whole", "part"))
    assert one == other


@pytest.mark.nightly
@pytest.mark.parametrize("backend", ["generalized", "positional", "mjx"])
def test_several_members_can_be_trained_with_every_brax_backend(backend):
    """Another test trains with the backend `spring`."""
    config = Config(f"brax/inverted_pendulum?backend={backend}", **SMALL)
    done = run(config, seeds=3, strategy="vmap")
    assert done.completed
    assert not done.diverged
    returns = done.metrics["eval_return"]
    assert returns.shape[0] == 3
    assert len(np.unique(returns[:, -1])) > 1
    assert np.isfinite(returns).all()


def test_resume_warns_if_an_environment_is_not_reproducible(tmp_path, caplog):
    odd = {
        "eval_every": 52,
        "total_steps": 308,
        "n_step": 3,
    }  # the checkpoint falls within an episode
    config = Config("gymnasium/Hosted-v0?forgets=True", **SMALL | odd)
    epochs = []
    run(
        config,
        seeds=1,
        directory=tmp_path / "run",
        on_epoch=[lambda step, metrics: epochs.append(step)],
        should_stop=lambda: True,
    )
    done = resume(tmp_path / "run")
    assert done.completed
    assert "is not deterministic" in caplog.text
    np.testing.assert_array_equal(
        done.metrics["train_length"], 5
    )  # no episode spans the interruption


def test_an_error_during_resume_or_evaluation_names_the_environment(tmp_path, monkeypatch):
    config, epochs = Config("gymnasium/Hosted-v0", **SMALL), []
    run(
        config,
        seeds=1,
        directory=tmp_path / "run",
        on_epoch=[lambda step, metrics: epochs.append(step)],
        should_stop=lambda: True,
    )

    def broken(self, **_):
        raise ConnectionError("the simulator is gone")

    monkeypatch.setattr(Hosted, "reset", broken)
    with refused("env", RunError) as caught:
        resume(tmp_path / "run")
    assert "ConnectionError: the simulator is gone" in str(caught.value)
    with refused("env", RunError) as caught:
        evaluate_run(load(tmp_path / "run"))
    assert "ConnectionError: the simulator is gone" in str(caught.value)


def test_resume_marks_the_last_stored_steps_as_episode_ends():
    config = Config("Pendulum-v1", num_envs=2, n_step=2, replay_size=8, total_steps=1200,
                    warmup_steps=8, batch_size=8, eval_every=8, utd=0.5)  # fmt: skip
    example = make_env("Pendulum-v1")(1).example
    memory = make_replay(config, Step(example, jnp.zeros(())))
    state = memory.init()
    for _ in range(5):  # the buffer wraps: the last two steps are in slots 0 and 1
        state = memory.add(state, Step(stack([example] * 2), jnp.zeros(2)))
    state = jax.tree.map(lambda x: x[None], state)
    last = memory.unpack(ended(state, 2).rows[0])
    np.testing.assert_array_equal(last.ended, [1, 1, 0, 0, 0, 0, 0, 0])


def test_an_error_in_an_environment_ends_the_run(tmp_path):
    config = Config("gymnasium/Hosted-v0?fails_at=3&max_episode_steps=4", **SMALL)
    with refused("env", RunError) as caught:
        run(config, seeds=1, directory=tmp_path / "run")
    assert "Hosted-v0" in str(caught.value)
    assert "FloatingPointError: the physics blew up" in str(caught.value)


@pytest.mark.skipif(not POOLED, reason="envpool is not installed")
def test_envpool_terminates_at_time_limits_and_resumes_with_new_episodes(tmp_path, caplog):
    endless = make_env("envpool/Hopper-v5")(1).host
    endless.reset(np.uint32(5))
    ends = [endless.step((np.uint32(5), np.int32(i)), np.ones((1, 3)))[3:] for i in range(60)]
    fall = [bool(terminated[0]) for terminated, _ in ends].index(True)
    limited = make_env(f"envpool/Hopper-v5?max_episode_steps={fall + 1}")(1).host
    limited.reset(np.uint32(5))
    ends = [limited.step((np.uint32(5), np.int32(i)), np.ones((1, 3)))[3:] for i in range(fall + 1)]
    assert [(bool(a[0]), bool(b[0])) for a, b in ends[-2:]] == [(False, False), (True, True)]
    config = Config("envpool/Hopper-v5?max_episode_steps=8", **SMALL)
    run(config, seeds=1, directory=tmp_path / "run", should_stop=lambda: True)
    assert resume(tmp_path / "run").completed
    assert "is not deterministic" in caplog.text


# Rendering


def untrained(name: str) -> Run:
    """Return an untrained run, in which only gravity moves the bodies."""
    config, unknown = Config(name, **SMALL), {"eval_return": np.full((1, 1, 2), np.nan)}
    algorithm = make_sac(config, make_env(name)(2))
    agents = jax.tree.map(lambda x: x[None], algorithm.init(jax.random.key(0), Hyperparams()))
    return Run(
        *(config, [{"seed": 0}], unknown, agents, make_program(config), make_sac),
        *(jax.random.key(0)[None], np.array([1]), True, []),
    )


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name",
    [
        "gymnasium/InvertedPendulum-v5",
        "brax/inverted_pendulum?backend=spring",
        "playground/CartpoleBalance?limit=30",
    ],
)
def test_the_bodies_move_in_a_rendered_gif(name, tmp_path):
    try:
        total = render(untrained(name), 0, tmp_path / "policy.gif", frames=12)
    except InputError as error:
        if "MuJoCo needs OpenGL" in str(error):
            pytest.skip(str(error))
        raise
    with Image.open(tmp_path / "policy.gif") as gif:
        pictures = []
        for i in range(gif.n_frames):
            gif.seek(i)
            pictures.append(
                np.asarray(gif.convert("RGB"))[20:].astype(int)
            )  # the part below the text
    assert 3 < len(pictures) <= 12
    assert pictures[0].std() > 3  # the picture is not empty
    assert np.abs(pictures[-1] - pictures[0]).max() > 30  # the bodies move
    assert total > 0


def test_render_rejects_environments_that_have_no_bodies_to_draw(tmp_path):
    with refused("env"):
        render(untrained("brax/fast?limit=5"), 0, tmp_path / "policy.gif", frames=3)


@pytest.mark.skipif(not POOLED, reason="envpool is not installed")
def test_render_rejects_suites_without_images_before_it_plays_an_episode(tmp_path, monkeypatch):
    monkeypatch.setattr("sacjax.report.render._episode", None)
    with pytest.raises(InputError, match="gymnasium/Pendulum-v1"):
        render(untrained("envpool/Pendulum-v1"), 0, tmp_path / "policy.gif")
