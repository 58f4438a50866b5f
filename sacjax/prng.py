"""Compute the random numbers of JAX faster on a CPU.

JAX's default generator is threefry. On a CPU, XLA compiles each draw of threefry to a loop with
about ten kernels, and a run has about forty draws. This module reduces the loop to one kernel. A
run then starts half a second sooner (benchmarks/NOTES.md). The random bits are those of JAX, so
this module does not change the results of a run. On an accelerator, threefry is already fast, and
`lean` returns keys unchanged.

The dtype of a key from `lean` differs from that of a key from JAX. Some functions,
such as `jax.random.poisson`, reject keys from `lean`. Therefore user-defined environments receive
keys from JAX.
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
JAXS = "threefry2x32"  # JAX's name for its default keys


def lean(key: Key) -> Key:
    """Convert keys of any shape to keys with the faster generator, if the backend is a CPU."""
    settings: Any = jax.config
    if settings.jax_disable_jit or not settings.jax_threefry_partitionable:
        return key
    if jax.default_backend() != "cpu":
        return key
    typed = key if is_key(key) else jax.random.wrap_key_data(key)
    if jax.random.key_impl(typed) != JAXS:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(typed), impl=_LEAN)


def standard(key: Key) -> Key:
    """Convert keys from `lean` back to JAX's own keys, which all functions accept."""
    if jax.random.key_impl(key) != _LEAN:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=JAXS)


@jax.jit
def _hash(key: Array, low: Array) -> tuple[Array, Array]:
    """Return both words of the Threefry-2x32 hash of the counters (0, low), in 20 rounds."""
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
    """Return an array of the given shape that counts 0, 1, 2 and so on."""
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"{size} random numbers are too many for one draw: draw less than 2^32")
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
