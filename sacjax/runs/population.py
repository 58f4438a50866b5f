"""A run before it starts: everything checked, nothing allocated."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.bits import as_arrays
from sacjax.config import Config, Hyperparams
from sacjax.devices import layout
from sacjax.runs import memory, provenance
from sacjax.runs.memory import Memory
from sacjax.train import Program, make_program
from sacjax.types import InputError, Key, is_whole, must_be


class Population(NamedTuple):
    """The members of a run, its program, and how they are laid out."""

    config: Config
    settings: list[Hyperparams]  # the points of the grid
    swept: list[str]
    seeds: list[int]
    part: tuple[int, int]  # members first to last + 1 of the grid x seeds: all, or a batch of them
    per_batch: int | None  # the most that are trained at once
    program: Program
    algorithm: Callable
    how: dict[str, Any]  # strategy and devices
    memory: Memory  # of a member

    @property
    def members(self) -> list[dict[str, float]]:
        """M dictionaries: the swept hyperparameters, and `seed`."""
        return [
            {name: float(getattr(point, name)) for name in self.swept} | {"seed": seed}
            for point, seed in self._pairs()
        ]

    @property
    def size(self) -> int:
        """M."""
        return self.part[1] - self.part[0]

    @property
    def total(self) -> int:
        """How many members the whole run has."""
        return len(self.settings) * len(self.seeds)

    @property
    def is_part(self) -> bool:
        """Whether there are other members, in other batches."""
        return self.size < self.total

    def inputs(self) -> tuple[Hyperparams, Key]:
        """What the members start from: hyperparameters [M] (numbers, if there is one point only),
        and keys [M]."""
        points, seeds = zip(*self._pairs(), strict=True)
        hp = self.settings[0]
        if len(self.settings) > 1:
            hp = jax.tree.map(lambda *x: np.asarray(x), *points)
        return hp, jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))

    def shapes(self) -> Any:
        """What the loop's state looks like, leaves [M, ...]."""
        hp, env_params = as_arrays(self.settings[0], self.program.default_params)
        one = jax.eval_shape(self.program.init, jax.random.key(0), hp, env_params)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype), one)

    def description(self) -> dict[str, Any]:
        """For config.json and the checkpoints."""
        told = provenance.description(self.config, self.settings, self.swept, self.seeds)
        told["algorithm"] = provenance.algorithm_name(self.algorithm)
        return told | {"part": self.part, "per_batch": self.per_batch, "layout": self.how}

    def batches(self) -> list["Population"]:
        """The members in as few parts as may be, of sizes that differ by one at most."""
        first, end = self.part
        number = -(-(end - first) // (self.per_batch or end - first))
        if number == 1:
            return [self]
        ends = [first + (end - first) * i // number for i in range(number + 1)]
        return [
            self._replace(part=(a, b), per_batch=None, how=_how(b - a, **self.how))
            for a, b in itertools.pairwise(ends)
        ]

    def _pairs(self) -> list[tuple[Hyperparams, int]]:
        pairs = [(point, seed) for point in self.settings for seed in self.seeds]
        return pairs[slice(*self.part)]


def make_population(
    config: Config,
    settings: list[Hyperparams],
    swept: list[str],
    seeds: list[int],
    algorithm: Callable,
    strategy: str = "auto",
    devices: int | None = None,
    per_batch: int | None = None,
) -> Population:
    """Raises InputError where the settings cannot work here; of memory, see `check_memory`."""
    if per_batch is not None:
        if not is_whole(per_batch) or per_batch < 1:
            raise InputError(
                f"members_per_batch ({per_batch}) must be a whole number from 1: use 64"
            )
        per_batch = int(per_batch)
    program = make_program(config, algorithm)
    members = len(settings) * len(seeds)
    if program.host is not None:  # environments outside of JAX: one member after the other
        if jax.process_count() > 1:
            raise InputError(f"{config.env} runs outside of JAX: train it in one process")
        if per_batch not in (None, 1) or devices not in (None, 1):
            raise InputError(
                f"{config.env} runs outside of JAX, one seed after the other: leave devices "
                f"({devices}) and members_per_batch ({per_batch}) out"
            )
        per_batch, devices = 1, 1
    how = _how(min(per_batch or members, members), strategy, devices)
    hp, env_params = as_arrays(settings[0], program.default_params)
    loop = jax.eval_shape(program.init, jax.random.key(0), hp, env_params)
    return Population(
        *(config, settings, swept, seeds, (0, members), per_batch, program, algorithm, how),
        memory=memory.estimate(config, loop),
    )


def points(hp: Hyperparams) -> tuple[list[Hyperparams], list[str]]:
    """A grid's points, row by row, and the names of the fields that vary over it."""
    must_be(Hyperparams, hp, "hp", "Hyperparams(tau=0.005)")
    if own := vars(hp).keys() - vars(Hyperparams()).keys():
        raise InputError(
            f"hp has {', '.join(sorted(own))} beside the fields of Hyperparams, which a run does "
            "not keep: give that to algorithm=partial(f, ...), or sweep it by make_train"
        )
    arrays = {name: np.asarray(value) for name, value in vars(hp).items()}
    size = arrays["gamma"].size
    points = [  # through str: float32's 0.005 is 0.005, not 0.00499999988824129
        Hyperparams(**{name: float(str(value.flat[i])) for name, value in arrays.items()})
        for i in range(size)
    ]
    if len(set(points)) < size:
        raise InputError("a point of the grid occurs twice: give each swept value once")
    return points, [name for name, value in arrays.items() if np.unique(value).size > 1]


def extended(config: Config, total_steps: int) -> Config:
    """The same run with a later end. InputError where that is no end of an epoch."""
    if not is_whole(total_steps):
        raise InputError(
            f"extend_to ({total_steps!r}) must be a whole number of steps: use 1000000"
        )
    if total_steps < config.total_steps:
        raise InputError(
            f"extend_to ({total_steps}) must not be below total_steps ({config.total_steps}), "
            "where the run ends already"
        )
    if config.lr_schedule != "constant":
        raise InputError(
            "extend_to is for runs with constant learning rates: where these fall to 0 at the end, "
            "a longer run is another one from its beginning, so train it anew"
        )
    past = (total_steps - config.warmup_steps) % config.eval_every
    if past:
        raise InputError(
            f"extend_to ({total_steps}) must be the end of an epoch: use extend_to="
            f"{total_steps - past + config.eval_every}"
        )
    return replace(config, total_steps=int(total_steps))


class Fit(NamedTuple):
    """A plan's largest batch against the machine. Bytes of what shares one memory: a device, or all
    of a CPU's."""

    members: int  # trained at once
    needed: int
    available: int | None  # None: not known
    most: int  # members that could be trained at once
    replay_size: int  # the largest for as many members as planned

    @property
    def enough(self) -> bool:
        return self.available is None or self.needed <= self.available


def fit(population: Population) -> Fit:
    """Whether it fits, and what would."""
    members = max(batch.size for batch in population.batches())
    strategy, devices = population.how["strategy"], population.how["devices"]
    sharing = jax.local_device_count() if memory.shared() else 1
    sharing = min(sharing, devices)
    each = -(-members // devices)
    needed = sharing * population.memory.total(each, strategy)
    available = memory.available()
    if available is None:
        return Fit(members, needed, None, members, population.config.capacity)
    most = population.memory.fitting(available // sharing, strategy) * devices
    if most <= 0 and jax.process_count() == 1:  # fewer members than devices use as many of these
        fewer = range(1, devices)
        fits = (
            population.memory.fitting(available // min(sharing, d), strategy) > 0 for d in fewer
        )
        most = max((d for d, enough in zip(fewer, fits, strict=True) if enough), default=0)
    rest = sharing * population.memory._replace(replay=0, copied=0).total(each, strategy)
    envs, capacity = population.config.num_envs, population.config.capacity
    places = int(0.98 * (available - rest) * capacity / (needed - rest)) // envs * envs
    return Fit(members, needed, available, max(most, 0), max(min(places, capacity), 0))


def check_memory(population: Population, again: bool = False) -> None:
    """InputError, with what would fit, where there is not enough; `again`: for a run that is gone
    on with, whose settings are what they are."""
    found = fit(population)
    if found.available is None or found.enough:
        return
    remedies = []
    if found.most:
        how = "members_per_batch (--members-per-batch)"
        remedies.append(f"train at most {found.most} at once with {how}")
    if found.replay_size >= population.config.batch_size:
        remedies.append(f"use replay_size={found.replay_size}")
    raise InputError(
        f"{found.members} members need {found.needed / 2**30:.1f} GiB, of which the replays are "
        f"{population.memory.replay * found.members / 2**30:.1f}, and there are "
        f"{found.available / 2**30:.1f}: "
        + ("go on with it where there is more, or train anew and " if again else "")
        + (" or ".join(remedies) or "use smaller networks")
    )


def table(population: Population, compiled: int | None) -> str:
    """Text: what the plan needs. `compiled`: bytes that the compiled epoch takes of one device."""
    found, part = fit(population), population.memory
    strategy, devices = population.how["strategy"], population.how["devices"]
    each = -(-found.members // devices)
    one = population.memory.total(each, strategy)
    at_once = found.members if strategy == "vmap" else min(devices, found.members)
    rows = [
        *((name, getattr(part, name), found.members) for name in part._fields[:-2]),
        (f"working, {at_once} at once", part.working, at_once),
    ]
    if strategy == "map" and each > 1:
        rows.append(("held twice", part.state, devices))
    if copies := part.copies(each, strategy):
        rows.append(("replay copied by XLA", copies, devices))
    lines = [
        f"{population.config.env}: {population.part[1]} members"
        + (f" in {len(population.batches())} batches" if len(population.batches()) > 1 else "")
        + f", {found.members} at once on {devices} {jax.default_backend()} devices ({strategy})",
        f"{'':24}{'each':>12}{'together':>12}",
        *(f"{name:24}{_size(size):>12}{_size(size * times):>12}" for name, size, times in rows),
        f"{'per device':36}{_size(one):>12}",
    ]
    if compiled is not None:
        lines.append(f"{'as compiled':36}{_size(compiled):>12}  ({compiled / one - 1:+.0%})")
    lines.append(f"{'needed':36}{_size(found.needed):>12}")
    if found.available is not None:
        lines.append(f"{'there is':36}{_size(found.available):>12}  (at most {found.most} at once)")
    return "\n".join(lines)


def _size(bytes_: int) -> str:
    return f"{bytes_ / 2**30:.2f} GiB" if bytes_ >= 2**30 else f"{bytes_ / 2**20:.2f} MiB"


def _how(members: int, strategy: str, devices: int | None) -> dict[str, Any]:
    strategy, devices = layout(members, strategy, devices)
    return {"strategy": strategy, "devices": devices}
