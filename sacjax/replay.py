"""Uniform replay: a flashbax item buffer, preallocated, its bytes known beforehand.

Inserting writes E rows in place and sampling gathers B, so neither touches the whole buffer: a
step costs the same at any capacity. Insert first and sample after (the other order makes XLA copy
the buffer in every step).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flashbax
import jax
import jax.numpy as jnp

from sacjax.config import Config
from sacjax.types import Array, Key, Transition

ReplayState = Any  # flashbax's state: experience [1, C, ...], current_index [], is_full []


class Replay(NamedTuple):
    """A first-in, first-out memory of C transitions, as pure functions."""

    init: Callable[[Transition], ReplayState]  # one transition without a leading axis -> empty
    add: Callable[[ReplayState, Transition], ReplayState]  # [E, ...]; the oldest E are forgotten
    sample: Callable[[ReplayState, Key], Transition]  # -> [U, B, ...], uniform, with replacement
    size: Callable[[ReplayState], Array]  # -> [] transitions held


def make_replay(config: Config) -> Replay:
    """Replay for `config`: capacity C, and all U minibatches of an iteration in one gather."""
    buffer = flashbax.make_item_buffer(
        max_length=config.capacity,
        min_length=1,
        sample_batch_size=config.batch_size,
        add_batches=True,
    )

    def sample(state: ReplayState, key: Key) -> Transition:
        keys = jax.random.split(key, config.updates_per_iteration)
        return jax.vmap(lambda k: buffer.sample(state, k).experience)(keys)

    def size(state: ReplayState) -> Array:
        return jnp.where(state.is_full, config.capacity, state.current_index)

    return Replay(init=buffer.init, add=buffer.add, sample=sample, size=size)


def replay_bytes(config: Config, example: Transition) -> int:
    """Bytes that one agent's replay allocates: C times one transition."""
    return config.capacity * sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(example)
    )
