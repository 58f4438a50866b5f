"""Add time limits and automatic resets to the raw environments of Brax and Playground.

In Brax and MuJoCo Playground, the state of an environment has the fields `obs`, `reward`, `done`
and `info`. sacjax does not use the wrappers of Brax and Playground, because these wrappers
overwrite the last observation of an episode and treat a time limit as a termination. An environment
without wrappers is called raw. The functions `reset` and `step` of a raw environment act on a
single copy.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from sacjax.envs.base import drop_weak_types, flatten, keep_dtypes, make_record, make_timestep
from sacjax.types import Array, Env, EnvParams, InputError, Key, MakeEnv, is_key

RESETS = "cached", "fresh"
FIRST_STATES = 64  # smallest number of first states that a run caches


class TimeLimit(struct.PyTreeNode):
    """Parameters of an environment that resets automatically.

    Attributes:
      max_steps_in_episode: the number of steps after which an episode is truncated.
    """

    max_steps_in_episode: int = 1000


class CopiesState(NamedTuple):
    """The state of E copies of an environment.

    Checkpoints use the field names as the names of arrays.
    """

    inner: Any  # states of the raw environments, with leaves [E, ...]
    steps: Array  # [E] number of steps since the current episode began
    firsts: Any  # cached first states with leaves [K, ...], or None if reset="fresh"


def make_autoreset_env(name: str, raw: Any, reset: str, limit: int) -> MakeEnv:
    """Return a function that makes E copies of a raw environment.

    With `reset="cached"`, a run computes at least `FIRST_STATES` first states when the run starts.
    Each episode then begins in a random one of these states. With `reset="fresh"`, each episode
    begins in a newly computed first state. Fresh resets are slow, because every step computes a
    reset of all copies. `benchmarks/resets.py` measures the cost of fresh resets.

    Args:
      name: the name of the environment.
      raw: a raw environment of Brax or Playground. The environment accepts actions in [-1, 1].
      reset: "cached" or "fresh".
      limit: the default time limit of an episode, in steps.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: the observations of the environment are not flat arrays.
    """
    obs_size = _obs_size(name, raw)

    def make(num_envs: int) -> Env:
        def reset_copies(key: Key, params: EnvParams) -> tuple[CopiesState, Array]:
            del params
            number = max(num_envs, FIRST_STATES) if reset == "cached" else num_envs
            states = drop_weak_types(jax.vmap(raw.reset)(jax.random.split(key, number)))
            inner = jax.tree.map(lambda x: x[:num_envs], states)
            steps = jnp.zeros(num_envs, jnp.int32)
            state = CopiesState(inner, steps, states if reset == "cached" else None)
            return state, flatten(inner.obs)

        def step(state: CopiesState, action: Array, key: Key, params: EnvParams) -> Any:
            new = jax.vmap(raw.step)(state.inner, jnp.clip(action, -1, 1))
            new = keep_dtypes(new, state.inner)
            steps = state.steps + 1
            terminated = new.done.astype(bool)
            truncated = steps >= params.max_steps_in_episode
            ended = terminated | truncated
            first = first_states(state, key)
            inner = jax.tree.map(lambda a, b: jnp.where(_add_axes(ended, a), a, b), first, new)
            timestep = make_timestep(inner.obs, new.obs, new.reward, terminated, truncated)
            timestep = timestep._replace(info=new.info | getattr(new, "metrics", {}))
            return CopiesState(inner, jnp.where(ended, 0, steps), state.firsts), timestep

        def first_states(state: CopiesState, key: Key) -> Any:
            """Return a first state for each copy. Copies use it only if an episode has ended."""
            if state.firsts is None:
                return drop_weak_types(jax.vmap(raw.reset)(jax.random.split(key, num_envs)))
            key_index, key_rng = jax.random.split(key)
            number = state.firsts.obs.shape[0]
            index = jax.random.randint(key_index, (num_envs,), 0, number)
            first = jax.tree.map(lambda x: x[index], state.firsts)
            return _replace_rng(first, jax.random.split(key_rng, num_envs))

        sizes = num_envs, obs_size, raw.action_size
        return make_record(name, *sizes, reset_copies, step, TimeLimit(limit))

    return make


def _obs_size(name: str, raw: Any) -> int:
    """Return the size of an observation. Raise InputError unless observations are flat arrays."""
    obs = jax.eval_shape(raw.reset, jax.random.key(0)).obs
    if not hasattr(obs, "shape") or len(obs.shape) != 1:
        found = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", obs)
        raise InputError(
            f"observation_space ({found}) of {name} must be one flat array: wrap the environment "
            "so that it returns flat observations",
            "observation_space",
        )
    return obs.shape[0]


def _replace_rng(states: Any, keys: Key) -> Any:
    """Put a new key into each state, so that episodes with equal first states differ."""
    rng = states.info.get("rng") if isinstance(states.info, dict) else None
    if rng is None or is_key(rng) != is_key(keys):
        return states
    return states.replace(info=states.info | {"rng": keys})


def _add_axes(mask: Array, x: Array) -> Array:
    """Reshape a mask [E] to [E, 1, ...], so that the mask has as many axes as `x`."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - 1))


def first_camera(model: Any) -> str | None:
    """Return the name of the first camera of a MuJoCo model, or None if the model has no camera."""
    return model.camera(0).name if model.ncam else None
