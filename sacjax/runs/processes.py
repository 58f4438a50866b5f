"""Several processes that train one population, by JAX's multi-controller.

Every process runs the same program on its own devices, and members exchange nothing. The processes
agree on what to do next after each epoch. The first one writes the files.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sacjax.types import InputError, RunError


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Become process number `process` of so many; `coordinator` is the first one's "host:port".

    All None: JAX finds them from Slurm, MPI, Kubernetes or a TPU pod. Call it before JAX's first
    computation. Raises InputError where they cannot be found.
    """
    given = [x for x in (coordinator, processes, process) if x is not None]
    if len(given) not in (0, 3):
        raise InputError(
            "of --coordinator, --num-processes and --process-id give all three, or none and "
            "--distributed where Slurm, MPI, Kubernetes or a TPU pod started the processes"
        )
    if coordinator is not None and processes is not None and process is not None:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal() and 0 <= process < processes):
            raise InputError(
                f"coordinator ({coordinator!r}) must be HOST:PORT, as in "
                f"{host or coordinator}:1234, and process-id ({process}) from 0 to num-processes "
                f"({processes}) - 1"
            )
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot join the other processes ({str(error).splitlines()[0]}): start all of them, "
            "with the same --coordinator HOST:PORT, which all can reach"
        ) from error


def joined() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and several()


def several() -> bool:
    """Whether there is more than one process."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes the files and prints."""
    return jax.process_index() == 0


def largest(number: int) -> int:
    """The largest number that any process gives."""
    return int(multihost_utils.process_allgather(np.array(number)).max()) if several() else number


def any_of(said: bool) -> bool:
    """Whether any process says True."""
    return bool(largest(int(said)))


def on_first(do: Callable[[], Any]) -> Any:
    """Call `do` in the first process; the others wait for it and return None.

    Raises InputError or RunError in every process, with the same message and field, if the call
    fails in the first one.
    """
    if not several():
        return do()
    result, error = None, None
    if is_first():
        try:
            result = do()
        except Exception as found:  # of any kind: the other processes wait for an answer
            error = found
    kind, message, field = _from_first(
        ("" if error is None else "input" if isinstance(error, InputError) else "run"),
        str(error),
        getattr(error, "field", None),
    )
    if error is not None:
        raise error
    if kind:
        raise (InputError if kind == "input" else RunError)(message, field)
    return result


def _from_first(*values: Any) -> list[Any]:
    """The first process's values, which JSON can hold, in every process."""
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    padded = np.zeros(largest(text.size), np.uint8)
    padded[: text.size] = text
    found = multihost_utils.broadcast_one_to_all(padded)
    return json.loads(np.asarray(found).tobytes().rstrip(b"\0"))


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """What JAX raises where another process is gone, as a RunError."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not several():
            raise
        raise RunError(
            f"another process of this run is gone, or cannot be reached "
            f"({str(error).splitlines()[0][:200]}): start all processes again with "
            "`sacjax resume`, it goes on from the last checkpoint"
        ) from error
