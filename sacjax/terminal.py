"""The command line's ends: streams that take no more, leaving with a code."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any


def any_text() -> None:
    """What a terminal's encoding does not have is written as an escape, and is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def with_streams(command: Callable[[], int]) -> int:
    """The exit code of `command`, or why its output could not be written: 141 where nobody reads it
    any longer, as of other commands, 3 where there is no room. Never a traceback, also none of
    Python's at its exit."""
    try:
        code = command()
        gone = lost(sys.stdout)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        code, gone = 0, lost(sys.stdout) or error
    if not code and isinstance(gone, BrokenPipeError):
        code = 141
    elif not code and gone is not None:
        complain(f"sacjax: cannot write ({gone}): make room, or write to another place")
        code = 3
    lost(sys.stderr)
    return code


def leave(code: int, at_once: bool = False) -> int:
    """The exit code. `at_once`, and where there are other processes, without what would be waited
    for at the end: the epoch that is running, the others, writes that cannot end."""
    if at_once or _is_one_of_several():
        lost(sys.stdout)
        lost(sys.stderr)
        os._exit(code)
    return code


def _is_one_of_several() -> bool:
    if "sacjax.runs.processes" not in sys.modules:
        return False
    from sacjax.runs import processes

    return processes.joined()


def complain(text: str) -> None:
    """On stderr, as long as there is one."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def tell_reader(argv: list[str], error: BaseException) -> None:
    """An event "error" for whoever reads JSON lines, if `JsonLines` has not told it already."""
    from sacjax import progress

    asked = "--log-format json" in " ".join(argv).replace("=", " ").replace("_", "-")
    if not asked or progress.was_told(error):
        return
    if _is_one_of_several():
        from sacjax.runs import processes

        if not processes.is_first():
            return
    with contextlib.suppress(OSError):
        print(progress.error_event(error), flush=True)


def lost(stream: Any) -> OSError | None:
    """Flush it. Where it takes no more: why, and the rest goes nowhere, also at Python's exit."""
    if stream is None:  # there never was one
        return None
    try:
        stream.flush()
        return None
    except OSError as error:
        with contextlib.suppress(OSError):  # a stream that is no file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return error
