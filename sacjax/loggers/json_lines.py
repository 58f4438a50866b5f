"""JSON lines: an `OnEpoch` callable that prints one object per event."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sacjax.config import Config
from sacjax.loggers.standing import Standing
from sacjax.runs import curve

_LOG = logging.getLogger("sacjax")


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
        returns, _ = curve.last_returns(run.metrics, run.epochs)
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
