"""Functions that all adapters use to build an `Env`, check spaces and convert arrays."""

import logging
from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import bits
from sacjax.types import Array, Env, EnvParams, InputError, TimeStep, Transition, is_key

_LOG = logging.getLogger("sacjax")
_LARGE = 1e6  # larger action bounds are probably a mistake


class Spaces(NamedTuple):
    """The size of the observations and the bounds of the actions of an environment.

    Attributes:
      obs_size: the number O of elements in an observation.
      low: the lower bounds of an action in the simulator's units, an array shaped like an action.
      high: the upper bounds of an action in the simulator's units, an array shaped like an action.
    """

    obs_size: int
    low: np.ndarray
    high: np.ndarray


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
    """Return an `Env` of E copies. The random actions are uniform in [-1, 1]."""
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

    Actions outside of [-1, 1] are clipped first. The arrays may be JAX arrays or NumPy
    arrays. Environments outside of JAX pass NumPy arrays, because these environments must not
    call JAX.

    Args:
      action: the actions [E, A] to scale.
      low: the lower bounds of an action in the environment's units. The array has A elements.
      high: the upper bounds of an action, an array shaped like `low`.

    Returns:
      Actions [E, *low.shape] in the environment's units and in the dtype of `low`.
    """
    low, high = low[None], high[None]
    unit = action.astype(low.dtype).clip(-1, 1).reshape(-1, *low.shape[1:])
    return (low + (unit + 1) / 2 * (high - low)).clip(low, high)  # rounding can exceed a bound


def check_spaces(name: str, action: Any, obs: Any, *boxes: type) -> Spaces:
    """Return the `Spaces` of an environment, or raise InputError if SAC does not support them.

    The action space must be a Box of floats with finite bounds. The observation space must be a Box
    with at most one axis. `boxes` are the Box classes of the suite. The function logs a warning if
    a bound of the actions exceeds 1e6.
    """
    (_, low, high), (shape, *_) = _read_box(action, boxes), _read_box(obs, boxes)
    with np.errstate(all="ignore"):
        usable = low.size and jnp.issubdtype(low.dtype, jnp.floating)
        usable = usable and np.isfinite(high - low).all() and (low <= high).all()
    if not usable:
        raise InputError(
            f"action_space ({action}) of {name} must be a Box of floats with finite bounds, low <= "
            "high, and a finite high - low: wrap the environment, or use one that `sacjax envs` "
            "lists",
            "action_space",
        )
    if len(shape) > 1 or 0 in shape:
        shown = f"Box of shape {list(shape)}" if isinstance(obs, boxes) else obs
        raise InputError(
            f"observation_space ({shown}) of {name} must be a Box with one axis: wrap the "
            "environment so that it returns one flat array that is not empty (images are not "
            "supported)",
            "observation_space",
        )
    if (largest := max(-low.min(), high.max())) > _LARGE:
        _LOG.warning(
            "action_space of %s has bounds of up to %g, and policies act in all of it: use the "
            "bounds that the task needs",
            *(name, largest),
        )
    return Spaces(int(np.prod(shape)), low, high)


def _read_box(space: Any, boxes: tuple[type, ...]) -> tuple[tuple, np.ndarray, np.ndarray]:
    """Return the shape of a Box, and the lower and upper bounds as arrays of this shape.

    The shape of `space` may be a tuple, list or number. The bounds of `space` may be numbers, lists
    or arrays. If `space` is not a Box, the returned arrays are empty.
    """
    shape, low, high = (0,), np.zeros(0), np.zeros(0)
    with suppress(TypeError, ValueError), np.errstate(all="ignore"):
        if isinstance(space, boxes):
            shape = tuple(int(x) for x in np.atleast_1d(space.shape))
            bounds = (np.asarray(bound, space.dtype) for bound in (space.low, space.high))
            low, high = (np.broadcast_to(bound, shape) for bound in bounds)
    return shape, low, high


def flatten(obs: Array) -> Array:
    """Reshape observations [E, ...] to [E, O]. The dtype is float32, or float64 in x64 mode."""
    return obs.reshape(len(obs), -1).astype(float)


def make_timestep(
    obs: Array, final_obs: Array, reward: Array, terminated: Array, truncated: Array
) -> TimeStep:
    """Convert the arrays of one step to the right shapes and dtypes, and return a `TimeStep`."""
    copies = len(obs)
    return TimeStep(
        obs=flatten(obs),
        final_obs=flatten(final_obs),
        reward=reward.astype(float).reshape(copies),
        terminated=terminated.astype(bool).reshape(copies),
        truncated=truncated.astype(bool).reshape(copies),
    )


def keep_dtypes(new: Any, old: Any) -> Any:
    """Cast the arrays in `new` to the dtypes in `old`, because a scan must not change dtypes."""
    return jax.tree.map(lambda x, was: x if x.dtype == was.dtype else x.astype(was.dtype), new, old)


def drop_weak_types(tree: Any) -> Any:
    """Return the arrays of `tree` without weak types, because a scan must not change types."""

    return jax.tree.map(lambda x: x if is_key(x) else bits.strong(x), tree)
