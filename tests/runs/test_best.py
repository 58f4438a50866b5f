"""With `keep_best`, a run keeps each member's agent at its best evaluation."""

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from checks import TINY, refused

from sacjax import Hyperparams, evaluate_run, load, resume, run
from sacjax.cli.main import main

CONFIG = replace(TINY, total_steps=20 + 12 * 6, eval_every=12)
HP = Hyperparams(actor_lr=0.03, critic_lr=0.03)  # so that the returns of the evaluations differ
HOW = {"seeds": 3, "strategy": "map", "devices": 1}


def best_of(done):
    """Return the best mean return of each member, and the number of epochs before it."""
    returns = done.metrics["eval_return"].mean(-1)
    return returns.max(1), returns.argmax(1) + 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best") / "run"
    return run(
        CONFIG, HP, directory=folder, keep_best=True, checkpoint_every=1, keep=100, **HOW
    ), folder


def test_the_best_agents_reproduce_their_best_evaluation(whole):
    done, folder = whole
    found, (returns, epochs) = load(folder, best=True), best_of(done)
    assert len({*epochs.tolist(), CONFIG.num_epochs}) > 1
    np.testing.assert_array_equal(found.epochs, epochs)
    np.testing.assert_array_equal(found.env_steps, 20 + 12 * epochs)
    np.testing.assert_array_equal(found.agents.step, 6 * epochs)
    np.testing.assert_allclose(evaluate_run(found)[0].mean(-1), returns, rtol=1e-5)


def test_keep_best_does_not_change_the_results_of_a_run(whole):
    done, folder = whole
    plain = run(CONFIG, HP, **HOW)
    jax.tree.map(np.testing.assert_array_equal, plain.metrics, done.metrics)
    jax.tree.map(np.testing.assert_array_equal, plain.agents, load(folder).agents)


@pytest.mark.parametrize("last", [1, 3])
def test_a_killed_run_restores_its_best_agents(whole, tmp_path, last):
    """The best agents come from the checkpoint of epoch `last`, and from later epochs."""
    folder = Path(shutil.copytree(whole[1], tmp_path / "killed"))
    shutil.rmtree(folder / "agents")
    for epoch in range(last + 1, CONFIG.num_epochs + 1):
        shutil.rmtree(folder / "checkpoints" / str(epoch))
    assert resume(folder).completed
    found, expected = load(folder, best=True), load(whole[1], best=True)
    np.testing.assert_array_equal(found.epochs, expected.epochs)
    jax.tree.map(np.testing.assert_array_equal, found.agents, expected.agents)


def test_resuming_a_finished_run_restores_deleted_best_agents(whole, tmp_path):
    folder = Path(shutil.copytree(whole[1], tmp_path / "run"))
    shutil.rmtree(folder / "agents")
    resume(folder)
    found, expected = load(folder, best=True), load(whole[1], best=True)
    jax.tree.map(np.testing.assert_array_equal, found.agents, expected.agents)
    assert not list(folder.rglob(".part*"))


@pytest.mark.processes
@pytest.mark.two_cpus
@pytest.mark.parametrize("how", [{"members_per_batch": 2}, {"devices": 2}], ids=str)
def test_the_best_agents_do_not_depend_on_batches_or_devices(whole, tmp_path, how):
    run(CONFIG, HP, directory=tmp_path / "run", keep_best=True, **HOW | how)
    found, expected = load(tmp_path / "run", best=True), load(whole[1], best=True)
    np.testing.assert_array_equal(found.epochs, expected.epochs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found.agents,
        expected.agents,
    )


@pytest.mark.processes
def test_a_diverged_member_keeps_an_agent_from_before_its_divergence(tmp_path):
    config = replace(CONFIG, hidden=(8,) * 5, eval_every=24, total_steps=20 + 24 * 6)
    hp = Hyperparams(critic_lr=np.array([3e-4, 1e3]))
    done = run(config, hp, seeds=1, directory=tmp_path / "run", keep_best=True)
    ((member, epoch, *_),) = done.diverged
    found = load(tmp_path / "run", best=True)
    assert member == 1
    assert found.epochs[1] <= max(epoch, 1)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found.agents))


def test_best_agents_need_a_run_folder_and_the_option_keep_best(tmp_path):
    with refused("keep_best"):
        run(CONFIG, keep_best=True)
    run(TINY, seeds=1, directory=tmp_path / "run")
    with refused("agents"):
        load(tmp_path / "run", best=True)


@pytest.mark.processes
def test_the_command_line_can_save_evaluate_and_render_the_best_agents(tmp_path, capsys):
    out = str(tmp_path / "run")
    flags = ["--total-steps", "500", "--warmup-steps", "100", "--eval-every", "50", "--seeds", "2"]
    flags += ["--hidden", "8", "--batch-size", "8", "--eval-episodes", "2", "--actor-lr", "0.03"]
    assert main(["train", "Pendulum-v1", "--out", out, "--keep-best", *flags]) == 0
    returns, _ = best_of(load(out))
    capsys.readouterr()
    assert main(["evaluate", out, "--best"]) == 0
    lines = capsys.readouterr().out.replace(",", "").splitlines()
    table = [float(line.split()[3]) for line in lines if line.startswith("seed")]
    np.testing.assert_allclose(table, returns, atol=0.051)  # printed with one decimal
    assert main(["render", out, "--best", "--frames", "2"]) == 0
    assert f"seed {returns.argmax()}," in capsys.readouterr().out
    assert (tmp_path / "run" / "policy.gif").stat().st_size > 0
