"""Memory of a run: its state, exact from shapes, and what the compiled epoch adds to it.

Two checks come before anything is allocated. The first one counts the state. The second one comes
after compilation and adds what XLA's `memory_analysis` reports.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sacjax.runs.population import Population
from sacjax.types import InputError, is_key


class Memory(NamedTuple):
    """Bytes of a population's largest batch in one memory: a device's, or the machine's.

    Attributes:
      members: members trained at once.
      devices: devices that these members are laid out over.
      per_device: members on each device, rounded up.
      sharing: devices that share one memory: 1, except on a CPU.
      parts: bytes of one member by part: "replay", "agent", "environments" (the rest).
      temporary: bytes that the compiled epoch adds on each device; 0 before it is compiled.
      available: bytes of the memory; None if the device does not report them.
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
        """Bytes that the batch needs."""
        return self.sharing * (self.per_device * sum(self.parts.values()) + self.temporary)

    @property
    def enough(self) -> bool:
        """Whether the batch fits, or may fit because the device does not report its memory."""
        return self.available is None or self.needed <= self.available

    @property
    def max_members(self) -> int:
        """About how many members fit at once."""
        if self.available is None:
            return self.members
        member = sum(self.parts.values()) + self.temporary // self.per_device
        fit = self.available // (self.sharing * member) * self.devices
        return fit or (self.available // member if self.sharing > 1 else 0)

    def max_replay_size(self, capacity: int, envs: int) -> int:
        """Return the largest replay size that fits, given that `capacity` does not fit."""
        replays = self.sharing * self.per_device * self.parts["replay"]
        left = (self.available or 0) - (self.needed - replays)
        return max(0, min(capacity, int(0.98 * capacity * left / replays) // envs * envs))


def estimate(population: Population, compiled: int = 0) -> Memory:
    """Return the memory of the largest batch.

    `compiled`: bytes that the compiled epoch of that batch needs on one device, 0 if unknown.
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
    """Raise InputError, with settings that would fit, if there is not enough memory."""
    found = estimate(population, compiled)
    if found.enough:
        return
    config, remedies = population.config, {}
    if most := found.max_members:
        remedies["members_per_batch"] = (
            f"train at most {most} at once with members_per_batch (--members-per-batch)"
        )
    if (places := found.max_replay_size(config.capacity, config.num_envs)) >= config.batch_size:
        remedies["replay_size"] = f"use replay_size={places}"
    remedies = remedies or {"hidden": "use smaller networks"}
    raise InputError(
        f"training {found.members} at once needs {_to_text(found.needed)} (replays "
        f"{_to_text(found.parts['replay'] * found.members)}), but {_to_text(found.available)} are "
        f"available: {'use a larger machine, or train again and ' if resumed else ''}"
        f"{' or '.join(remedies.values())}",
        next(iter(remedies)),
    )


def table(population: Population, compiled: int) -> str:
    """Return a table of the memory that the population needs and of the memory available."""
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
    """Return the bytes of one device's memory; None if the device does not report them.

    CPU devices share the machine's memory, or the limit of this process's control group.
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
