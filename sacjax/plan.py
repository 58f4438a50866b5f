"""A run before it starts: everything checked, nothing traced."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import folder
from sacjax.config import Config, Hyperparams
from sacjax.members import layout
from sacjax.replay import replay_bytes
from sacjax.train import Program, as_arrays, make_program
from sacjax.types import InputError, Key


class Plan(NamedTuple):
    """The members of a run, its program, and how they are laid out."""

    config: Config
    settings: list[Hyperparams]  # the points of the grid
    swept: list[str]
    seeds: list[int]
    members: list[dict[str, float]]
    program: Program
    algorithm: Callable
    how: dict[str, Any]  # strategy and devices

    def description(self) -> dict[str, Any]:
        """For config.json and the checkpoints."""
        told = folder.description(self.config, self.settings, self.swept, self.seeds)
        return told | {"layout": self.how}


def make_plan(
    config: Config,
    settings: list[Hyperparams],
    swept: list[str],
    seeds: list[int],
    algorithm: Callable,
    strategy: str,
    devices: int | None,
) -> Plan:
    """Raises InputError where the settings cannot work here."""
    program = make_program(config, algorithm)
    members = [
        {name: float(getattr(point, name)) for name in swept} | {"seed": seed}
        for point in settings
        for seed in seeds
    ]
    strategy, devices = layout(len(members), strategy, devices)
    _check_memory(config, program, len(members))
    how = {"strategy": strategy, "devices": devices}
    return Plan(config, settings, swept, seeds, members, program, algorithm, how)


def points(hp: Hyperparams) -> tuple[list[Hyperparams], list[str]]:
    """A grid's points, row by row, and the names of the fields that vary over it."""
    arrays = {name: np.asarray(value) for name, value in vars(hp).items()}
    size = arrays["gamma"].size
    points = [  # through str: float32's 0.005 is 0.005, not 0.00499999988824129
        Hyperparams(**{name: float(str(value.flat[i])) for name, value in arrays.items()})
        for i in range(size)
    ]
    if len(set(points)) < size:
        raise InputError("a point of the grid occurs twice: give each swept value once")
    return points, [name for name, value in arrays.items() if np.unique(value).size > 1]


def shapes(program: Program, settings: list[Hyperparams], seeds: list[int]) -> Any:
    """What the loop's state looks like, leaves [M, ...]."""
    keys = member_keys(len(settings), seeds)
    hp, env_params = as_arrays(settings[0], program.default_params)
    return jax.eval_shape(jax.vmap(program.init, (0, None, None)), keys, hp, env_params)


def member_keys(points: int, seeds: list[int]) -> Key:
    return jax.vmap(jax.random.key)(jnp.tile(jnp.array(seeds, jnp.uint32), points))


def extended(config: Config, total_steps: int) -> Config:
    """The same run with a later end. InputError where that is no end of an epoch."""
    if total_steps < config.total_steps:
        raise InputError(
            f"extend_to ({total_steps}) must not be below total_steps ({config.total_steps}), "
            "where the run ends already"
        )
    return replace(config, total_steps=total_steps)


def _check_memory(config: Config, program: Program, members: int) -> None:
    needed = members * replay_bytes(config, program.example)
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    available = (stats or {}).get("bytes_limit")
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if available and needed > available:
        fits = int(config.capacity * available / needed * 0.8) // config.num_envs * config.num_envs
        raise InputError(
            f"the replays of {members} members need {needed / 2**30:.1f} GiB and this device has "
            f"{available / 2**30:.1f}: use replay_size={fits} or fewer seeds"
        )
