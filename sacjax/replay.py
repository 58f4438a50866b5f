"""A replay buffer with uniform sampling, in one array with one row per transition.

An insertion writes one slice in place, and sampling is one gather, so the time per step does not
depend on the capacity. Call `add` before `sample`, because XLA copies the buffer in every step if
`sample` comes first. The package flashbax stores each field in a separate array. XLA fuses some
writes to the separate arrays into gathers, and therefore copies the arrays (benchmarks/NOTES.md).
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
    """A buffer of C rows. The first `size` rows are in use."""

    rows: Array  # [C, W] each row contains the W numbers of one transition
    position: Array  # [] index of the next row to write, which is the oldest row of a full buffer
    size: Array  # [] number of rows in use


class Replay(NamedTuple):
    """Pure functions for a first-in, first-out buffer of C transitions."""

    init: Callable[[], ReplayState]
    add: Callable[[ReplayState, Any], ReplayState]  # adds E items to the buffer
    sample: Callable[[ReplayState, Key], Any]  # draws [U, B, ...] uniformly, with replacement
    unpack: Callable[[Array], Any]  # converts rows [..., W] to items


def make_replay(config: Config, example: Any) -> Replay:
    """Build a replay buffer for items like `example`, which has no leading axis.

    The capacity C is a multiple of the number of environments. `sample` gathers all U minibatches
    of an iteration at once. `sample` draws each row with probability 1 / size. The relative error
    of this probability is `size` * 2^-32, which is 0.02% for a million rows. If `config.n_step`
    is n > 1, `sample` returns [U, B, n, ...], and the axis n contains consecutive items of one
    environment.
    """
    row, unpack_row = ravel_pytree(example)
    pack = jax.vmap(lambda item: ravel_pytree(item)[0])
    # [n] offsets of n consecutive items of one environment, where the first offset is 0
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
        starts = state.size - int(between[-1])  # number of items that have n - 1 successors
        index = jax.random.bits(key, shape, jnp.uint32) % starts.astype(jnp.uint32)
        if config.n_step > 1:  # `index` counts from the oldest item
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
    """Copy all transitions into a larger buffer.

    The smaller buffer must still contain every transition that was added. All arrays are
    NumPy arrays, and `state.rows` is [C, W] or [M, C, W].
    """
    more = capacity - state.rows.shape[-2]
    padding = [(0, 0)] * (state.rows.ndim - 2) + [(0, more), (0, 0)]
    rows: Any = np.pad(state.rows, padding)
    return ReplayState(rows, position=state.size % capacity, size=state.size)


def ended(state: ReplayState, num_envs: int) -> ReplayState:
    """Mark the last step of each environment as the end of an episode.

    `state` has a leading axis [M]. The last number of a row is `types.Step.ended`, and 1 marks the
    end of an episode.
    """
    capacity = state.rows.shape[-2]
    last = (state.position[..., None] - 1 - jnp.arange(num_envs)) % capacity  # [M, E]
    return state._replace(
        rows=jax.vmap(lambda rows, index: rows.at[index, -1].set(1))(state.rows, last)
    )


def n_step_return(steps: Transition, ended: Array, gamma: Scalar) -> Transition:
    """Merge n consecutive transitions of one environment, [..., n], into one n-step transition.

        reward = r_0 + gamma r_1 + ... + gamma^m r_m,  discount = gamma^m d_m,  next_obs of step m

    Step m is the first step with `ended` = 1, or the last step if no step ended its episode.
    `soft_target` multiplies by one more gamma, so the result is the n-step target of Sutton & Barto
    2018, section 7.1. The target is exact at the end of an episode. As usual for n-step
    targets, the target has no off-policy correction. The target ignores the entropy of the policy
    between `obs` and `next_obs`.
    """
    n = ended.shape[-1]
    going = 1 - ended.astype(steps.reward.dtype)
    reached = jnp.cumprod(going, axis=-1)  # 1 if no step up to k ended the episode
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
