"""What the command line sets before JAX starts; call them first in a script or a notebook too."""

import hashlib
import math
import os
import platform
from pathlib import Path

import jax


def use_all_cores() -> None:
    """Give each core a JAX device of its own, for `members.over_members` and `run` to spread over.

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
