"""Uniform replay: one row of numbers per transition, preallocated.

Inserting writes one slice in place and sampling is one gather, so neither touches the whole buffer:
a step costs the same at any capacity. Insert first and sample after (in the other order XLA copies
the buffer in every step). A buffer per field, as flashbax keeps it, is copied too inside the whole
loop: XLA fuses some fields' writes into their gathers (benchmarks/NOTES.md).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from sacjax.config import Config
from sacjax.types import Array, Key, Scalar, Transition


class ReplayState(NamedTuple):
    """C rows, of which `size` are in use."""

    rows: Array  # [C, W] the fields of one transition, side by side
    position: Array  # [] the row that is written next: the oldest, once all are in use
    size: Array  # []


class Replay(NamedTuple):
    """A first-in, first-out memory of C transitions, as pure functions."""

    init: Callable[[], ReplayState]
    add: Callable[[ReplayState, Any], ReplayState]  # items [E, ...]; the oldest E are forgotten
    sample: Callable[[ReplayState, Key], Any]  # -> [U, B, ...], uniform, with replacement
    unpack: Callable[[Array], Any]  # rows [..., W] -> the items in them [..., ...]


def make_replay(config: Config, example: Any) -> Replay:
    """Replay for items like `example`, a `Transition` say, without a leading axis.

    Capacity C, a multiple of E. `sample` takes all U minibatches of an iteration in one gather. A
    row's probability is 1 / size to a relative 2^-32 size: 0.02% for a million rows. With
    `config.n_step` n above 1 it gives [U, B, n, ...], n items in a row of one environment.
    """
    row, unpack_row = ravel_pytree(example)
    pack = jax.vmap(lambda item: ravel_pytree(item)[0])
    # from an item to those that follow it
    between = config.num_envs * np.arange(config.n_step, dtype=np.int32)

    def init() -> ReplayState:
        rows = jnp.zeros((config.capacity, row.size), row.dtype)
        return ReplayState(rows, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def add(state: ReplayState, items: Any) -> ReplayState:
        new = pack(items)  # [E, W]
        return ReplayState(
            rows=jax.lax.dynamic_update_slice_in_dim(state.rows, new, state.position, axis=0),
            position=(state.position + len(new)) % config.capacity,
            size=jnp.minimum(state.size + len(new), config.capacity),
        )

    def sample(state: ReplayState, key: Key) -> Any:
        shape = config.updates_per_iteration, config.batch_size
        starts = state.size - int(between[-1])  # items that have n - 1 successors yet
        index = jax.random.bits(key, shape, jnp.uint32) % starts.astype(jnp.uint32)
        if config.n_step > 1:  # so many after the oldest item
            oldest = state.position - state.size
            index = oldest + index.astype(jnp.int32)[..., None] + between[None, None]
            index %= config.capacity
        return unpack(state.rows.at[index].get(mode="promise_in_bounds"))

    def unpack(rows: Array) -> Any:
        each = unpack_row
        for _ in range(rows.ndim - 1):
            each = jax.vmap(each)
        return each(rows)

    return Replay(init, add, sample, unpack)


def grow(state: ReplayState, capacity: int) -> ReplayState:
    """The same transitions in a memory of more places; `state` must never have forgotten any.

    NumPy arrays, of one member or several: the places are the last axis but one.
    """
    more = capacity - state.rows.shape[-2]
    padding = [(0, 0)] * (state.rows.ndim - 2) + [(0, more), (0, 0)]
    rows: Any = np.pad(state.rows, padding)
    return ReplayState(rows, position=state.size % capacity, size=state.size)


def ended(state: ReplayState, num_envs: int) -> ReplayState:
    """The last steps [E] end their episodes (`types.Step.ended`, the last number of a row).

    Of one member or several, leading axes [M].
    """
    capacity = state.rows.shape[-2]
    last = (state.position[..., None] - 1 - jnp.arange(num_envs)) % capacity  # [M, E]
    return state._replace(
        rows=jax.vmap(lambda rows, index: rows.at[index, -1].set(1))(state.rows, last)
    )


def n_step_return(steps: Transition, ended: Array, gamma: Scalar) -> Transition:
    """n transitions in a row [..., n], of one environment, as one: its target spans them.

        reward = r_0 + gamma r_1 + ...,  discount = gamma^m d_m,  next_obs = where step m led

    up to the first step m that `ended` [..., n] an episode, by termination or a time limit, or the
    last one. With `soft_target`'s own gamma this is the n-step target (Sutton & Barre 2018, section
    7.1), exact at every end. The actions on the way are the replay's, uncorrected, and their
    entropies do not count, as is usual.
    """
    n = ended.shape[-1]
    going = 1 - ended.astype(steps.reward.dtype)
    reached = jnp.cumprod(going, axis=-1)  # the episode goes on after step k
    reached = jnp.concatenate([jnp.ones_like(reached[..., :1]), reached[..., :-1]], axis=-1)
    powers = (gamma ** jnp.arange(n)).reshape((1,) * (ended.ndim - 1) + (n,))
    last = (reached.sum(-1) - 1).astype(jnp.int32)[..., None]  # m

    def at_last(x: Array) -> Array:
        return jnp.take_along_axis(x, last, axis=-1).squeeze(-1)

    end = last[..., None]
    next_obs = jnp.take_along_axis(steps.next_obs, end, axis=-2).squeeze(-2)
    return Transition(
        obs=steps.obs[..., 0, :],
        action=steps.action[..., 0, :],
        reward=(reached * powers * steps.reward).sum(-1),
        discount=at_last(jnp.broadcast_to(powers, ended.shape) * steps.discount),
        next_obs=next_obs,
    )
