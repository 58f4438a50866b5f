"""Test that TensorBoard and W&B show the numbers of metrics.csv and never stop a run."""

import contextlib
import errno
import json
import os
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
from tensorboardX.record_writer import RecordWriter, masked_crc32c
from wandb.proto import wandb_internal_pb2

from sacjax import resume, run, statistics
from sacjax.cli.main import main
from sacjax.loggers import ProgressBar, TensorBoard, WandB
from sacjax.loggers.summary import batch_name, scalars
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
    """Train a run with TensorBoard, W&B and a checkpoint after each epoch. Return its folder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with TensorBoard(folder) as tensorboard, WandB(folder) as service:
        loggers, every = [tensorboard, service], {"checkpoint_every": 1, "keep": 100}
        run(CONFIG, GRID, seeds=2, directory=folder, on_epoch=loggers, **every)
    return folder


@pytest.fixture
def killed(whole, tmp_path):
    """Copy the run and remove files, as if the run was killed after epoch 6.

    The last checkpoint is the checkpoint of epoch 3.
    """
    folder = Path(shutil.copytree(whole, tmp_path / "killed", symlinks=True))
    for epoch in checkpoints.epochs(folder):
        if epoch > 3:
            shutil.rmtree(folder / "checkpoints" / str(epoch))
    (file,) = folder.glob("tensorboard/events*")  # the event of epoch 6 is incomplete
    file.write_bytes(b"".join(records(file)[0][:7]) + b"\x40\x00\x00")
    return folder


def records(file):
    """Return the complete records of a TFRecord file as bytes and as events."""
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
    """Return {tag: {step: value}} as TensorBoard shows it. A START event hides later steps."""
    found: dict[str, dict[int, float]] = {}
    for event in events_of(folder):
        if event.session_log.status == event_pb2.SessionLog.START:
            found = {
                tag: {step: x for step, x in values.items() if step < event.step}
                for tag, values in found.items()
            }
        for value in event.summary.value:
            assert event.step not in found.setdefault(value.tag, {})  # each value once
            found[value.tag][event.step] = value.simple_value
    return found


def written(file, rows):
    """Wait until W&B has written `rows` rows, then return `history_of(file)`."""
    end = time.monotonic() + 60
    while len(found := history_of(file)[0]) < rows and time.monotonic() < end:
        time.sleep(0.2)
    assert len(found) == rows
    return history_of(file)


def history_of(file):
    """Return the rows and settings of a .wandb file.

    The file contains protobuf records in LevelDB's log format.
    """
    data, part = file.read_bytes(), b""
    rows, settings, at = [], {}, 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the end of a block
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if at + 7 + size > len(data):  # the record is incomplete
            break
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
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
    """Return the numbers of metrics.csv as {name: {metric: {step: value}}}."""
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
    got = series_of(folder / "tensorboard")
    tags = {f"{metric}/{name}" for name, table in want.items() for metric in table}
    assert got.keys() == tags
    for name in NAMES:
        for metric, values in want[name].items():
            assert got[f"{metric}/{name}"].keys() == values.keys()
            for step, x in values.items():  # event files hold float32
                np.testing.assert_allclose(got[f"{metric}/{name}"][step], x, rtol=1e-6)
    for name in ("iqm", "min", "max"):
        for metric in ("eval_return", "critic_loss", "gradient_steps"):
            shown, values = got[f"{metric}/{name}"], want[name][metric]
            assert shown.keys() == values.keys()
            np.testing.assert_allclose(list(shown.values()), list(values.values()), rtol=1e-5)


def test_tensorboard_shows_the_numbers_of_metrics_csv(whole):
    assert_shown(whole)


def test_resume_hides_tensorboard_values_logged_after_the_checkpoint(whole, killed):
    """The last event in the file of the killed run is incomplete."""
    with TensorBoard(killed) as tensorboard:
        resume(killed, on_epoch=[tensorboard])
    raw = [event.step for event in events_of(killed / "tensorboard")]
    assert len(raw) > len(set(raw)) + 2
    assert_shown(killed)
    assert (killed / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_wandb_offline_files_contain_the_metrics_and_the_config(whole):
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


def test_resume_continues_the_same_run_in_wandb(whole, killed):
    with WandB(killed) as service:
        resume(killed, on_epoch=[service])
    note = json.loads((killed / "wandb.json").read_text())
    assert note == json.loads((whole / "wandb.json").read_text())
    files = sorted(killed.glob(f"wandb/offline-run-*-{note['id']}/*.wandb"))
    assert len(files) == 2
    rows, _ = written(files[1], 5)
    assert [row["env_steps"] for row in rows] == list(range(300, 501, 50))
    again, _ = written(files[0], 8)
    keys = [key for key in rows[0] if "/" in key]
    assert [[row[k] for k in keys] for row in rows] == [[row[k] for k in keys] for row in again[3:]]


def test_wandb_receives_env_steps_as_x_axis_and_the_exit_code(tmp_path, monkeypatch):
    calls = []

    class Service:
        def define_metric(self, name, step_metric):
            calls.append(("define_metric", name, step_metric))

        def log(self, row):
            calls.append(("log", row))

        def finish(self, exit_code):
            calls.append(("finish", exit_code))

    def init(**options):
        calls.append(("init", options["id"], options["resume"]))
        return Service()

    monkeypatch.setattr(wandb, "init", init)
    for kind in (None, InterruptedError):
        with contextlib.suppress(InterruptedError), WandB(tmp_path) as service:
            service(10, epoch([0], q=[1.5]))
            if kind:
                raise kind
    id = json.loads((tmp_path / "wandb.json").read_text())["id"]
    keys = {f"q/{name}": 1.5 for name in ("seed_0", "iqm", "min", "max")}
    steps = [
        ("init", id, "allow"),
        ("define_metric", "*", "env_steps"),
        ("log", {"env_steps": 10} | keys),
    ]
    assert calls == [*steps, ("finish", 0), *steps, ("finish", 1)]


def test_a_failing_logger_warns_once_and_does_not_stop_the_run(tmp_path, caplog, monkeypatch):
    finished = []

    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(wandb.Run, "log", fail)
    monkeypatch.setattr(wandb.Run, "finish", lambda run, exit_code: finished.append(exit_code))
    (tmp_path / "tb").mkdir()
    (tmp_path / "tb" / "tensorboard").write_text("a file where the folder belongs")
    with WandB(tmp_path / "wb") as service, TensorBoard(tmp_path / "tb") as tensorboard:
        done = run(CONFIG, seeds=1, on_epoch=[service, tensorboard])
    assert done.completed
    messages = [record.message for record in caplog.records if record.name == "sacjax"]
    assert [message.split(",")[0] for message in messages] == ["WandB failed", "TensorBoard failed"]
    assert finished == [0]


def test_tensorboard_files_are_closed_without_a_with_statement(tmp_path):
    tensorboard, open_before = TensorBoard(tmp_path), len(os.listdir("/proc/self/fd"))
    for member in (0, 1):
        tensorboard(10, epoch([member], members=2, q=[1]))
        assert len(os.listdir("/proc/self/fd")) == open_before + 1  # the current batch's file
    del tensorboard
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_run_continues_without_tensorboard_if_the_disk_is_full(tmp_path, caplog, monkeypatch):
    """tensorboardX's SummaryWriter would wait forever for its thread, which has ended."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with TensorBoard(tmp_path) as tensorboard:
        tensorboard(10, epoch([0], q=[1]))
        monkeypatch.setattr(RecordWriter, "write", fail)
        for step in range(20, 1000, 10):
            tensorboard(step, epoch([0], q=[1]))
    assert [record.message for record in caplog.records] == [
        "TensorBoard failed, the run continues: OSError: [Errno 28] No space left on device"
    ]
    assert series_of(tmp_path / "tensorboard")["q/seed_0"] == {10: 1}


def test_wandb_writes_offline_files_if_its_server_is_unreachable(tmp_path, caplog, monkeypatch):
    init = wandb.init

    def unreachable(**options):
        if options.get("mode") != "offline":
            raise wandb.errors.CommError("timed out")
        return init(**options)

    monkeypatch.setattr(wandb, "init", unreachable)
    with WandB(tmp_path) as service:
        run(CONFIG, seeds=1, on_epoch=[service])
    assert "W&B cannot be reached" in caplog.text
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    written(file, 8)


@pytest.mark.parametrize("flag", ["tensorboard", "wandb"])
def test_a_missing_logger_package_raises_an_input_error(flag, tmp_path, monkeypatch, capsys):
    module = {"tensorboard": "tensorboardX.event_file_writer"}.get(flag, flag)
    monkeypatch.setitem(sys.modules, module, None)
    out = tmp_path / "run"
    assert main([*COMMAND, "--out", str(out), f"--{flag}"]) == 2
    assert f"pip install 'sacjax[{flag}]'" in capsys.readouterr().err
    assert not out.exists()


def test_wandb_without_an_api_key_raises_an_input_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    wandb.teardown()  # wandb reads the mode when it starts
    assert main([*COMMAND, "--out", str(tmp_path / "run"), "--wandb"]) == 2
    assert "WANDB_MODE=offline" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    wandb.teardown()


@pytest.mark.processes
def test_resume_continues_the_logs_of_tensorboard_and_wandb(tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--tensorboard", "--wandb", "--wandb-project", "mine"]
    assert main([*COMMAND, "--out", str(out), *flags]) == 0
    assert main(["resume", str(out), "--extend-to", "700"]) == 0
    printed = capsys.readouterr()
    assert f"{out}/tensorboard/" in printed.out
    assert "--no-tensorboard, --no-wandb drops them" in printed.err
    assert "will not be updated" not in printed.err
    (line,) = {x.strip() for x in printed.out.splitlines() if x.startswith("  tensorboard")}
    assert line.split("  ")[0] == f"tensorboard --logdir {out}/tensorboard"
    shown = series_of(out / "tensorboard")["eval_return/seed_0"]
    assert list(shown) == [300, 500, 700]
    assert json.loads((out / "wandb.json").read_text())["project"] == "mine"
    assert main(["resume", str(out), "--no-tensorboard", "--wandb", "--extend-to", "900"]) == 0
    printed = capsys.readouterr()
    assert "continuing the run's loggers" not in printed.err  # both are typed
    assert "will not be updated" not in printed.err
    assert "tensorboard --logdir" not in printed.out
    assert json.loads((out / "config.json").read_text())["options"]["loggers"] == ["wandb"]
    assert json.loads((out / "wandb.json").read_text())["project"] == "mine"
    assert list(series_of(out / "tensorboard")["eval_return/seed_0"]) == [300, 500, 700]


def test_resume_warns_about_loggers_that_config_json_does_not_list(whole, tmp_path, capsys):
    out = Path(shutil.copytree(whole, tmp_path / "run", symlinks=True))
    content = json.loads((out / "config.json").read_text())
    assert content["options"].pop("loggers") == ["tensorboard", "wandb"]
    (out / "config.json").write_text(json.dumps(content))
    assert main(["resume", str(out)]) == 0
    warnings = capsys.readouterr().err
    for name, flag in ("tensorboard", "--tensorboard"), ("wandb.json", "--wandb"):
        assert f"{out / name} is from an earlier session" in warnings
        assert f"pass {flag} to continue it" in warnings


def epoch(member, members=None, **metrics):
    size = len(member)
    return {
        "member": np.array(member),
        "members": np.full(size, members or size),
        "total_steps": np.full(size, CONFIG.total_steps),
        "eval_every": np.full(size, CONFIG.eval_every),
        "updates_per_epoch": np.full(size, CONFIG.updates_per_epoch),
        "seed": np.array(member),
        "seconds": np.ones(size),
        "diverged": np.zeros(size, bool),
        "next_checkpoint": np.full(size, np.nan),
        **{name: np.array(x, np.float32) for name, x in metrics.items()},
    }


def by_name(found, name):
    return {tag.split("/")[0]: x for tag, x in found.items() if tag.split("/")[1] == name}


def test_logged_statistics_use_only_finite_values():
    nan, inf = np.nan, np.inf
    found = scalars(epoch([0, 1, 2], eval_return=[[1, 3], [nan, nan], [4, 4]], q=[1, inf, 2]))
    assert by_name(found, "seed_0") == {"eval_return": 2, "eval_return_std": 1, "q": 1}
    assert by_name(found, "seed_1") == {"q": inf}  # NaN (no data) is left out, inf is not
    assert by_name(found, "iqm") == {"eval_return": 3, "eval_return_std": 0.5, "q": 1.5}
    assert by_name(found, "min")["q"] == 1
    assert by_name(found, "max")["q"] == 2
    assert scalars(epoch([0], eval_return=[[nan]])) == {}


def test_tensorboard_tags_contain_the_swept_setting():
    found = scalars(epoch([0, 1], q=[1, 2]) | {"tau": np.array([0.005, 0.02])})
    assert {tag for tag in found if "seed" in tag} == {"q/seed_0_tau_0.005", "q/seed_1_tau_0.02"}


def test_each_batch_is_logged_with_its_own_name_and_statistics():
    assert batch_name(epoch([0, 1, 2])) == ""
    assert batch_name(epoch([2, 3], 6)) == "members_2_3"
    assert by_name(scalars(epoch([0, 1], 3, q=[1, 2])), "max") == {"q": 2}
    assert by_name(scalars(epoch([2], 3, q=[6])), "iqm") == {"q": 6}


@pytest.mark.processes
def test_a_resumed_run_in_batches_logs_the_same_as_an_uninterrupted_run(tmp_path):
    """The run stops in the second of three batches, after 4 of 8 epochs."""
    whole, killed, epochs = tmp_path / "whole", tmp_path / "killed", []
    how = {"seeds": 3, "members_per_batch": 1, "checkpoint_every": 1}
    with TensorBoard(whole) as tensorboard, WandB(whole) as service:
        loggers = [tensorboard, service, ProgressBar(show=False)]
        run(CONFIG, directory=whole, on_epoch=loggers, **how)
    with TensorBoard(killed) as tensorboard, WandB(killed) as service:
        loggers = [tensorboard, service, lambda step, metrics: epochs.append(step)]
        stop = {"should_stop": lambda: len(epochs) == 12}
        run(CONFIG, directory=killed, on_epoch=loggers, **stop, **how)
    with TensorBoard(killed) as tensorboard, WandB(killed) as service:
        assert resume(killed, on_epoch=[tensorboard, service]).completed
    batches = ["members_0_0", "members_1_1", "members_2_2"]
    assert sorted(path.name for path in (whole / "tensorboard").iterdir()) == batches
    for member, batch in enumerate(batches):
        want, got = (series_of(folder / "tensorboard" / batch) for folder in (whole, killed))
        assert list(want[f"eval_return/seed_{member}"]) == list(range(150, 501, 50))
        assert want.keys() == got.keys()
        for metric, values in want.items():
            assert got[metric] == pytest.approx(values, rel=1e-5)
    (file,) = whole.glob("wandb/offline-run-*/*.wandb")
    files = sorted(killed.glob("wandb/offline-run-*/*.wandb"))
    rows = [row for f, n in zip(files, (12, 12), strict=True) for row in written(f, n)[0]]
    for row, other in zip(written(file, 24)[0], rows, strict=True):
        assert row["env_steps"] == other["env_steps"]
        assert {k for k in row if "/" in k} == {k for k in other if "/" in k}
