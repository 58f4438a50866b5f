"""A logger that writes the columns of metrics.csv to event files of TensorBoard."""

import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sacjax.loggers.summary import Logger, batch_name, require, scalars, survives
from sacjax.runs.files import expanded


class TensorBoard(Logger):
    """Write event files to DIRECTORY/tensorboard, with tags such as `eval_return/seed_3`.

    In a sweep, tags have the form `eval_return/seed_3_tau_0.005`. The tags `eval_return/iqm`,
    `eval_return/min` and `eval_return/max` aggregate over members. If a run trains in batches of
    members, each batch is a separate TensorBoard run, such as tensorboard/members_0_3. If the run
    is resumed, TensorBoard hides the values that were logged after the checkpoint.

    The first call creates the first file, because a new run needs an empty directory. If a write
    fails, sacjax logs one warning and the run continues without event files. All numbers are also
    in metrics.csv.

    >>> with TensorBoard("runs/a") as tensorboard:
    ...   run(config, directory="runs/a", on_epoch=[tensorboard])
    """

    service = "tensorboard"

    def __init__(self, directory: str | os.PathLike):
        """Check that tensorboardX is installed.

        Args:
          directory: the run's directory.

        Raises:
          InputError: tensorboardX is not installed.
        """
        self._library = require("tensorboardX.event_file_writer", "tensorboard")
        self._directory = expanded(directory) / "tensorboard"
        self._place: Path | None = None  # directory of the current batch
        self._writer: Any = None
        self._close: Callable[[], Any] = lambda: None

    @survives
    def __exit__(self, *_: Any) -> None:
        self._close()

    @survives
    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Log an epoch.

        Args:
          step: the number of environment steps of each member so far.
          metrics: the metrics [M, ...] of the epoch by name, as in `sacjax.types.OnEpoch`.
        """
        place = self._directory / batch_name(metrics)
        if place != self._place:
            self._open(place)
            self._write(step, session_log={"status": "START"})  # hides values after the checkpoint
        values = [{"tag": tag, "simple_value": x} for tag, x in scalars(metrics).items()]
        self._write(step, summary={"value": values})

    def _open(self, place: Path) -> None:
        """Create an event file. The file is closed on exit or when the logger is garbage-collected.

        tensorboardX's SummaryWriter writes in a thread. If a write fails, the thread ends and the
        run waits forever. EventsWriter needs no thread.
        """
        self._close()
        place.mkdir(parents=True, exist_ok=True)
        number = len(list(place.glob("events*")))  # for files that begin in the same second
        writer = self._library.EventsWriter(str(place / "events"), f".{number}")
        self._place, self._writer = place, writer
        self._close = weakref.finalize(self, writer.close)

    def _write(self, step: int, **content: Any) -> None:
        """Write one event to disk."""
        event = self._library.event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._writer.write_event(event)
        self._writer.flush()
