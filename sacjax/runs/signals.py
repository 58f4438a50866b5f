"""Stop a run on Ctrl-C or SIGTERM, after the current epoch or after a grace period."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


GRACE = 20.0  # seconds


class StopOnSignal:
    """Stop a run on Ctrl-C or SIGTERM.

    The first signal stops the run after the current epoch. A second signal, or the end of the grace
    period, stops the run at once. The run then raises KeyboardInterrupt with the signal's number.
    The files are always complete, and the run can be resumed from its last checkpoint.
    """

    number: int = signal.SIGINT

    def __init__(self, grace: float = GRACE, numbers: Sequence[int] = tuple(_DEFAULTS)):
        self._grace, self._numbers = grace, numbers
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "StopOnSignal":
        self._asked = False
        self._before = {n: signal.signal(n, self._handle) for n in self._numbers}
        return self

    def __exit__(self, *_: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """Return whether a signal has arrived. If True, also cancel the grace period."""
        if self._asked and self._timer is not None:
            self._timer.cancel()
        return self._asked

    def _handle(self, number: int, _: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt(self.number)
        self._asked, self.number = True, number
        self._timer = threading.Timer(self._grace, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()
        with contextlib.suppress(OSError, RuntimeError):  # the terminal may be closed
            print(
                f"\nStopping after this epoch, but in {self._grace:g} s at the latest. All files "
                "stay complete. Press Ctrl-C again to stop at once.",
                file=sys.stderr,
            )


@contextlib.contextmanager
def deferred(should_stop: Callable[[], bool], grace: float) -> Iterator[Callable[[], bool]]:
    """Delay signals until the block ends. Yields a function that returns True after a signal.

    The function delays a signal only if Python's default handler is installed. Outside of the main
    thread, the function does nothing, because Python handles signals in the main thread.
    """
    main = threading.current_thread() is threading.main_thread()
    mine = [n for n, default in _DEFAULTS.items() if main and signal.getsignal(n) == default]
    with StopOnSignal(grace, mine) as stop:
        yield lambda: stop.asked() or should_stop()
    if stop.asked():
        signal.raise_signal(stop.number)
