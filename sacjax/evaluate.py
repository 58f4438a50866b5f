"""Returns: of greedy episodes, and of the training episodes that end in an epoch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from sacjax.types import Array, Env, EnvParams, Key, Metrics, TimeStep


def evaluate(
    env: Env,
    policy: Callable[[Array], Array],
    key: Key,
    env_params: EnvParams,
    max_steps: int,
) -> tuple[Array, Array]:
    """Return the undiscounted return [E] and the length [E] of one episode in each of E copies.

    `policy` maps obs [E, O] to action [E, A]; `agent.mode` makes it greedy. The first episode of
    each copy counts, from its reset to its end. The loop runs until the last copy has ended, so it
    honours a time limit given in `env_params`. After `max_steps` the open episodes are cut.
    """
    key_reset, key_steps = jax.random.split(key)
    env_state, obs = env.reset(key_reset, env_params)
    copies = obs.shape[0]
    running = jnp.ones(copies, bool)
    returns, lengths = jnp.zeros(copies, obs.dtype), jnp.zeros(copies, jnp.int32)

    def step(carry):
        env_state, obs, key, running, returns, lengths = carry
        key, key_step = jax.random.split(key)
        env_state, timestep = env.step(env_state, policy(obs), key_step, env_params)
        returns += jnp.where(running, timestep.reward, 0)
        lengths += running
        running &= ~(timestep.terminated | timestep.truncated)
        return env_state, timestep.obs, key, running, returns, lengths

    def is_open(carry):
        *_, running, _, lengths = carry
        return running.any() & (lengths.max() < max_steps)

    carry = (env_state, obs, key_steps, running, returns, lengths)
    *_, returns, lengths = jax.lax.while_loop(is_open, step, carry)
    return returns, lengths


class Episodes(struct.PyTreeNode):
    """The open episodes of E environments, and sums over those that ended in this epoch."""

    open_return: Array  # [E]
    open_length: Array  # [E]
    return_sum: Array  # []
    length_sum: Array  # []
    count: Array  # []


def init_episodes(num_envs: int, dtype: Any) -> Episodes:
    """No step taken yet."""
    zeros, zero = jnp.zeros(num_envs, dtype), jnp.zeros((), dtype)
    return Episodes(zeros, zeros, zero, zero, zero)


def start_epoch(episodes: Episodes) -> Episodes:
    """Open episodes stay open; the sums start again."""
    zero = jnp.zeros_like(episodes.count)
    return episodes.replace(return_sum=zero, length_sum=zero, count=zero)


def add_step(episodes: Episodes, timestep: TimeStep) -> Episodes:
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


def summarize(episodes: Episodes) -> Metrics:
    """Means over the episodes that ended in this epoch (NaN where none did), and their number."""
    return {
        "train_return": episodes.return_sum / episodes.count,
        "train_length": episodes.length_sum / episodes.count,
        "train_episodes": episodes.count,
    }
