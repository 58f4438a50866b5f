"""Ctrl-C and SIGTERM: the run ends after the current epoch, with its files complete."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class StopOnSignal:
    """The first Ctrl-C or SIGTERM ends the run after the current epoch; the second at once."""

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
        return self._asked

    def _handle(self, number: int, _: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked, self.number = True, number
        with contextlib.suppress(OSError, RuntimeError):  # the terminal may be gone already
            print(
                "\nStopping after this epoch, files will be complete (Ctrl-C again: at once)",
                file=sys.stderr,
            )


@contextlib.contextmanager
def put_off(should_stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """`should_stop`, which a signal answers with True too: it takes effect after the block.

    Only those that nobody else handles, and only in the main thread, which Python gives them to.
    """
    mine = [n for n, default in _DEFAULTS.items() if signal.getsignal(n) == default]
    if threading.current_thread() is not threading.main_thread():
        mine = []
    with StopOnSignal(mine) as stop:
        yield lambda: stop.asked() or should_stop()
    if stop.asked():
        signal.raise_signal(stop.number)
