"""Train one population with several processes, which JAX's multi-controller runtime connects.

All processes run the same program. Each process uses its own devices. After each epoch, the
processes decide together whether to continue. The first process writes the files.
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
    """Connect this process to the other processes.

    Call this function before JAX's first computation.

    If all arguments are None, JAX detects the processes of Slurm, MPI, Kubernetes or a TPU pod.

    Args:
      coordinator: the address "host:port" of the first process.
      processes: the number of processes.
      process: the number of this process, from 0.

    Raises:
      InputError: the other processes cannot be reached.
    """
    given = [x for x in (coordinator, processes, process) if x is not None]
    if len(given) not in (0, 3):
        raise InputError(
            "--coordinator, --num-processes and --process-id must come together: give all three, "
            "or only --distributed on Slurm, MPI, Kubernetes or a TPU pod",
            "coordinator",
        )
    if coordinator is not None and processes is not None and process is not None:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal() and 0 <= process < processes):
            raise InputError(
                f"coordinator ({coordinator!r}) must be HOST:PORT, as in "
                f"{host or coordinator}:1234, and process-id ({process}) must be from 0 to "
                f"num-processes ({processes}) - 1",
                "coordinator",
            )
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot join the other processes ({str(error).splitlines()[0]}): start every process "
            "with the same --coordinator HOST:PORT, an address that every process can reach",
            "coordinator",
        ) from error


def joined() -> bool:
    """Return whether this process is connected to other processes."""
    return jax.distributed.is_initialized() and several()


def several() -> bool:
    """Return whether there is more than one process."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Return whether this is the first process, which prints all messages."""
    return jax.process_index() == 0


def largest(number: int) -> int:
    """Return the maximum of `number` over all processes."""
    return int(multihost_utils.process_allgather(np.array(number)).max()) if several() else number


def any_of(condition: bool) -> bool:
    """Return whether `condition` is True in any process."""
    return bool(largest(int(condition)))


def on_first(do: Callable[[], Any]) -> Any:
    """Call `do` in the first process and return its result. The other processes wait for the call.

    The other processes return None. If the call fails, all processes raise the same InputError or
    RunError.
    """
    if not several():
        return do()
    result, error = None, None
    if is_first():
        try:
            result = do()
        except Exception as caught:  # any error, because the other processes wait
            error = caught
    kind, message, field = _send_from_first(
        ("" if error is None else "input" if isinstance(error, InputError) else "run"),
        str(error),
        getattr(error, "field", None),
    )
    if error is not None:
        raise error
    if kind:
        raise (InputError if kind == "input" else RunError)(message, field)
    return result


def _send_from_first(*values: Any) -> list[Any]:
    """Send values from the first process to every process. JSON must support the values."""
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    padded = np.zeros(largest(text.size), np.uint8)
    padded[: text.size] = text
    found = multihost_utils.broadcast_one_to_all(padded)
    return json.loads(np.asarray(found).tobytes().rstrip(b"\0"))


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raise RunError with advice if another process has died. JAX's error has no advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not several():
            raise
        raise RunError(
            "another process of this run has died, or cannot be reached "
            f"({str(error).splitlines()[0][:200]}): start all processes again with "
            "`sacjax resume`, which continues from the last checkpoint"
        ) from error
