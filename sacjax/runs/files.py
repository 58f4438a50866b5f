"""Files that are written whole or not at all."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

PART = ".part-"  # so begins the name of a file that is not whole yet

_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


def remedy(error: BaseException | None) -> str:
    """For what could not be written: "make room", if that would help. Libraries wrap what the
    operating system says, or quote it."""
    while error is not None:
        said = any(os.strerror(number) in str(error) for number in _FULL)
        if said or getattr(error, "errno", None) in _FULL:
            return "make room"
        error = error.__cause__ or error.__context__
    return "mend that"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to, which then becomes `path`. Where that fails, it is gone again, and what
    was there before is still there."""
    part = path.with_name(PART + path.name)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """An interrupted write leaves what was there before."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Like `write_text`."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
