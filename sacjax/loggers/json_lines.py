"""A logger that prints one JSON object per event."""

import json
import logging
import sys
from pathlib import Path
from typing import Any, Self

from sacjax.errors import error_event
from sacjax.loggers.summary import Logger, progress, survives
from sacjax.runs import curve

_LOG = logging.getLogger("sacjax")


class JsonLines(Logger):
    """Print one JSON object per line, for the events "epoch", "warning", "error" and "end".

    The JSON is strict, so NaN and inf are printed as null. In a `with` statement, the logger also
    prints the warnings of Python's logger "sacjax". If an error ends the `with` block, the logger
    prints the error too. If the stream is closed, sacjax logs one warning and the run continues.

    >>> with JsonLines() as json_lines:
    ...   run(config, on_epoch=[json_lines])
    """

    def __init__(self, *, file: Any = None):
        """Choose the output stream. Nothing is printed yet.

        Args:
          file: a text stream (default: stdout).
        """
        self._file = file or sys.stdout
        self._handler = logging.Handler(logging.WARNING)
        self._handler.emit = self._warn

    def __enter__(self) -> Self:
        _LOG.addHandler(self._handler)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        _LOG.removeHandler(self._handler)
        if error is not None:
            self._write(error_event(error))
            vars(error)["printed"] = True  # for `print_json_error`

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Print an "epoch" event.

        Args:
          step: the number of environment steps of each member so far.
          metrics: the metrics [M, ...] of the epoch by name, as in `sacjax.types.OnEpoch`.
        """
        self._write(_event("epoch", **progress(step, metrics)))

    def end(self, run: Any, directory: Path) -> None:
        """Print an "end" event.

        Args:
          run: the `Run` that has ended.
          directory: the run's directory. The event lists the files in this directory.
        """
        returns, _ = curve.last_returns(run.metrics, run.epochs)
        text = _event(
            "end",
            completed=run.completed,
            step=int(run.env_steps.min()),
            total_steps=run.config.total_steps,
            members=[m | {"return": float(x)} for m, x in zip(run.members, returns, strict=True)],
            diverged=[divergence._asdict() for divergence in run.diverged],
            directory=str(directory),
            files=sorted(path.name for path in directory.iterdir()),
        )
        self._write(text)

    def _warn(self, record: logging.LogRecord) -> None:
        """Print a "warning" event."""
        self._write(_event("warning", message=record.getMessage()))
        if self.failed:
            logging.StreamHandler().handle(record)  # on stderr, because the stream is closed

    @survives
    def _write(self, text: str) -> None:
        """Print a line."""
        print(text, file=self._file, flush=True)


def _event(event: str, **content: Any) -> str:
    """Return a line of strict JSON, with null for NaN, Infinity and -Infinity."""
    found = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return json.dumps({"event": event} | found, allow_nan=False)
