"""A run's metrics for other programs to show: TensorBoard's event files, Weights & Biases.

Both are `OnEpoch` callables and context managers, show the columns of metrics.csv, and make their
files in the run's folder at the first call, which is when the run has made the folder its own. What
fails later than that is said once and costs the run nothing: metrics.csv has all of it.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import struct
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from sacjax import statistics
from sacjax.config import Hyperparams
from sacjax.runs import files
from sacjax.runs.directory import in_batches
from sacjax.runs.metrics_csv import read_metrics, row
from sacjax.types import InputError

_LOG = logging.getLogger("sacjax")
_SWEPT = [field.name for field in fields(Hyperparams)]
_WHO = {*_SWEPT, "seed", "member", "members"}
_NO_SERIES = _WHO | {"seconds", "diverged", "next_checkpoint", "env_steps"}


class Series:
    """An epoch's metrics as numbers: of each member, and "iqm", "min", "max" over all of them.

    Who is told of in parts, batch by batch, is aggregated when all are there, with those that were
    told of before the run was resumed.
    """

    def __init__(self, directory: Path | None = None):
        """`directory`: the run's."""
        self._directory = directory
        self._waiting: dict[int, dict[str, dict[str, float]]] = {}  # by step and name

    def __call__(self, step: int, metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
        """Name ("seed_3_tau_0.005", "iqm") -> metric -> number; NaN (no data) is left out."""
        who = range(len(metrics["member"]))
        if self._directory:
            self._waiting, self._directory = _in_tables(self._directory), None
        found = {_name(metrics, i): _row(metrics, i) for i in who}
        together = self._waiting.setdefault(step, {})
        together |= found
        if len(together) >= metrics["members"][0]:
            found |= _over_members(list(self._waiting.pop(step).values()))
        return {
            name: {metric: x for metric, x in row.items() if x == x} for name, row in found.items()
        }


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


class WandB:
    """One W&B run per run: metric/seed_3 of each member, metric/iqm, /min and /max of all.

    Its id is kept in DIRECTORY/wandb.json, and a resumed run goes on with it. It is written to
    DIRECTORY/wandb, for `wandb sync`, with WANDB_MODE=offline or where W&B is not to be reached.
    """

    def __init__(self, directory: str | os.PathLike, *, project: str = "sacjax"):
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise InputError("W&B needs a package: pip install 'sacjax[wandb]'") from error
        self._check_key()
        self._directory, self._project = Path(directory), project
        self._series = Series(self._directory)
        self._run: Any = None
        self._rows: int | None = None
        self._failed = False

    def __enter__(self) -> "WandB":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._run is not None:
            with self._never_mind():
                self._run.finish(exit_code=int(kind is not None))

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        if self._failed and self._run is None:
            return
        found = self._series(step, metrics)
        keys = {f"{metric}/{name}": x for name, row in found.items() for metric, x in row.items()}
        # W&B drops rows that go back. Those that a resumed run repeats it has; where batches of
        # members follow each other, the rows of the next go behind the last one's.
        if self._rows is None:
            self._rows = _rows_before(self._directory)
        self._rows = max(step, self._rows + 1)
        with self._never_mind():
            if self._run is None:
                self._run = self._start()
            self._run.log({"env_steps": step} | keys, step=self._rows)

    def _check_key(self) -> None:
        import wandb

        try:  # asks W&B whether the key is good
            if wandb.setup().settings.mode != "online" or wandb.login(prompt=False):
                return
            problem = "there is no key"
        except Exception as error:
            problem = str(error)
        raise InputError(f"W&B: {problem}: call `wandb login`, or set WANDB_MODE=offline")

    def _start(self) -> Any:
        import wandb

        note, about = self._directory / "wandb.json", self._directory / "config.json"
        self._directory.mkdir(parents=True, exist_ok=True)
        known = json.loads(note.read_text()) if note.exists() else {"id": secrets.token_hex(4)}
        known["project"] = self._project
        _write_note(note, known)  # before W&B knows of the run, so that none is without a note
        init: Any = wandb.init
        options = {
            "project": self._project,
            "name": self._directory.resolve().name,
            "dir": self._directory,
            "id": known["id"],
            "resume": "allow",
            "config": json.loads(about.read_text()) if about.exists() else None,
            "allow_val_change": True,  # total_steps, where the run is extended
            "reinit": "create_new",  # besides one that the caller may have
            "settings": wandb.Settings(silent=True, console="off"),
        }
        try:
            run = init(**options)
        except Exception as error:
            _LOG.warning("W&B is not to be reached (%s): `wandb sync` sends the run later", error)
            run = init(**options | {"mode": "offline"})
        run.define_metric("*", step_metric="env_steps")
        if not run.offline:
            _write_note(note, known | {"url": run.url})
        return run

    @contextlib.contextmanager
    def _never_mind(self) -> Any:
        try:
            yield
        except Exception as error:  # a service of others, with errors of many kinds
            if not self._failed:
                _LOG.warning("W&B failed, the run goes on: %s: %s", type(error).__name__, error)
            self._failed = True


def _write_note(path: Path, content: dict[str, str]) -> None:
    files.write_text(path, json.dumps(content, indent=2) + "\n")


def _name(metrics: dict[str, Any], i: int) -> str:
    swept = [f"_{name}_{metrics[name][i]:.12g}" for name in _SWEPT if name in metrics]
    return f"seed_{metrics['seed'][i]}{''.join(swept)}"


def _in_tables(directory: Path) -> dict[int, dict[str, dict[str, float]]]:
    """By step and name, what the tables of a run in batches have; nothing of one that is not."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for members, metrics in _tables(directory):
        who = {name: np.array([member[name] for member in members]) for name in members[0]}
        for epoch in range(metrics["env_steps"].shape[1]):
            told = who | {name: x[:, epoch] for name, x in metrics.items()}
            rows = found.setdefault(int(told["env_steps"][0]), {})
            rows |= {_name(told, i): _row(told, i) for i in range(len(members))}
    return found


def _rows_before(directory: Path) -> int:
    """The number of W&B's last row: of a run in batches, as if it had not been stopped."""
    steps = [metrics["env_steps"] for _, metrics in _tables(directory)]
    further = sum(x.shape[1] for x in steps[1:])
    return int(steps[0][0, -1]) + further - 1 if further else -1


def _tables(directory: Path) -> list[tuple[list[dict[str, float]], dict[str, np.ndarray]]]:
    try:
        return [read_metrics(path) for path in in_batches(directory, "metrics.csv")]
    except InputError:  # not whole; the run itself says so
        return []


def _row(metrics: dict[str, Any], i: int) -> dict[str, float]:
    """A member's columns of metrics.csv."""
    series = {name: value for name, value in metrics.items() if name not in _NO_SERIES}
    return {name: float(x) for name, x in row(series, i).items()}


def _over_members(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Aggregates of each metric over the members where it is finite."""
    found: dict[str, dict[str, float]] = {"iqm": {}, "min": {}, "max": {}}
    for metric in rows[0]:
        x = np.array([row[metric] for row in rows])
        x = x[np.isfinite(x)]
        if x.size:
            for name, over in (("iqm", statistics.iqm), ("min", np.min), ("max", np.max)):
                found[name][metric] = float(over(x))
    return found


def _record(data: bytes) -> bytes:
    """TFRecord: the length and the data, each with its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    size = struct.pack("<Q", len(data))
    return b"".join(
        [size, struct.pack("<I", masked_crc32c(size)), data, struct.pack("<I", masked_crc32c(data))]
    )
