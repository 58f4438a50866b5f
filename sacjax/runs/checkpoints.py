"""Checkpoints of a run: each is whole or does not exist, and is checked when it is read.

checkpoints/12/    the run after 12 epochs, as `sacjax.runs.arrays` stores it
"""

import logging
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sacjax.runs import arrays as stored
from sacjax.runs.directory import resume_command
from sacjax.runs.files import PART, remedy
from sacjax.runs.processes import any_of, is_first, on_first
from sacjax.types import InputError, RunError, one_line

_LOG = logging.getLogger("sacjax")
_FOLDER = "checkpoints"


class Checkpoint(NamedTuple):
    """A checkpoint that is whole."""

    epoch: int
    note: dict[str, Any]
    arrays: stored.Arrays  # each is read when it is asked for


def epochs(directory: Path) -> list[int]:
    """The epochs of all checkpoints, oldest first."""
    found = (directory / _FOLDER).glob("*")
    return sorted(int(path.name) for path in found if path.name.isdigit() and path.is_dir())


class Writer:
    """Writes the checkpoints of a run, one at a time.

    All processes call it alike, and each writes what its devices hold. A checkpoint counts once its
    checksums are taken and all of it is on the disk. A thread does that while the run goes on, so
    RunError comes with the next call if it fails.
    """

    def __init__(self, directory: Path, keep: int, begun: int = 0):
        """`begun`: the epoch that the run resumes from. Later checkpoints were damaged."""
        self._directory, self._keep = directory, keep
        self._damaged = {epoch for epoch in epochs(directory) if epoch > begun}
        self._aside = ThreadPoolExecutor(1, "checkpoint")
        self._unfinished: tuple[int, Future | None] | None = None

    def save(
        self, epoch: int, note: dict[str, Any], arrays: stored.Arrays, rows: int = sys.maxsize
    ) -> None:
        """Begin a checkpoint; the arrays may be donated when this returns. Raises RunError.

        `rows`: as many are stored of JAX's arrays.
        """
        self.finish()
        folder, failed, dtypes = self._directory / _FOLDER / str(epoch), None, {}
        try:
            on_first(lambda: self._make_room(folder))
            dtypes = stored.write_part(folder, arrays, rows)
        except (OSError, RunError) as error:
            failed = error
        if any_of(failed is not None):
            raise self._unwritten(epoch, failed) from failed
        work = self._complete, folder, dtypes, note
        self._unfinished = epoch, self._aside.submit(*work) if is_first() else None

    def finish(self) -> None:
        """Wait until the checkpoint is whole and the older ones are removed. Raises RunError."""
        if self._unfinished is None:
            return
        (epoch, done), self._unfinished = self._unfinished, None
        try:
            on_first(lambda: done and done.result())
        except (OSError, RunError) as error:
            raise self._unwritten(epoch, error) from error

    def close(self) -> None:
        """Wait until nothing is written any more, whatever happened."""
        self._aside.shutdown()

    def _make_room(self, folder: Path) -> None:
        for torso in folder.parent.glob(f"{PART}*"):  # of an interrupted write
            shutil.rmtree(torso)
        stored.make_room(folder)

    def _complete(self, folder: Path, dtypes: dict[str, str], note: dict[str, Any]) -> None:
        stored.complete(folder, dtypes, note)
        self._damaged.discard(int(folder.name))
        good = [epoch for epoch in epochs(self._directory) if epoch not in self._damaged]
        for epoch in [*self._damaged, *good[: -self._keep]]:
            shutil.rmtree(folder.with_name(str(epoch)), ignore_errors=True)

    def _unwritten(self, epoch: int, error: Any) -> RunError:
        if is_first():
            shutil.rmtree(stored.part_of(self._directory / _FOLDER / str(epoch)), True)
        last = epochs(self._directory)
        left = f"the one of epoch {last[-1]} is whole" if last else "there is none yet"
        why = one_line(error) if error else "another process could not write its part"
        return RunError(
            f"the checkpoint of epoch {epoch} could not be written to {self._directory / _FOLDER} "
            f"({why}); {left}: {remedy(error)}, then {resume_command(self._directory)}"
        )


def restore(directory: Path) -> Checkpoint | None:
    """The last checkpoint that is whole; None where there is none at all.

    A damaged one is skipped with a warning. Raises InputError if all are damaged.
    """
    damaged: list[str] = []
    for epoch in reversed(epochs(directory)):
        path = directory / _FOLDER / str(epoch)
        try:
            found = stored.Stored(path)
        except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
            damaged.append(f"{path} is damaged ({one_line(error)})")
            _LOG.warning("%s: going back to the one before", damaged[-1])
        else:
            return Checkpoint(epoch, found.note, found)
    if damaged:
        raise InputError(f"no checkpoint can be read: {damaged[0]}: restore it, or train again")
    return None


@contextmanager
def read_here(directory: Path, epoch: int) -> Iterator[None]:
    """Raise RunError where a whole checkpoint cannot be read: an older one would lose epochs."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:  # of memory, devices, the file system
        raise RunError(
            f"{directory / _FOLDER / str(epoch)} is whole, but cannot be read here "
            f"({one_line(error)}): free memory, or mend that, then {resume_command(directory)}"
        ) from error
