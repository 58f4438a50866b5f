"""Statistics of the training episodes, kept in the loop's state and of constant size."""

from typing import Any

import jax.numpy as jnp
from flax import struct

from sacjax.types import Array, Metrics, TimeStep


class Episodes(struct.PyTreeNode):
    """The open episodes of E environments, and sums over those that ended in this epoch."""

    open_return: Array  # [E]
    open_length: Array  # [E]
    return_sum: Array  # []
    length_sum: Array  # []
    count: Array  # []


def init(num_envs: int, dtype: Any) -> Episodes:
    """No step taken yet."""
    zeros, zero = jnp.zeros(num_envs, dtype), jnp.zeros((), dtype)
    return Episodes(zeros, zeros, zero, zero, zero)


def new_epoch(episodes: Episodes) -> Episodes:
    """Open episodes stay open; the sums start again."""
    zero = jnp.zeros_like(episodes.count)
    return episodes.replace(return_sum=zero, length_sum=zero, count=zero)


def add(episodes: Episodes, timestep: TimeStep) -> Episodes:
    """One more step of every environment."""
    returns, lengths = episodes.open_return + timestep.reward, episodes.open_length + 1
    ended = timestep.terminated | timestep.truncated
    return Episodes(
        open_return=jnp.where(ended, 0, returns),
        open_length=jnp.where(ended, 0, lengths),
        return_sum=episodes.return_sum + jnp.where(ended, returns, 0).sum(),
        length_sum=episodes.length_sum + jnp.where(ended, lengths, 0).sum(),
        count=episodes.count + ended.sum(),
    )


def summary(episodes: Episodes) -> Metrics:
    """Means over the episodes that ended in this epoch (NaN where none did), and their number."""
    return {
        "train_return": episodes.return_sum / episodes.count,
        "train_length": episodes.length_sum / episodes.count,
        "train_episodes": episodes.count,
    }
