"""TensorBoard and W&B show the numbers of metrics.csv, and never cost a run anything."""

import json
import shutil
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wandb
from checks import CONFIG, GRID
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c
from wandb.proto import wandb_internal_pb2

from sacjax import resume, run, statistics
from sacjax.cli.main import main
from sacjax.loggers import ProgressBar, TensorBoard, WandB
from sacjax.loggers.series import Series
from sacjax.runs import checkpoints
from sacjax.runs.metrics_csv import read_metrics

NAMES = ["seed_0_tau_0.005", "seed_1_tau_0.005", "seed_0_tau_0.02", "seed_1_tau_0.02"]
COMMAND = [
    *("train", "Pendulum-v1", "--seeds", "1", "--hidden", "8", "--total-steps", "500"),
    *("--warmup-steps", "100", "--eval-every", "200", "--batch-size", "8", "--eval-episodes", "2"),
]


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        yield
        wandb.teardown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that both have watched, with a checkpoint after each epoch, all of them kept."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with TensorBoard(folder) as tensorboard, WandB(folder) as service:
        tell = [tensorboard, service]
        run(CONFIG, GRID, seeds=2, directory=folder, checkpoint_every=1, keep=100, on_epoch=tell)
    return folder


@pytest.fixture
def torso(whole, tmp_path):
    """What a kill after the sixth epoch, with a checkpoint of the third, leaves."""
    folder = Path(shutil.copytree(whole, tmp_path / "torso", symlinks=True))
    for epoch in checkpoints.epochs(folder):
        if epoch > 3:
            shutil.rmtree(folder / "checkpoints" / str(epoch))
    for file in folder.glob("tensorboard/*/events*"):  # the sixth epoch's event is torn
        file.write_bytes(b"".join(records(file)[0][:8]) + b"\x40\x00\x00")
    return folder


def records(file):
    """A TFRecord file's whole records, raw, and the events in them."""
    data, raw, events = file.read_bytes(), [], []
    while len(data) >= 12:
        size, check = struct.unpack("<QI", data[:12])
        assert check == masked_crc32c(data[:8])
        body = data[12 : 12 + size]
        assert struct.unpack("<I", data[12 + size : 16 + size])[0] == masked_crc32c(body)
        raw.append(data[: 16 + size])
        events.append(event_pb2.Event.FromString(body))
        data = data[16 + size :]
    return raw, events


def events_of(folder):
    return [event for file in sorted(folder.glob("events*")) for event in records(file)[1]]


def series_of(folder):
    """metric -> step -> value, as TensorBoard shows them: a start voids what is not before it."""
    found: dict[str, dict[int, float]] = {}
    for event in events_of(folder):
        if event.session_log.status == event_pb2.SessionLog.START:
            found = {
                metric: {step: x for step, x in values.items() if step < event.step}
                for metric, values in found.items()
            }
        for value in event.summary.value:
            assert event.step not in found.setdefault(value.tag, {})  # nothing twice
            found[value.tag][event.step] = value.simple_value
    return found


def written(file, rows):
    """history_of a file that a process of W&B's own may still be writing, after finish() too."""
    end = time.monotonic() + 60
    while len(found := history_of(file)[0]) < rows and time.monotonic() < end:
        time.sleep(0.2)
    assert len(found) == rows
    return history_of(file)


def history_of(file):
    """The rows of a .wandb file: a log of LevelDB's format, of records that are protobufs."""
    data, part = file.read_bytes(), b""
    rows, settings, at = [], {}, 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the end of a block
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + size > len(data):  # not all of it is written yet
            break
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record.FromString(part)
            part = b""
            if record.WhichOneof("record_type") == "history":
                rows.append(
                    {
                        i.key or i.nested_key[0]: json.loads(i.value_json)
                        for i in record.history.item
                    }
                )
            for item in record.run.config.update:
                settings[item.key] = json.loads(item.value_json)
    return rows, settings


def expected(folder):
    """name -> metric -> step -> value, from metrics.csv."""
    _, metrics = read_metrics(folder / "metrics.csv")
    steps = metrics.pop("env_steps")[0].astype(int)
    over = {"iqm": statistics.iqm, "min": lambda x: x.min(0), "max": lambda x: x.max(0)}
    tables = {name: {k: x[i] for k, x in metrics.items()} for i, name in enumerate(NAMES)}
    tables |= {name: {k: f(x) for k, x in metrics.items()} for name, f in over.items()}
    return {
        name: {
            metric: {s: v for s, v in zip(steps, x, strict=True) if v == v}
            for metric, x in table.items()
            if not np.isnan(x).all()
        }
        for name, table in tables.items()
    }


def assert_shown(folder):
    want = expected(folder)
    assert {path.name for path in (folder / "tensorboard").iterdir()} == set(want)
    for name in NAMES:
        got = series_of(folder / "tensorboard" / name)
        assert got.keys() == want[name].keys()
        for metric, values in want[name].items():
            assert got[metric].keys() == values.keys()
            for step, x in values.items():  # event files hold float32
                np.testing.assert_allclose(got[metric][step], x, rtol=1e-6)
    for name in ("iqm", "min", "max"):
        got = series_of(folder / "tensorboard" / name)
        for metric in ("eval_return", "critic_loss", "gradient_steps"):
            np.testing.assert_allclose(
                list(got[metric].values()), list(want[name][metric].values()), rtol=1e-5
            )


def test_tensorboard_shows_metrics_csv(whole):
    assert_shown(whole)


def test_what_was_logged_past_the_checkpoint_is_purged(whole, torso):
    """Also where a kill has torn an event."""
    with TensorBoard(torso) as tensorboard:
        resume(torso, on_epoch=[tensorboard])
    raw = [event.step for event in events_of(torso / "tensorboard" / NAMES[0])]
    assert len(raw) > len(set(raw)) + 2
    assert_shown(torso)
    assert (torso / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_wandb_offline_holds_metrics_csv_and_the_config(whole):
    (file,) = whole.glob("wandb/offline-run-*/*.wandb")
    rows, settings = written(file, 8)
    assert [row["env_steps"] for row in rows] == list(range(150, 501, 50))
    assert settings["config"] == json.loads((whole / "config.json").read_text())["config"]
    assert settings["seeds"] == [0, 1]
    want = expected(whole)
    for name, table in want.items():
        for metric in ("eval_return", "critic_loss", "alpha"):
            got = [row[f"{metric}/{name}"] for row in rows]
            np.testing.assert_allclose(got, list(table[metric].values()), rtol=1e-5)


def test_wandb_goes_on_with_its_run(whole, torso):
    with WandB(torso) as service:
        resume(torso, on_epoch=[service])
    note = json.loads((torso / "wandb.json").read_text())
    assert note == json.loads((whole / "wandb.json").read_text())
    files = sorted(torso.glob(f"wandb/offline-run-*-{note['id']}/*.wandb"))
    assert len(files) == 2
    rows, _ = written(files[1], 5)
    assert [row["_step"] for row in rows] == list(range(300, 501, 50))  # env_steps again
    again, _ = written(files[0], 8)
    keys = [key for key in rows[0] if "/" in key]
    assert [[row[k] for k in keys] for row in rows] == [[row[k] for k in keys] for row in again[3:]]


def test_a_failing_service_is_said_once_and_costs_nothing(tmp_path, caplog, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(wandb.Run, "log", fail)
    (tmp_path / "tb").mkdir()
    (tmp_path / "tb" / "tensorboard").write_text("a file where the folder belongs")
    with WandB(tmp_path / "wb") as service, TensorBoard(tmp_path / "tb") as tensorboard:
        done = run(CONFIG, seeds=1, on_epoch=[service, tensorboard])
    assert done.completed
    said = [record.message for record in caplog.records if record.name == "sacjax"]
    assert [message.split(",")[0] for message in said] == [
        "W&B failed",
        "TensorBoard's files end here",
    ]


def test_wandb_not_to_be_reached_is_written_for_later(tmp_path, caplog, monkeypatch):
    init = wandb.init

    def unreachable(**options):
        if options.get("mode") != "offline":
            raise wandb.errors.CommError("timed out")
        return init(**options)

    monkeypatch.setattr(wandb, "init", unreachable)
    with WandB(tmp_path) as service:
        run(CONFIG, seeds=1, on_epoch=[service])
    assert "not to be reached" in caplog.text
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    written(file, 8)


@pytest.mark.parametrize("flag", ["tensorboard", "wandb"])
def test_a_missing_package_is_an_input_error(flag, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(flag, flag), None)
    out = tmp_path / "run"
    assert main([*COMMAND, "--out", str(out), f"--{flag}"]) == 2
    assert f"pip install 'sacjax[{flag}]'" in capsys.readouterr().err
    assert not out.exists()


def test_wandb_without_a_key_is_an_input_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    wandb.teardown()  # it keeps the mode that it was started with
    assert main([*COMMAND, "--out", str(tmp_path / "run"), "--wandb"]) == 2
    assert "WANDB_MODE=offline" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    wandb.teardown()


@pytest.mark.processes
def test_the_command_line_logs_where_it_resumes(tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--tensorboard", "--wandb", "--wandb-project", "mine"]
    assert main([*COMMAND, "--out", str(out), *flags]) == 0
    assert main(["resume", str(out), "--extend-to", "700", *flags]) == 0
    printed = capsys.readouterr()
    assert f"{out}/tensorboard/" in printed.out
    assert "not gone on with" not in printed.err
    shown = series_of(out / "tensorboard" / "seed_0")["eval_return"]
    assert list(shown) == [300, 500, 700]
    assert json.loads((out / "wandb.json").read_text())["project"] == "mine"
    assert main(["resume", str(out)]) == 0
    said = capsys.readouterr().err
    for name, flag in ("tensorboard", "--tensorboard"), ("wandb.json", "--wandb"):
        assert f"{out / name} is of before, and is not gone on with: {flag} does that" in said


def epoch(member, members=None, **metrics):
    size = len(member)
    return {
        "member": np.array(member),
        "members": np.full(size, members or size),
        "seed": np.array(member),
        "seconds": np.ones(size),
        "diverged": np.zeros(size, bool),
        "next_checkpoint": np.full(size, np.nan),
        **{name: np.array(x, np.float32) for name, x in metrics.items()},
    }


def test_what_is_not_finite_counts_for_nobody_else():
    nan, inf = np.nan, np.inf
    found = Series()(10, epoch([0, 1, 2], eval_return=[[1, 3], [nan, nan], [4, 4]], q=[1, inf, 2]))
    assert found["seed_0"] == {"eval_return": 2, "eval_return_std": 1, "q": 1}
    assert found["seed_1"] == {"q": inf}  # no data is not written, infinite data is
    assert found["iqm"] == {"eval_return": 3, "eval_return_std": 0.5, "q": 1.5}
    assert found["min"]["q"] == 1
    assert found["max"]["q"] == 2
    nobody = Series()(10, epoch([0], eval_return=[[nan]]))
    assert nobody == {"seed_0": {}, "iqm": {}, "min": {}, "max": {}}


def test_batches_of_members_are_aggregated_when_all_are_there():
    series = Series()
    assert set(series(10, epoch([0, 1], 3, q=[1, 2]))) == {"seed_0", "seed_1"}
    assert set(series(20, epoch([0, 1], 3, q=[3, 4]))) == {"seed_0", "seed_1"}
    found = series(10, epoch([2], 3, q=[6]))
    assert found["max"] == {"q": 6}
    assert found["iqm"] == {"q": 3}
    assert series(20, epoch([2], 3, q=[5]))["min"] == {"q": 3}


@pytest.mark.processes
def test_a_run_in_batches_is_resumed_as_if_it_had_not_been_stopped(tmp_path):
    """Stopped in the second of three batches, after four of eight epochs."""
    whole, torso, epochs = tmp_path / "whole", tmp_path / "torso", []
    how = {"seeds": 3, "members_per_batch": 1, "checkpoint_every": 1}
    with TensorBoard(whole) as tensorboard, WandB(whole) as service:
        tell = [tensorboard, service, ProgressBar(CONFIG, show=False)]
        run(CONFIG, directory=whole, on_epoch=tell, **how)
    with TensorBoard(torso) as tensorboard, WandB(torso) as service:
        tell = [tensorboard, service, lambda step, metrics: epochs.append(step)]
        run(CONFIG, directory=torso, on_epoch=tell, should_stop=lambda: len(epochs) == 12, **how)
    with TensorBoard(torso) as tensorboard, WandB(torso) as service:
        assert resume(torso, on_epoch=[tensorboard, service]).completed
    for name in ("seed_0", "seed_1", "seed_2", "iqm", "min", "max"):
        want, got = (series_of(folder / "tensorboard" / name) for folder in (whole, torso))
        assert want.keys() == got.keys()
        for metric, values in want.items():
            assert got[metric] == pytest.approx(values, rel=1e-5)
    (file,) = whole.glob("wandb/offline-run-*/*.wandb")
    files = sorted(torso.glob("wandb/offline-run-*/*.wandb"))
    rows = [row for f, n in zip(files, (12, 12), strict=True) for row in written(f, n)[0]]
    for row, other in zip(written(file, 24)[0], rows, strict=True):
        assert row["_step"] == other["_step"]
        assert {k for k in row if "/" in k} == {k for k in other if "/" in k}
