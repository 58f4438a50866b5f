"""Functions that all adapters use to build an `Env`, check spaces and convert arrays."""

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
    """Return an `Env` of E copies, whose random actions are uniform in [-1, 1]."""
    dtype = jnp.zeros(()).dtype  # float32, or float64 in x64 mode
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
    """Scale actions from [-1, 1] to the environment's bounds.

    Actions outside of [-1, 1] are clipped first. The function accepts NumPy and JAX arrays, because
    environments outside of JAX must not call JAX.

    Args:
      action: actions [E, A].
      low: lower bounds in the environment's units, an array of any shape with A elements.
      high: upper bounds, an array with the shape of `low`.

    Returns:
      Actions [E, *low.shape] in the environment's units and in the dtype of `low`.
    """
    low, high = low[None], high[None]
    unit = action.astype(low.dtype).clip(-1, 1).reshape(-1, *low.shape[1:])
    return (low + (unit + 1) / 2 * (high - low)).clip(low, high)  # rounding can exceed a bound


def check_spaces(name: str, action: Any, obs: Any, box: type) -> None:
    """Raise InputError unless SAC can use both spaces.

    The action space must be a Box of floats with finite bounds. The observation space must be a Box
    with at most one axis. `box` is the Box class of the suite.
    """
    continuous = isinstance(action, box) and jnp.issubdtype(action.dtype, jnp.floating)
    if not (continuous and np.isfinite(np.subtract(action.high, action.low)).all()):
        raise InputError(
            f"action_space ({action}) of {name} must be a Box of floats with finite bounds: wrap "
            "the environment, or use one that `sacjax envs` lists",
            "action_space",
        )
    if not isinstance(obs, box) or len(obs.shape) > 1:
        shown = f"Box of shape {list(obs.shape)}" if isinstance(obs, box) else obs
        raise InputError(
            f"observation_space ({shown}) of {name} must be a Box with one axis: wrap the "
            "environment so that it returns flat observations (images are not supported)",
            "observation_space",
        )


def flatten(obs: Array) -> Array:
    """Reshape observations [E, ...] to floats [E, O], which are float64 in x64 mode."""
    return obs.reshape(len(obs), -1).astype(float)


def make_timestep(
    obs: Array, final_obs: Array, reward: Array, terminated: Array, truncated: Array
) -> TimeStep:
    """Convert the arrays of one step to the shapes and dtypes of `TimeStep`."""
    copies = len(obs)
    return TimeStep(
        obs=flatten(obs),
        final_obs=flatten(final_obs),
        reward=reward.astype(float).reshape(copies),
        terminated=terminated.astype(bool).reshape(copies),
        truncated=truncated.astype(bool).reshape(copies),
    )


def keep_dtypes(new: Any, old: Any) -> Any:
    """Cast the arrays of `new` to the dtypes of `old`, as the carry of a scan needs."""
    return jax.tree.map(lambda x, was: x if x.dtype == was.dtype else x.astype(was.dtype), new, old)


def drop_weak_types(tree: Any) -> Any:
    """Return the same arrays without weak types, because a scan's carry must keep its types."""

    return jax.tree.map(lambda x: x if is_key(x) else bits.strong(x), tree)
