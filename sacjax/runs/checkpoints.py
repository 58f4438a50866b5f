"""Write and read the checkpoints of a run. A checkpoint on disk is always complete.

For example, the folder checkpoints/12/ contains the state after 12 epochs. The module
`sacjax.runs.arrays` defines the format of the folder.
"""

import logging
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sacjax.runs import arrays as stored
from sacjax.runs.directory import resume_command
from sacjax.runs.files import PART, remedy
from sacjax.runs.processes import any_of, is_first, on_first
from sacjax.runs.provenance import Description
from sacjax.types import InputError, RunError, one_line

_LOG = logging.getLogger("sacjax")
_FOLDER = "checkpoints"


class Checkpoint(NamedTuple):
    """A complete checkpoint.

    Attributes:
      epoch: the number of finished epochs at the time of the checkpoint.
      note: the description of the run and of its diverged members.
      arrays: the arrays by name. Each access reads an array from the disk.
    """

    epoch: int
    note: Description
    arrays: stored.Arrays


def epochs(directory: Path) -> list[int]:
    """Return the epoch numbers of all checkpoints, oldest first."""
    found = (directory / _FOLDER).glob("*")
    return sorted(int(path.name) for path in found if path.name.isdigit() and path.is_dir())


class Writer:
    """Write the checkpoints of a run, one at a time.

    All processes call the methods with equal arguments. Each process writes the data of its own
    devices. A thread computes the checksums and completes the checkpoint while training continues.
    If the thread fails, the next method call raises RunError.
    """

    def __init__(self, directory: Path, keep: int, resumed_from: int = 0):
        """Keep the last `keep` checkpoints.

        Checkpoints of epochs after `resumed_from` are treated as damaged.
        """
        self._directory, self._keep = directory, keep
        self._damaged = {epoch for epoch in epochs(directory) if epoch > resumed_from}
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._unfinished: tuple[int, Future | None] | None = None

    def save(
        self, epoch: int, note: Description, arrays: stored.Arrays, rows: int = sys.maxsize
    ) -> None:
        """Start to write a checkpoint. After the call, the caller may donate the arrays.

        Args:
          epoch: the number of finished epochs.
          note: the description of the run, as in `Checkpoint.note`.
          arrays: the arrays by name.
          rows: the number of rows of each JAX array to write. Later rows are padding.

        Raises:
          RunError: this checkpoint or the previous checkpoint cannot be written.
        """
        self.finish()
        folder, failed, dtypes = self._directory / _FOLDER / str(epoch), None, {}
        try:
            on_first(lambda: self._make_room(folder))
            dtypes = stored.write_part(folder, arrays, rows)
        except (OSError, RunError) as error:
            failed = error
        if any_of(failed is not None):
            raise self._write_error(epoch, failed) from failed
        done = self._thread.submit(self._complete, folder, dtypes, note) if is_first() else None
        self._unfinished = epoch, done

    def finish(self) -> None:
        """Wait until the checkpoint is complete and old checkpoints are deleted.

        Raises RunError if the checkpoint cannot be written.
        """
        if self._unfinished is None:
            return
        (epoch, done), self._unfinished = self._unfinished, None
        try:
            on_first(lambda: done and done.result())
        except (OSError, RunError) as error:
            raise self._write_error(epoch, error) from error

    def close(self) -> None:
        """Wait for the thread to finish, even after an error."""
        self._thread.shutdown()

    def _make_room(self, folder: Path) -> None:
        for unfinished in folder.parent.glob(f"{PART}*"):  # an interrupted write left this folder
            shutil.rmtree(unfinished)
        stored.make_room(folder)

    def _complete(self, folder: Path, dtypes: dict[str, str], note: Description) -> None:
        stored.complete(folder, dtypes, note)
        self._damaged.discard(int(folder.name))
        good = [epoch for epoch in epochs(self._directory) if epoch not in self._damaged]
        for epoch in [*self._damaged, *good[: -self._keep]]:
            shutil.rmtree(folder.with_name(str(epoch)), ignore_errors=True)

    def _write_error(self, epoch: int, error: Exception | None) -> RunError:
        if is_first():
            shutil.rmtree(stored.part_of(self._directory / _FOLDER / str(epoch)), True)
        last = epochs(self._directory)
        left = f"the checkpoint of epoch {last[-1]} is complete" if last else "no other one exists"
        why = one_line(error) if error else "another process could not write its data"
        return RunError(
            f"the checkpoint of epoch {epoch} could not be written to {self._directory / _FOLDER} "
            f"({why}); {left}: {remedy(error)}, then {resume_command(self._directory)}",
            _FOLDER,
        )


def restore(directory: Path) -> Checkpoint | None:
    """Return the last complete checkpoint, or None if the run has no checkpoint.

    Damaged checkpoints are skipped with a warning. If all checkpoints are damaged, the function
    raises InputError.
    """
    damaged: list[str] = []
    for epoch in reversed(epochs(directory)):
        path = directory / _FOLDER / str(epoch)
        try:
            found = stored.Stored(path)
        except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
            damaged.append(f"{path} is damaged ({one_line(error)})")
            _LOG.warning("%s: using the previous checkpoint", damaged[-1])
        else:
            return Checkpoint(epoch, found.note, found)
    if damaged:
        raise InputError(
            f"no checkpoint is intact: {damaged[0]}: restore the folder, or train again", _FOLDER
        )
    return None


@contextmanager
def explain_read_errors(directory: Path, epoch: int) -> Iterator[None]:
    """Raise RunError if an intact checkpoint cannot be read.

    The function does not try an older checkpoint, because the run would then lose epochs.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:  # JAX raises RuntimeError
        raise RunError(
            f"{directory / _FOLDER / str(epoch)} is intact, but cannot be read here "
            f"({one_line(error)}): free memory, or fix the cause, then {resume_command(directory)}",
            _FOLDER,
        ) from error
