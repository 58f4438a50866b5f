"""Train members on several cores or accelerators, and configure JAX before it starts.

Members (pairs of a seed and a point of a grid) are independent, so the choice of devices affects
only the speed. On an accelerator, `vmap` trains all members at the same time. A CPU is fastest if
each core is a JAX device that trains members one after the other. The arrays of one member then fit
into the cache of a core. Two cores that train members one after the other are 1.4 to 2.8 times as
fast as `vmap` on one device (docs/performance.md). M is the number of members, and M' is
M rounded up to a multiple of the number of devices.
"""

import hashlib
import math
import os
import platform
from collections import Counter
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
from sacjax.validation import check_choice

Strategy = Literal["auto", "vmap", "map"]


def layout(members: int, strategy: str = "auto", devices: int | None = None) -> tuple[str, int]:
    """Return the strategy and the number of devices for a run, or raise InputError.

    "auto" means "map" on several CPU devices and "vmap" otherwise. `devices=None` means all
    devices, but at most one per member. A run with several processes always uses all
    devices.
    """
    here, several = jax.device_count(), jax.process_count() > 1
    check_choice(strategy, get_args(Strategy), "strategy")
    if devices is not None and not (is_whole(devices) and 1 <= devices <= here):
        raise InputError(
            f"devices ({devices}) must be from 1 to {here}, the number of JAX devices: omit "
            "devices (--devices), or call sacjax.use_all_cores() before JAX's first computation "
            "to make each CPU core a device",
            "devices",
        )
    if several and devices not in (None, here):
        message = f"devices ({devices}) must be None: several processes use all {here} devices"
        raise InputError(message, "devices")
    devices = here if several else min(int(devices or here), members)
    if strategy == "auto":
        strategy = "map" if jax.default_backend() == "cpu" and devices > 1 else "vmap"
    return strategy, devices


def fill_up(tree: Any, devices: int) -> Any:
    """Append copies of the last member, so that arrays [M, ...] become arrays [M', ...]."""
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
    """Map `f` over members like `jax.vmap(f, in_axes)`, on several devices of this machine.

    `jax.jit(over_members(make_train(config)))(keys)` trains one member per key. If the number of
    members is not a multiple of the number of devices, the function also trains copies of the last
    member, and omits the copies from the result.

    Args:
      f: the function to map, with the arguments of one member.
      in_axes: 0 for an argument with a leading axis [M], None for an argument that all members
        share. Pass one value for all arguments, or one value per argument.
      strategy: "vmap" trains the members of a device at the same time, and "map" trains them one
        after the other. "auto" is "map" on several CPU devices and "vmap" otherwise.
      devices: number of devices. None means all devices, but at most one per member.
      donated: if True, `f` must map (state, ...) to (state, output). The strategy "map" then
        updates the states [M, ...] in place, which saves memory.

    Returns:
      A function that takes the arguments of `f`, and returns results with a leading axis [M].
      Compile the function with `jax.jit`.

    Raises:
      InputError: `strategy`, `devices` or `in_axes` is invalid. The returned function raises this
        error when it is called.

    Example:
      >>> import jax.numpy as jnp
      >>> from sacjax import over_members
      >>> over_members(jnp.add, (0, None))(jnp.arange(3), 10).tolist()
      [10, 11, 12]
    """

    def laid_out(*args: Any) -> Any:
        axes = (in_axes,) * len(args) if isinstance(in_axes, int) else tuple(in_axes)
        if not all(axis is None or axis == 0 for axis in axes) or 0 not in axes:
            raise InputError(
                f"in_axes ({in_axes!r}) must be 0 for an argument with an axis of members, and "
                "None for an argument that all members share: move the axis of members to the "
                "front",
                "in_axes",
            )
        mapped = {f"argument {i}": args[i] for i, axis in enumerate(axes) if axis == 0}
        (members,) = _common_shape(mapped, 1)
        how, number = layout(members, strategy, devices)
        if members <= number:
            many = partial(_alone, f, axes)
        elif how == "vmap":
            many = jax.vmap(f, axes)
        else:
            many = partial(_one_after_the_other, f, axes, donated)
        if number == 1:
            return many(*args)
        if "members" in jax.sharding.get_abstract_mesh().axis_names:
            use = "use over_grid(train, keys, grid), or jax.vmap for the inner axis"
            raise InputError(f"over_members cannot be nested: {use}", "over_members")
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


def over_grid(train: Callable, keys: Any, grid: Any, **layout: Any) -> Any:
    """Train one agent for each pair of a setting and a key, on the devices of this machine.

    The result equals `jax.vmap(jax.vmap(train, (0, None)), (None, 0))(keys, grid)`. `over_grid`
    compiles `over_members(train)` and calls it with all pairs as members.

    Args:
      train: a function that maps (key, hp) to the result of one member, such as
        `make_train(config)`.
      keys: PRNG keys [S], one for each seed.
      grid: P settings as a pytree of arrays [P], such as
        `Hyperparams(tau=jnp.array([0.005, 0.02]))`. The arrays may also have more axes. All
        arrays must have the same shape.
      **layout: `strategy` and `devices`, as in `over_members`.

    Returns:
      The results with leading axes [P, S], for P settings with S seeds each.

    Raises:
      InputError: a field of `grid` is a scalar, or the fields have different shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sacjax import over_grid
      >>> draw = lambda key, scale: scale * jax.random.normal(key)
      >>> over_grid(draw, jax.random.split(jax.random.key(0), 3), jnp.array([1.0, 10.0])).shape
      (2, 3)
    """
    (seeds,) = _common_shape({"keys": keys}, 1)
    shape = _common_shape({"grid": grid})
    points = math.prod(shape)
    keys = keys[jnp.tile(jnp.arange(seeds), points)]
    settings = jax.tree.map(lambda x: jnp.repeat(jnp.ravel(x), seeds), grid)
    results = jax.jit(over_members(train, **layout))(keys, settings)
    return jax.tree.map(lambda x: x.reshape(*shape, seeds, *x.shape[1:]), results)


def _common_shape(trees: dict[str, Any], axes: int | None = None) -> tuple[int, ...]:
    """Return the shape that all leaves share in their first `axes` axes, or raise InputError."""
    leaves = jax.tree_util.tree_flatten_with_path(trees)[0]
    shapes = [(jax.tree_util.keystr(p[-1:], simple=True), jnp.shape(x)[:axes]) for p, x in leaves]
    counts = Counter(shape for _, shape in shapes if shape)
    common = max(counts, key=lambda shape: counts[shape], default=())
    for field, shape in shapes:
        if not shape or shape != common:
            text = (
                f"{field} has the shape {list(shape)}, not the {list(common) or '[M]'} of members"
            )
            use = "give one number per member, or use in_axes=None to share it, or over_grid"
            raise InputError(f"{text}: {use}", field)
    return common


def _readable(f: Callable, *args: Any) -> Any:
    """Replace each empty array in the arguments and constants of `f`, then call `f`.

    jaxlib 0.11.2 crashes if a device reads its shard of an empty array.
    """

    def renewed(x: jax.Array) -> jax.Array:
        return x if x.size else jnp.zeros(x.shape, x.dtype)

    closed, like = jax.make_jaxpr(f, return_shape=True)(*args)
    safe = ClosedJaxpr(closed.jaxpr, [renewed(x) for x in closed.consts])
    flat = jaxpr_as_fun(safe)(*(renewed(x) for x in jax.tree.leaves(args)))
    return jax.tree.unflatten(jax.tree.structure(like), flat)


def _alone(f: Callable, axes: tuple[int | None, ...], *args: Any) -> Any:
    """If a device has only one member, call `f` without vmap, because vmap compiles more slowly."""
    one = (
        jax.tree.map(lambda x: jnp.squeeze(x, 0), arg) if axis == 0 else arg
        for arg, axis in zip(args, axes, strict=True)
    )
    return jax.tree.map(lambda x: jnp.expand_dims(x, 0), f(*one))


def _one_after_the_other(
    f: Callable, axes: tuple[int | None, ...], donated: bool, *args: Any
) -> Any:
    """Call `f` for each member in a loop. XLA then compiles `f` for a single member."""
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
    """Return a mesh of the first `devices` devices, with one axis that is named "members"."""
    return Mesh(np.array(jax.devices()[:devices]), ("members",))


def placement(devices: int) -> Sharding:
    """Return a sharding that divides the members among the first `devices` devices."""
    if devices == 1:
        return SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(_mesh(devices), PartitionSpec("members"))


def place(tree: Any, devices: int) -> Any:
    """Divide arrays or PRNG keys [M', ...] among the devices.

    All processes must pass the same arrays.
    """
    where = placement(devices)

    def put(x: Any) -> Any:
        if jax.process_count() == 1:
            return jax.device_put(x, where, may_alias=False)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

    return _map_numbers(put, tree)


def gather(tree: Any) -> Any:
    """Return complete NumPy arrays in every process. PRNG keys stay JAX arrays."""
    several = jax.process_count() > 1
    get = partial(multihost_utils.process_allgather, tiled=True) if several else np.asarray
    return _map_numbers(get, tree)


def _map_numbers(f: Callable, tree: Any) -> Any:
    """Apply `f` to each array of a tree, and to the numbers inside PRNG keys."""

    def each(x: Any) -> Any:
        if is_key(x):
            numbers, impl = jax.random.key_data(x), jax.random.key_impl(x)
            return jax.random.wrap_key_data(f(numbers), impl=impl)
        return f(x)

    return jax.tree.map(each, tree)


def use_all_cores() -> None:
    """Make each CPU core a JAX device, so that `over_members` and `run` use all cores.

    Call this function before JAX's first computation. The function does nothing if
    `jax_num_cpu_devices` or XLA_FLAGS already sets the number of CPU devices. The function respects
    a container's limits on cores and CPU time.

    Raises:
      RuntimeError: JAX has already created its devices.

    Example:
      >>> import sacjax
      >>> sacjax.use_all_cores()  # doctest: +SKIP
      >>> result = sacjax.run(config, seeds=8)  # doctest: +SKIP
    """
    flags = os.environ.get("XLA_FLAGS", "")
    asked = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    if asked < 0 and "host_platform_device_count" not in flags:
        count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
        if hasattr(os, "sched_getaffinity"):  # the CPU cores that this process may use
            count = len(os.sched_getaffinity(0))
        jax.config.update("jax_num_cpu_devices", min(count, _quota() or count))


def _quota(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Return the number of cores that the control group of this process may use, or None."""
    try:
        quota, period = limit.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # the file does not exist, or the quota is "max"
        return None


def keep_compiled_programs() -> None:
    """Store compiled functions on disk, so that a later run with the same settings starts sooner.

    The functions are stored in the folder `$XDG_CACHE_HOME/sacjax`, or ~/.cache/sacjax by default.
    Each type of processor has a separate subfolder, because compiled code may fail on another
    processor. `keep_compiled_programs` does nothing if the environment variable
    JAX_COMPILATION_CACHE_DIR is set. JAX then uses the folder that the variable names, or no cache
    if the variable is empty.

    Example:
      >>> import sacjax
      >>> sacjax.keep_compiled_programs()  # doctest: +SKIP
    """
    asked = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if asked or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(cache / "sacjax" / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _processor() -> str:
    """Return a short name that identifies this processor and its features."""
    features = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features += sorted({x for x in lines if x.startswith(("flags", "Features", "model name"))})
    except OSError:
        pass  # only Linux has this file
    return f"{platform.machine()}-{hashlib.sha256(repr(features).encode()).hexdigest()[:12]}"
