"""From one raw environment, `reset` and `step` of one copy, to the contract (`sacjax.types.Env`).

Brax and MuJoCo Playground share one kind of state (`obs`, `reward`, `done`, `info`). Their own
wrappers overwrite the last observation of an episode and count a time limit as its end, so they are
not used: the copies, the time limit and the resets are made here.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from sacjax.envs.base import as_before, as_timestep, flat, make_record, strong
from sacjax.types import Array, Env, EnvParams, InputError, Key, MakeEnv, is_key

RESETS = "cached", "fresh"
FIRST_STATES = 64  # that a run keeps, at least


class TimeLimit(struct.PyTreeNode):
    """The parameters of these environments."""

    max_steps_in_episode: int = 1000


class Running(NamedTuple):
    """E copies."""

    inner: Any  # the raw states, leaves [E, ...]
    steps: Array  # [E] since the episode's beginning
    firsts: Any  # raw states that episodes begin with, leaves [K, ...]; None: a new one each time


def make_stepped(name: str, raw: Any, reset: str, limit: int) -> MakeEnv:
    """A maker of E copies of `raw`, whose actions are in [-1, 1].

    An episode begins with one of K >= `FIRST_STATES` states that are made when a run begins, drawn
    anew each time ("cached"), or with a new one ("fresh"), which is computed in every step, as it
    is not known before which copy needs one (benchmarks/resets.py). InputError on an observation
    that is not one array.
    """
    obs_size = _obs_size(name, raw)

    def make(num_envs: int) -> Env:
        def reset_copies(key: Key, params: EnvParams) -> tuple[Running, Array]:
            del params
            number = max(num_envs, FIRST_STATES) if reset == "cached" else num_envs
            firsts = strong(jax.vmap(raw.reset)(jax.random.split(key, number)))
            inner = jax.tree.map(lambda x: x[:num_envs], firsts)
            steps = jnp.zeros(num_envs, jnp.int32)
            state = Running(inner, steps, firsts if reset == "cached" else None)
            return state, flat(inner.obs)

        def step(state: Running, action: Array, key: Key, params: EnvParams) -> Any:
            new = jax.vmap(raw.step)(state.inner, jnp.clip(action, -1, 1))
            new = as_before(new, state.inner)
            steps = state.steps + 1
            terminated = new.done.astype(bool)
            truncated = steps >= params.max_steps_in_episode
            ended = terminated | truncated
            first = _first(state, key)
            inner = jax.tree.map(lambda a, b: jnp.where(_like(ended, a), a, b), first, new)
            timestep = as_timestep(inner.obs, new.obs, new.reward, terminated, truncated)
            return Running(inner, jnp.where(ended, 0, steps), state.firsts), timestep

        def _first(state: Running, key: Key) -> Any:
            """States [E] for the copies whose episode ends."""
            if state.firsts is None:
                return strong(jax.vmap(raw.reset)(jax.random.split(key, num_envs)))
            key_index, key_rng = jax.random.split(key)
            number = state.firsts.obs.shape[0]
            index = jax.random.randint(key_index, (num_envs,), 0, number)
            first = jax.tree.map(lambda x: x[index], state.firsts)
            return _reseeded(first, jax.random.split(key_rng, num_envs))

        sizes = num_envs, obs_size, raw.action_size
        return make_record(name, *sizes, reset_copies, step, TimeLimit(limit))

    return make


def _obs_size(name: str, raw: Any) -> int:
    """Size of an observation. InputError where it is not one flat array."""
    obs = jax.eval_shape(raw.reset, jax.random.key(0)).obs
    if not hasattr(obs, "shape") or len(obs.shape) != 1:
        found = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", obs)
        raise InputError(
            f"{name} has the observations {found}, but one flat array is needed: wrap the "
            "environment so that it returns one"
        )
    return obs.shape[0]


def _reseeded(states: Any, keys: Key) -> Any:
    """With keys of their own, where they hold one: episodes of one first state still differ."""
    if isinstance(states.info, dict) and "rng" in states.info:
        rng = states.info["rng"]
        keys = keys if is_key(rng) == is_key(keys) else rng
        return states.replace(info=states.info | {"rng": keys})
    return states


def _like(mask: Array, x: Array) -> Array:
    """[E] -> [E, 1, ...], as many axes as x has."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - 1))


def camera(model: Any) -> str | None:
    """MuJoCo's first one, which follows the body, where the model has one."""
    return model.camera(0).name if model.ncam else None
