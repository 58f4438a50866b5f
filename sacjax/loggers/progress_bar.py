"""A progress bar: an `OnEpoch` callable for `run(config, on_epoch=[ProgressBar(config)])`."""

import contextlib
import logging
import math
import sys
import time
import warnings
from typing import Any

import numpy as np

from sacjax.config import Config
from sacjax.loggers.standing import Standing

_LOG = logging.getLogger("sacjax")


class ProgressBar:
    """A live line: steps, IQM and range of returns, gradient steps/s, time left, next checkpoint.

    In a terminal or a notebook; quiet where `file` (stderr) is neither, unless `show` says so.
    """

    def __init__(
        self,
        config: Config,
        *,
        steps: np.ndarray | None = None,
        show: bool | None = None,
        file: Any = None,
    ):
        """`steps` as in `Standing`."""
        file = file or sys.stderr
        show = (file.isatty() or _in_notebook()) if show is None else show
        self._standing, self._stack = Standing(config, steps), contextlib.ExitStack()
        if show and file.isatty():
            file.write("\r\033[K")  # whatever was on the line
        first = _count(config.warmup_steps + config.eval_every)
        self._bar = _tqdm()(
            total=1.0,
            bar_format=f"compiling, then {first} steps to the first evaluation",
            disable=not show,
            file=file,
            dynamic_ncols=True,
        )
        self._begin = time.monotonic()

    def __enter__(self) -> "ProgressBar":
        if not self._bar.disable and not _LOG.hasHandlers():  # warnings above the line, not in it
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._stack.enter_context(logging_redirect_tqdm([_LOG], type(self._bar)))
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()
        self._bar.leave = self._bar.n > 0  # where nothing was to be done, nothing stays
        with contextlib.suppress(OSError):
            self._bar.close()

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        standing = self._standing(step, metrics)
        if self._bar.disable:
            return
        done = standing["done"]
        self._bar.n = min(done, 1.0)
        width = self._bar.format_dict["ncols"] or 1_000
        text = line(standing, time.monotonic() - self._begin)
        if len(text) > width:
            text = text.replace("  ", " ")
        head = "{percentage:3.0f}%|{bar}| " if width - len(text) > 10 else "{percentage:3.0f}%  "
        head = head if width - len(text) > 5 else ""
        self._bar.bar_format = head + text
        try:
            self._bar.refresh()
            if done >= 1:
                self._bar.close()
        except OSError:  # nobody is there to see it any longer
            self._bar.disable = True


def line(standing: dict[str, Any], elapsed: float) -> str:
    """What a person wants to know of `Standing`, in fewer than 80 columns."""
    step, total = _count(standing["step"]), _count(standing["total_steps"])
    parts = [f"{step}/{total}"]
    iqm, low, high = (_number(standing[f"return_{name}"]) for name in ("iqm", "min", "max"))
    if not math.isnan(standing["return_iqm"]):
        alone = standing["members"] == 1
        parts.append(f"return {iqm}" if alone else f"IQM {iqm} [{low}, {high}]")
    if standing["diverged"]:
        parts.append(f"{standing['diverged']} diverged")
    if not math.isnan(standing["gradient_steps_per_second"]):
        parts.append(f"{_count(standing['gradient_steps_per_second'])} grad/s")
    if standing["done"] >= 1:
        return "  ".join([*parts, f"in {_clock(elapsed)}"])
    if not math.isnan(standing["time_left"]):
        parts.append(f"{_clock(standing['time_left'])} left")
    if not math.isnan(standing["next_checkpoint"]):
        parts.append(f"ckpt {_clock(standing['next_checkpoint'])}")
    return "  ".join(parts)


def _tqdm() -> Any:
    """tqdm's bar for where we are; text in a notebook that has no widgets."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)  # there are no widgets: no need to say so
        from tqdm.auto import tqdm
    return tqdm


def _in_notebook() -> bool:
    return "ipykernel.zmqshell" in sys.modules


def _count(x: float) -> str:
    """Three digits: 950, 6.75k, 1.2M."""
    x = float(f"{x:.3g}")
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:.3g}{unit}"
    return f"{x:.3g}"


def _number(x: float) -> str:
    return f"{x:.0f}" if 100 <= abs(x) < 100_000 else f"{x:.3g}"


def _clock(seconds: float) -> str:
    """4:10, 1:04:10 or 3d 4h."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24}h"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
