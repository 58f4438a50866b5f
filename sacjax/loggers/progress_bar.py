"""A logger that shows the progress as a live line in a terminal or a notebook."""

import importlib
import math
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from sacjax.loggers.summary import Logger, progress, survives


class ProgressBar(Logger):
    """Show a live line with steps, returns, gradient steps/s, time left and the next checkpoint.

    The line also shows the IQM and the range of the members' returns, and the number of diverged
    members. If there is neither a terminal nor a notebook, the logger prints nothing by default.
    With `show=True`, the logger then prints one line per epoch. Warnings appear above the line. If
    the stream is closed, sacjax logs one warning and the run continues.

    >>> run(config, on_epoch=[ProgressBar()])
    """

    def __init__(self, *, show: bool | None = None, file: Any = None):
        """Show that JAX compiles the program.

        Args:
          show: whether to show the progress. By default, the logger shows the progress only in a
            notebook, or if `file` is a terminal.
          file: a text stream (default: stderr).
        """
        self._file = file or sys.stderr
        self._begin, self._bar, self._cell = time.monotonic(), None, None
        notebook, terminal = "ipykernel.zmqshell" in sys.modules, self._file.isatty()
        self._shown = notebook or terminal if show is None else show
        if self._shown and notebook:
            display = importlib.import_module("IPython.display").display
            self._cell = display({}, raw=True, display_id=True)
        elif self._shown and terminal:
            self._bar = _terminal_bar(self._file)
        self._draw("compiling, then training to the first evaluation", 0.0)

    @survives
    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Show an epoch.

        Args:
          step: the number of environment steps of each member so far.
          metrics: the metrics [M, ...] of the epoch by name, as in `sacjax.types.OnEpoch`.
        """
        found = progress(step, metrics)
        self._draw(format_line(found, time.monotonic() - self._begin), found["done"])

    @survives
    def _draw(self, text: str, done: float) -> None:
        """Replace the line with `text`. `done` is the fraction of the run that is finished."""
        if self._cell:
            self._cell.update({"text/plain": text}, raw=True)
        elif self._bar:
            if len(text) > self._bar.console.width:
                text = text.replace("  ", " ")
            self._bar.update(TaskID(0), completed=done, description=text)
            self._bar.live.transient = done == 0  # erase the bar if no epoch was shown
            self._bar.start()
            self._bar.refresh()
            if done >= 1:
                self._bar.stop()
        elif self._shown:
            print(text, file=self._file, flush=True)


class _Console(Console):
    """A console that never ends the process and never hides the cursor."""

    def on_broken_pipe(self) -> None:
        """Raise the current BrokenPipeError. Rich's own console would end the process."""
        raise

    def show_cursor(self, show: bool = True) -> bool:
        """Keep the cursor visible, because a killed process could not show the cursor again."""
        return False


def _terminal_bar(file: Any) -> Progress:
    """Return a progress bar for a terminal, with one task."""
    bar = Progress(
        BarColumn(bar_width=None),
        TextColumn("{task.description}", markup=False),
        console=_Console(file=file),
        auto_refresh=False,  # avoids a thread
        expand=True,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    )
    bar.add_task("", total=1.0)
    return bar


def format_line(found: dict[str, Any], elapsed: float) -> str:
    """Return a line of fewer than 80 characters. NaN values are omitted.

    Args:
      found: the result of `progress`.
      elapsed: seconds since the logger was created.
    """
    iqm, low, high = (_return(found[f"return_{name}"]) for name in ("iqm", "min", "max"))
    parts = [
        f"{_count(found['step'])}/{_count(found['total_steps'])}",
        f"return {iqm}" if found["members"] == 1 else f"IQM {iqm} [{low}, {high}]",
        f"{found['diverged'] or math.nan} diverged",
        f"{_count(found['gradient_steps_per_second'])} grad/s",
    ]
    if found["done"] < 1:
        parts += [f"{_clock(found['time_left'])} left", f"ckpt {_clock(found['next_checkpoint'])}"]
    else:
        parts += [f"in {_clock(elapsed)}"]
    return "  ".join(part for part in parts if "nan" not in part)


def _count(x: float) -> str:
    """Format a count with three digits: 950, 6.75k, 1.2M."""
    x = float(f"{x:.3g}")
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:.3g}{unit}"
    return f"{x:.3g}"


def _return(x: float) -> str:
    """Format a return with three digits (1.53), or as a whole number if it is large (-1655)."""
    return f"{x:.0f}" if 100 <= abs(x) < 100_000 else f"{x:.3g}"


def _clock(seconds: float) -> str:
    """Format seconds as 4:10 or 1:04:10. The text of NaN contains "nan"."""
    minutes, seconds = divmod(float(f"{seconds:.0f}"), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:.0f}:{minutes:02.0f}:{seconds:02.0f}"
    return f"{minutes:.0f}:{seconds:02.0f}"
