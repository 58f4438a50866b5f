"""Define and check the members of a run before the run starts. Nothing is allocated here."""

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
    """The members of a run or of a batch. Each member has a hyperparameter point and a seed.

    Attributes:
      settings: the points of the run's grid, each with scalar fields.
      swept: the names of the fields that differ between points.
      seeds: the seeds of the run.
      part: the index of the first member in the run, and the index after the last member.
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
        """A dictionary of the swept hyperparameters and `seed` for each member."""
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
    """The result of `sacjax.devices.layout`: the strategy and the number of devices."""

    strategy: str
    devices: int


class Population(NamedTuple):
    """The members of a run or of a batch, with their training functions and their layout.

    Attributes:
      config: the settings that all members share.
      grid: the members.
      per_batch: the largest number of members that train at once, or None for all members.
      program: the training functions of one member.
      algorithm: the function that made the algorithm.
      layout: the strategy and the number of devices.
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
        """The number of devices that train the members."""
        return self.layout["devices"]

    def inputs(self) -> tuple[Hyperparams, Key]:
        """Return the hyperparameters and the PRNG keys [M].

        The hyperparameters are scalars if the grid has a single point. Otherwise they are
        arrays [M].
        """
        points, seeds = zip(*self.grid.pairs, strict=True)
        hp = points[0]
        if len(self.grid.settings) > 1:
            hp = jax.tree.map(lambda *x: np.asarray(x), *points)
        return hp, jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))

    def shapes(self) -> Any:
        """Return the shapes and dtypes of the loop's state, which has leaves [M, ...]."""
        hp, env_params = as_arrays(self.grid.settings[0], self.program.default_params)
        one = jax.eval_shape(self.program.init, jax.random.key(0), hp, env_params)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype), one)

    def description(self) -> Description:
        """Return the description of the run, which config.json and checkpoints contain."""
        settings, swept, seeds, _ = self.grid
        fields, env_name = vars(self.config), self.config.env_name
        return provenance.description(fields, env_name, settings, swept, seeds) | {
            "algorithm": provenance.algorithm_name(self.algorithm),
            "part": self.grid.part,
            "per_batch": self.per_batch,
            "layout": self.layout,
        }

    def match(self, note: Description) -> "Population":
        """Return the population that the description of a checkpoint or a batch describes.

        The description may have a smaller total_steps. Raises InputError if any other setting
        differs.
        """
        now, config = self.description(), self.config
        env = note["config"]["env"] or config.env  # JSON cannot store an environment object
        then = Config(**(note["config"] | {"env": env}))
        same = replace(then, total_steps=config.total_steps) == config
        same &= then.total_steps <= config.total_steps
        same &= all(note[name] == now[name] for name in ("hyperparams", "swept", "seeds"))
        if not same or list(note["part"]) != list(now["part"]):
            raise InputError(
                "config.json does not match the checkpoints: restore the file, or train again in a "
                "new folder",
                "config.json",
            )
        provenance.check_jax_settings("the run", note["jax"])
        if then.capacity == config.capacity:
            return self
        return self._replace(config=then, program=make_program(then, self.algorithm))

    def batches(self) -> list["Population"]:
        """Split the members into as few batches as possible.

        The sizes of the batches differ by at most one member.
        """
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
    """Return the population of a run. This function does not check the memory.

    Raises InputError if the settings cannot work on this machine.
    """
    if per_batch is not None and (not is_whole(per_batch) or per_batch < 1):
        name = "members_per_batch"
        raise InputError(f"{name} ({per_batch}) must be a whole number of at least 1: use 64", name)
    if algorithm in (make_sac, PLAIN):
        for point in grid.settings:
            check_target_entropy(config, point)
    program = make_program(config, algorithm)
    if program.host is not None:  # outside of JAX, members train one at a time
        if jax.process_count() > 1:
            raise InputError(f"{config.env} runs outside of JAX: train it in one process", "env")
        if per_batch not in (None, 1) or devices not in (None, 1):
            raise InputError(
                f"{config.env} runs outside of JAX, so only one seed trains at a time: remove "
                f"devices ({devices}) and members_per_batch ({per_batch})",
                "members_per_batch" if devices in (None, 1) else "devices",
            )
        per_batch, devices = 1, 1
    per_batch = per_batch and int(per_batch)
    layout = _make_layout(min(per_batch or grid.size, grid.size), strategy, devices)
    return Population(config, grid, per_batch, program, algorithm, layout)


def make_grid(hp: Hyperparams, seeds: list[int]) -> Grid:
    """Return the grid of all members, which combines each point of `hp` with each seed.

    The points are in row-major order. Raises InputError if `hp` is invalid or two points are equal.
    """
    must_be(Hyperparams, hp, "hp", "Hyperparams(tau=0.005)")
    if own := vars(hp).keys() - vars(Hyperparams()).keys():
        raise InputError(
            f"hp has {', '.join(sorted(own))} in addition to the fields of Hyperparams, but a run "
            "stores only those fields: pass the value in algorithm=partial(f, ...), or sweep it "
            "with make_train",
            "hp",
        )
    arrays = {name: np.asarray(value) for name, value in vars(hp).items()}
    size = arrays["gamma"].size
    points = [  # `float` would turn 0.005 in float32 into 0.00499999988824129
        Hyperparams(**{name: float(str(value.flat[i])) for name, value in arrays.items()})
        for i in range(size)
    ]
    if len(set(points)) < size:
        raise InputError("a point of the grid occurs twice: give each swept value once", "hp")
    swept = [name for name, value in arrays.items() if np.unique(value).size > 1]
    return Grid(points, swept, seeds, (0, size * len(seeds)))


def extended(config: Config, total_steps: int) -> Config:
    """Return the config with a larger total_steps.

    Raises InputError if no epoch ends at the new total_steps.
    """
    name, end = f"extend_to ({total_steps!r})", config.total_steps
    if not is_whole(total_steps):
        raise InputError(f"{name} must be a whole number of steps: use 1000000", "extend_to")
    if total_steps < end:
        raise InputError(f"{name} must be total_steps ({end}) or more: use {end}", "extend_to")
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
