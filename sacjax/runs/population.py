"""The members of a run before it starts: everything is checked, nothing is allocated."""

import itertools
from dataclasses import replace
from typing import Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import devices as layouts
from sacjax.bits import as_arrays
from sacjax.config import Config, Hyperparams
from sacjax.runs import provenance
from sacjax.runs.provenance import Description
from sacjax.sac import make_sac
from sacjax.train import MakeAlgorithm, Program, make_program
from sacjax.types import PLAIN, InputError, Key, is_whole
from sacjax.validation import check_target_entropy, must_be


class Grid(NamedTuple):
    """The members of a run or of one of its batches: points of a hyperparameter grid x seeds.

    Attributes:
      settings: the points of the grid, each with scalar fields.
      swept: the names of the fields that differ between points.
      seeds: the seeds.
      part: the first member and the one after the last, of all members of the run.
    """

    settings: list[Hyperparams]
    swept: list[str]
    seeds: list[int]
    part: tuple[int, int]

    @property
    def pairs(self) -> list[tuple[Hyperparams, int]]:
        """The setting and the seed of each member."""
        pairs = [(point, seed) for point in self.settings for seed in self.seeds]
        return pairs[slice(*self.part)]

    @property
    def members(self) -> list[dict[str, float]]:
        """M dictionaries of the swept hyperparameters and `seed`."""
        return [
            {name: float(getattr(point, name)) for name in self.swept} | {"seed": seed}
            for point, seed in self.pairs
        ]

    @property
    def size(self) -> int:
        """M, the number of members."""
        return self.part[1] - self.part[0]

    @property
    def total(self) -> int:
        """The number of members of the whole run."""
        return len(self.settings) * len(self.seeds)


class Layout(TypedDict):
    """Strategy and devices of a population, as `sacjax.devices.layout` returns them."""

    strategy: str
    devices: int


class Population(NamedTuple):
    """The members of a run or of one of its batches, with their program and layout.

    Attributes:
      config: the settings that all members share.
      grid: the members.
      per_batch: the most members that are trained at once; None for all.
      program: the program of one member.
      algorithm: the function that made the learner.
      layout: strategy and devices.
    """

    config: Config
    grid: Grid
    per_batch: int | None
    program: Program
    algorithm: MakeAlgorithm
    layout: Layout

    @property
    def size(self) -> int:
        """M, the number of members."""
        return self.grid.size

    @property
    def devices(self) -> int:
        """The number of devices that the members are laid out over."""
        return self.layout["devices"]

    def inputs(self) -> tuple[Hyperparams, Key]:
        """Return hyperparameters [M] (scalars if there is a single setting) and PRNG keys [M]."""
        points, seeds = zip(*self.grid.pairs, strict=True)
        hp = points[0]
        if len(self.grid.settings) > 1:
            hp = jax.tree.map(lambda *x: np.asarray(x), *points)
        return hp, jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))

    def shapes(self) -> Any:
        """Return the shapes and dtypes of the loop's state, leaves [M, ...]."""
        hp, env_params = as_arrays(self.grid.settings[0], self.program.default_params)
        one = jax.eval_shape(self.program.init, jax.random.key(0), hp, env_params)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype), one)

    def description(self) -> Description:
        """Return the description for config.json and the notes of checkpoints."""
        settings, swept, seeds, _ = self.grid
        fields, env_name = vars(self.config), self.config.env_name
        return provenance.description(fields, env_name, settings, swept, seeds) | {
            "algorithm": provenance.algorithm_name(self.algorithm),
            "part": self.grid.part,
            "per_batch": self.per_batch,
            "layout": self.layout,
        }

    def match(self, note: Description) -> "Population":
        """Return the population that the note of a checkpoint or a batch describes.

        It may have an earlier end than this one. Raises InputError if anything else differs.
        """
        now, config = self.description(), self.config
        env = note["config"]["env"] or config.env  # the note holds no environment object
        then = Config(**(note["config"] | {"env": env}))
        same = replace(then, total_steps=config.total_steps) == config
        same &= then.total_steps <= config.total_steps
        same &= all(note[name] == now[name] for name in ("hyperparams", "swept", "seeds"))
        if not same or list(note["part"]) != list(now["part"]):
            raise InputError(
                "config.json is not the one that the checkpoints were made with: restore it, or "
                "train again in a new folder",
                "config.json",
            )
        provenance.check_jax_settings("the run", note["jax"])
        if then.capacity == config.capacity:
            return self
        return self._replace(config=then, program=make_program(then, self.algorithm))

    def batches(self) -> list["Population"]:
        """Split the members into as few batches as possible. Sizes differ by at most one."""
        first, _ = self.grid.part
        number = -(-self.size // (self.per_batch or self.size))
        if number == 1:
            return [self]
        ends = [first + self.size * i // number for i in range(number + 1)]
        return [self._batch(part) for part in itertools.pairwise(ends)]

    def _batch(self, part: tuple[int, int]) -> "Population":
        layout = _make_layout(part[1] - part[0], **self.layout)
        return self._replace(grid=self.grid._replace(part=part), per_batch=None, layout=layout)


def make_population(
    config: Config,
    grid: Grid,
    algorithm: MakeAlgorithm,
    strategy: str = "auto",
    devices: int | None = None,
    per_batch: int | None = None,
) -> Population:
    """Make the population of a run. `memory.check` checks separately whether it fits.

    Raises InputError if the settings cannot work on this machine.
    """
    if per_batch is not None and (not is_whole(per_batch) or per_batch < 1):
        name = "members_per_batch"
        raise InputError(f"{name} ({per_batch}) must be a whole number from 1: use 64", name)
    if algorithm in (make_sac, PLAIN):
        for point in grid.settings:
            check_target_entropy(config, point)
    program = make_program(config, algorithm)
    if program.host is not None:  # environments outside of JAX: one member after the other
        if jax.process_count() > 1:
            raise InputError(f"{config.env} runs outside of JAX: train it in one process", "env")
        if per_batch not in (None, 1) or devices not in (None, 1):
            raise InputError(
                f"{config.env} runs outside of JAX, one seed after the other: leave devices "
                f"({devices}) and members_per_batch ({per_batch}) out",
                "members_per_batch" if devices in (None, 1) else "devices",
            )
        per_batch, devices = 1, 1
    per_batch = per_batch and int(per_batch)
    layout = _make_layout(min(per_batch or grid.size, grid.size), strategy, devices)
    return Population(config, grid, per_batch, program, algorithm, layout)


def make_grid(hp: Hyperparams, seeds: list[int]) -> Grid:
    """Make the grid of all members: each point of `hp`, in row-major order, with each seed.

    Raises InputError if `hp` is not a grid of different points.
    """
    must_be(Hyperparams, hp, "hp", "Hyperparams(tau=0.005)")
    if own := vars(hp).keys() - vars(Hyperparams()).keys():
        raise InputError(
            f"hp has {', '.join(sorted(own))} beside the fields of Hyperparams, which a run does "
            "not keep: give that to algorithm=partial(f, ...), or sweep it by make_train",
            "hp",
        )
    arrays = {name: np.asarray(value) for name, value in vars(hp).items()}
    size = arrays["gamma"].size
    points = [  # through str: float32's 0.005 is 0.005, not 0.00499999988824129
        Hyperparams(**{name: float(str(value.flat[i])) for name, value in arrays.items()})
        for i in range(size)
    ]
    if len(set(points)) < size:
        raise InputError("a point of the grid occurs twice: give each swept value once", "hp")
    swept = [name for name, value in arrays.items() if np.unique(value).size > 1]
    return Grid(points, swept, seeds, (0, size * len(seeds)))


def extended(config: Config, total_steps: int) -> Config:
    """Return the config with a later end. Raises InputError if no epoch ends there."""
    name, end = f"extend_to ({total_steps!r})", config.total_steps
    if not is_whole(total_steps):
        raise InputError(f"{name} must be a whole number of steps: use 1000000", "extend_to")
    if total_steps < end:
        raise InputError(f"{name} must not be below total_steps ({end}): use more", "extend_to")
    if config.lr_schedule != "constant":
        raise InputError(
            "extend_to needs constant learning rates, because a schedule depends on total_steps: "
            "train a new run",
            "extend_to",
        )
    if past := (total_steps - config.warmup_steps) % config.eval_every:
        end = total_steps - past + config.eval_every
        raise InputError(f"{name} must be the end of an epoch: use extend_to={end}", "extend_to")
    return replace(config, total_steps=int(total_steps))


def _make_layout(members: int, strategy: str, devices: int | None) -> Layout:
    strategy, devices = layouts.layout(members, strategy, devices)
    return {"strategy": strategy, "devices": devices}
