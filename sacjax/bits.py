"""Why a run that is scanned as one program has the bits of one that is stepped from Python.

XLA folds constants into a loop and fuses by shape, and either changes rounding. Three functions
keep `make_train` and `run` the same program. `as_arrays` gives numbers one dtype, wherever they
come from. `as_arguments` keeps constants out of the loop, as arguments would be. `tied_to` makes
every array of the first state depend on the member's key: under vmap none stays unbatched, as a
step counter would inside one program, but not as an argument from Python. It is a property of XLA's
code generation with its default options. Tests hold it on the CPU, for the newest jaxlib.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sacjax.config import Hyperparams
from sacjax.types import Array, EnvParams, Key, is_key


def as_arrays(hp: Hyperparams, env_params: EnvParams) -> tuple[Hyperparams, EnvParams]:
    """Numbers as arrays of one dtype, so that they trace alike wherever they come from."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), hp), jax.tree.map(strong, env_params)


def as_arguments(hp: Hyperparams, env_params: EnvParams) -> tuple[Hyperparams, EnvParams]:
    """The same numbers, which XLA does not fold into the loop."""
    return jax.lax.optimization_barrier((hp, env_params))


def tied_to(key: Key, state: Any) -> Any:
    """The same arrays, every one depending on `key`. The select costs nothing."""
    always = jax.random.key_data(key).ravel()[0] >= 0  # unsigned

    def tie(x: Any) -> Array:
        if is_key(x):
            return x
        x = strong(x)  # an algorithm's state may hold numbers
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
    """An array whose type is not weak."""
    return jax.lax.convert_element_type(x, jnp.asarray(x).dtype)
