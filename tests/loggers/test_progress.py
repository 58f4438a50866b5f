"""What people and machines are told of a run while it goes."""

import contextlib
import io
import json
import logging
import math
import os
import re
import sys
import termios
from types import ModuleType

import numpy as np
import pytest
from checks import CONFIG

from sacjax import run
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.loggers import JsonLines, ProgressBar, progress_bar
from sacjax.loggers.progress_bar import line
from sacjax.loggers.standing import Standing
from sacjax.types import InputError

COMMAND = [
    *("train", "Pendulum-v1", "--total-steps", "300", "--warmup-steps", "100", "--eval-every"),
    *("100", "--hidden", "8", "--batch-size", "8", "--eval-episodes", "2", "--seeds", "2"),
]


class Terminal(io.StringIO):
    """What is written to a terminal of 80 columns."""

    def __init__(self, descriptor):
        super().__init__()
        self._descriptor = descriptor

    def fileno(self):
        return self._descriptor

    def isatty(self):
        return True

    def frames(self):
        return [frame for frame in re.split(r"[\r\n]|\033\[K|\033\[A", self.getvalue()) if frame]


@pytest.fixture
def terminal():
    ends = os.openpty()
    termios.tcsetwinsize(ends[1], (24, 80))
    yield Terminal(ends[1])
    for end in ends:
        os.close(end)


def epoch(member, returns, seconds=2.0, diverged=False, next_checkpoint=math.nan, members=None):
    size = len(member)
    return {
        "member": np.array(member),
        "members": np.full(size, members or size),
        "seed": np.array(member),
        "eval_return": np.array(returns, np.float32)[:, None],
        "seconds": np.full(size, seconds),
        "diverged": np.full(size, diverged) & ~np.isfinite(returns),
        "next_checkpoint": np.full(size, next_checkpoint),
    }


def strict(text):
    def refuse(name):
        raise ValueError(name)

    return [json.loads(row, parse_constant=refuse) for row in text.splitlines()]


def test_the_live_line_says_what_people_want_to_know(terminal):
    with ProgressBar(CONFIG, file=terminal) as bar:
        assert terminal.frames() == ["compiling, then 150 steps to the first evaluation"]
        bar(150, epoch([0, 1, 2], [-151.2, np.nan, -130.1], 2.0, True, 250.0))
    frame = terminal.frames()[-1]
    assert "150/500  IQM -141 [-151, -130]  1 diverged  75 grad/s  0:14 left  ckpt 4:10" in frame


def test_a_finished_line_says_how_long_it_took(terminal):
    bar = ProgressBar(CONFIG, file=terminal)  # closes itself
    bar(500, epoch([0], [1.5]))
    assert "100%|" in terminal.frames()[-1]
    assert "500/500  return 1.5  25 grad/s  in 0:00" in terminal.frames()[-1]


def test_of_a_run_without_an_epoch_nothing_stays_on_the_terminal(terminal):
    with ProgressBar(CONFIG, file=terminal):
        pass
    assert terminal.frames()[-1].isspace()
    assert terminal.getvalue().endswith("\r")


@pytest.mark.parametrize("size", [1.0, -999.4, 12345.678, -1e7])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("seconds", [0.001, 3.0, 5000.0])
def test_a_line_fits_in_80_columns(terminal, size, members, seconds):
    config = Config("Pendulum-v1", total_steps=1_000_000, warmup_steps=500, eval_every=500)
    with ProgressBar(config, file=terminal) as bar:
        bar(9_000, epoch(range(members), [size] * members, seconds, next_checkpoint=100 * seconds))
        bar(9_500, epoch(range(members), [np.nan] + [size] * (members - 1), seconds, True, 280.0))
    for frame in terminal.frames():
        assert len(frame) < 80
    assert "diverged" in frame
    assert "ckpt 4:40" in frame or size == -1e7  # what is cut is the end


def test_everything_diverged_is_no_nan_on_the_line():
    standing = Standing(CONFIG)(150, epoch([0, 1], [np.nan, np.nan], diverged=True))
    assert "2 diverged" in line(standing, 1.0)
    assert "nan" not in line(standing, 1.0)


def test_warnings_stand_above_the_line(terminal, monkeypatch, capsys):
    log = logging.getLogger("sacjax")
    monkeypatch.setattr(log, "propagate", False)  # as where nobody has set up logging
    with ProgressBar(CONFIG, file=terminal) as bar:
        bar(150, epoch([0], [1.0]))
        log.warning("member 3 diverged")
        bar(200, epoch([0], [1.0]))
    assert capsys.readouterr().err.splitlines()[-1].strip() == "member 3 diverged"
    assert log.handlers == []


def test_time_left_counts_what_is_left_and_not_what_was_done_before():
    standing = Standing(CONFIG)
    resumed = standing(400, epoch([0, 1], [1.0, 2.0], seconds=3.0))
    assert resumed["time_left"] == pytest.approx(6.0)  # two epochs
    assert resumed["done"] == pytest.approx(0.8)


def test_where_the_first_that_is_told_of_was_not_trained_the_pace_is_that_of_the_next():
    """A batch that has diverged as a whole is told of, in no time, when its run is gone on with."""
    standing = Standing(CONFIG)

    def told(step, seconds, member):
        reached = np.nan if np.isnan(seconds) else 1.0
        return standing(step, epoch([member], [reached], seconds, diverged=True, members=4))

    found = told(150, np.nan, 0)
    assert "left" not in line(found, 0.0)
    found = told(150, 2.0, 1)
    assert found["time_left"] == pytest.approx(2.0 / 50 * (4 * 500 - 300))
    assert "left" in line(found, 0.0)
    assert "left" in line(told(200, np.nan, 0), 0.0)


@pytest.mark.parametrize(
    ("x", "text"), [(999.7, "1k"), (999_700, "1M"), (950, "950"), (1.5, "1.5")]
)
def test_counts_have_the_unit_of_what_they_are_rounded_to(x, text):
    assert progress_bar._count(x) == text


def test_batches_of_members_add_up():
    standing = Standing(CONFIG)
    first = standing(500, epoch([0, 1], [1.0, 2.0], seconds=3.0, members=4))
    assert (first["done"], first["members"], first["told"]) == (0.5, 4, 2)
    assert standing(500, epoch([2, 3], [1.0, 2.0], members=4))["done"] == 1


def test_json_lines_are_all_that_stdout_gets(tmp_path, capsys):
    out = tmp_path / "run"
    assert main([*COMMAND, "--out", str(out), "--log-format", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    *epochs, end = strict(captured.out)
    assert [e["event"] for e in epochs] == ["epoch", "epoch"]
    assert [e["step"] for e in epochs] == [200, 300]
    assert set(epochs[0]) == {
        *("event", "step", "total_steps", "done", "members", "told", "diverged", "return_iqm"),
        *("return_min", "return_max", "gradient_steps_per_second", "seconds", "time_left"),
        "next_checkpoint",
    }
    assert epochs[0]["next_checkpoint"] == pytest.approx(epochs[0]["seconds"])  # the run's end
    assert epochs[1]["time_left"] == 0
    assert end["event"] == "end"
    assert end["completed"]
    assert end["directory"] == str(out)
    assert end["files"] == sorted(path.name for path in out.iterdir())
    assert [m["seed"] for m in end["members"]] == [0, 1]
    returns = [m["return"] for m in end["members"]]
    assert (min(returns), max(returns)) == pytest.approx(
        (epochs[-1]["return_min"], epochs[-1]["return_max"])
    )


def test_json_has_null_for_nan_and_events_for_warnings_and_errors():
    file = io.StringIO()
    with contextlib.suppress(InputError), JsonLines(CONFIG, file=file) as tell:
        tell(150, epoch([0], [np.nan], diverged=True))
        logging.getLogger("sacjax").warning("member %d diverged", 0)
        raise InputError("use another")
    told, warning, error = strict(file.getvalue())
    assert told["return_iqm"] is None
    assert told["next_checkpoint"] is None
    assert told["diverged"] == 1
    assert warning == {"event": "warning", "message": "member 0 diverged"}
    assert error == {"event": "error", "message": "use another"}
    assert logging.getLogger("sacjax").handlers == []


class Gone(io.StringIO):
    """Where nobody reads any longer after `lines` writes."""

    def __init__(self, writes):
        super().__init__()
        self.left = writes

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_where_json_lines_end_that_is_said_once_and_warnings_go_to_stderr(monkeypatch, capsys):
    log = logging.getLogger("sacjax")
    monkeypatch.setattr(log, "propagate", False)  # as where nobody has set up logging
    file = Gone(2)  # a line and its end
    with contextlib.suppress(InputError), JsonLines(CONFIG, file=file) as tell:
        tell(150, epoch([0], [1.0]))
        log.warning("member 3 diverged")
        tell(200, epoch([0], [1.0]))
        log.warning("member 4 diverged")
        raise InputError("use another")
    assert [x["event"] for x in strict(file.getvalue())] == ["epoch"]
    assert capsys.readouterr().err.splitlines() == [
        "JSON lines end here, the run goes on: [Errno 32] Broken pipe",
        "member 3 diverged",
        "member 4 diverged",
    ]
    assert log.handlers == []


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_bar_that_nobody_sees_any_longer_costs_nothing(writes):
    file = Gone(100)
    with ProgressBar(CONFIG, file=file, show=True) as bar:
        file.left = writes
        for step in (150, 200):
            bar(step, epoch([0], [1.0]))


def test_the_bar_shows_in_a_notebook_unless_told_not_to(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", ModuleType("ipykernel.zmqshell"))
    for show in (None, True, False):
        file = io.StringIO()
        with ProgressBar(CONFIG, file=file, show=show) as bar:
            bar(150, epoch([0], [1.5]))
        assert ("150/500  return 1.5" in file.getvalue()) == (show is not False)
        assert (file.getvalue() == "") == (show is False)


def test_the_bar_is_quiet_where_stderr_is_no_terminal(tmp_path, capsys):
    for format in ("auto", "none", "bar"):
        out = str(tmp_path / format)
        assert main([*COMMAND, "--out", out, "--log-format", format]) == 0
        captured = capsys.readouterr()
        assert "IQM" in captured.out  # the table
        assert ("grad/s" in captured.err) == (format == "bar")
        assert (captured.err == "") == (format != "bar")


def test_callables_are_told_who_is_who_and_when_the_next_checkpoint_comes(tmp_path):
    told = []
    hp = Hyperparams(tau=np.array([0.005, 0.02]))
    for every in (3, 0, None):
        options = {"directory": tmp_path / str(every), "checkpoint_every": every}
        run(CONFIG, hp, seeds=2, on_epoch=[lambda *x: told.append(x)], **options)
    run(CONFIG, hp, seeds=2, on_epoch=[lambda *x: told.append(x)])
    step, metrics = told[0]
    assert step == 150
    np.testing.assert_array_equal(metrics["member"], range(4))
    np.testing.assert_array_equal(metrics["members"], [4] * 4)
    np.testing.assert_array_equal(metrics["seed"], [0, 1, 0, 1])
    np.testing.assert_array_equal(metrics["tau"], [0.005, 0.005, 0.02, 0.02])
    assert not metrics["diverged"].any()
    ahead = [(x["next_checkpoint"] / x["seconds"])[0] for _, x in told]
    np.testing.assert_allclose(ahead[:8], [2, 1, 3, 2, 1, 2, 1, 0])  # every third, and the end
    np.testing.assert_allclose(ahead[16:24], range(7, -1, -1))  # the end comes before five minutes
    assert np.isnan([*ahead[8:16], *ahead[24:]]).all()
