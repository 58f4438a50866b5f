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

from sacjax import evaluate_run, load, resume, run
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.report.comparison import notes, read
from sacjax.report.page import write
from sacjax.runs import checkpoints
from sacjax.runs import epochs as runs_epochs
from sacjax.runs.directory import read_config
from sacjax.types import InputError, RunError

# A replay that does not grow with total_steps: extended, it is the same program.
CONFIG = dataclasses.replace(checks.CONFIG, total_steps=300, replay_size=250)
HOW = {"strategy": "map", "devices": 1, "seeds": 3}  # six members, each compiled as in any batch


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
    assert_same_runs(done, together)
    returns, _ = evaluate_run(done)
    np.testing.assert_allclose(returns, together.metrics["eval_return"][:, -1], rtol=1e-5)
    assert (whole / "learning_curve.png").stat().st_size > 10_000


@pytest.mark.exact
@pytest.mark.parametrize("stop_after", [2, 4, 6])
def test_stopped_in_any_batch_it_goes_on_to_the_same_bits(
    whole, together, tmp_path, stop_after, monkeypatch
):
    """In the first one, between them, in the second. The epoch is compiled once."""
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
    assert len(epochs) == stop_after  # also at a batch's end: no other one is begun
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


def test_killed_before_the_second_batch_has_a_config_it_starts_that_one(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "batches" / "2")
    (folder / "batches" / "2").mkdir()
    (folder / "metrics.csv").unlink()
    assert resume(folder).completed
    assert_same_runs(load(folder), load(whole))


@pytest.mark.exact
def test_extended_it_is_configured_longer(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    longer = tmp_path / "longer"
    run(Config(**(vars(CONFIG) | {"total_steps": 400})), GRID, directory=longer, **HOW)
    done = resume(folder, extend_to=400)
    assert read_config(folder).config.total_steps == 400
    assert_same_runs(done, load(longer))


RATES = np.array([1e30, 3e-4])  # of the first three members, and of the others
DIVERGING = Hyperparams(critic_lr=RATES, actor_lr=RATES)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches") / "diverged"
    told = []
    done = run(
        *(CONFIG, DIVERGING),
        members_per_batch=3,
        directory=folder,
        checkpoint_every=1,
        on_epoch=[lambda step, metrics: told.append((step, metrics["member"].tolist()))],
        **HOW,
    )
    return folder, done, told


def test_a_batch_that_diverges_ends_and_the_next_one_is_trained(diverged):
    """Its members are known by their place in the whole population."""
    folder, done, told = diverged
    beside = run(CONFIG, DIVERGING, **HOW)
    (when,) = {d.epoch for d in done.diverged}
    assert when < 3
    for other in (done, load(folder)):
        assert other.completed
        assert other.diverged == beside.diverged
        assert [d.member for d in other.diverged] == [0, 1, 2]
        assert other.epochs.tolist() == [when + 1] * 3 + [4] * 3
        for name, x in beside.metrics.items():
            np.testing.assert_array_equal(other.metrics[name][3:], x[3:])
            np.testing.assert_array_equal(other.metrics[name][:3, : when + 1], x[:3, : when + 1])
        assert np.isnan(other.metrics["eval_return"][:3, when + 1 :]).all()
    steps = [100 + 50 * i for i in range(1, 5)]
    first = [(step, [0, 1, 2]) for step in steps[: when + 1]]
    assert told == first + [(step, [3, 4, 5]) for step in steps]
    assert checkpoints.epochs(folder / "batches" / "1") == [when + 1]
    assert checkpoints.epochs(folder / "batches" / "2") == [3, 4]


def test_a_diverged_batch_is_finished(diverged, tmp_path, capsys):
    folder = Path(shutil.copytree(diverged[0], tmp_path / "run"))
    assert main(["resume", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("seed" in line and "diverged" in line for line in lines) == 3
    (entry, other) = read([folder])
    assert np.isnan(entry.scores).all()
    assert np.isfinite(other.scores).all()
    assert len(other.steps) == 4


def test_where_divergence_stops_a_run_it_can_go_on(diverged, tmp_path):
    folder, on_nan = tmp_path / "run", "stop"
    done = run(CONFIG, DIVERGING, members_per_batch=3, directory=folder, on_nan=on_nan, **HOW)
    assert not done.completed
    assert len(done.members) == 3
    assert resume(folder).completed
    assert (folder / "metrics.csv").read_bytes() == (diverged[0] / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """In the second batch, after one of its four epochs."""
    folder, epochs = tmp_path_factory.mktemp("batches") / "stopped", []
    done = run(
        *(CONFIG, GRID),
        members_per_batch=2,
        directory=folder,
        on_epoch=[lambda step, metrics: epochs.append(step)],
        should_stop=lambda: len(epochs) >= 5,
        **HOW,
    )
    return folder, done


def test_a_batch_that_was_stopped_is_not_one_that_diverged(stopped, together, caplog, capsys):
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


def test_an_unfinished_run_is_compared_where_it_is(stopped, tmp_path):
    folder = Path(shutil.copytree(stopped[0], tmp_path / "run"))
    (folder / "metrics.csv").unlink()  # it is made when a batch has ended
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


def test_resumed_it_is_told_how_far_all_members_are(stopped, tmp_path, capsys):
    folder = Path(shutil.copytree(stopped[0], tmp_path / "run"))
    assert main(["resume", str(folder), "--log-format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    done = [line["done"] for line in lines if line["event"] == "epoch"]
    assert done[0] == pytest.approx((2 * 300 + 2 * 200) / (6 * 300))
    assert done[-1] == 1
    assert (lines[-1]["completed"], lines[-1]["step"]) == (True, 300)


@pytest.mark.parametrize("lost", ["metrics.csv", "rows", "agents"])
def test_what_a_finished_batch_has_lost_is_made_anew(whole, tmp_path, lost, caplog):
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
    assert ("making it anew" in caplog.text) == (lost == "agents")
    assert table.read_bytes() == (whole / "batches" / "1" / "metrics.csv").read_bytes()
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert_same_runs(load(folder), load(whole))


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
def test_finished_batches_are_of_the_same_run(whole, tmp_path, changed):
    """Killed between two batches, and config.json edited."""
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "batches" / "2")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changed_in(content, changed)))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"config\.json is .*restore it, or train again"):
        resume(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 4, "config": {"env": "x"}, "versions": {}, "device": {}}']
)
def test_a_batch_with_a_damaged_config_is_named(whole, tmp_path, text):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    (folder / "batches" / "1" / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"batches/1/config\.json is damaged"):
        resume(folder)


def changed_in(content, changed):
    """With what `changed` has of a dictionary, or of each one in a list, the rest as it is."""

    def merge(old, new):
        if isinstance(new, dict):
            return old | new
        if isinstance(new, list) and isinstance(new[0], dict):
            return [a | b for a, b in zip(old, new, strict=True)]
        return new

    return {name: merge(content[name], new) for name, new in changed.items()}


def test_a_batch_is_no_run_of_its_own(whole):
    for use in load, resume:
        with pytest.raises(InputError, match=r"batches/1 is a batch of .*run: give that folder"):
            use(whole / "batches" / "1")


def test_what_is_wrong_in_a_batch_names_the_run(tmp_path, monkeypatch):
    from sacjax.runs import arrays, metrics_csv

    def full(*_):
        raise OSError(28, "No space left on device")

    how = {"members_per_batch": 2, "seeds": 3, "checkpoint_every": 1}
    for number, (where, name) in enumerate(
        [(metrics_csv.MetricsFile, "append"), (arrays, "write_part"), (arrays, "complete")]
    ):
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(where, name, full)
            with pytest.raises(RunError, match=f"make room, then `sacjax resume {out}`"):
                run(CONFIG, directory=out, **how)
    assert resume(out).completed
    (out / "batches" / "1" / "agents" / "0.npz").write_bytes(b"")
    with pytest.raises(InputError, match=f"damaged.*`sacjax resume {out}`, which makes it anew"):
        load(out)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 8.0}, "different whole numbers"),
        ({"seeds": np.int64(0)}, "different whole numbers"),
        ({"on_epoch": print}, r"on_epoch .* must be a list of callables"),
        ({"seeds": True}, "different whole numbers"),
        ({"on_epoch": [3]}, r"on_epoch .* must be a list of callables"),
        ({"should_stop": False}, r"should_stop \(False\) must be a callable"),
    ],
)
def test_what_is_no_list_is_refused_before_anything_is_done(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        run(CONFIG, directory=tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [0, -1, 2.5, True])
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
