"""Test the progress bar and the JSON lines of a run."""

import contextlib
import io
import json
import logging
import math
import re
import sys

import numpy as np
import pytest
from checks import CONFIG

from sacjax import run
from sacjax.cli.main import main
from sacjax.config import Hyperparams
from sacjax.loggers import JsonLines, ProgressBar, progress_bar
from sacjax.loggers.progress_bar import format_line
from sacjax.loggers.summary import progress
from sacjax.types import InputError

COMMAND = [
    *("train", "Pendulum-v1", "--total-steps", "300", "--warmup-steps", "100", "--eval-every"),
    *("100", "--hidden", "8", "--batch-size", "8", "--eval-episodes", "2", "--seeds", "2"),
]


class Terminal(io.StringIO):
    """A terminal of 80 columns that records the text written to it."""

    def isatty(self):
        return True

    def frames(self):
        """Return each version of the progress line, without colors and without the bar."""
        text = re.sub(r"\033\[[\d;?]*[mlh]|[━╸╺]", "", self.getvalue())
        return [frame for frame in re.split(r"[\r\n]|\033\[\d*[A-K]", text) if frame]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def epoch(member, returns, seconds=2.0, diverged=False, next_checkpoint=math.nan, members=None):
    size = len(member)
    return {
        "member": np.array(member),
        "members": np.full(size, members or size),
        "total_steps": np.full(size, CONFIG.total_steps),
        "eval_every": np.full(size, CONFIG.eval_every),
        "updates_per_epoch": np.full(size, CONFIG.updates_per_epoch),
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


def test_the_progress_line_shows_the_return_speed_and_time(terminal):
    with ProgressBar(file=terminal) as bar:
        assert "compiling, then training to the first evaluation" in terminal.frames()[-1]
        bar(150, epoch([0, 1, 2], [-151.2, np.nan, -130.1], 2.0, True, 250.0))
    frame = terminal.frames()[-1]
    assert "150/500  IQM -141 [-151, -130]  1 diverged  75 grad/s  0:14 left  ckpt 4:10" in frame


def test_the_last_progress_line_shows_how_long_the_run_took(terminal):
    bar = ProgressBar(file=terminal)  # closes itself at the end of the run
    bar(500, epoch([0], [1.5]))
    assert terminal.getvalue().endswith("\n")
    assert "500/500  return 1.5  25 grad/s  in 0:00" in terminal.frames()[-1]


def test_the_progress_line_is_erased_if_no_epoch_finished(terminal):
    with ProgressBar(file=terminal):
        pass
    assert terminal.getvalue().endswith("\n\r\033[1A\033[2K")  # moves up to the line and erases it


def test_the_progress_bar_keeps_the_cursor_visible(terminal):
    """If the bar hid the cursor, a killed process could not show the cursor again."""
    with ProgressBar(file=terminal) as bar:
        bar(150, epoch([0], [1.0]))
    assert "\033[?25l" not in terminal.getvalue()


@pytest.mark.parametrize("size", [1.0, -999.4, 12345.678, -1e7])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("seconds", [0.001, 3.0, 5000.0])
def test_the_progress_line_fits_in_80_columns(terminal, size, members, seconds):
    large = {"total_steps": np.full(members, 1_000_000), "eval_every": np.full(members, 500)}
    large["updates_per_epoch"] = large["eval_every"]
    one = epoch(range(members), [size] * members, seconds, next_checkpoint=100 * seconds)
    other = epoch(range(members), [np.nan] + [size] * (members - 1), seconds, True, 280.0)
    with ProgressBar(file=terminal) as bar:
        bar(9_000, one | large)
        bar(9_500, other | large)
    for frame in terminal.frames():
        assert len(frame) <= 80
    assert "diverged" in frame
    assert "ckpt 4:40" in frame or size == -1e7  # this line is cut


@pytest.mark.parametrize("columns", [20, 50])
def test_a_narrow_terminal_cuts_the_end_of_the_progress_line(terminal, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with ProgressBar(file=terminal) as bar:
        bar(150, epoch([0, 1, 2], [-151.2, -140.0, -130.1], next_checkpoint=250.0))
    frame = terminal.frames()[-1]
    assert len(frame) == columns
    assert "150/500 IQM -140 [-151, -130] 75 grad/s 0:14 left ckpt 4:10".startswith(frame[:-1])
    assert frame.endswith("…")


def test_the_progress_line_shows_no_nan_if_all_members_diverged():
    found = progress(150, epoch([0, 1], [np.nan, np.nan], diverged=True))
    assert "2 diverged" in format_line(found, 1.0)
    assert "nan" not in format_line(found, 1.0)


def test_warnings_appear_above_the_progress_line(terminal, monkeypatch):
    log = logging.getLogger("sacjax")
    monkeypatch.setattr(log, "propagate", False)  # as if logging is not configured
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar() as bar:
        bar(150, epoch([0], [1.0]))
        log.warning("member 3 diverged [0]")
        bar(200, epoch([0], [1.0]))
    assert "\r\033[2Kmember 3 diverged [0]\n" in terminal.getvalue()
    assert sys.stderr is terminal
    assert log.handlers == []


def test_the_remaining_time_of_a_resumed_run_ignores_finished_steps():
    resumed = progress(400, epoch([0, 1], [1.0, 2.0], seconds=3.0))
    assert resumed["time_left"] == pytest.approx(6.0)  # two epochs
    assert resumed["done"] == pytest.approx(0.8)


def test_the_progress_line_shows_no_speed_if_a_batch_did_not_train():
    """If all members of a batch diverged, resume logs the remaining epochs without training."""

    def logged(step, seconds, member):
        reached = np.nan if np.isnan(seconds) else 1.0
        metrics = epoch([member], [reached], seconds, diverged=True, members=4)
        return progress(step, metrics)

    found = logged(500, np.nan, 0)
    assert "left" not in format_line(found, 0.0)
    assert "grad/s" not in format_line(found, 0.0)
    found = logged(150, 2.0, 1)
    assert found["time_left"] == pytest.approx(2.0 / 50 * (4 * 500 - 500 - 150))
    assert "left" in format_line(found, 0.0)


@pytest.mark.parametrize(
    ("x", "text"), [(999.7, "1k"), (999_700, "1M"), (950, "950"), (1.5, "1.5")]
)
def test_the_progress_line_chooses_the_unit_of_the_rounded_number(x, text):
    assert progress_bar._count(x) == text


def test_the_progress_line_does_not_shorten_large_returns():
    assert [progress_bar._return(x) for x in (-1655.4, 12_345.6, 1.526)] == [
        "-1655",
        "12346",
        "1.53",
    ]


def test_the_progress_line_shows_long_times_in_hours():
    assert [progress_bar._clock(x) for x in (0.4, 250, 3_850, 273_850)] == [
        *("0:00", "4:10", "1:04:10", "76:04:10")
    ]


def test_the_progress_line_counts_the_steps_of_all_batches():
    first = progress(500, epoch([0, 1], [1.0, 2.0], seconds=3.0, members=4))
    assert (first["done"], first["members"], first["told"]) == (0.5, 4, 2)
    assert first["time_left"] == pytest.approx(3.0 * 10)  # ten epochs of the other two members
    second = progress(300, epoch([2, 3], [1.0, 2.0], members=4))
    assert second["done"] == pytest.approx(0.8)
    assert progress(500, epoch([2, 3], [1.0, 2.0], members=4))["done"] == 1


def test_log_format_json_prints_only_json_on_stdout(tmp_path, capsys):
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


def test_json_lines_contain_warnings_and_errors_and_write_nan_as_null():
    file = io.StringIO()
    with contextlib.suppress(InputError), JsonLines(file=file) as json_lines:
        json_lines(150, epoch([0], [np.nan], diverged=True))
        logging.getLogger("sacjax").warning("member %d diverged", 0)
        raise InputError("use another", "tau")
    first, warning, error = strict(file.getvalue())
    assert first["return_iqm"] is None
    assert first["next_checkpoint"] is None
    assert first["diverged"] == 1
    assert warning == {"event": "warning", "message": "member 0 diverged"}
    assert error == {"event": "error", "message": "use another", "field": "tau"}
    assert logging.getLogger("sacjax").handlers == []


class Gone(io.StringIO):
    """A stream whose reader closes it after some writes."""

    def __init__(self, writes):
        super().__init__()
        self.left = writes

    def write(self, text):
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def test_warnings_go_to_stderr_if_the_json_stream_is_closed(monkeypatch, capsys):
    log = logging.getLogger("sacjax")
    monkeypatch.setattr(log, "propagate", False)  # as if logging is not configured
    file = Gone(2)  # a line and its end
    with contextlib.suppress(InputError), JsonLines(file=file) as json_lines:
        json_lines(150, epoch([0], [1.0]))
        log.warning("member 3 diverged")
        json_lines(200, epoch([0], [1.0]))
        log.warning("member 4 diverged")
        raise InputError("use another")
    assert [x["event"] for x in strict(file.getvalue())] == ["epoch"]
    assert capsys.readouterr().err.splitlines() == [
        "JsonLines failed, the run continues: BrokenPipeError: [Errno 32] Broken pipe",
        "member 3 diverged",
        "member 4 diverged",
    ]
    assert log.handlers == []


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_the_progress_bar_survives_a_closed_stream(terminal, writes, monkeypatch, caplog):
    streams, file = (sys.stdout, sys.stderr), Gone(100)
    monkeypatch.setattr(file, "isatty", lambda: terminal)
    with ProgressBar(file=file, show=True) as bar:
        file.left = writes
        for step in (150, 200, 500):
            bar(step, epoch([0], [1.0]))
    assert (sys.stdout, sys.stderr) == streams
    assert len(caplog.records) <= 1


def test_a_closed_log_file_does_not_stop_a_run(caplog):
    file = io.StringIO()
    with ProgressBar(file=file, show=True) as bar, JsonLines(file=file) as json_lines:
        file.close()
        for logger in (bar, json_lines):
            logger(150, epoch([0], [1.0]))
    assert len(caplog.records) == 2


def test_show_true_prints_one_line_per_epoch_without_a_terminal():
    for show in (None, True, False):
        file = io.StringIO()
        with ProgressBar(file=file, show=show) as bar:
            bar(150, epoch([0], [1.5]))
            bar(200, epoch([0], [2.5]))
        lines = file.getvalue().splitlines()
        assert len(lines) == (3 if show else 0)
        assert not show or lines[2].startswith("200/500  return 2.5")


@pytest.mark.processes
def test_the_progress_bar_is_one_line_in_a_notebook_without_ipywidgets():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    code = """
    import warnings
    warnings.simplefilter("error")
    import numpy as np
    from sacjax.loggers import ProgressBar
    one = {"member": np.array([0]), "members": np.array([1]), "seconds": np.array([2.0]),
           "eval_return": np.array([[1.5]]), "diverged": np.array([False]),
           "next_checkpoint": np.array([np.nan]), "total_steps": np.array([500]),
           "eval_every": np.array([50]), "updates_per_epoch": np.array([50])}
    with ProgressBar(show=SHOW) as bar:
        bar(150, one)
        bar(200, one)
    """
    lines = "\n".join(row.strip() if row[4:5] != " " else row[4:] for row in code.splitlines())
    cells = [nbformat.v4.new_code_cell(lines.replace("SHOW", show)) for show in ("None", "False")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    (shown,), hidden = (cell.outputs for cell in notebook.cells)
    assert shown.data["text/plain"].startswith("200/500  return 1.5")
    assert hidden == []


def test_the_progress_bar_is_hidden_if_stderr_is_not_a_terminal(tmp_path, capsys):
    for format in ("auto", "none", "bar"):
        out = str(tmp_path / format)
        assert main([*COMMAND, "--out", out, "--log-format", format]) == 0
        captured = capsys.readouterr()
        assert "IQM" in captured.out  # the table
        assert ("grad/s" in captured.err) == (format == "bar")
        assert (captured.err == "") == (format != "bar")


def test_on_epoch_receives_settings_and_the_time_to_the_next_checkpoint(tmp_path):
    calls = []
    hp = Hyperparams(tau=np.array([0.005, 0.02]))
    for every in (3, 0, None):
        options = {"directory": tmp_path / str(every), "checkpoint_every": every}
        run(CONFIG, hp, seeds=2, on_epoch=[lambda *x: calls.append(x)], **options)
    run(CONFIG, hp, seeds=2, on_epoch=[lambda *x: calls.append(x)])
    step, metrics = calls[0]
    assert step == 150
    np.testing.assert_array_equal(metrics["member"], range(4))
    np.testing.assert_array_equal(metrics["members"], [4] * 4)
    np.testing.assert_array_equal(metrics["seed"], [0, 1, 0, 1])
    np.testing.assert_array_equal(metrics["tau"], [0.005, 0.005, 0.02, 0.02])
    assert not metrics["diverged"].any()
    ahead = [(x["next_checkpoint"] / x["seconds"])[0] for _, x in calls]
    np.testing.assert_allclose(ahead[:8], [2, 1, 3, 2, 1, 2, 1, 0])  # every third, and the last
    np.testing.assert_allclose(ahead[16:24], range(7, -1, -1))  # the end comes before five minutes
    assert np.isnan([*ahead[8:16], *ahead[24:]]).all()
