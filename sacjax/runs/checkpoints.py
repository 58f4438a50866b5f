"""Checkpoints of a run: each is whole or does not exist, and is checked when it is read.

    checkpoints/12/        an orbax checkpoint: what the run was after 12 epochs
    checkpoints/12.json    a note, and the SHA-256 of every file in it; written last

A checkpoint without its note is a torso, one whose files are others than noted is damaged.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from sacjax.runs import processes, store
from sacjax.runs.files import remedy
from sacjax.runs.leaves import Arrays
from sacjax.types import PLAIN, InputError, RunError, one_line

_LOG = logging.getLogger("sacjax")
_FOLDER = "checkpoints"
BATCHES = "batches"  # where a run has the folders of its batches


class Checkpoint(NamedTuple):
    """One that was read."""

    epoch: int
    note: dict[str, Any]
    arrays: Arrays


def whole_run(directory: Path) -> Path:
    """The folder to resume: this one, or the run's of which it is a batch."""
    whole = directory.parent.parent
    batched = directory.parent.name == BATCHES and (whole / "config.json").is_file()
    return whole if batched else directory


def resuming(directory: Path) -> str:
    """What goes on with the run: a command as a shell takes it; in Python, where its environment is
    an object, or its algorithm somebody's own."""
    whole = whole_run(directory)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        content = json.loads((whole / "config.json").read_text())
        given = [", env=..."] if content["config"]["env"] is None else []
        given += [", algorithm=..."] if content.get("algorithm", PLAIN) != PLAIN else []
        if given:
            return f"`sacjax.resume({str(whole)!r}{''.join(given)})`"
    return f"`sacjax resume {shlex.quote(str(whole))}`"


def check_path(directory: Path) -> None:
    """InputError where agents and checkpoints could not be read again: orbax takes brackets and
    backslashes for a pattern when it looks for what it has written, and needs UTF-8."""
    path = directory.absolute().as_posix()
    readable = path.encode(errors="replace").decode() == path
    if "\\" in path or re.search(r"\[.*\]", path) or not readable:
        raise InputError(
            f"{path!r} cannot hold a run: what orbax writes under a path with [ ], \\ or bytes "
            "that are not UTF-8 cannot be read again: use a folder without them (--out)"
        )


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Nobody else writes this run's folder meanwhile; InputError if somebody does already.

    The lock is the kernel's, so it goes with the process, however that ends.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{directory} is being written by another process: wait for it, or stop it first"
            ) from error
        except OSError as error:
            raise InputError(
                f"{directory} cannot be locked ({error.strerror}), so a second run could write to "
                "it: use a folder of a file system with flock"
            ) from error
        yield
    finally:
        os.close(descriptor)


def epochs(directory: Path) -> list[int]:
    """Those that there are complete checkpoints of, oldest first."""
    found = [path.with_suffix("") for path in (directory / _FOLDER).glob("*.json")]
    return sorted(int(path.name) for path in found if path.name.isdigit() and path.is_dir())


class Writer:
    """Writes the checkpoints of a run, one at a time. All processes of a run call it alike; each
    writes what its devices hold of the arrays.

    A checkpoint counts once its checksums are taken and all of it is forced to the disk. That goes
    on in a thread while the run goes on, so RunError comes with the next call if it fails.
    """

    def __init__(self, directory: Path, keep: int, begun: int = 0):
        """`begun`: the epoch that the run goes on from; later ones were damaged."""
        self._directory, self._keep, self._begun = directory, keep, begun
        self._whole: set[int] = set()  # of those after it, the ones that were written since
        self._aside = ThreadPoolExecutor(1, "checkpoint")
        self._unfinished: tuple[int, Future | None] | None = None

    def save(self, epoch: int, note: dict[str, Any], arrays: Arrays) -> None:
        """Begin one; the arrays may be given away when this returns. RunError."""
        self.finish()
        folder = self._directory.absolute() / _FOLDER
        path = folder / str(epoch)

        def make_room() -> None:
            folder.mkdir(exist_ok=True)
            _remove(path)  # a damaged one
            _remove_torsos(self._directory)

        failed: Exception | None = None
        try:
            processes.first(make_room)
            store.write(path, {name: x for name, x in arrays.items() if x.size})
        except Exception as error:  # orbax and its stores raise many kinds where the disk is full
            failed = error
        if processes.any_of(failed is not None):
            raise _unwritten(self._directory, epoch, failed) from failed
        done = self._aside.submit(self._complete, path, note) if processes.is_first() else None
        self._unfinished = epoch, done

    def finish(self) -> None:
        """Until the one that was begun is whole, and all but the last `keep` are gone. RunError."""
        if self._unfinished is None:
            return
        (epoch, done), self._unfinished = self._unfinished, None
        try:
            processes.first(lambda: done and done.result())
        except Exception as error:  # as above
            raise _unwritten(self._directory, epoch, error) from error

    def close(self) -> None:
        """Until nothing is written any more, whatever happened."""
        self._aside.shutdown()

    def _complete(self, path: Path, note: dict[str, Any]) -> None:
        _write_note(path, note)
        self._whole.add(int(path.name))
        written = epochs(self._directory)
        damaged = [x for x in written if x > self._begun and x not in self._whole]
        good = [x for x in written if x not in damaged]
        for epoch in damaged + good[: -self._keep]:
            _remove(path.with_name(str(epoch)))


def _unwritten(directory: Path, epoch: int, error: Any) -> RunError:
    if processes.is_first():
        with contextlib.suppress(OSError):
            _remove_torsos(directory)
    last = epochs(directory)
    left = f"the one of epoch {last[-1]} is whole" if last else "there is none yet"
    why = one_line(error) if error else "another process could not write its part"
    return RunError(
        f"the checkpoint of epoch {epoch} could not be written to {directory / _FOLDER} "
        f"({why}); {left}: {remedy(error)}, then {resuming(directory)}"
    )


def restore(
    directory: Path, like: Callable[[dict[str, Any], Arrays], Arrays] = lambda note, shapes: shapes
) -> Checkpoint | None:
    """The last one that is whole; None where there is none at all.

    `like(note, shapes)` says how each array is wanted: a `jax.ShapeDtypeStruct` with a sharding
    makes it one on those devices, of which each process reads its own part; else it is NumPy's. A
    damaged one is passed over with a warning. Raises InputError if all are damaged, RunError where
    a whole one cannot be read here: going back to one before would lose what is not lost.
    """
    damaged: list[str] = []
    _say_torsos(directory)
    for epoch in reversed(epochs(directory)):
        path = directory.absolute() / _FOLDER / str(epoch)
        note = _checked_by_first(path)
        if isinstance(note, dict):
            with _read_here(directory, path):
                shapes = store.shapes(path)
            wanted = like(note, shapes)
            with _read_here(directory, path):
                return Checkpoint(epoch, note, store.read(path, wanted))
        damaged.append(f"{path} is damaged ({note})")
        _LOG.warning("%s: going back to the one before", damaged[-1])
    if damaged:
        raise InputError(f"no checkpoint can be read: {damaged[0]}: restore it, or train again")
    return None


@contextlib.contextmanager
def _read_here(directory: Path, path: Path) -> Iterator[None]:
    """RunError where a whole checkpoint cannot be."""
    try:
        yield
    except Exception as error:  # of memory, devices, the file system
        raise RunError(
            f"{path} is whole, but cannot be read here ({one_line(error)}): free memory, or mend "
            f"that, then {resuming(directory)}"
        ) from error


def _checked_by_first(path: Path) -> dict[str, Any] | str:
    """The note, or what is wrong."""
    note, why = None, "the first process found it so"
    if processes.is_first():
        try:
            note = _checked_note(path)
        except Exception as error:  # as above
            why = one_line(error)
    if not processes.of_first(note is not None):
        return why
    return note or _checked_note(path, files=False)


def _say_torsos(directory: Path) -> None:
    """A checkpoint whose note, or whose files, are lost is not one; it should not go unnoticed."""
    whole = {str(epoch) for epoch in epochs(directory)}
    found = {path.name.removesuffix(".json") for path in (directory / _FOLDER).glob("*")}
    for name in sorted(name for name in found - whole if name.isdigit()):
        _LOG.warning(
            "%s of epoch %s was not finished, or has lost a part: passed over",
            *(directory / _FOLDER, name),
        )


def _write_note(path: Path, note: dict[str, Any]) -> None:
    """The note of a checkpoint that is there; its first line is the rest's SHA-256.

    Everything is on the disk before it, and it is before anything older is removed: a machine that
    is taken away at any moment leaves a whole checkpoint.
    """
    inside = sorted(path.rglob("*"))
    files = {str(f.relative_to(path)): _sha256(f) for f in inside if f.is_file()}
    text = json.dumps({"note": note, "files": files})
    part = path.with_suffix(".part")
    part.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
    for place in (*inside, path, part):
        _to_disk(place)
    os.replace(part, path.with_suffix(".json"))
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """A file's content, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked_note(path: Path, files: bool = True) -> dict[str, Any]:
    """The note, if that and all `files` are what they were. ValueError."""
    digest, _, text = path.with_suffix(".json").read_text().partition("\n")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise ValueError(f"{path.name}.json is not as it was written")
    content = json.loads(text)
    for name, wanted in content["files"].items() if files else ():
        file = path / name
        if not file.is_file() or _sha256(file) != wanted:
            raise ValueError(f"{name} is {'changed' if file.is_file() else 'missing'}")
    return content["note"]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove(path: Path) -> None:
    """First the note, so that what is left of an interrupted removal is a torso."""
    path.with_suffix(".json").unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _remove_torsos(directory: Path) -> None:
    """What an interrupted write or removal left."""
    whole = {str(epoch) for epoch in epochs(directory)}
    for path in (directory / _FOLDER).iterdir():
        of_ours = path.name.split(".")[0].isdigit()
        if of_ours and path.name.removesuffix(".json") not in whole:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
