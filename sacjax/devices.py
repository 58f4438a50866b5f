"""Members over cores and accelerators, and what has to be set before JAX starts.

Members (seeds, points of a grid) never exchange anything, so how they are laid out decides the
speed and nothing else. On an accelerator they are vmapped: one wide program. On a CPU it is fastest
(1.4 to 2.8 times a vmap on one device, on two cores: docs/performance.md) to give every core a
device of its own and let it train its members one after the other, each with its whole working set
in the cache. M members, D devices.
"""

import hashlib
import math
import os
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from sacjax.types import InputError, is_key, is_whole

Strategy = Literal["auto", "vmap", "map"]


def layout(members: int, strategy: str = "auto", devices: int | None = None) -> tuple[str, int]:
    """(strategy, devices) for so many members; `devices` None: as many as are of use.

    Several processes always use all of their devices. "auto" is "map" on several CPU devices, and
    "vmap" everywhere else. Raises InputError.
    """
    here, several = jax.device_count(), jax.process_count() > 1
    if strategy not in get_args(Strategy):
        raise InputError(f"strategy ({strategy!r}) must be one of {', '.join(get_args(Strategy))}")
    if devices is not None and not (is_whole(devices) and 1 <= devices <= here):
        raise InputError(
            f"devices ({devices}) must be from 1 to {here}, as many as JAX has here: keep to "
            "these, or leave devices (--devices) out. On a CPU each core is one after "
            "sacjax.use_all_cores(), called before JAX's first computation; the command line does"
        )
    if several and devices not in (None, here):
        raise InputError(f"devices ({devices}) must be left out: several processes use all {here}")
    devices = here if several else min(int(devices or here), members)
    if strategy == "auto":
        strategy = "map" if jax.default_backend() == "cpu" and devices > 1 else "vmap"
    return strategy, devices


def fill_up(tree: Any, devices: int) -> Any:
    """Leaves [M, ...] -> [M', ...], M' the next multiple of D, by copies of the last member."""
    missing = -len(jax.tree.leaves(tree)[0]) % devices
    if not missing:
        return tree
    return jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[-1:], missing, 0)]), tree)


def over_members(
    f: Callable,
    in_axes: int | Sequence[int | None] = 0,
    *,
    strategy: str = "auto",
    devices: int | None = None,
    donated: bool = False,
) -> Callable:
    """`jax.vmap(f, in_axes)`, laid out for this machine; each axis is 0 (per member) or None.

    `over_members(make_train(config))(keys)` trains one member per key. M that is no multiple of D
    is filled up with copies of the last member, which are dropped from the result. `donated`: `f`
    is (state, ...) -> (state, output), and with "map" the states are stepped in place (one member's
    is held twice, not all of them). Jit the result. Raises InputError as `layout` does.
    """

    def laid_out(*args: Any) -> Any:
        axes = (in_axes,) * len(args) if isinstance(in_axes, int) else tuple(in_axes)
        if not all(axis is None or axis == 0 for axis in axes) or 0 not in axes:
            raise InputError(
                f"in_axes ({in_axes!r}) must be 0 for what each member has of its own and None for "
                "what all share: move the members' axis to the front"
            )
        mapped = [arg for arg, axis in zip(args, axes, strict=True) if axis == 0]
        members = len(jax.tree.leaves(mapped)[0])
        how, number = layout(members, strategy, devices)
        if members <= number:
            many = partial(_alone, f, axes)
        elif how == "vmap":
            many = jax.vmap(f, axes)
        else:
            many = partial(_one_after_the_other, f, axes, donated)
        if number == 1:
            return many(*args)
        specs = tuple(PartitionSpec("members") if axis == 0 else PartitionSpec() for axis in axes)
        sharded = jax.shard_map(
            partial(_readable, many),
            mesh=_mesh(number),
            in_specs=specs,
            out_specs=PartitionSpec("members"),
            check_vma=False,
        )
        filled = [
            fill_up(arg, number) if axis == 0 else arg for arg, axis in zip(args, axes, strict=True)
        ]
        return jax.tree.map(lambda x: x[:members], sharded(*filled))

    return laid_out


def _readable(f: Callable, *args: Any) -> Any:
    """`f(*args)`; of its arguments and constants, those of no elements are made anew.

    jaxlib 0.11.2 crashes where a device reads its part of one.
    """

    def anew(x: jax.Array) -> jax.Array:
        return x if x.size else jnp.zeros(x.shape, x.dtype)

    closed, like = jax.make_jaxpr(f, return_shape=True)(*args)
    made = ClosedJaxpr(closed.jaxpr, [anew(x) for x in closed.consts])
    flat = jaxpr_as_fun(made)(*(anew(x) for x in jax.tree.leaves(args)))
    return jax.tree.unflatten(jax.tree.structure(like), flat)


def _alone(f: Callable, axes: tuple[int | None, ...], *args: Any) -> Any:
    """A device's only member, compiled as one: a quarter quicker than a vmap over one (W6)."""
    one = (
        jax.tree.map(lambda x: jnp.squeeze(x, 0), arg) if axis == 0 else arg
        for arg, axis in zip(args, axes, strict=True)
    )
    return jax.tree.map(lambda x: jnp.expand_dims(x, 0), f(*one))


def _one_after_the_other(
    f: Callable, axes: tuple[int | None, ...], donated: bool, *args: Any
) -> Any:
    """vmap's meaning by a loop: `f` is compiled as for one member."""
    mapped = tuple(arg for arg, axis in zip(args, axes, strict=True) if axis == 0)

    def one(member: tuple) -> Any:
        rest = iter(member)
        return f(*(next(rest) if axis == 0 else a for a, axis in zip(args, axes, strict=True)))

    if not donated:
        return jax.lax.map(one, mapped)

    def step(states: Any, inputs: tuple) -> tuple[Any, Any]:
        i, others = inputs
        state = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), states)
        state, output = one((state, *others))
        states = jax.tree.map(
            lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, i, 0), states, state
        )
        return states, output

    states, others = mapped[0], mapped[1:]
    numbers = np.arange(len(jax.tree.leaves(states)[0]))
    return jax.lax.scan(step, states, (numbers, others))


def _mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("members",))


def placement(devices: int) -> Sharding:
    """Members over the first `devices` devices, of all processes."""
    if devices == 1:
        return SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(_mesh(devices), PartitionSpec("members"))


def place(tree: Any, devices: int) -> Any:
    """Lay arrays [M', ...], equal in all processes, out over the devices. Leaves may be keys."""
    where = placement(devices)

    def put(x: Any) -> Any:
        if jax.process_count() == 1:
            return jax.device_put(x, where, may_alias=False)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

    return _map_numbers(put, tree)


def gather(tree: Any) -> Any:
    """Arrays from the devices of all processes as NumPy arrays in each. Keys stay JAX arrays."""
    several = jax.process_count() > 1
    get = partial(multihost_utils.process_allgather, tiled=True) if several else np.asarray
    return _map_numbers(get, tree)


def _map_numbers(f: Callable, tree: Any) -> Any:
    """`f` of each array; of PRNG keys, of the numbers in them."""

    def each(x: Any) -> Any:
        if is_key(x):
            numbers, impl = jax.random.key_data(x), jax.random.key_impl(x)
            return jax.random.wrap_key_data(f(numbers), impl=impl)
        return f(x)

    return jax.tree.map(each, tree)


def use_all_cores() -> None:
    """Give each core a JAX device of its own, for `over_members` and `run` to spread over.

    Without effect where `jax_num_cpu_devices` or XLA_FLAGS already say how many there are. Raises
    RuntimeError once JAX has made its devices.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    asked = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    if asked < 0 and "host_platform_device_count" not in flags:
        count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
        if hasattr(os, "sched_getaffinity"):  # what this process may use, in a container too
            count = len(os.sched_getaffinity(0))
        jax.config.update("jax_num_cpu_devices", min(count, _quota() or count))


def _quota(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """The cores' worth of time that this process's control group may have, if it is bounded."""
    try:
        quota, period = limit.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # none, or "max"
        return None


def keep_compiled_programs() -> None:
    """Store compiled programs on disk, so that a program seen before starts seconds sooner.

    They go to `$XDG_CACHE_HOME/sacjax` (~/.cache/sacjax), apart for each kind of processor: code
    made for one need not run on another. Without effect where JAX_COMPILATION_CACHE_DIR, which
    names another folder, is set (empty: no cache at all).
    """
    asked = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if asked or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(cache / "sacjax" / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _processor() -> str:
    """This machine's kind of processor, with what it can do, as a short name."""
    features = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += sorted({x for x in lines if x.startswith(("flags", "Features", "model name"))})
    except OSError:
        pass  # not Linux: the names above must do
    return f"{platform.machine()}-{hashlib.sha256(repr(features).encode()).hexdigest()[:12]}"
