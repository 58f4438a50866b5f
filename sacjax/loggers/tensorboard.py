"""TensorBoard: an `OnEpoch` callable that logs the columns of metrics.csv."""

import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sacjax.loggers.summary import batch_name, require, scalars, survives


class TensorBoard:
    """Write event files to DIRECTORY/tensorboard, with tags such as `eval_return/seed_3`.

    In a sweep a tag is `eval_return/seed_3_tau_0.005`. `eval_return/iqm`, `/min` and `/max`
    aggregate over members. If a run trains in batches of members, each batch is a TensorBoard run
    of its own, such as tensorboard/members_0_3.

    On resume, TensorBoard hides what was logged past the checkpoint. The first file is created at
    the first call, because a run refuses a folder that is not empty. A failure is logged once, and
    the run goes on without event files; metrics.csv has the same numbers.
    """

    def __init__(self, directory: str | os.PathLike):
        """Check that tensorboardX is installed.

        Args:
            directory: The run's folder.

        Raises:
            InputError: If tensorboardX is not installed.
        """
        self._library = require("tensorboardX.event_file_writer", "tensorboard")
        self._directory = Path(directory) / "tensorboard"
        self._place: Path | None = None  # of the current batch
        self._writer: Any = None
        self._close: Callable[[], Any] = lambda: None  # nothing is open yet
        self.failed = False

    def __enter__(self) -> "TensorBoard":
        return self

    @survives
    def __exit__(self, *_: Any) -> None:
        self._close()

    @survives
    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Log an epoch; the arguments are those of `OnEpoch`."""
        place = self._directory / batch_name(metrics)
        if place != self._place:
            self._open(place)
            self._write(step, session_log={"status": "START"})  # voids this step and later ones
        values = [{"tag": tag, "simple_value": x} for tag, x in scalars(metrics).items()]
        self._write(step, summary={"value": values})

    def _open(self, place: Path) -> None:
        """Create an event file, which is closed on exit, or when nobody uses this logger any more.

        tensorboardX's SummaryWriter has the same writer, but calls it from a thread behind a
        bounded queue. If a write fails there, the thread ends and the run waits forever.
        """
        self._close()
        place.mkdir(parents=True, exist_ok=True)
        number = len(list(place.glob("events*")))  # distinguishes files of the same second
        writer = self._library.EventsWriter(str(place / "events"), f".{number}")
        self._place, self._writer = place, writer
        self._close = weakref.finalize(self, writer.close)

    def _write(self, step: int, **content: Any) -> None:
        """Write one event to the disk."""
        event = self._library.event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._writer.write_event(event)
        self._writer.flush()
