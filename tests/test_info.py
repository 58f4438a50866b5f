"""Numbers in an environment's `info` are logged over training episodes if `log_info` asks."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import TINY, refused
from gymnax.environments.classic_control.pendulum import Pendulum

from sacjax import Config, Hyperparams, load, make_program, make_train, resume, run
from sacjax.bits import as_arrays
from sacjax.cli.commands import settings
from sacjax.cli.flags import parse_train
from sacjax.envs.host import Spaces, make_host_env
from sacjax.envs.simulators import Copies
from sacjax.loggers.summary import scalars
from sacjax.runs.metrics_csv import read_metrics

# TINY has a warm-up of 10 steps and two epochs of 6 steps of each environment.
EVERY = ("reward:sum", "one:sum", "time:last", "mean:mean", "low:max", "flag:last", "late:last")


class Informed(Pendulum):
    """Pendulum with episodes of `limit` steps and with numbers in info."""

    limit = 4

    @property
    def default_params(self):
        return super().default_params.replace(max_steps_in_episode=self.limit)

    def step_env(self, key, state, action, params):
        obs, new, reward, terminated, _ = super().step_env(key, state, action, params)
        info = {
            "reward": reward,
            "one": 1,
            "time": new.time,
            "mean": new.time,
            "low": -new.time,
            "flag": new.time == self.limit,
            "late": jnp.where(new.time == self.limit, 7.0, jnp.nan),
            "never": jnp.nan,
            "pair": jnp.zeros(2),
            "key": key,
            "nothing": None,
        }
        return obs, new, reward, terminated, info


class Long(Informed):
    limit = 9


def informed(entries, env=Informed, **changes):
    return dataclasses.replace(TINY, env=env(), log_info=entries, **changes)


def test_each_entry_of_log_info_adds_one_number_per_episode():
    done = run(informed(EVERY), seeds=2)
    found = {name: x for name, x in done.metrics.items() if name.startswith("info_")}
    assert sorted(found) == sorted(f"info_{x.split(':')[0]}" for x in EVERY)
    np.testing.assert_array_equal(done.metrics["train_episodes"], [[4, 2], [4, 2]])
    np.testing.assert_allclose(found["info_reward"], done.metrics["train_return"], rtol=1e-6)
    np.testing.assert_array_equal(found["info_one"], done.metrics["train_length"])
    for name, expected in {"time": 4, "mean": 2.5, "low": -1, "flag": 1, "late": 7}.items():
        np.testing.assert_array_equal(found[f"info_{name}"], expected, err_msg=name)


def test_logged_info_is_nan_in_an_epoch_without_an_episode_end():
    done = run(informed(("time:last", "never:sum"), env=Long), seeds=1)
    np.testing.assert_array_equal(done.metrics["train_episodes"], [[0, 2]])
    np.testing.assert_array_equal(done.metrics["info_time"], [[np.nan, 9]])
    np.testing.assert_array_equal(done.metrics["info_never"], [[np.nan, np.nan]])
    assert done.diverged == []


@pytest.mark.processes
def test_logged_info_appears_in_files_loggers_and_resumed_runs(tmp_path):
    config, seen, stops = informed(EVERY, env=Long), [], iter([True])
    whole = run(config, seeds=2, on_epoch=[lambda _, metrics: seen.append(scalars(metrics))])
    assert seen[1]["info_one/seed_1"] == seen[1]["info_one/iqm"] == 9
    folder = tmp_path / "run"
    run(config, seeds=2, directory=folder, should_stop=lambda: next(stops))
    resume(folder, env=Long())  # its first episode has begun before the checkpoint
    _, table = read_metrics(folder / "metrics.csv")
    loaded = load(folder, env=Long())
    assert loaded.config.log_info == config.log_info
    for name in (x for x in whole.metrics if x.startswith("info_")):
        np.testing.assert_allclose(table[name], whole.metrics[name], rtol=1e-5)
        np.testing.assert_allclose(loaded.metrics[name], whole.metrics[name], rtol=1e-5)


def test_make_train_returns_the_logged_info():
    train = make_train(informed(EVERY))
    metrics = jax.eval_shape(jax.vmap(train), jax.random.split(jax.random.key(0), 3)).metrics
    assert {x.shape for name, x in metrics.items() if name.startswith("info_")} == {(3, 2)}


def test_the_compiled_loop_ignores_info_if_log_info_is_empty():
    """The lowered text is that of an environment whose info is empty."""

    class Silent(Informed):
        def step_env(self, key, state, action, params):
            return *super().step_env(key, state, action, params)[:4], {}

    def lowered(env):
        program = make_program(informed((), env=env))
        hp, params = as_arrays(Hyperparams(), program.default_params)
        loop = jax.eval_shape(program.init, jax.random.key(0), hp, params)
        body = jax.jit(program.epoch).lower(loop, hp, params).as_text()
        return body[body.index("while") :], jax.tree.structure(loop.replace(env_state=None))

    (text, tree), (silent_text, silent_tree) = lowered(Informed), lowered(Silent)
    assert tree == silent_tree
    assert len(text) > 10_000
    assert "info" not in text
    assert text.count("stablehlo.while") == silent_text.count("stablehlo.while")


# --- environments outside of JAX -----------------------------------------------------------------


class Simulated:
    """An episode of five steps, with rewards 1 to 5 and an info of mixed values."""

    def reset(self, *, seed):
        self.age = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.age += 1
        ended = self.age == 5
        info = {"part": np.float64(self.age), "array": np.array(self.age), "text": "a"}
        info |= {"flag": ended, "list": [1, [2]], "vector": np.zeros(2), "nothing": None}
        info |= {"even": self.age} if self.age % 2 == 0 else {}
        info |= {"success": True} if ended else {}
        return np.zeros(1, np.float32), float(self.age), False, ended, info

    def close(self):
        pass


@pytest.fixture
def simulated(monkeypatch):
    """Make `Simulated` a Gymnasium environment of the name gymnasium/Simulated-v0."""
    spaces = Spaces(1, np.array([-1.0], np.float32), np.array([1.0], np.float32))
    suite = SimpleNamespace(
        make_env=lambda name, _: make_host_env(
            name, lambda copies: Copies(Simulated, spaces, copies), spaces
        )
    )
    monkeypatch.setattr("sacjax.envs.names.adapter", lambda _: suite)
    return dataclasses.replace(TINY, env="gymnasium/Simulated-v0")


@pytest.mark.processes
def test_a_number_may_be_missing_from_info_in_some_steps(simulated):
    entries = ("part:sum", "array:max", "flag:last", "even:mean", "success:last")
    done = run(dataclasses.replace(simulated, log_info=entries), seeds=1)
    np.testing.assert_array_equal(done.metrics["train_episodes"], [[2, 2]])
    for name, expected in {"part": 15, "array": 5, "flag": 1, "even": 3, "success": 1}.items():
        np.testing.assert_array_equal(done.metrics[f"info_{name}"], expected, err_msg=name)


def test_the_error_for_an_unknown_info_entry_lists_the_valid_names(simulated):
    with refused("log_info") as caught:
        make_program(dataclasses.replace(simulated, log_info=("nope:last",)))
    assert str(caught.value).endswith("use array, even, flag, part, success")


def test_the_error_for_an_unknown_entry_does_not_list_internal_numbers():
    with refused("log_info") as caught:
        make_program(informed(("one:sum", "key:last")))
    assert str(caught.value).endswith("use flag, late, low, mean, never, one, reward, time")


# --- the setting ---------------------------------------------------------------------------------


def test_log_info_can_be_a_list_or_text_with_commas():
    expected = ("success:last", "reward/ctrl:sum")
    for given in ("success:last, reward/ctrl:sum", list(expected), expected):
        fields: Any = {"log_info": given}
        assert Config("Pendulum-v1", **fields).log_info == expected
    assert Config("Pendulum-v1", log_info=("",)).log_info == ()
    flags = ["Pendulum-v1", "--log-info", "success:last,reward/ctrl:sum"]
    assert settings(parse_train(flags))[0].log_info == expected


@pytest.mark.parametrize(
    "entries", ["success", "success:first", ":last", 3, None, ("a:last", 3), "a:last,a:sum"]
)
def test_a_malformed_entry_of_log_info_is_refused(entries):
    with refused("log_info"):
        Config("Pendulum-v1", log_info=entries)
