"""Keep `make_train`, one scanned program, bit-identical to `run`, which steps from Python.

XLA folds constants into a loop and fuses by shape, and both change rounding. Three functions keep
the two programs the same. `as_arrays` gives all numbers one dtype. `as_arguments` hides constants
from XLA, as if they were arguments. `tied_to` makes every array of the first state depend on the
member's key, so that vmap batches all of them. Otherwise a step counter has no batch axis inside
one program, but has one as an argument from Python. Equal bits rely on XLA's default options. Tests
check them on the CPU with the newest jaxlib.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sacjax.config import Hyperparams
from sacjax.types import Array, EnvParams, Key, is_key


def as_arrays(hp: Hyperparams, env_params: EnvParams) -> tuple[Hyperparams, EnvParams]:
    """Convert all numbers to arrays of one dtype, so that they trace in the same way."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), hp), jax.tree.map(strong, env_params)


def as_arguments(hp: Hyperparams, env_params: EnvParams) -> tuple[Hyperparams, EnvParams]:
    """Return the same numbers behind a barrier, so that XLA does not fold them into the loop."""
    return jax.lax.optimization_barrier((hp, env_params))


def tied_to(key: Key, state: Any) -> Any:
    """Return the same arrays, each of which depends on `key` through a select at no cost."""
    always = jax.random.key_data(key).ravel()[0] >= 0  # True, because key data is unsigned

    def tie(x: Any) -> Array:
        if is_key(x):
            return x
        x = strong(x)  # an algorithm's state may hold Python numbers
        return jax.lax.select(jnp.broadcast_to(always, x.shape), x, x)

    return jax.tree.map(tie, state)


def bind(f: Callable, parts: Any) -> Callable:
    """Return `partial(f, parts)`, traced with JAX's standard promotion of dtypes.

    gymnax's environments and optax need it where a program asks for strict promotion.
    """

    def bound(*args: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return f(parts, *args)

    return bound


def strong(x: Any) -> Array:
    """Return `x` as an array without a weak type."""
    return jax.lax.convert_element_type(x, jnp.asarray(x).dtype)
