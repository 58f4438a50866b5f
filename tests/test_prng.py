"""Test that the lean hash returns the same random numbers as JAX with fewer kernels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import quick_jit

from sacjax.prng import lean, standard

KEY = jax.random.key(2**32 - 7)
bits = jax.random.key_data
DRAWS = {
    "split": lambda key: bits(jax.random.split(key, 5)),
    "split to a matrix": lambda key: bits(jax.random.split(key, (2, 3))),
    "fold_in": lambda key: bits(jax.random.fold_in(key, 123)),
    "fold_in of an array": lambda key: bits(jax.random.fold_in(key, jnp.int32(5))),
    "uint8": lambda key: jax.random.bits(key, (7,), "uint8"),
    "uint16": lambda key: jax.random.bits(key, (), "uint16"),
    "uint32": lambda key: jax.random.bits(key, (4, 3, 2)),
    "none": lambda key: jax.random.bits(key, (0, 3)),
    "normal": lambda key: jax.random.normal(key, (9, 2)),
    "integers": lambda key: jax.random.randint(key, (6,), 0, 1_000),
    "permutation": lambda key: jax.random.permutation(key, 11),
    "of many keys": lambda key: jax.vmap(jax.random.normal)(jax.random.split(key, 4)),
    "in a loop": lambda key: jax.lax.map(jax.random.normal, jax.random.split(key, 4)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_lean_hash_draws_the_same_random_numbers_as_jax(name):
    draw = DRAWS[name]
    assert jax.random.key_impl(lean(KEY)) != jax.random.key_impl(KEY)
    np.testing.assert_array_equal(draw(lean(KEY)), draw(KEY))
    compiled, expected = quick_jit(draw)(lean(KEY)), draw(KEY)
    if expected.dtype == jnp.float32:  # compiling erf_inv changes its rounding
        np.testing.assert_allclose(compiled, expected, rtol=1e-6)
    else:
        np.testing.assert_array_equal(compiled, expected)


def test_the_lean_hash_matches_published_results_of_threefry():
    """Random123 publishes these results for threefry2x32 with 20 rounds."""
    zero = lean(jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32)))
    assert bits(jax.random.fold_in(zero, 0)).tolist() == [0x6B200159, 0x99BA4EFE]


def test_the_lean_hash_draws_the_same_64_bit_numbers_as_jax():
    with jax.enable_x64(True):
        wide = jax.random.bits(lean(KEY), (5,), "uint64")
        np.testing.assert_array_equal(wide, jax.random.bits(KEY, (5,), "uint64"))


def test_lean_keys_can_be_converted_back_to_standard_keys():
    for key in KEY, jax.random.split(KEY, 3):
        assert standard(lean(key)).dtype == key.dtype
        np.testing.assert_array_equal(bits(standard(lean(key))), bits(key))
        np.testing.assert_array_equal(bits(lean(lean(key))), bits(key))
    legacy = jax.random.PRNGKey(3)
    np.testing.assert_array_equal(bits(lean(legacy)), legacy)


def test_keys_of_other_random_number_generators_are_not_changed():
    other = jax.random.key(0, impl="rbg")
    assert lean(other).dtype == other.dtype
    assert standard(other).dtype == other.dtype
    with jax.threefry_partitionable(False):  # then JAX draws other numbers than the lean hash
        assert lean(KEY).dtype == KEY.dtype


def test_the_lean_hash_needs_at_most_half_as_many_kernels_as_jax():
    def kernels(key):
        text = quick_jit(lambda key: jax.random.normal(key, (64,))).lower(key).compile().as_text()
        return len(re.findall(r"(?m)^ .* fusion\(", text))

    assert 2 * kernels(lean(KEY)) <= kernels(KEY)


def test_drawing_too_many_numbers_at_once_raises_a_value_error():
    with pytest.raises(ValueError, match=r"draw less than 2\^32"):
        quick_jit(lambda key: jax.random.bits(key, (2**16, 2**16))).lower(lean(KEY))
