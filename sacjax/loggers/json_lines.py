"""JSON lines: an `OnEpoch` callable that prints one object per event."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from sacjax.loggers.summary import progress, survives
from sacjax.runs import curve

_LOG = logging.getLogger("sacjax")


class JsonLines:
    """Print one JSON object per line: events "epoch", "warning", "error" and "end".

    The JSON is strict: null stands for NaN and inf. If the stream is closed, that is logged once
    and the run goes on. As a context manager it also prints the warnings of the `sacjax` logger
    and the error that ends the block.
    """

    def __init__(self, *, file: Any = None):
        """Print nothing yet.

        Args:
            file: A text stream, stdout by default.
        """
        self._file = file or sys.stdout
        self._handler = logging.Handler(logging.WARNING)
        self._handler.emit = self._warn
        self.failed = False

    def __enter__(self) -> "JsonLines":
        _LOG.addHandler(self._handler)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        _LOG.removeHandler(self._handler)
        if error is not None:
            self._write(error_event(error))
            vars(error)["told"] = True  # for `was_told`

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Print an event "epoch"; the arguments are those of `OnEpoch`."""
        self._write(_event("epoch", **progress(step, metrics)))

    def end(self, run: Any, directory: Path) -> None:
        """Print an event "end".

        Args:
            run: The `Run` that has ended.
            directory: Its folder, whose files the event lists.
        """
        returns, _ = curve.last_returns(run.metrics, run.epochs)
        text = _event(
            "end",
            completed=run.completed,
            step=int(run.env_steps.min()),  # of the member with the fewest steps
            total_steps=run.config.total_steps,
            members=[m | {"return": float(x)} for m, x in zip(run.members, returns, strict=True)],
            diverged=[divergence._asdict() for divergence in run.diverged],
            directory=str(directory),
            files=sorted(path.name for path in directory.iterdir()),
        )
        self._write(text)

    def _warn(self, record: logging.LogRecord) -> None:
        self._write(_event("warning", message=record.getMessage()))
        if self.failed:
            logging.StreamHandler().handle(record)  # nobody reads the JSON: print it on stderr

    @survives
    def _write(self, text: str) -> None:
        print(text, file=self._file, flush=True)


def error_event(error: BaseException) -> str:
    """Return the line of an event "error"."""
    return _event("error", message=str(error) or type(error).__name__)


def was_told(error: BaseException) -> bool:
    """Whether a `JsonLines` has printed this error."""
    return "told" in vars(error)


def _event(event: str, **content: Any) -> str:
    """Return a line of strict JSON: null replaces NaN, Infinity and -Infinity."""
    found = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return json.dumps({"event": event} | found, allow_nan=False)
