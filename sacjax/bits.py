"""Ensure that `make_train` and `run` return the same results, bit for bit.

`make_train` compiles a whole run into one function, and `run` calls a compiled epoch from Python.
XLA rounds numbers differently if it folds constants into a loop, or if the shapes of arrays change.
Three functions of this module prevent such rounding differences. `as_arrays` converts all numbers
to one dtype. `as_arguments` hides constants from XLA. `tied_to` makes every array of the first
state depend on the member's key, so that vmap batches every array. Without `tied_to`, a step
counter would have a batch axis in `run` and no batch axis in `make_train`. The results of
`make_train` and `run` are equal only with XLA's default options. The tests compare the bits on a
CPU, with the newest jaxlib.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sacjax.config import Hyperparams
from sacjax.types import Array, EnvParams, Key, is_key


def as_arrays(hp: Hyperparams, env_params: EnvParams) -> tuple[Hyperparams, EnvParams]:
    """Convert all numbers to arrays of one dtype, so that JAX traces them in the same way."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), hp), jax.tree.map(strong, env_params)


def as_arguments(hp: Hyperparams, env_params: EnvParams) -> tuple[Hyperparams, EnvParams]:
    """Pass all numbers through a barrier, so that XLA does not fold them into the loop."""
    return jax.lax.optimization_barrier((hp, env_params))


def tied_to(key: Key, state: Any) -> Any:
    """Make each array depend on `key`, without changing the values or the speed."""
    always = jax.random.key_data(key).ravel()[0] >= 0  # True, because key data is unsigned

    def tie(x: Any) -> Array:
        if is_key(x):
            return x
        x = strong(x)  # an algorithm's state may contain Python numbers
        return jax.lax.select(jnp.broadcast_to(always, x.shape), x, x)

    return jax.tree.map(tie, state)


def bind(f: Callable, parts: Any) -> Callable:
    """Return `partial(f, parts)`, which JAX traces with its standard promotion of dtypes.

    gymnax's environments and optax fail under strict promotion, which a user may set in JAX.
    """

    def bound(*args: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return f(parts, *args)

    return bound


def strong(x: Any) -> Array:
    """Return `x` as an array without a weak type."""
    return jax.lax.convert_element_type(x, jnp.asarray(x).dtype)
