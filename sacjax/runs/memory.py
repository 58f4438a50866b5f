"""Check that a run fits into memory, before the run allocates anything.

The check before compilation adds up the sizes of the arrays in the state. The check after
compilation also counts the temporary memory that XLA's `memory_analysis` reports.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sacjax.runs.population import Population
from sacjax.types import InputError, is_key


class Memory(NamedTuple):
    """The memory that a population's largest batch needs, in bytes.

    Attributes:
      members: the number of members that train at once.
      devices: the number of devices that train the members.
      per_device: the number of members on each device, rounded up.
      sharing: the number of devices that share one memory. The number is 1 except on CPUs.
      parts: the size in bytes of one member's "replay", "agent" and "environments", by name.
      temporary: the bytes of temporary memory on each device, or 0 before compilation.
      available: the size of the memory, or None if the device does not report the size.
    """

    members: int
    devices: int
    per_device: int
    sharing: int
    parts: dict[str, int]
    temporary: int
    available: int | None

    @property
    def needed(self) -> int:
        """The number of bytes that the batch needs."""
        return self.sharing * (self.per_device * sum(self.parts.values()) + self.temporary)

    @property
    def enough(self) -> bool:
        """Whether the batch fits into memory. True if the size of the memory is unknown."""
        return self.available is None or self.needed <= self.available

    @property
    def max_members(self) -> int:
        """The approximate number of members that fit into memory at once."""
        if self.available is None:
            return self.members
        member = sum(self.parts.values()) + self.temporary // self.per_device
        fit = self.available // (self.sharing * member) * self.devices
        return fit or (self.available // member if self.sharing > 1 else 0)

    def max_replay_size(self, capacity: int, envs: int) -> int:
        """Return the largest replay size that fits, at most `capacity`."""
        replays = self.sharing * self.per_device * self.parts["replay"]
        left = (self.available or 0) - (self.needed - replays)
        return max(0, min(capacity, int(0.98 * capacity * left / replays) // envs * envs))


def estimate(population: Population, compiled: int = 0) -> Memory:
    """Return the memory that the largest batch needs.

    `compiled` is the number of bytes that the compiled epoch needs on one device, or 0 if unknown.
    """
    batch = max(population.batches(), key=lambda batch: batch.size)
    loop, members, devices = batch.shapes(), batch.size, batch.devices
    whole, replay, agent = (_count_bytes(x) // members for x in (loop, loop.replay, loop.agent))
    per_device = -(-members // devices)
    return Memory(
        members=members,
        devices=devices,
        per_device=per_device,
        sharing=min(devices, jax.local_device_count()) if jax.default_backend() == "cpu" else 1,
        parts={"replay": replay, "agent": agent, "environments": whole - replay - agent},
        temporary=max(0, compiled - per_device * whole),
        available=available(),
    )


def check(population: Population, compiled: int = 0, resumed: bool = False) -> None:
    """Raise InputError if the memory is too small. The message suggests settings that fit."""
    found = estimate(population, compiled)
    if found.enough:
        return
    config, remedies = population.config, {}
    if most := found.max_members:
        remedies["members_per_batch"] = (
            f"train at most {most} members at once with members_per_batch (--members-per-batch)"
        )
    if (places := found.max_replay_size(config.capacity, config.num_envs)) >= config.batch_size:
        remedies["replay_size"] = f"use replay_size={places}"
    remedies = remedies or {"hidden": "use smaller networks"}
    raise InputError(
        f"training {found.members} members at once needs {_to_text(found.needed)} of memory, "
        f"{_to_text(found.parts['replay'] * found.members)} of it for replay buffers, but only "
        f"{_to_text(found.available)} are available: "
        f"{'use a larger machine, or train again and ' if resumed else ''}"
        f"{' or '.join(remedies.values())}",
        next(iter(remedies)),
    )


def table(population: Population, compiled: int) -> str:
    """Return a table of the needed memory and the available memory as text."""
    found, batches = estimate(population, compiled), len(population.batches())
    rows = [(name, _to_text(x), _to_text(x * found.members)) for name, x in found.parts.items()]
    rows += [("compiled epoch adds", "", _to_text(found.sharing * found.temporary))]
    rows += [("needed", "", _to_text(found.needed)), ("available", "", _to_text(found.available))]
    where = f"{found.devices} {jax.default_backend()} devices ({population.layout['strategy']})"
    lines = [
        f"{population.config.env_name}: {population.size} members in {batches} batches, "
        f"{found.members} at once on {where}",
        f"{'':24}{'each':>12}{'together':>12}",
        *(f"{name:24}{each:>12}{together:>12}" for name, each, together in rows),
    ]
    return "\n".join([*lines, f"about {found.max_members} members fit at once"])


def available() -> int | None:
    """Return the size of one device's memory in bytes. Returns None if the size is unknown.

    For a CPU, the function returns the machine's memory or the limit of the control group.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    if not hasattr(os, "sysconf"):
        return None
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # the file is missing, or says "max"
            continue
    return min(limits)


def _to_text(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB"


def _count_bytes(tree: Any) -> int:
    def size(x: Any) -> int:
        if is_key(x):
            x = jax.eval_shape(jax.random.key_data, x)
        return x.size * x.dtype.itemsize

    return sum(size(x) for x in jax.tree.leaves(tree))
