"""Populations larger than the memory: batch after batch, one run."""

import dataclasses
import json
import shutil
from pathlib import Path

import checks
import jax
import numpy as np
import pytest
from checks import GRID

from sacjax.cli import main
from sacjax.config import Config, Hyperparams
from sacjax.folder import read_config
from sacjax.run import evaluate_run, load, resume, run
from sacjax.types import InputError

CONFIG = dataclasses.replace(checks.CONFIG, total_steps=300)
HOW = {"strategy": "map", "devices": 1, "seeds": 3}  # six members, each compiled as in any batch


def assert_same_runs(one, other):
    assert one.members == other.members
    assert one.metrics.keys() == other.metrics.keys()
    jax.tree.map(np.testing.assert_array_equal, one.metrics, other.metrics)
    jax.tree.map(np.testing.assert_array_equal, one.agents, other.agents)
    np.testing.assert_array_equal(jax.random.key_data(one.keys), jax.random.key_data(other.keys))


@pytest.fixture(scope="module")
def together():
    return run(CONFIG, GRID, **HOW)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches") / "run"
    run(CONFIG, GRID, members_per_batch=3, directory=folder, checkpoint_every=1, **HOW)
    return folder


def test_batches_are_what_they_would_be_together(together):
    """To the bit, where each member is compiled by itself; in as few batches as may be, alike."""
    told = []
    done = run(
        *(CONFIG, GRID),
        members_per_batch=4,
        on_epoch=[lambda step, metrics: told.append((step, metrics["member"].tolist()))],
        **HOW,
    )
    assert done.completed
    assert_same_runs(done, together)
    assert told[:4] == [(100 + 50 * i, [0, 1, 2]) for i in range(1, 5)]
    assert told[4:] == [(100 + 50 * i, [3, 4, 5]) for i in range(1, 5)]


def test_its_folder_reads_as_one_run(whole, together):
    done = load(whole)
    assert done.completed
    assert done.members == together.members
    jax.tree.map(np.testing.assert_array_equal, done.agents, together.agents)
    np.testing.assert_array_equal(  # what it wrote are means over episodes
        done.metrics["eval_return"], together.metrics["eval_return"].mean(-1)
    )
    returns, _ = evaluate_run(done)
    np.testing.assert_allclose(returns, together.metrics["eval_return"][:, -1], rtol=1e-5)
    assert (whole / "learning_curve.png").stat().st_size > 10_000


@pytest.mark.parametrize("stop_after", [2, 4, 6])
def test_stopped_in_any_batch_it_goes_on_to_the_same_bits(whole, tmp_path, stop_after):
    """In the first one, between them, in the second."""
    folder, epochs = tmp_path / "run", []
    done = run(
        *(CONFIG, GRID),
        members_per_batch=3,
        directory=folder,
        on_epoch=[lambda step, metrics: epochs.append(step)],
        should_stop=lambda: len(epochs) >= stop_after,
        **HOW,
    )
    assert not done.completed
    assert resume(folder).completed
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert_same_runs(load(folder), load(whole))


def test_killed_before_the_second_batch_has_a_config_it_starts_that_one(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "batches" / "2")
    (folder / "batches" / "2").mkdir()
    (folder / "metrics.csv").unlink()
    assert resume(folder).completed
    assert_same_runs(load(folder), load(whole))


def test_extended_it_is_configured_longer(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    longer = tmp_path / "longer"
    run(Config(**(vars(CONFIG) | {"total_steps": 400})), GRID, directory=longer, **HOW)
    done = resume(folder, extend_to=400)
    assert read_config(folder).config.total_steps == 400
    assert_same_runs(done, load(longer))


def test_a_batch_that_diverges_costs_the_others_nothing(tmp_path, together):
    """Its members are known by their place in the whole population."""
    rates = Hyperparams(critic_lr=np.array([3e-4, 1e30]), actor_lr=np.array([3e-4, 1e30]))
    how = HOW | {"members_per_batch": 3, "directory": tmp_path / "run"}
    done = run(CONFIG, rates, **how)
    assert [d.member for d in done.diverged] == [3, 4, 5]
    assert not done.completed
    for name in ("critic_loss", "eval_return"):
        np.testing.assert_array_equal(done.metrics[name][:3], together.metrics[name][:3])
    assert [d.member for d in load(tmp_path / "run").diverged] == [3, 4, 5]


def test_another_batch_in_the_folder_is_refused(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    for name in ("agents", "learning_curve.png"):
        path = folder / "batches" / "1" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(folder / "batches" / "1" / "checkpoints")
    shutil.copytree(
        folder / "batches" / "2" / "checkpoints", folder / "batches" / "1" / "checkpoints"
    )
    with pytest.raises(InputError, match="not the one that the checkpoints"):
        resume(folder)


@pytest.mark.parametrize("wrong", [0, -1, 2.5])
def test_no_batches_of_nothing(wrong):
    with pytest.raises(InputError, match="members_per_batch"):
        run(CONFIG, members_per_batch=wrong)


def test_from_the_command_line(tmp_path, capsys):
    flags = "--total-steps 200 --warmup-steps 100 --eval-every 50 --hidden 8 --batch-size 8"
    out = str(tmp_path / "run")
    command = ["train", "Pendulum-v1", "--seeds", "5", "--members-per-batch", "2", "--out", out]
    assert main([*command, *flags.split()]) == 0
    assert main(["evaluate", out]) == 0
    text = capsys.readouterr().out
    assert text.count("seed 4") == 2
    assert len(list((tmp_path / "run" / "batches").iterdir())) == 3
    for resumed in ["resume", out], ["resume", out, "--log-format", "json"]:  # nothing to be done
        assert main(resumed) == 0
        again = capsys.readouterr().out
        if "--log-format" in resumed:
            assert len(json.loads(again.splitlines()[-1])["members"]) == 5
        else:
            assert again.split(f"{out}/batches")[0] == text.split(f"{out}/batches")[0]
