"""Trees of arrays on the disk, by orbax, without what its threads print.

orbax takes a second to import: that is put off to the first use.
"""

import contextlib
import gc
import logging
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sacjax.runs import processes


def write(path: Path, tree: Any) -> None:
    """In place of what is there; handed over to the operating system. Each process writes what its
    devices hold. Not compressed: that halves the time, and takes no memory
    (benchmarks/checkpoint.py)."""
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler(use_compression=False)
    with quiet(), ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(tree), force=True)


def shapes(path: Path, alone: bool = False) -> Any:
    """The tree that was written, as `jax.ShapeDtypeStruct`s. `alone`: of several processes this one
    reads for itself."""
    with quiet(), _reader(alone) as reader:
        item = reader.metadata(path).item_metadata
    assert item is not None
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), item.tree)


def read(path: Path, wanted: Any, alone: bool = False) -> Any:
    """The tree; `wanted` is one of `jax.ShapeDtypeStruct`s: where that has a sharding, an array on
    those devices, of which each process reads its own part, else NumPy's."""
    like = jax.tree.map(lambda x: x if x.sharding else np.empty(x.shape, x.dtype), wanted)
    with quiet(), _reader(alone) as reader:
        return reader.restore(path, like)


def _reader(alone: bool) -> Any:
    import orbax.checkpoint as ocp

    return ocp.StandardCheckpointer(**processes.alone() if alone else {})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """orbax's threads would print a traceback for each file that is damaged, or that there is no
    room for, through asyncio's log and absl's; the caller says it in a sentence. What fails has
    ended in all of them when this raises."""
    logs = [logging.getLogger(name) for name in ("asyncio", "absl")]
    before, hook = [log.disabled for log in logs], sys.unraisablehook
    for log in logs:
        log.disabled = True
    sys.unraisablehook = partial(_but_closed_loops, hook)
    try:
        yield
        sys.unraisablehook = hook  # where it failed, tensorstore's threads go on telling of it
    except Exception as error:
        _wait_for_orbax()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines that did not get to run
            _let_go(error)
            gc.collect()  # other threads' exceptions that nobody took are told of now, to nobody
        raise
    finally:
        for log, was in zip(logs, before, strict=True):
            log.disabled = was


def _wait_for_orbax(seconds: float = 30) -> None:
    """Until none of its threads writes any more, or that long: one may wait for another process."""
    end = time.monotonic() + seconds
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            threading.Thread.join(thread, max(0, end - time.monotonic()))  # its own join raises


def _but_closed_loops(hook: Callable, what: Any) -> None:
    """`sys.unraisablehook` without writes that end after their asyncio loop has: it had failed."""
    if not (what.exc_type is RuntimeError and str(what.exc_value) == "Event loop is closed"):
        hook(what)


def _let_go(error: BaseException | None) -> None:
    """What an exception, and those that it comes from, hold: orbax's tasks among it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
