"""Log the numbers in an environment's `info` that `Config.log_info` lists.

An entry "name:how", such as "success:last", turns the values of one episode into one number.
"""

import re
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sacjax.types import Array, Env, InputError, Metrics, is_key


class Tally(NamedTuple):
    """The values of one `log_info` entry in unfinished episodes, and sums over ended episodes."""

    value: Array  # [E] last value, sum, mean or maximum since the episode began
    steps: Array  # [E] number of steps with a value since the episode began
    total: Array  # [] sum over the episodes that ended in this epoch and reported the entry
    episodes: Array  # [] number of episodes in `total`


def check_entries(value: Any) -> tuple[str, ...]:
    """Return the entries of `Config.log_info`. One string may contain several entries.

    Raises InputError if an entry is malformed, or if two entries have the same name.
    """
    texts = value if isinstance(value, tuple | list) else [value]
    entries = [text.strip() for text in ",".join(map(str, texts)).split(",") if text.strip()]
    names = {_name(x) for x in entries if re.fullmatch("(.+):(last|sum|mean|max)", x)}
    if len(names) < len(entries):
        raise InputError(
            f"log_info ({value!r}) must be entries name:how, each name once, where how is last, "
            "sum, mean or max: use 'success:last,reward_ctrl:sum'",
            "log_info",
        )
    return tuple(entries)


def read_info(env: Env, entries: Collection[str]) -> None:
    """Make `env` return the numbers of all `entries` in `TimeStep.info`.

    Raises InputError if the environment's info has no number for an entry. If the environment runs
    outside of JAX, this check takes a step of the environment.
    """
    names = [_name(entry) for entry in entries]
    known = _numbers(env, names) if names else ()
    for entry, name in zip(entries, names, strict=True):
        if name not in known:
            has = f"use {', '.join(sorted(known))}" if known else "leave it out, there is no number"
            message = f"log_info ({entry}) must name a number in info of {env.name}: {has}"
            raise InputError(message, "log_info")


def add_info(tallies: dict[str, Tally], info: Any, ended: Array) -> dict[str, Tally]:
    """Count one step of every environment. NaN stands for a missing value."""
    return {entry: _add(tally, entry, info, ended) for entry, tally in tallies.items()}


def summarize_info(tallies: dict[str, Tally]) -> Metrics:
    """Return each entry's mean over the episodes that ended in this epoch, or NaN."""
    return {
        f"info_{_name(entry)}": tally.total / tally.episodes for entry, tally in tallies.items()
    }


def _name(entry: str) -> str:
    return entry.rpartition(":")[0]


def _numbers(env: Env, names: list[str]) -> set[str]:
    """Return those `names` for which info has one number per copy of the environment."""
    if env.host is not None:
        return env.host.read_info(env.name, names)

    def step(key: jax.Array) -> Any:
        state, _ = env.reset(key, env.default_params)
        return env.step(state, env.random_action(key), key, env.default_params)[1].info

    with jax.numpy_dtype_promotion("standard"):
        info = jax.eval_shape(step, jax.random.key(0))
    return {name for name, x in info.items() if getattr(x, "ndim", 0) == 1 and not is_key(x)}


def _add(tally: Tally, entry: str, info: Any, ended: Array) -> Tally:
    """Count one step of every environment for one entry."""
    name, _, how = entry.rpartition(":")
    x = info[name].astype(tally.value.dtype)
    steps = tally.steps + ~jnp.isnan(x)
    mean = tally.value + (x - tally.value) / steps
    most = jnp.where(steps == 1, x, jnp.maximum(tally.value, x))
    new = {"last": x, "sum": tally.value + x, "mean": mean, "max": most}[how]
    value, counted = jnp.where(jnp.isnan(x), tally.value, new), ended & (steps > 0)
    total = tally.total + jnp.where(counted, value, 0).sum()
    value, steps = (jnp.where(ended, 0, x) for x in (value, steps))
    return Tally(value, steps, total, tally.episodes + counted.sum())
