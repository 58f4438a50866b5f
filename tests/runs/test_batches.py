"""Test populations that are trained in batches because they do not fit in memory."""

import dataclasses
import json
import shutil
from pathlib import Path

import checks
import jax
import numpy as np
import pytest
from checks import GRID, refused

from sacjax import evaluate_run, load, resume, run
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.report.comparison import notes, read
from sacjax.report.page import write
from sacjax.runs import checkpoints
from sacjax.runs import epochs as runs_epochs
from sacjax.runs.directory import read_config
from sacjax.types import InputError, RunError

# The replay does not grow with total_steps, so an extended run keeps the same program.
CONFIG = dataclasses.replace(checks.CONFIG, total_steps=300, replay_size=250)
HOW = {"strategy": "map", "devices": 1, "seeds": 3}  # "map": equal programs for any batch size


def assert_same_runs(one, other):
    assert one.members == other.members
    assert one.metrics.keys() == other.metrics.keys()
    jax.tree.map(np.testing.assert_array_equal, one.metrics, other.metrics)
    assert [x.dtype for x in one.metrics.values()] == [x.dtype for x in other.metrics.values()]
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


@pytest.mark.exact
def test_a_run_in_batches_is_bit_identical_to_a_run_without_batches(together):
    """The bits are equal because "map" compiles each member separately."""
    seen = []
    done = run(
        CONFIG,
        GRID,
        members_per_batch=4,
        on_epoch=[lambda step, metrics: seen.append((step, metrics["member"].tolist()))],
        **HOW,
    )
    assert done.completed
    assert_same_runs(done, together)
    assert seen[:4] == [(100 + 50 * i, [0, 1, 2]) for i in range(1, 5)]
    assert seen[4:] == [(100 + 50 * i, [3, 4, 5]) for i in range(1, 5)]


def test_load_reads_all_batches_of_a_folder_as_one_run(whole, together):
    done = load(whole)
    assert done.completed
    assert_same_runs(done, together)
    returns, _ = evaluate_run(done)
    np.testing.assert_allclose(returns, together.metrics["eval_return"][:, -1], rtol=1e-5)
    assert (whole / "learning_curve.png").stat().st_size > 10_000


@pytest.mark.exact
@pytest.mark.parametrize("stop_after", [2, 4, 6])
def test_a_run_that_is_stopped_in_any_batch_can_be_resumed_exactly(
    whole, together, tmp_path, stop_after, monkeypatch
):
    """The run stops in the first batch, between both batches, or in the second batch.

    `resume` compiles only once.
    """
    folder, epochs = tmp_path / "run", []
    done = run(
        CONFIG,
        GRID,
        members_per_batch=3,
        directory=folder,
        on_epoch=[lambda step, metrics: epochs.append(step)],
        should_stop=lambda: len(epochs) >= stop_after,
        **HOW,
    )
    assert not done.completed
    assert len(epochs) == stop_after  # also between batches: the second one does not start
    calls, compile_programs = [], runs_epochs.compile_programs
    monkeypatch.setattr(
        runs_epochs,
        "compile_programs",
        lambda *a, **k: calls.append(a) or compile_programs(*a, **k),
    )
    done = resume(folder)
    assert len(calls) == 1
    assert done.completed
    assert_same_runs(done, together)
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert_same_runs(load(folder), load(whole))


def test_resume_starts_a_batch_whose_folder_is_empty(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "batches" / "2")
    (folder / "batches" / "2").mkdir()
    (folder / "metrics.csv").unlink()
    assert resume(folder).completed
    assert_same_runs(load(folder), load(whole))


@pytest.mark.exact
def test_extending_a_run_in_batches_equals_a_longer_run(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    longer = tmp_path / "longer"
    run(Config(**(vars(CONFIG) | {"total_steps": 400})), GRID, directory=longer, **HOW)
    done = resume(folder, extend_to=400)
    assert read_config(folder).config.total_steps == 400
    assert_same_runs(done, load(longer))


RATES = np.array([1e30, 3e-4])  # the first three members diverge
DIVERGING = Hyperparams(critic_lr=RATES, actor_lr=RATES)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches") / "diverged"
    seen = []
    done = run(
        *(CONFIG, DIVERGING),
        members_per_batch=3,
        directory=folder,
        checkpoint_every=1,
        on_epoch=[lambda step, metrics: seen.append((step, metrics["member"].tolist()))],
        **HOW,
    )
    return folder, done, seen


def test_training_continues_with_the_next_batch_if_a_batch_diverged(diverged):
    """Diverged members keep their index in the whole population."""
    folder, done, seen = diverged
    together = run(CONFIG, DIVERGING, **HOW)
    (when,) = {d.epoch for d in done.diverged}
    assert when < 3
    for other in (done, load(folder)):
        assert other.completed
        assert other.diverged == together.diverged
        assert [d.member for d in other.diverged] == [0, 1, 2]
        assert other.epochs.tolist() == [when + 1] * 3 + [4] * 3
        for name, x in together.metrics.items():
            np.testing.assert_array_equal(other.metrics[name][3:], x[3:])
            np.testing.assert_array_equal(other.metrics[name][:3, : when + 1], x[:3, : when + 1])
        assert np.isnan(other.metrics["eval_return"][:3, when + 1 :]).all()
    steps = [100 + 50 * i for i in range(1, 5)]
    first = [(step, [0, 1, 2]) for step in steps[: when + 1]]
    assert seen == first + [(step, [3, 4, 5]) for step in steps]
    assert checkpoints.epochs(folder / "batches" / "1") == [when + 1]
    assert checkpoints.epochs(folder / "batches" / "2") == [3, 4]


def test_resume_does_not_train_a_batch_that_diverged(diverged, tmp_path, capsys):
    folder = Path(shutil.copytree(diverged[0], tmp_path / "run"))
    assert main(["resume", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("seed" in line and "diverged" in line for line in lines) == 3
    (entry, other) = read([folder])
    assert np.isnan(entry.scores).all()
    assert np.isfinite(other.scores).all()
    assert len(other.steps) == 4


def test_a_run_stopped_by_divergence_can_be_resumed(diverged, tmp_path):
    folder, on_nan = tmp_path / "run", "stop"
    done = run(CONFIG, DIVERGING, members_per_batch=3, directory=folder, on_nan=on_nan, **HOW)
    assert not done.completed
    assert len(done.members) == 3
    assert resume(folder).completed
    assert (folder / "metrics.csv").read_bytes() == (diverged[0] / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Return (folder, run) of a run that stopped in its second batch, after one of four epochs."""
    folder, epochs = tmp_path_factory.mktemp("batches") / "stopped", []
    done = run(
        CONFIG,
        GRID,
        members_per_batch=2,
        directory=folder,
        on_epoch=[lambda step, metrics: epochs.append(step)],
        should_stop=lambda: len(epochs) >= 5,
        **HOW,
    )
    return folder, done


def test_members_of_a_stopped_batch_do_not_count_as_diverged(stopped, together, caplog, capsys):
    folder, done = stopped
    assert not done.completed
    again = load(folder)
    assert "4 of 6 members have agents" in caplog.text
    for other in (done, again):
        assert not other.completed
        assert other.epochs.tolist() == [4, 4, 1, 1]
        assert other.env_steps.tolist() == [300, 300, 150, 150]
    returns, _ = evaluate_run(again)
    for i, epochs in enumerate(again.epochs):
        want = together.metrics["eval_return"][i, epochs - 1]
        np.testing.assert_allclose(returns[i], want, rtol=1e-5)
    assert main(["evaluate", str(folder)]) == 0
    assert "diverged" not in capsys.readouterr().out


def test_a_report_shows_the_evaluations_of_an_unfinished_run(stopped, tmp_path):
    folder = Path(shutil.copytree(stopped[0], tmp_path / "run"))
    (folder / "metrics.csv").unlink()  # a run writes it when a batch ends
    first, second = read([folder])
    said = " ".join(notes([first, second]))
    assert "only 4 of 6 agents have evaluations" in said
    assert said.count("seeds end at different steps") == 1
    assert f"{folder}: the report covers 150 to 300 of 300 steps" in said
    assert (first.seeds, second.seeds) == ([0, 1, 2], [0])
    assert first.steps.tolist() == [150, 200, 250, 300]
    assert np.isfinite([*first.scores, *second.scores]).all()
    assert np.isfinite(first.returns).sum(1).tolist() == [4, 4, 1]
    (figure,) = [path for path in write([first], tmp_path / "report") if path.suffix == ".html"]
    assert figure.stat().st_size > 10_000
    with pytest.raises(InputError, match="seed 2"):
        read([folder], last=2)


def test_the_json_events_count_the_steps_of_all_batches(stopped, tmp_path, capsys):
    folder = Path(shutil.copytree(stopped[0], tmp_path / "run"))
    assert main(["resume", str(folder), "--log-format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    done = [line["done"] for line in lines if line["event"] == "epoch"]
    assert done[0] == pytest.approx((2 * 300 + 2 * 200) / (6 * 300))
    assert done[-1] == 1
    assert (lines[-1]["completed"], lines[-1]["step"]) == (True, 300)


@pytest.mark.parametrize("lost", ["metrics.csv", "rows", "agents"])
def test_resume_restores_the_lost_files_of_a_finished_batch(whole, tmp_path, lost, caplog):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    table = folder / "batches" / "1" / "metrics.csv"
    if lost == "rows":
        table.write_text("".join(table.read_text().splitlines(keepends=True)[:-3]))
    elif lost == "agents":
        for path in (folder / "batches" / "1" / "agents").iterdir():
            path.write_bytes(b"")
    else:
        table.unlink()
    assert resume(folder).completed
    assert ("training this batch from its last checkpoint" in caplog.text) == (lost == "agents")
    assert table.read_bytes() == (whole / "batches" / "1" / "metrics.csv").read_bytes()
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert_same_runs(load(folder), load(whole))


def test_resume_rejects_the_checkpoints_of_another_batch(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    for name in ("agents", "learning_curve.png"):
        path = folder / "batches" / "1" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(folder / "batches" / "1" / "checkpoints")
    shutil.copytree(
        folder / "batches" / "2" / "checkpoints", folder / "batches" / "1" / "checkpoints"
    )
    with refused("config.json"):
        resume(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"config": {"batch_size": 16}},
        {"hyperparams": [{"gamma": 0.5}, {"gamma": 0.5, "tau": 0.02}]},
        {"seeds": [0, 1, 5]},
        {"seeds": [0, 1, 2, 3]},
        {"per_batch": 2},
        {"per_batch": 100},
        {"per_batch": None},
    ],
    ids=str,
)
def test_resume_rejects_an_edited_config_of_a_run_in_batches(whole, tmp_path, changed):
    """Simulate a run that was killed between two batches and whose config.json was edited."""
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "batches" / "2")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changed_in(content, changed)))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with refused("config.json"):
        resume(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 4, "config": {"env": "x"}, "versions": {}, "device": {}}']
)
def test_resume_rejects_a_batch_with_a_damaged_config(whole, tmp_path, text):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    (folder / "batches" / "1" / "config.json").write_text(text)
    with refused("config.json") as caught:
        resume(folder)
    assert "batches/1/config.json is damaged" in str(caught.value)


def changed_in(content, changed):
    """Return the changed fields. Merge changes of dictionaries and of lists of dictionaries."""

    def merge(old, new):
        if isinstance(new, dict):
            return old | new
        if isinstance(new, list) and isinstance(new[0], dict):
            return [a | b for a, b in zip(old, new, strict=True)]
        return new

    return {name: merge(content[name], new) for name, new in changed.items()}


def test_a_single_batch_cannot_be_loaded_or_resumed(whole):
    for use in load, resume:
        with refused("directory"):
            use(whole / "batches" / "1")


def test_an_error_in_a_batch_suggests_resuming_the_whole_run(tmp_path, monkeypatch):
    from sacjax.runs import arrays, metrics_csv

    def full(*_):
        raise OSError(28, "No space left on device")

    how = {"members_per_batch": 2, "seeds": 3, "checkpoint_every": 1}
    for number, (where, name, field) in enumerate(
        [
            (metrics_csv.MetricsFile, "append", "directory"),
            (arrays, "write_part", "checkpoints"),
            (arrays, "complete", "checkpoints"),
        ]
    ):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, full)
            with refused(field, RunError) as caught:
                run(CONFIG, directory=out, **how)
            assert f"make room, then `sacjax resume {out}`" in str(caught.value)
    assert resume(out).completed
    (out / "batches" / "1" / "agents" / "0.npz").write_bytes(b"")
    with refused("agents") as caught:
        load(out)
    assert f"`sacjax resume {out}`, which writes the folder again" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("seeds", 8.0),
        ("seeds", np.int64(0)),
        ("seeds", True),
        ("on_epoch", print),
        ("on_epoch", [3]),
        ("should_stop", False),
    ],
)
def test_run_rejects_invalid_arguments_before_it_writes_files(tmp_path, name, wrong):
    with refused(name):
        run(CONFIG, directory=tmp_path / "run", **{name: wrong})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
def test_members_per_batch_must_be_a_positive_integer(wrong):
    with refused("members_per_batch"):
        run(CONFIG, members_per_batch=wrong)


def test_the_command_line_trains_evaluates_and_resumes_batches(tmp_path, capsys):
    flags = "--total-steps 200 --warmup-steps 100 --eval-every 50 --hidden 8 --batch-size 8"
    out = str(tmp_path / "run")
    command = ["train", "Pendulum-v1", "--seeds", "5", "--members-per-batch", "2", "--out", out]
    assert main([*command, *flags.split()]) == 0
    assert main(["evaluate", out]) == 0
    text = capsys.readouterr().out
    assert text.count("seed 4") == 2
    assert len(list((tmp_path / "run" / "batches").iterdir())) == 3
    for resumed in ["resume", out], ["resume", out, "--log-format", "json"]:  # nothing to do
        assert main(resumed) == 0
        again = capsys.readouterr().out
        if "--log-format" in resumed:
            assert len(json.loads(again.splitlines()[-1])["members"]) == 5
        else:
            assert again.split(f"{out}/batches")[0] == text.split(f"{out}/batches")[0]
