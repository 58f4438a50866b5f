"""Memory of a run: its state, exact from shapes, and what the compiled epoch adds to it.

A run is refused before anything is allocated: at once where the state alone does not fit, after
compilation where XLA's `memory_analysis` does not.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sacjax.runs.population import Population
from sacjax.types import InputError, is_key


class Memory(NamedTuple):
    """Bytes of a population's largest batch, in one memory: a device's, or the CPU's."""

    members: int  # trained at once
    devices: int  # that they are laid out over
    sharing: int  # of these, the devices that share the memory
    parts: dict[str, int]  # of one member: its replay, its agent, the rest of its state
    temporary: int  # that the compiled epoch adds on each device; 0 before it is compiled
    available: int | None  # None where the device does not tell

    @property
    def needed(self) -> int:
        """What the batch takes."""
        return self.sharing * (self._each * sum(self.parts.values()) + self.temporary)

    @property
    def enough(self) -> bool:
        """Whether it fits."""
        return self.available is None or self.needed <= self.available

    @property
    def most(self) -> int:
        """About how many members fit at once."""
        if self.available is None:
            return self.members
        member = sum(self.parts.values()) + self.temporary // self._each
        many = self.available // (self.sharing * member) * self.devices
        return many or (self.available // member if self.sharing > 1 else 0)

    @property
    def _each(self) -> int:
        return -(-self.members // self.devices)

    def replay_size(self, capacity: int, envs: int) -> int:
        """The largest replay that fits, of `capacity` places now."""
        if self.available is None:
            return capacity
        replays = self.sharing * self._each * self.parts["replay"]
        left = self.available - (self.needed - replays)
        return max(0, min(capacity, int(0.98 * capacity * left / replays) // envs * envs))


def of(population: Population, compiled: int = 0) -> Memory:
    """`compiled`: bytes that the compiled epoch of the largest batch takes of one device."""
    batch = max(population.batches(), key=lambda batch: batch.size)
    loop, members, devices = batch.shapes(), batch.size, batch.devices
    whole, replay, agent = (_bytes(x) // members for x in (loop, loop.replay, loop.agent))
    each = -(-members // devices)
    return Memory(
        members=members,
        devices=devices,
        sharing=min(devices, jax.local_device_count()) if jax.default_backend() == "cpu" else 1,
        parts={"replay": replay, "agent": agent, "environments": whole - replay - agent},
        temporary=max(0, compiled - each * whole),
        available=available(),
    )


def check(population: Population, compiled: int = 0, again: bool = False) -> None:
    """Raise InputError, with what would fit, if there is not enough. `again`: for a resumed run."""
    found = of(population, compiled)
    if found.available is None or found.enough:
        return
    config, remedies = population.config, []
    if found.most:
        how = "members_per_batch (--members-per-batch)"
        remedies.append(f"train at most {found.most} at once with {how}")
    if (places := found.replay_size(config.capacity, config.num_envs)) >= config.batch_size:
        remedies.append(f"use replay_size={places}")
    raise InputError(
        f"{found.members} members need {_size(found.needed)}, of which the replays are "
        f"{_size(found.parts['replay'] * found.members)}, and there are {_size(found.available)}: "
        + ("resume it where there is more, or train anew and " if again else "")
        + (" or ".join(remedies) or "use smaller networks")
    )


def table(population: Population, compiled: int) -> str:
    """Text: what the population needs, and what there is."""
    found, batches = of(population, compiled), len(population.batches())
    rows = [(name, _size(x), _size(x * found.members)) for name, x in found.parts.items()]
    rows += [("compiled epoch adds", "", _size(found.sharing * found.temporary))]
    rows += [("needed", "", _size(found.needed)), ("available", "", _size(found.available))]
    where = f"{found.devices} {jax.default_backend()} devices ({population.how['strategy']})"
    lines = [
        f"{population.config.env_name}: {population.size} members in {batches} batches, "
        f"{found.members} at once on {where}",
        f"{'':24}{'each':>12}{'together':>12}",
        *(f"{name:24}{each:>12}{together:>12}" for name, each, together in rows),
    ]
    return "\n".join([*lines, f"about {found.most} members fit at once"])


def available() -> int | None:
    """Bytes that one device has; None where it does not say. CPU devices share the machine's
    memory, or what this process's control group may have of it."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    if not hasattr(os, "sysconf"):
        return None
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return min(limits)


def _size(bytes_: int | None) -> str:
    if bytes_ is None:
        return "unknown"
    return f"{bytes_ / 2**30:.2f} GiB" if bytes_ >= 2**30 else f"{bytes_ / 2**20:.2f} MiB"


def _bytes(tree: Any) -> int:
    def size(x: Any) -> int:
        if is_key(x):
            x = jax.eval_shape(jax.random.key_data, x)
        return x.size * x.dtype.itemsize

    return sum(size(x) for x in jax.tree.leaves(tree))
