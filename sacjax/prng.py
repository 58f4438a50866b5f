"""JAX's own random numbers, from a third of the kernels on a CPU.

JAX's threefry is compiled for a CPU as a loop of about ten kernels to a draw, some forty draws to a
program. Here the loop's body is one kernel. The bits are the same, so a key gives the same run with
and without it; a run starts half a second sooner (benchmarks/NOTES.md). On an accelerator JAX has a
kernel of its own, and keys are left as they are.

The kind of a key is another one, and a few functions ask for that (`jax.random.poisson`, whatever
stores a key beside one of JAX's own): an environment object is given JAX's.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import define_prng_impl

from sacjax.types import Array, Key, is_key

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA  # Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"
JAXS = "threefry2x32"


def lean(key: Key) -> Key:
    """The same key, hashed as above where that is quicker: an array of keys of any shape."""
    set_to: Any = jax.config
    if set_to.jax_disable_jit or not set_to.jax_threefry_partitionable:
        return key
    if jax.default_backend() != "cpu":
        return key
    typed = key if is_key(key) else jax.random.wrap_key_data(key)
    if jax.random.key_impl(typed) != JAXS:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(typed), impl=_LEAN)


def standard(key: Key) -> Key:
    """Inverse of `lean`: a key that can be stored, and handed to anybody."""
    if jax.random.key_impl(key) != _LEAN:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=JAXS)


@jax.jit
def _hash(key: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32, 20 rounds, of the counters (0, low): key [2] -> two words like `low`."""
    k0, k1 = (jnp.broadcast_to(k, low.shape) for k in key)
    k2 = k0 ^ k1 ^ jnp.uint32(PARITY)

    def four_rounds(i: Array, state: Array) -> Array:
        x, y, *ks = state
        for even, odd in zip(*ROTATIONS, strict=True):
            by = jnp.broadcast_to(jnp.where(i % 2 == 0, even, odd).astype(jnp.uint32), y.shape)
            x = x + y
            y = x ^ (lax.shift_left(y, by) | lax.shift_right_logical(y, jnp.uint32(32) - by))
        counter = jnp.broadcast_to((i + 1).astype(jnp.uint32), y.shape)
        return jnp.stack([x + ks[0], y + ks[1] + counter, ks[1], ks[2], ks[0]])

    state = lax.fori_loop(0, 5, four_rounds, jnp.stack([k0, low + k1, k1, k2, k0]))
    return state[0], state[1]


def _counters(shape: tuple[int, ...]) -> Array:
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"{size} random numbers in one draw are too many: draw less than 2^32")
    return lax.iota(jnp.uint32, size).reshape(shape)


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl=JAXS))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_hash(key, _counters(shape)), axis=-1)


def _random_bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    high, low = _hash(key, _counters(shape))
    if width == 64:
        return lax.shift_left(high.astype(jnp.uint64), jnp.uint64(32)) | low.astype(jnp.uint64)
    return (high ^ low).astype(f"uint{width}")


def _fold_in(key: Array, data: Array | int) -> Array:
    return jnp.stack(_hash(key, jnp.asarray(data, jnp.uint32)))


_LEAN = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,  # pyright: ignore[reportArgumentType]
    name="sacjax_threefry2x32",
    tag="lean",
)
