"""TensorBoard's event files: an `OnEpoch` callable with the columns of metrics.csv.

Files are made at the first call, when the run has claimed its folder. A later failure is logged
once and does not stop the run: metrics.csv has everything.
"""

import logging
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from sacjax.loggers.series import Series
from sacjax.types import InputError

_LOG = logging.getLogger("sacjax")


class TensorBoard:
    """Event files in DIRECTORY/tensorboard: a TensorBoard run for each member and aggregate.

    TensorBoard draws runs over each other, one chart per metric. A file is opened, appended to and
    closed at each epoch: hundreds of members need no handles and no threads. When a run goes on
    from a checkpoint, what was logged past it is purged.
    """

    def __init__(self, directory: str | os.PathLike):
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise InputError(
                "TensorBoard's files need a package: pip install 'sacjax[tensorboard]'"
            ) from error
        path = Path(directory)
        self._directory, self._series = path / "tensorboard", Series(path)
        self._files: dict[str, Path] = {}
        self._failed = False

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        if self._failed:
            return
        try:
            for name, row in self._series(step, metrics).items():
                if row:
                    self._append(name, step, row)
        except OSError as error:
            self._failed = True
            _LOG.warning("TensorBoard's files end here, the run goes on: %s", error)

    def _append(self, name: str, step: int, row: dict[str, float]) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2

        pb: Any = event_pb2  # generated: unknown to type checkers
        Event, Session, Summary = pb.Event, pb.SessionLog, vars(summary_pb2)["Summary"]
        now, events = time.time(), []
        if name not in self._files:
            place = self._directory / name
            place.mkdir(parents=True, exist_ok=True)
            number = len(list(place.iterdir()))  # files are read in the order of their names
            file = f"events.out.tfevents.{now:010.0f}.{socket.gethostname()}.{number}"
            self._files[name] = place / file
            start = Session(status=Session.START)  # "what was at this step or later is void"
            events = [
                Event(wall_time=now, file_version="brain.Event:2"),
                Event(wall_time=now, step=step, session_log=start),
            ]
        values = [Summary.Value(tag=metric, simple_value=x) for metric, x in row.items()]
        events.append(Event(wall_time=now, step=step, summary=Summary(value=values)))
        with self._files[name].open("ab") as file:
            file.write(b"".join(_record(event.SerializeToString()) for event in events))


def _record(data: bytes) -> bytes:
    """TFRecord: the length and the data, each with its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    size = struct.pack("<Q", len(data))
    return b"".join(
        [size, struct.pack("<I", masked_crc32c(size)), data, struct.pack("<I", masked_crc32c(data))]
    )
