"""Ctrl-C and SIGTERM: the run stops after the current epoch, with complete files."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class StopOnSignal:
    """Stop the run after the current epoch at the first signal, and at once at the second."""

    number: int = signal.SIGINT

    def __init__(self, numbers: Sequence[int] = tuple(_DEFAULTS)):
        self._numbers = numbers

    def __enter__(self) -> "StopOnSignal":
        self._asked = False
        self._before = {n: signal.signal(n, self._handle) for n in self._numbers}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Return whether a signal has arrived."""
        return self._asked

    def _handle(self, number: int, _: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked, self.number = True, number
        with contextlib.suppress(OSError, RuntimeError):  # the terminal may be closed already
            print(
                "\nStopping after this epoch, files will be complete (Ctrl-C again: at once)",
                file=sys.stderr,
            )


@contextlib.contextmanager
def deferred(should_stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Defer signals to the end of the block, and yield a `should_stop` that reports them.

    Only signals with Python's default handler are deferred, and only in the main thread, the only
    one where Python handles signals.
    """
    main = threading.current_thread() is threading.main_thread()
    mine = [n for n, default in _DEFAULTS.items() if main and signal.getsignal(n) == default]
    with StopOnSignal(mine) as stop:
        yield lambda: stop.asked() or should_stop()
    if stop.asked():
        signal.raise_signal(stop.number)
