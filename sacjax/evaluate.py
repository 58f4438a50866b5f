"""Measure the returns and lengths of greedy episodes and of training episodes."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from sacjax.info import Tally, add_info, summarize_info
from sacjax.types import Array, Env, EnvParams, Key, Metrics, TimeStep


def evaluate(
    env: Env,
    policy: Callable[[Array], Array],
    key: Key,
    env_params: EnvParams,
    max_steps: int,
) -> tuple[Array, Array]:
    """Run one episode in each of E environments. Return undiscounted returns and lengths [E].

    `policy` maps observations [E, O] to actions [E, A]. Only the first episode of each environment
    counts. The loop stops when every environment has finished an episode. After `max_steps` steps,
    the loop stops and cuts off unfinished episodes. A time limit in `env_params` also applies.
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
    """Returns and lengths of unfinished episodes, and sums over the ended episodes of an epoch."""

    open_return: Array  # [E]
    open_length: Array  # [E]
    return_sum: Array  # []
    length_sum: Array  # []
    count: Array  # []
    info: dict[str, Tally]  # one Tally for each entry of `Config.log_info`


def init_episodes(num_envs: int, dtype: Any, log_info: Collection[str]) -> Episodes:
    """Return the Episodes of a run before its first step."""
    zeros, zero = jnp.zeros(num_envs, dtype), jnp.zeros((), dtype)
    info = {entry: Tally(zeros, zeros, zero, zero) for entry in log_info}
    return Episodes(zeros, zeros, zero, zero, zero, info)


def start_epoch(episodes: Episodes) -> Episodes:
    """Reset the sums to 0, and keep the unfinished episodes."""
    zero = jnp.zeros_like(episodes.count)
    info = {entry: x._replace(total=zero, episodes=zero) for entry, x in episodes.info.items()}
    return episodes.replace(return_sum=zero, length_sum=zero, count=zero, info=info)


def add_step(episodes: Episodes, timestep: TimeStep) -> Episodes:
    """Count one step of every environment."""
    returns, lengths = episodes.open_return + timestep.reward, episodes.open_length + 1
    ended = timestep.terminated | timestep.truncated
    return Episodes(
        open_return=jnp.where(ended, 0, returns),
        open_length=jnp.where(ended, 0, lengths),
        return_sum=episodes.return_sum + jnp.where(ended, returns, 0).sum(),
        length_sum=episodes.length_sum + jnp.where(ended, lengths, 0).sum(),
        count=episodes.count + ended.sum(),
        info=add_info(episodes.info, timestep.info, ended),
    )


def summarize(episodes: Episodes) -> Metrics:
    """Return the number, mean return and mean length of the episodes that ended in this epoch.

    If no episode ended, the means are NaN.
    """
    return summarize_info(episodes.info) | {
        "train_return": episodes.return_sum / episodes.count,
        "train_length": episodes.length_sum / episodes.count,
        "train_episodes": episodes.count,
    }
