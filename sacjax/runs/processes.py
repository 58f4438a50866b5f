"""Several processes, on one machine or many, that train one population: JAX's multi-controller.

Every process runs the same program on its own devices; members exchange nothing. Once an epoch the
processes exchange metrics and agree on what to do next; the first one writes the files.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from sacjax.types import InputError, RunError, is_key

_LONGEST = 2_000  # characters of a message that goes from the first process to the others


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Become process number `process` of so many; `coordinator` is the first one's "host:port".

    All None: JAX finds them from Slurm, MPI, Kubernetes or a TPU pod. Call it before JAX's first
    computation. Raises InputError where they cannot be found.
    """
    if len({coordinator is None, processes is None, process is None}) > 1:
        raise InputError(
            "of --coordinator, --num-processes and --process-id give all three, or none and "
            "--distributed where Slurm, MPI, Kubernetes or a TPU pod started the processes"
        )
    if coordinator is not None and processes is not None and process is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(
                f"coordinator ({coordinator!r}) must be HOST:PORT: use {host or coordinator}:1234"
            )
        if processes < 1:
            raise InputError(f"num-processes ({processes}) must be at least 1")
        if not 0 <= process < processes:
            raise InputError(f"process-id ({process}) must be from 0 to {processes - 1}")
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
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes: the others have nothing to say."""
    return jax.process_index() == 0


def alone() -> dict[str, Any]:
    """Arguments for an orbax checkpointer that one process uses, waiting for none of the others."""
    if not several():
        return {}
    import orbax.checkpoint as ocp

    this = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"of_{this}"
    )
    return {"multiprocessing_options": options}


def sharding(devices: int) -> Sharding:
    """Of members over the first so many devices."""
    if devices == 1:
        return SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(
        Mesh(np.array(jax.devices()[:devices]), ("members",)), PartitionSpec("members")
    )


def spread(tree: Any, devices: int) -> Any:
    """Arrays [M', ...], the same in all processes, laid out over devices; some may be keys."""
    where = sharding(devices)

    def place(x: Any) -> Any:
        if is_key(x):
            data = place(np.asarray(jax.random.key_data(x)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        if several():
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, where, lambda index: x[index])
        return jax.device_put(x, where, may_alias=False)

    return jax.tree.map(place, tree)


def everywhere(tree: Any) -> Any:
    """Arrays laid out over devices, as NumPy arrays in every process; keys as JAX's."""

    def gather(x: Any) -> Any:
        if is_key(x):
            data = gather(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return multihost_utils.process_allgather(x, tiled=True) if several() else np.asarray(x)

    return jax.tree.map(gather, tree)


def largest(number: int) -> int:
    """Of all processes' numbers."""
    return int(multihost_utils.process_allgather(np.array(number)).max()) if several() else number


def any_of(said: bool) -> bool:
    """Whether any process says so."""
    return bool(largest(int(said)))


def of_first(number: int) -> int:
    """The first process's number."""
    return int(multihost_utils.broadcast_one_to_all(np.array(number))) if several() else number


def first(do: Callable[[], Any]) -> Any:
    """What `do` returns in the first process, elsewhere None; what it raises is known in all.

    There InputError and RunError are what they are; any other error is a RunError. No process is
    past it before the first one is.
    """
    if not several():
        return do()
    result, message, kind, other = None, "", 0, None
    if is_first():
        try:
            result = do()
        except Exception as error:  # whatever it is: the other processes wait to hear of it
            message, kind = str(error), 1 if isinstance(error, InputError) else 2
            other = None if isinstance(error, (InputError, RunError)) else error
    text = np.zeros(_LONGEST + 1, np.uint8)
    encoded = list(message.encode()[:_LONGEST])
    text[0], text[1 : 1 + len(encoded)] = kind, encoded
    text = np.asarray(multihost_utils.broadcast_one_to_all(text))
    if other is not None:
        raise other
    if text[0]:
        said = bytes(text[1:]).rstrip(b"\0").decode(errors="replace")
        raise (RunError if text[0] == 2 else InputError)(said)
    return result


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
