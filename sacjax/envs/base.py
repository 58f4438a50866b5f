"""What the adapters share: the parts of an `Env` that follow from its sizes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import bits
from sacjax.types import Array, Env, EnvParams, InputError, TimeStep, Transition, is_key


def make_record(
    name: str,
    copies: int,
    obs_size: int,
    action_size: int,
    reset: Any,
    step: Any,
    params: EnvParams,
    bounds: tuple[Any, Any] = (-1.0, 1.0),
    host: Any = None,
) -> Env:
    """The record of E copies; random actions are uniform in [-1, 1]."""
    dtype = jnp.zeros(()).dtype  # float32, or float64 under x64
    obs, scalar = jnp.zeros(obs_size, dtype), jnp.zeros((), dtype)
    return Env(
        name=name,
        reset=reset,
        step=step,
        random_action=lambda key: jax.random.uniform(key, (copies, action_size), dtype, -1, 1),
        default_params=params,
        example=Transition(obs, jnp.zeros(action_size, dtype), scalar, scalar, obs),
        action_size=action_size,
        bounds=bounds,
        host=host,
    )


def rescale(action: Any, low: Any, high: Any) -> Any:
    """Actions from [-1, 1] to bounds of any shape, clipped: [E, A] -> [E, *low.shape].

    For arrays of NumPy and of JAX. A host environment's callback may use NumPy only.
    """
    low, high = low[None], high[None]
    unit = action.astype(low.dtype).clip(-1, 1).reshape(-1, *low.shape[1:])
    return (low + (unit + 1) / 2 * (high - low)).clip(low, high)  # the sum is rounded


def check_spaces(name: str, action: Any, obs: Any, box: type) -> None:
    """InputError unless both are boxes that SAC can use: bounded floats to act, flat to observe."""
    if not isinstance(action, box) or not jnp.issubdtype(action.dtype, jnp.floating):
        raise InputError(
            f"{name} has the action space {action}, but SAC needs a continuous one (a Box of "
            "floats): `sacjax envs` lists the environments that have one"
        )
    if not isinstance(obs, box) or len(obs.shape) > 1:
        shown = f"Box of shape {list(obs.shape)}" if isinstance(obs, box) else obs
        raise InputError(
            f"{name} has the observation space {shown}, but a flat Box is needed: wrap the "
            "environment so that it returns one flat array (images are not supported)"
        )
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
        raise InputError(
            f"{name} has the action space {action}, but its bounds must be finite: wrap the "
            "environment with bounds that a policy in [-1, 1] can be scaled to"
        )


def flat(obs: Array) -> Array:
    """[E, ...] -> [E, O], in the program's dtype: float32, or float64 under x64."""
    return obs.reshape(len(obs), -1).astype(float)


def as_timestep(
    obs: Array, final_obs: Array, reward: Array, terminated: Array, truncated: Array
) -> TimeStep:
    """In the shapes and dtypes of the contract."""
    copies = len(obs)
    return TimeStep(
        obs=flat(obs),
        final_obs=flat(final_obs),
        reward=reward.astype(float).reshape(copies),
        terminated=terminated.astype(bool).reshape(copies),
        truncated=truncated.astype(bool).reshape(copies),
    )


def as_before(new: Any, old: Any) -> Any:
    """The arrays of `new` in the dtypes of `old`: what runs in a scan must keep its types."""
    return jax.tree.map(lambda x, was: x if x.dtype == was.dtype else x.astype(was.dtype), new, old)


def strong(tree: Any) -> Any:
    """The same arrays without weak types, which would change in a scan's carry."""

    return jax.tree.map(lambda x: x if is_key(x) else bits.strong(x), tree)
