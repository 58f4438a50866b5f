"""Test that a diverged member keeps its last finite state and that other members do not change."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import refused
from flax import struct
from probes import member

from sacjax import evaluate_run, load, resume, run
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.report import tables
from sacjax.runs.divergence import guard
from sacjax.sac import make_sac

CONFIG = Config(
    "Pendulum-v1",
    total_steps=700,
    warmup_steps=100,
    eval_every=100,
    hidden=(8,) * 5,  # five layers, so that it diverges within a few epochs
    batch_size=8,
    eval_episodes=2,
)
WILD = Hyperparams(critic_lr=np.array([3e-4, 1e3]))
MILD = Hyperparams(critic_lr=np.array([3e-4, 1e-3]))
GOOD, BAD = (0, 1), (2, 3)  # members: two seeds of each learning rate


@pytest.fixture(scope="module")
def wild(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "wild"
    return run(CONFIG, WILD, seeds=2, directory=folder, checkpoint_every=1, keep=100), folder


def epoch_of(done, index):
    return {d.member: d.epoch for d in done.diverged}[index]


def test_diverged_members_are_frozen_at_finite_values(wild):
    done, _ = wild
    assert {d.member for d in done.diverged} == set(BAD)
    assert done.completed
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(done.agents))
    for d in done.diverged:
        assert "critic" in d.quantities
        assert d.epoch < 6
        # A frozen state has taken the gradient steps of the epochs before its divergence.
        assert int(done.agents.step[d.member]) == 100 * d.epoch
    assert {int(done.agents.step[i]) for i in GOOD} == {600}


def test_evaluate_run_rejects_several_processes(wild, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with refused(None):
        evaluate_run(wild[0])


def test_diverged_json_contains_the_cause_of_each_divergence(wild, tmp_path):
    done, folder = wild
    saved = json.loads((folder / "diverged.json").read_text())
    assert {(d["critic_lr"], d["seed"]) for d in saved} == {(1e3, 0), (1e3, 1)}
    for d in saved:
        assert d["before_env_step"] == 100 + 100 * (d["epoch"] + 1)
        assert "critic" in d["quantities"]
    assert load(folder).diverged == done.diverged
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "diverged.json").write_text("x")  # `load` does not read this file
    assert load(copy).diverged == done.diverged


@pytest.mark.exact
def test_a_diverged_member_does_not_change_the_other_members(wild):
    done, _ = wild
    mild = run(CONFIG, MILD, seeds=2)
    assert not mild.diverged
    for i in GOOD:
        jax.tree.map(np.testing.assert_array_equal, member(done.agents, i), member(mild.agents, i))
        for name, x in done.metrics.items():
            np.testing.assert_array_equal(x[i], mild.metrics[name][i])


def test_a_diverged_member_has_no_evaluations_after_its_divergence(wild):
    done, folder = wild
    for i in BAD:
        after = epoch_of(done, i) + 1
        assert np.isnan(done.metrics["eval_return"][i, after:]).all()
        assert (done.metrics["eval_length"][i, after:] == 0).all()
        assert done.metrics["replay_size"][i, -1] == CONFIG.total_steps
        assert np.isfinite(done.metrics["eval_return"][i, : after - 1]).all()
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = {row["critic_lr"] + row["seed"]: row for row in rows[-4:]}
    assert last["1000.01"]["eval_return"] == last["1000.01"]["critic_loss"] == ""
    assert float(last["0.00031"]["eval_return"]) < 0
    again = load(folder)
    assert again.diverged == done.diverged
    assert np.isfinite(evaluate_run(again)[0]).all()  # the frozen agents can still act


def test_a_warning_names_the_cause_of_each_divergence(caplog):
    run(CONFIG, WILD, seeds=[5, 20261126])
    assert "member 2 (critic_lr 1000, seed 5) diverged before step" in caplog.text
    assert "member 3 (critic_lr 1000, seed 20261126) diverged before step" in caplog.text
    assert "critic_loss" in caplog.text
    assert "member 0" not in caplog.text


def test_a_run_stopped_by_on_nan_can_be_resumed(wild, tmp_path):
    done, whole = wild
    folder = tmp_path / "run"
    stopped = run(CONFIG, WILD, seeds=2, directory=folder, on_nan="stop")
    first = min(d.epoch for d in done.diverged)
    assert not stopped.completed
    assert stopped.epochs.tolist() == [first + 1] * len(stopped.members)
    assert resume(folder).completed
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert load(folder).diverged == done.diverged


def test_a_run_ends_if_all_members_diverged(tmp_path):
    done = run(CONFIG, Hyperparams(critic_lr=1e3), seeds=2, directory=tmp_path / "run")
    assert len(done.diverged) == 2
    assert not done.completed
    np.testing.assert_array_equal(resume(tmp_path / "run").epochs, done.epochs)


def test_an_infinite_parameter_is_detected_in_the_same_epoch():
    """The parameter becomes infinite in the last step, so no loss depends on its value."""

    def make(config, env):
        sac = make_sac(config, env)

        def update(state, batch, key, hp):
            state, metrics = sac.update(state, batch, key, hp)
            last = state.step == 200  # the last step of the second epoch
            log_alpha = jnp.where(last, jnp.inf, state.log_alpha)
            return state.replace(log_alpha=log_alpha), metrics

        return sac._replace(update=update)

    done = run(CONFIG, seeds=1, algorithm=make)
    assert [(d.epoch, d.quantities) for d in done.diverged] == [(1, "log_alpha")]
    assert int(done.agents.step[0]) == 100


def test_a_temperature_of_zero_does_not_count_as_divergence():
    """The logarithm of the temperature is minus infinity from the beginning."""
    done = run(CONFIG, Hyperparams(init_alpha=np.array([0.0, 0.1]), alpha_lr=0.0), seeds=2)
    assert done.completed
    assert not done.diverged


@struct.dataclass
class Loop:
    agent: Any


@pytest.mark.parametrize(
    ("agent", "metrics", "found"),
    [
        ((), {}, {}),  # a random policy has no state
        ({"steps": np.int32(3)}, {"q": 1.0}, {"q": True}),
        ({"q": np.ones(3)}, {"q": np.nan}, {"q": False}),  # a metric and a field share a name
        ({"q": np.full(3, np.inf)}, {"q": 1.0}, {"q": False}),
        ({"was": np.array([np.nan, np.inf])}, {}, {"was": True}),  # not finite from the beginning
    ],
)
def test_divergence_is_detected_in_the_state_of_any_algorithm(agent, metrics, found):
    def epoch(loop, hp, env_params):
        return Loop(jax.tree.map(jnp.asarray, agent)), jax.tree.map(jnp.asarray, metrics)

    def start(x):
        return jnp.asarray(x) if "was" in agent else jnp.zeros_like(x)

    before = Loop(jax.tree.map(start, agent))
    _, (_, finite) = guard(epoch)(before, jnp.array(False), None, None)
    assert {name: bool(ok) for name, ok in finite.items()} == found


def test_the_command_line_reports_diverged_members(tmp_path, capsys):
    out = tmp_path / "run"
    flags = [
        *("--total-steps", "700", "--warmup-steps", "100", "--eval-every", "100"),
        *("--hidden", *["8"] * 5, "--batch-size", "8", "--eval-episodes", "2", "--seeds", "2"),
    ]
    sweep = ["--sweep", "critic-lr=3e-4,1e3", "--on-nan"]
    assert main(["train", "Pendulum-v1", "--out", str(out), *flags, *sweep, "freeze"]) == 0
    table = capsys.readouterr().out
    assert table.count("diverged") == 2 + 1 + 1  # two members, their IQM, and the file
    assert "IQM of 0 of 2" in table
    assert len(json.loads((out / "diverged.json").read_text())) == 2
    for which, frozen in ([], False), (["--member", "3"], True):
        capsys.readouterr()
        assert main(["render", str(out), "--frames", "2", *which]) == 0
        assert ("diverged, frozen after" in capsys.readouterr().out) == frozen
    other = tmp_path / "stopped"
    assert main(["train", "Pendulum-v1", "--out", str(other), *flags, *sweep, "stop"]) == 4


def test_the_results_table_counts_members_that_did_not_diverge():
    members = [{"seed": i} for i in range(3)]
    returns = np.array([[1.0, 3.0], [np.nan, np.nan], [4.0, 4.0]])
    text = tables.of_run(members, returns.mean(1), returns.std(1), "title")
    assert "diverged" in text
    assert "IQM of 2 of 3" in text
    assert "3.0" in text


def test_on_nan_must_be_freeze_or_stop():
    with refused("on_nan"):
        run(CONFIG, on_nan="go")  # pyright: ignore[reportArgumentType]
