"""Faults of environments: the error or warning names the environment, the field and the step."""

import json
import logging
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import refused
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState
from gymnax.wrappers.purerl import GymnaxWrapper
from probes import Chain, quick_jit

from sacjax import Config, Hyperparams, RunError, evaluate_run, run
from sacjax.cli.main import main
from sacjax.envs.envpool import PooledEnvs
from sacjax.envs.host import errors_named, read_spaces
from sacjax.envs.names import make_env
from sacjax.envs.simulators import Copies
from sacjax.replay import make_replay
from sacjax.runs.divergence import Divergence, add_faults
from sacjax.types import Step, Transition

SMALL: dict[str, Any] = {
    "total_steps": 150,
    "warmup_steps": 100,
    "eval_every": 50,
    "batch_size": 64,
    "hidden": (8,),
    "eval_episodes": 1,
    "eval_max_steps": 5,
}

# Numbers that are not finite, in a compiled environment


class Wrong(Chain):
    """The observation or reward of one step is wrong. Copies count their steps from 1."""

    def __init__(self, at: int, obs: float = 0.0, reward: float = 0.0):
        self.at, self.wrong_obs, self.wrong_reward = at, obs, reward

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, state, reward, *others = super().step_env(key, state, action, params)
        hit = state.time == self.at
        obs = jnp.where(hit, obs + self.wrong_obs, obs)
        return obs, state, jnp.where(hit, self.wrong_reward, reward), *others


@pytest.mark.processes
def test_a_warning_names_the_environment_that_returned_infinity(caplog):
    done = run(Config(Wrong(20, obs=np.inf), **SMALL, num_envs=2), seeds=2)
    fault = "observation is inf in environment step 39 (step 20 of copy 0)"
    assert [d.fault for d in done.diverged] == [fault, fault]
    for member in 0, 1:
        who = f"member {member} (seed {member}) diverged before step 150"
        assert f"{who} (fix Wrong: {fault}): frozen" in caplog.text
    assert "learning rate" not in caplog.text


def test_a_warning_reports_returns_that_are_not_finite(caplog):
    """A reward of -inf in an evaluation, and one that no minibatch contains."""

    class Late(Chain):
        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            obs, state, _, _, info = super().step_env(key, state, action, params)
            reward = jnp.where(state.time == 70, -jnp.inf, 1.0)
            return obs, state, reward, state.time == 70, info

    sizes = {"batch_size": 1, "utd": 0.02, "eval_max_steps": 80}
    done = run(Config(Late(), **SMALL | sizes), seeds=1)
    assert not done.diverged
    assert np.isinf(done.metrics["eval_return"]).all()
    told = "1 of 1 members have not diverged, but some of their returns are not finite"
    assert caplog.text.count(f"{told}: fix the rewards of Late") == 1


def test_divergence_from_a_high_learning_rate_is_no_environment_error(caplog):
    """The environment returns NaN as soon as an action is NaN."""

    class Echo(Chain):
        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            obs, state, _, *others = super().step_env(key, state, action, params)
            return obs + action, state, action[0], *others

    done = run(Config(Echo(), **SMALL), Hyperparams(critic_lr=1e30, actor_lr=1e30), seeds=1)
    assert [d.fault for d in done.diverged] == [""]
    assert "fix Echo" not in caplog.text


def faults_of(wrong, steps=10, num_envs=2, capacity=8, n_step=1):
    """Return the fault of a replay into which `wrong` {(step, copy): field values} was put."""
    sizes: dict[str, Any] = {"total_steps": 8, "warmup_steps": 4, "eval_every": 4, "batch_size": 2}
    config = Config("Pendulum-v1", replay_size=capacity, num_envs=num_envs, n_step=n_step, **sizes)
    assert config.capacity == capacity
    example = Transition(jnp.zeros(3), jnp.zeros(2), jnp.zeros(()), jnp.zeros(()), jnp.zeros(3))
    item = example if n_step == 1 else Step(example, jnp.zeros(()))
    replay = make_replay(config, item)
    state, add = replay.init(), quick_jit(replay.add)
    for step in range(steps):
        items = jax.tree.map(lambda x: np.ones((num_envs, *x.shape), np.float32), item)
        batch = items if n_step == 1 else items.transition
        for (when, copy), fields in wrong.items():
            for field, value in fields.items() if when == step else ():
                getattr(batch, field)[copy] = value
        state = add(state, items)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    new = [Divergence(1, 0, "q")]
    (found,) = add_faults(new, states, example, steps * num_envs, num_envs)
    assert found[:3] == new[0][:3]
    return found.fault


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({}, ""),
        ({(8, 1): {"reward": np.nan}}, "reward is nan in environment step 18 (step 9 of copy 1)"),
        (
            {(9, 0): {"reward": -np.inf}},
            "reward is -inf in environment step 19 (step 10 of copy 0)",
        ),
        ({(7, 1): {"obs": np.nan, "action": np.nan}}, "observation is nan in environment step 16"),
        ({(7, 1): {"next_obs": [0, 0, np.inf]}}, "observation is inf in environment step 16"),
        ({(7, 1): {"reward": 1e20}}, "reward is 1e+20 in environment step 16"),  # squares overflow
        ({(7, 1): {"reward": 1e18}}, ""),
        ({(7, 0): {"action": np.nan}, (7, 1): {"reward": np.nan}}, ""),  # the agent's fault
        (
            {(8, 0): {"reward": np.nan}, (7, 1): {"obs": np.nan}},
            "observation is nan in environment",
        ),
        ({(6, 1): {"reward": np.nan}}, "reward is nan in or before environment step 14 (step 7 of"),
        ({(5, 1): {"reward": np.nan}}, ""),  # overwritten
    ],
)
@pytest.mark.parametrize("n_step", [1, 2])
def test_a_warning_names_the_oldest_invalid_number_in_the_replay_buffer(wrong, fault, n_step):
    found = faults_of(wrong, n_step=n_step)
    assert found.startswith(fault) if fault else found == ""


def test_a_warning_names_the_exact_step_if_the_replay_buffer_is_not_full():
    assert faults_of({(0, 0): {"reward": np.nan}}, steps=3).startswith("reward is nan in environ")
    assert faults_of({(0, 0): {"reward": np.nan}}, steps=4).startswith("reward is nan in environ")
    found = faults_of({(1, 0): {"reward": np.nan}}, steps=5, num_envs=1)
    assert found == "reward is nan in environment step 2"


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_train_exits_with_3_if_a_jax_environment_returns_nan(tmp_path, capsys):
    import brax.envs

    class Nan:
        action_size = 1

        def reset(self, rng):
            zero = jnp.zeros(())
            return brax.envs.State(None, jnp.ones(1), zero, zero)

        def step(self, state: Any, action: Any) -> Any:
            return state.replace(reward=jnp.log(-state.obs[0]))

    brax.envs.register_environment("Nan", Nan)  # pyright: ignore[reportArgumentType]
    flags = "--total-steps 60 --warmup-steps 40 --eval-every 20 --batch-size 8 --hidden 8"
    flags += " --eval-episodes 1 --eval-max-steps 5 --num-envs 1 --seeds 2 --log-format json --out"
    try:
        code = main(["train", "brax/Nan", *flags.split(), str(tmp_path / "run")])
    finally:
        del vars(brax.envs)["_envs"]["Nan"]
    out, err = capsys.readouterr()
    assert code == 3
    assert (
        "all agents diverged, because brax/Nan failed: reward is nan in environment step 1" in err
    )
    assert "learning rates" not in err
    *_, end, error = map(json.loads, out.splitlines())
    assert [d["fault"] for d in end["diverged"]] == ["reward is nan in environment step 1"] * 2
    assert (error["event"], error["field"]) == ("error", "reward")
    written = json.loads((tmp_path / "run" / "diverged.json").read_text())
    assert written[0]["fault"] == "reward is nan in environment step 1"


# Environments outside of JAX

BOX = gymnasium.spaces.Box(-1, 1, (2,), np.float32)


class Hosted(gymnasium.Env):
    """Return the given values: first those of reset and step, then those from step 3 on."""

    observation_space, action_space = BOX, BOX

    def __init__(self, reset: Any = None, step: Any = None, **later: Any):
        zero = np.zeros(2, np.float32)
        self.first = (zero, {}) if reset is None else reset
        self.values = {"obs": zero, "reward": 1.0, "terminated": False, "truncated": False}
        self.whole, self.later, self.age = step, later, 0

    def reset(self, *, seed=None, options=None):
        return self.first

    def step(self, action):
        self.age += 1
        values = self.values | self.later if self.age >= 3 else self.values
        return (*values.values(), {}) if self.whole is None else self.whole


WRONG_HOSTS = [
    ({"reward": np.nan}, "reward", "reward is nan in float32, in step 3 of copy 1"),
    ({"reward": -np.inf}, "reward", "is -inf"),
    ({"reward": 1e39}, "reward", "is inf in float32"),
    ({"reward": None}, "reward", "must be numbers of shape [], but is None"),
    ({"reward": "0.5"}, "reward", "but is '0.5'"),
    ({"reward": [1.0, 2.0]}, "reward", "but is [1.0, 2.0]"),
    ({"reward": {"x": 1.0}}, "reward", "but is {'x': 1.0}"),
    ({"reward": 1j}, "reward", "but is 1j"),
    ({"obs": np.array([0.0, np.inf])}, "observation", "is inf in float32, in step 3 of copy 1"),
    ({"obs": [0.0, 1e39]}, "observation", "is inf"),
    ({"obs": None}, "observation", "must be numbers of shape [2], but is None"),
    ({"obs": [0.0, None]}, "observation", "but is [0.0, None]"),
    ({"obs": np.zeros(3)}, "observation", "but is array([0., 0., 0.])"),
    ({"obs": 0.0}, "observation", "but is 0.0"),
    ({"obs": [[0.0], [0.0, 1.0]]}, "observation", "but is [[0.0], [0.0, 1.0]]"),
    ({"obs": {"x": np.zeros(2)}}, "observation", "but is {'x': array([0., 0.])}"),
    ({"obs": "ab"}, "observation", "but is 'ab'"),
    ({"terminated": None}, "terminated", "but is None"),
    ({"truncated": np.array([True, False])}, "truncated", "but is array([ True, False])"),
    ({"step": (np.zeros(2), 1.0, False, {})}, "step", "step must return 5 values in a tuple, not"),
    ({"step": (np.zeros(2), 1.0, False, False, {}, 1)}, "step", "must return 5 values"),
    ({"step": np.zeros(5)}, "step", "must return 5 values in a tuple, not array([0."),
    ({"reset": np.zeros(2)}, "reset", "reset must return 2 values in a tuple, not array([0., 0.])"),
    ({"reset": np.zeros(2, np.float32)}, "reset", "in step 0 of copy 1"),
    ({"reset": (np.zeros(2), {}, 1)}, "reset", "must return 2 values"),
    ({"reset": (0.0, 1.0)}, "observation", "must be numbers of shape [2], but is 0.0"),
    ({"reset": (np.full(2, np.nan), {})}, "observation", "is nan in float32, in step 0 of copy 1"),
    ({"reset": (None, {})}, "observation", "but is None"),
]


def step_hosts(envs, steps=4):
    envs.reset(np.uint32(0))
    fields: Any = ()
    for i in range(steps):
        action = np.zeros((envs.copies, 2), np.float32)
        fields = envs.step((np.uint32(0), np.int32(i)), action)
    return fields


@pytest.mark.parametrize(("wrong", "field", "message"), WRONG_HOSTS)
def test_an_error_names_the_location_of_an_invalid_value(wrong, field, message):
    made = iter([Hosted(), Hosted(**wrong)])
    envs = Copies(lambda: next(made), read_spaces("Mine", BOX, BOX), 2)
    with refused(field, RunError) as caught, errors_named(envs, "Mine"):
        step_hosts(envs)
    text = str(caught.value)
    assert text.startswith("Mine failed (")
    assert message in text
    assert "copy 1" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "right",
    [
        {"obs": [0, 1], "reward": 1, "terminated": 0, "truncated": np.bool_(False)},
        {"obs": (True, False), "reward": np.array([1.0]), "terminated": np.array([False])},
        {"obs": np.zeros((1, 2)), "reward": np.float16(1), "terminated": 0.0},
    ],
)
def test_values_of_similar_types_are_converted(right):
    envs = Copies(lambda: Hosted(**right), read_spaces("Mine", BOX, BOX), 2)
    obs, _, reward, terminated, truncated = step_hosts(envs)
    assert (obs.dtype, reward.dtype, obs.shape) == (np.float32, np.float32, (2, 2))
    np.testing.assert_array_equal(reward, 1)
    np.testing.assert_array_equal([terminated, truncated], False)


@pytest.mark.parametrize(
    ("wrong", "field"), [("reset", "observation"), ("step", "observation"), ("reward", "reward")]
)
def test_an_error_names_the_envpool_copy_that_returned_nan(wrong, field):
    def values(name):
        x = np.zeros((3, 2)) if name != "reward" else np.ones(3)
        x[1] = np.nan if name == wrong else x[1]
        return x

    flags = np.zeros(3, bool)
    pool = SimpleNamespace(
        reset=lambda *_: (values("reset"), {}),
        step=lambda action: (values("step"), values("reward"), flags, flags, {}),
        close=lambda: None,
    )
    envs = PooledEnvs(lambda *_: pool, 10, read_spaces("Pool", BOX, BOX), 3)
    with refused(field, RunError) as caught, errors_named(envs, "Pool"):
        step_hosts(envs)
    step = 0 if wrong == "reset" else 1
    assert f"{field} is nan in float32, in step {step} of copy 1" in str(caught.value)


@pytest.fixture
def _registered():
    gymnasium.register("Faulty-v0", entry_point=Hosted, max_episode_steps=20)
    yield
    del gymnasium.registry["Faulty-v0"]


@pytest.mark.usefixtures("_registered")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"obs": np.zeros(3)}, "observation"),
        ({"step": (np.zeros(2), 1.0, False, {})}, "step"),
    ],
)
def test_an_error_names_the_invalid_field_despite_gymnasium_wrappers(monkeypatch, wrong, field):
    """The time limit unpacks the values of a step before sacjax sees them."""
    made = Hosted(**wrong)
    monkeypatch.setattr(Hosted, "__init__", lambda self: vars(self).update(vars(made)))
    with refused(field, RunError) as caught:
        run(Config("gymnasium/Faulty-v0", **SMALL), seeds=1)
    assert str(caught.value).startswith(f"gymnasium/Faulty-v0 failed ({field} must")


@pytest.mark.processes
@pytest.mark.usefixtures("_registered")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_error_in_an_evaluation_names_the_invalid_field(monkeypatch):
    done = run(Config("gymnasium/Faulty-v0", **SMALL), seeds=1)
    made = Hosted(reward=np.nan)
    monkeypatch.setattr(Hosted, "__init__", lambda self: vars(self).update(vars(made)))
    with refused("reward", RunError):
        evaluate_run(done)


MODULE = """
import gymnasium, numpy as np

class Faulty(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    def __init__(self, wrong="reward"):
        self.wrong, self.age = wrong, 0
    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32) if self.wrong == "reset" else (np.zeros(2, np.float32), {})
    def step(self, action):
        self.age += 1
        late = self.age > 30
        obs = np.zeros(3 if late and self.wrong == "observation" else 2, np.float32)
        reward = np.nan if late and self.wrong == "reward" else 1.0
        return obs, reward, False, False, {}

gymnasium.register("Faulty-v0", entry_point=Faulty, max_episode_steps=20)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("field", "where"),
    [("reward", "step 31 of copy 0"), ("observation", "step 31 of copy 0"), ("reset", "step 0")],
)
def test_train_exits_with_3_if_a_gymnasium_environment_fails(tmp_path, field, where):
    (tmp_path / "faulty.py").write_text(MODULE)
    name = f"gymnasium/faulty:Faulty-v0?wrong={field}"
    sizes = "--total-steps 100 --warmup-steps 40 --eval-every 20 --batch-size 8 --hidden 8"
    flags = f"{sizes} --eval-episodes 1 --seeds 1 --log-format json --out".split()
    command = [sys.executable, "-m", "sacjax", "train", name, *flags, tmp_path / "run"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"sacjax: {name} failed ({field}")
    assert where in last
    error = json.loads(done.stdout.splitlines()[-1])
    assert (error["event"], error["field"]) == ("error", field)


# Objects in the form of gymnax


@struct.dataclass
class Params(EnvParams):
    max_steps_in_episode: int = 10
    bound: float = 1.0


@struct.dataclass
class State(EnvState):
    x: Any = None


class Mine(Environment[EnvState, Params]):
    """An environment of which a test replaces parts."""

    def __init__(self, **parts: Any):
        box = spaces.Box(-1.0, 1.0, (2,))
        self.parts: dict[str, Any] = {
            "x": jnp.zeros(2),
            "move": lambda x: x,
            "first_obs": lambda state: state.x,
            "obs": lambda state: state.x,
            "reward": 1.0,
            "terminated": lambda time, limit: time < 0,
            "info": {},
            "reset_env": lambda *values: values,
            "step_env": lambda *values: values,
            "action_space": lambda params: box,
            "observation_space": box,
        } | parts

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: Any, params: Any) -> Any:
        state = State(time=0, x=self.parts["x"])
        return self.parts["reset_env"](self.parts["first_obs"](state), state)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        state = state.replace(time=state.time + 1, x=self.parts["move"](state.x))
        terminated = self.parts["terminated"](state.time, params.max_steps_in_episode)
        found = (
            self.parts["obs"](state),
            state,
            self.parts["reward"],
            terminated,
            self.parts["info"],
        )
        return self.parts["step_env"](*found)

    def action_space(self, params: Any) -> Any:
        return self.parts["action_space"](params)

    def observation_space(self, params: Any) -> Any:
        return self.parts["observation_space"]


def box(*given, **more):
    return spaces.Box(*given, **more)


WRONG_OBJECTS = [
    ({"first_obs": lambda s: [s.x[0], s.x[1]]}, "observation", "is list", "[2]"),
    ({"first_obs": lambda s: {"x": s.x}}, "observation", "is dict", "[2]"),
    ({"first_obs": lambda s: None}, "observation", "is NoneType", "[2]"),
    ({"first_obs": lambda s: jnp.zeros(3)}, "observation", "is float32[3]", "[2]"),
    ({"first_obs": lambda s: jnp.zeros((2, 1))}, "observation", "is float32[2, 1]", "[2]"),
    ({"obs": lambda s: jnp.zeros(3)}, "observation", "is float32[3] after step_env", "float32[2]"),
    ({"obs": lambda s: None}, "observation", "is None after step_env", "float32[2]"),
    ({"first_obs": lambda s: jnp.zeros(2, int)}, "observation", "float32[2] after", "int32[2]"),
    (
        {
            "x": 0,
            "move": lambda x: x + 0.5,
            **dict.fromkeys(["obs", "first_obs"], lambda s: jnp.zeros(2)),
        },
        *("state", "state.x of Mine is float32[] after step_env", "int32[] as after reset_env"),
    ),
    (
        {
            "x": None,
            "move": lambda x: jnp.zeros(1),
            **dict.fromkeys(["obs", "first_obs"], lambda s: jnp.zeros(2)),
        },
        *("state", "state.x of Mine is float32[1] after step_env", "None as after reset_env"),
    ),
    ({"reward": jnp.ones(2)}, "reward", "is float32[2]", "[]"),
    ({"reward": None}, "reward", "is NoneType", "[]"),
    ({"reward": "1"}, "reward", "is str", "[]"),
    ({"terminated": lambda *_: jnp.zeros(1, bool)}, "terminated", "is bool[1]", "[]"),
    ({"terminated": lambda *_: None}, "terminated", "is NoneType", "[]"),
    ({"info": None}, "info", "is NoneType", "dict"),
    ({"info": "text"}, "info", "is str", "dict"),
    ({"info": {"x": "text"}}, "info", "info.x of Mine is str", "an array"),
    ({"info": {"x": {"y": print}}}, "info", "info.x.y of Mine is builtin", "an array"),
    ({"step_env": lambda *x: (*x, 0)}, "step_env", "5 values", "returns 6"),
    ({"step_env": lambda *x: x[:4]}, "step_env", "5 values", "returns 4"),
    ({"step_env": lambda *x: None}, "step_env", "5 values", "returns 1"),
    ({"reset_env": lambda *x: x[0]}, "reset_env", "2 values", "returns 1"),
    ({"reset_env": lambda *x: (*x, {})}, "reset_env", "2 values", "returns 3"),
    ({"x": "text"}, "env", "cannot make Mine", "str"),
    ({"obs": lambda s: np.asarray(s.x)}, "env", "cannot make Mine", "TracerArray"),
    ({"observation_space": box(-1, 1, (0,))}, "observation_space", "shape [0]", "Mine"),
    ({"observation_space": box(-1, 1, None)}, "observation_space", "Box", "Mine"),
    ({"observation_space": None}, "observation_space", "None", "Mine"),
    *(
        ({"action_space": lambda params, space=space: space}, "action_space", shown, "Mine")
        for space, shown in [
            (box(-1.0, 1.0, (0,)), "(0,)"),
            (box(-1.0, 1.0, None), "None"),
            (box(1.0, -1.0, (2,)), "low <= high"),
            (box(jnp.array([-1.0, 1.0]), jnp.array([1.0, 0.5]), (2,)), "low <= high"),
            (box(-1, 1, (2,), jnp.int32), "floats"),
            (box(False, True, (2,), bool), "floats"),
            (box(-3e38, 3e38, (2,)), "finite high - low"),
            (box(-1e39, 1e39, (2,)), "finite"),
            (box(-6e4, 6e4, (2,), jnp.float16), "finite high - low"),
            (box(jnp.zeros(3), jnp.ones(3), (2,)), "shape=(2,)"),
            (box(None, None, (2,)), "None"),
            (box("a", "b", (2,)), "'a'"),
            (gymnasium.spaces.Box(0, 9, (2,), np.int32), "floats"),
            (3, "3"),
        ]
    ),
]


@pytest.mark.parametrize(("parts", "field", "found", "wanted"), WRONG_OBJECTS)
def test_the_error_for_an_invalid_environment_object_names_its_class(parts, field, found, wanted):
    with refused(field) as caught:
        make_env(Mine(**parts))
    text = str(caught.value)
    assert all(x in text for x in ("Mine", found, wanted)), text
    assert "\n" not in text


class NoTime(Mine):
    def reset_env(self, key: Any, params: Any) -> Any:
        return jnp.zeros(2), {"x": jnp.zeros(2)}

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return jnp.zeros(2), state, 0.0, False, {}


class NoLimit(Mine):
    @property
    def default_params(self) -> Any:
        return State(time=0)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return jnp.zeros(2), state, 0.0, False, {}


@pytest.mark.parametrize(
    ("env", "missing"),
    [(NoTime(), "time"), (NoLimit(), "max_steps_in_episode"), (Environment(), "NotImplemented")],
)
def test_the_error_for_an_incomplete_object_names_the_missing_part(env, missing):
    with refused("env") as caught:
        make_env(env)
    assert env.name in str(caught.value)
    assert missing in str(caught.value)


def one_step(env):
    """Return the observation size, both bounds, and the values of one step."""
    made = make_env(env)(2)
    state, _ = quick_jit(made.reset)(jax.random.key(0), made.default_params)
    step = quick_jit(made.step)
    ones = jnp.ones((2, made.action_size))
    state, timestep = step(state, ones, jax.random.key(0), made.default_params)
    return made, timestep


@pytest.mark.parametrize(
    "parts",
    [
        {"action_space": lambda p: box(-1.0, 1.0, [2])},
        {"action_space": lambda p: box(-1, 1, 2)},
        {"action_space": lambda p: box([-1.0, -1.0], [1.0, 1.0], (2,))},
        {"action_space": lambda p: box((-1, -1), (1, 1), np.array([2]))},
        {"action_space": lambda p: box(-np.full(2, p.bound), np.full(2, p.bound), (2,))},
        {"action_space": lambda p: box(-float(p.bound), float(p.bound), (2,))},
        {"action_space": lambda p: gymnasium.spaces.Box(-1, 1, (2,))},
        {"observation_space": box([-1, -1], [1, 1], [2])},
        {"observation_space": box(-1, 1, 2)},
        {"observation_space": gymnasium.spaces.Box(-1, 1, (2,))},
        {"reward": 1},
        {"reward": True},
        {"reward": jnp.ones(1)},
        {"terminated": lambda *_: 0},
        {"terminated": lambda *_: 0.0},
        {"info": {"x": None, "y": 1.5}},
        {"step_env": lambda *x: list(x)},
        dict.fromkeys(["first_obs", "obs"], lambda state: jnp.zeros(2, int)),
        dict.fromkeys(["first_obs", "obs"], lambda state: jnp.zeros(2, bool)),
    ],
)
def test_unusual_but_valid_environment_objects_are_accepted(parts):
    made, timestep = one_step(Mine(**parts))
    assert made.example.obs.shape == made.example.action.shape == (2,)
    np.testing.assert_array_equal(made.bounds, [[-1, -1], [1, 1]])
    assert (timestep.obs.shape, timestep.obs.dtype) == ((2, 2), np.float32)
    np.testing.assert_array_equal(timestep.reward, np.ones(2, np.float32))
    np.testing.assert_array_equal(timestep.terminated, np.zeros(2, bool))


def test_a_wrapper_can_change_the_size_of_actions():
    class One(GymnaxWrapper):
        def action_space(self, params: Any) -> Any:
            return box(-1.0, 1.0, (1,))

        def reset(self, key: Any, params: Any = None) -> Any:
            return self._env.reset(key, params)

        def step(self, key: Any, state: Any, action: Any, params: Any = None) -> Any:
            return self._env.step(key, state, jnp.tile(action, 2), params)

    class Two(Mine):
        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            assert action.shape == (2,)
            return super().step_env(key, state, action, params)

    assert make_env(One(Two()))(1).action_size == 1


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_single_number_can_be_an_observation(shape):
    parts = {"x": jnp.zeros(shape), "observation_space": box(-1, 1, shape)}
    made, timestep = one_step(Mine(**parts))
    assert made.example.obs.shape == (1,)
    assert timestep.obs.shape == (2, 1)


def test_a_warning_reports_an_action_space_that_cannot_be_traced(caplog):
    space = lambda p: box(-np.full(2, p.bound), np.full(2, p.bound), (2,))  # noqa: E731
    make_env(Mine(action_space=space))
    assert "action_space of Mine cannot be traced" in caplog.text
    caplog.clear()
    make_env(Mine(action_space=lambda p: box(-p.bound, p.bound, (2,))))
    assert not caplog.records


@pytest.mark.parametrize(("bound", "warns"), [(1e6, False), (2e6, True)])
def test_a_warning_reports_very_large_action_bounds(bound, warns, caplog):
    make_env(Mine(action_space=lambda p: box(-1.0, bound, (2,))))
    assert ("action_space of Mine has bounds of up to 2e+06" in caplog.text) == warns


@pytest.mark.parametrize(
    ("terminated", "warns"),
    [
        (lambda time, limit: time >= limit, True),
        (lambda time, limit: jnp.where(time >= limit, 1.0, 0.0), True),
        (lambda time, limit: time == limit, True),
        (lambda time, limit: time > limit, False),  # the episode has been truncated before
        (lambda time, limit: time >= 6, False),  # the task ends earlier
        (lambda time, limit: True, False),
        (lambda time, limit: False, False),
    ],
)
def test_a_warning_reports_termination_at_the_time_limit(terminated, warns, caplog):
    make_env(Mine(terminated=terminated))
    assert ("step_env of Mine terminates at the time limit" in caplog.text) == warns


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [(-3e38, 3e38, np.float32), (-6e4, 6e4, np.float16), (-1.7e308, 1.7e308, np.float64)],
)
def test_gymnasium_bounds_are_refused_if_their_difference_overflows(low, high, dtype):
    with refused("action_space"):
        read_spaces("Mine", gymnasium.spaces.Box(low, high, (2,), dtype), BOX)
    with refused("observation_space"):
        read_spaces("Mine", BOX, gymnasium.spaces.Box(-1, 1, (0,)))


def test_gymnasium_bounds_are_refused_if_low_is_above_high():
    space = gymnasium.spaces.Box(-1, 1, (2,))
    space.low = -space.low + 1
    with refused("action_space"):
        read_spaces("Mine", space, BOX)


def test_the_checks_of_environment_objects_work_with_any_jax_settings(monkeypatch):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        make_env(Mine())
    with jax.disable_jit():
        make_env(Mine())
    with jax.enable_x64(True):
        one_step(Mine(x=jnp.zeros(2)))


def test_a_valid_environment_object_causes_no_warning(caplog):
    caplog.set_level(logging.INFO, "sacjax")
    make_env(Mine())
    assert not caplog.records
