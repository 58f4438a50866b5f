"""The members of a run before it starts: everything is checked, nothing is allocated."""

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
from sacjax.runs import provenance
from sacjax.sac import make_sac
from sacjax.train import Program, make_program
from sacjax.types import InputError, Key, is_whole
from sacjax.validation import check_target_entropy, must_be


class Grid(NamedTuple):
    """Members: the points of a hyperparameter grid x the seeds, or a part of these."""

    settings: list[Hyperparams]  # the points
    swept: list[str]
    seeds: list[int]
    part: tuple[int, int]  # the first member and the one after the last

    @property
    def pairs(self) -> list[tuple[Hyperparams, int]]:
        """The setting and the seed of each member."""
        pairs = [(point, seed) for point in self.settings for seed in self.seeds]
        return pairs[slice(*self.part)]

    @property
    def members(self) -> list[dict[str, float]]:
        """M dictionaries: the swept hyperparameters, and `seed`."""
        return [
            {name: float(getattr(point, name)) for name in self.swept} | {"seed": seed}
            for point, seed in self.pairs
        ]

    @property
    def size(self) -> int:
        """M."""
        return self.part[1] - self.part[0]

    @property
    def total(self) -> int:
        """How many members the whole run has."""
        return len(self.settings) * len(self.seeds)


class Population(NamedTuple):
    """The members of a run, or of one of its batches, its program, and how they are laid out."""

    config: Config
    grid: Grid
    per_batch: int | None  # the most members that are trained at once
    program: Program
    algorithm: Callable
    how: dict[str, Any]  # strategy and devices

    @property
    def size(self) -> int:
        """M."""
        return self.grid.size

    @property
    def devices(self) -> int:
        """Devices that the members are laid out over."""
        return self.how["devices"]

    def inputs(self) -> tuple[Hyperparams, Key]:
        """Hyperparameters [M] (scalars if there is a single setting) and PRNG keys [M]."""
        points, seeds = zip(*self.grid.pairs, strict=True)
        hp = points[0]
        if len(self.grid.settings) > 1:
            hp = jax.tree.map(lambda *x: np.asarray(x), *points)
        return hp, jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))

    def shapes(self) -> Any:
        """Shapes and dtypes of the loop's state, leaves [M, ...]."""
        hp, env_params = as_arrays(self.grid.settings[0], self.program.default_params)
        one = jax.eval_shape(self.program.init, jax.random.key(0), hp, env_params)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype), one)

    def description(self) -> dict[str, Any]:
        """For config.json and the checkpoints."""
        settings, swept, seeds, _ = self.grid
        fields, env_name = vars(self.config), self.config.env_name
        told = provenance.description(fields, env_name, settings, swept, seeds)
        told["algorithm"] = provenance.algorithm_name(self.algorithm)
        return told | {"part": self.grid.part, "per_batch": self.per_batch, "layout": self.how}

    def as_noted(self, note: dict[str, Any]) -> "Population":
        """The population that is described in `note`, of a checkpoint or a batch.

        Raises InputError if it is not this one, but for the end.
        """
        now, config = self.description(), self.config
        env = note["config"]["env"] or config.env  # an object is not written down
        was = Config(**(note["config"] | {"env": env}))
        same = replace(was, total_steps=config.total_steps) == config
        same &= was.total_steps <= config.total_steps
        same &= all(note[name] == now[name] for name in ("hyperparams", "swept", "seeds"))
        if not same or list(note["part"]) != list(now["part"]):
            raise InputError(
                "config.json is not the one that the checkpoints were made with: restore it, or "
                "train again in a new folder"
            )
        x64, prng = note["jax"]["x64"], note["jax"]["prng"]
        if x64 != now["jax"]["x64"]:
            raise InputError(
                f"it was trained with jax_enable_x64={x64}: set JAX_ENABLE_X64={int(x64)}"
            )
        if prng != now["jax"]["prng"]:
            raise InputError(f"its keys are of {prng}: set JAX_DEFAULT_PRNG_IMPL={prng}")
        if was.capacity == config.capacity:
            return self
        return self._replace(config=was, program=make_program(was, self.algorithm))

    def batches(self) -> list["Population"]:
        """The members in as few batches as possible, whose sizes differ by one at most."""
        first, _ = self.grid.part
        number = -(-self.size // (self.per_batch or self.size))
        if number == 1:
            return [self]
        ends = [first + self.size * i // number for i in range(number + 1)]
        return [self._of(part) for part in itertools.pairwise(ends)]

    def _of(self, part: tuple[int, int]) -> "Population":
        how = _how(part[1] - part[0], **self.how)
        return self._replace(grid=self.grid._replace(part=part), per_batch=None, how=how)


def make_population(
    config: Config,
    grid: Grid,
    algorithm: Callable,
    strategy: str = "auto",
    devices: int | None = None,
    per_batch: int | None = None,
) -> Population:
    """Raises InputError where the settings cannot work here. `memory.check` checks the memory."""
    if per_batch is not None and (not is_whole(per_batch) or per_batch < 1):
        raise InputError(f"members_per_batch ({per_batch}) must be a whole number from 1: use 64")
    if algorithm is make_sac:
        for point in grid.settings:
            check_target_entropy(config, point)
    program = make_program(config, algorithm)
    if program.host is not None:  # environments outside of JAX: one member after the other
        if jax.process_count() > 1:
            raise InputError(f"{config.env} runs outside of JAX: train it in one process")
        if per_batch not in (None, 1) or devices not in (None, 1):
            raise InputError(
                f"{config.env} runs outside of JAX, one seed after the other: leave devices "
                f"({devices}) and members_per_batch ({per_batch}) out"
            )
        per_batch, devices = 1, 1
    per_batch = per_batch and int(per_batch)
    how = _how(min(per_batch or grid.size, grid.size), strategy, devices)
    return Population(config, grid, per_batch, program, algorithm, how)


def make_grid(hp: Hyperparams, seeds: list[int]) -> Grid:
    """All members: the points of `hp`, row by row, x the seeds. Raises InputError."""
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
    swept = [name for name, value in arrays.items() if np.unique(value).size > 1]
    return Grid(points, swept, seeds, (0, size * len(seeds)))


def extended(config: Config, total_steps: int) -> Config:
    """The same run with a later end. Raises InputError where no epoch ends there."""
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
    if past := (total_steps - config.warmup_steps) % config.eval_every:
        raise InputError(
            f"extend_to ({total_steps}) must be the end of an epoch: use extend_to="
            f"{total_steps - past + config.eval_every}"
        )
    return replace(config, total_steps=int(total_steps))


def _how(members: int, strategy: str, devices: int | None) -> dict[str, Any]:
    strategy, devices = layout(members, strategy, devices)
    return {"strategy": strategy, "devices": devices}
