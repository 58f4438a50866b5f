"""How a run gets on: a live line for people, lines of JSON for machines.

Both are `OnEpoch` callables, for `run(config, on_epoch=[Progress(config)])`, and context managers.
"""

import contextlib
import json
import logging
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sacjax import report, statistics
from sacjax.config import Config

_LOG = logging.getLogger("sacjax")


class Standing:
    """Where the whole run stands after an epoch of all its members, or of some."""

    def __init__(self, config: Config, steps: np.ndarray | None = None):
        """`steps`: those of the first members, done before."""
        self._config = config
        self._before = np.zeros(0) if steps is None else steps
        self._steps, self._diverged = np.zeros(0), np.zeros(0, bool)
        self._pace, self._then = math.nan, math.nan  # seconds per step of one member; last call

    def __call__(self, step: int, metrics: dict[str, Any]) -> dict[str, Any]:
        """Numbers, NaN where there are none. Returns are over the members told of that are finite,
        each member's a mean over its episodes; times are in seconds from now."""
        config, who, seconds = self._config, metrics["member"], metrics["seconds"].max().item()
        if not self._steps.size:
            members = metrics["members"][0]
            self._steps, self._diverged = np.zeros(members), np.zeros(members, bool)
            self._steps[: len(self._before)] = self._before[:members]
        self._steps[who], self._diverged[who] = step, metrics["diverged"]
        returns = metrics["eval_return"].mean(-1)
        returns = returns[np.isfinite(returns)]
        reached = (statistics.iqm(returns), returns.min(), returns.max()) if returns.size else ()
        iqm, low, high = (float(x) for x in reached or [math.nan] * 3)
        if not math.isnan(seconds):  # they were trained, and not only told of
            # `seconds` is without compilation; what lies between two calls has the checkpoints too
            first = math.isnan(self._pace)
            passed = seconds if first else time.monotonic() - self._then
            pace = passed / (len(who) * config.eval_every)
            self._pace = pace if first else 0.7 * self._pace + 0.3 * pace
        self._then = time.monotonic()
        return {
            "step": step,
            "total_steps": config.total_steps,
            "done": float(self._steps.mean() / config.total_steps),  # of 1
            "members": len(self._steps),
            "told": len(who),
            "diverged": int(self._diverged.sum()),
            "return_iqm": iqm,
            "return_min": low,
            "return_max": high,
            "gradient_steps_per_second": len(who) * config.updates_per_epoch / seconds,
            "seconds": seconds,
            "time_left": float(self._pace * (config.total_steps - self._steps).sum()),
            "next_checkpoint": metrics["next_checkpoint"].min().item(),
        }


class Progress:
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

    def __enter__(self) -> "Progress":
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


class JsonLines:
    """One JSON object per line, flushed: events "epoch", "warning", "error" and "end".

    Strict JSON: null where a number is not finite. Where `file` takes no more, that is said in the
    log, once, and the run goes on.
    """

    def __init__(self, config: Config, *, steps: np.ndarray | None = None, file: Any = None):
        """`steps` as in `Standing`."""
        self._standing, self._file = Standing(config, steps), file or sys.stdout
        self._handler = logging.Handler(logging.WARNING)
        self._handler.emit = self._warn
        self._failed = False

    def __enter__(self) -> "JsonLines":
        _LOG.addHandler(self._handler)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        _LOG.removeHandler(self._handler)
        if error is not None:
            self._write(error_event(error))
            vars(error)["told"] = True  # for `was_told`

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        self._write(_event("epoch", **self._standing(step, metrics)))

    def end(self, run: Any, directory: Path) -> None:
        """Of a `run.Run` that has ended: what each member reached, and where it is."""
        returns, _ = report.last_returns(run.metrics, run.epochs)
        text = _event(
            "end",
            completed=run.completed,
            step=int(run.env_steps.min()),  # of the member that is least far
            total_steps=run.config.total_steps,
            members=[m | {"return": float(x)} for m, x in zip(run.members, returns, strict=True)],
            diverged=[divergence._asdict() for divergence in run.diverged],
            directory=str(directory),
            files=sorted(path.name for path in directory.iterdir()),
        )
        self._write(text)

    def _warn(self, record: logging.LogRecord) -> None:
        self._write(_event("warning", message=record.getMessage()))
        if self._failed and not _LOG.hasHandlers():
            _LOG.handle(record)  # on stderr then

    def _write(self, text: str) -> None:
        if self._failed:
            return
        try:
            print(text, file=self._file, flush=True)
        except OSError as error:
            self._failed = True
            _LOG.removeHandler(self._handler)  # warnings go where they would without it
            _LOG.warning("JSON lines end here, the run goes on: %s", error)


def error_event(error: BaseException) -> str:
    """As `JsonLines` tells of it."""
    return _event("error", message=str(error) or type(error).__name__)


def was_told(error: BaseException) -> bool:
    """Whether a `JsonLines` has told of it."""
    return "told" in vars(error)


def _event(event: str, **content: Any) -> str:
    return json.dumps({"event": event} | _strict(content), allow_nan=False)


def _strict(x: Any) -> Any:
    if isinstance(x, dict):
        return {name: _strict(value) for name, value in x.items()}
    if isinstance(x, list):
        return [_strict(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


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
