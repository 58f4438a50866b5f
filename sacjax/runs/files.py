"""Write files atomically. If a write fails, the file keeps its previous content."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

PART = ".part-"  # the names of unfinished files start with this prefix

_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


def expanded(path: str | os.PathLike) -> Path:
    """Replace ~ at the start of the path with the home directory."""
    return Path(os.path.expanduser(path))


def remedy(error: BaseException | None) -> str:
    """Return "make room" if the disk or a quota is full, else "fix the cause".

    The function searches the whole chain of exceptions, because libraries wrap or quote the error
    of the operating system.
    """
    while error is not None:
        quoted = any(os.strerror(number) in str(error) for number in _FULL)
        if quoted or getattr(error, "errno", None) in _FULL:
            return "make room"
        error = error.__cause__ or error.__context__
    return "fix the cause"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, and rename the file to `path` after the block.

    If the block fails, the temporary file is deleted and `path` keeps its previous content.
    """
    part = path.with_name(PART + path.name)
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Replace the file's content atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file's content atomically."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
