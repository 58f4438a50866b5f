"""The leaves of a pytree by name, as arrays that can be written down, and back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.types import is_key

Arrays = dict[str, Any]  # name -> array


def flatten(tree: Any) -> Arrays:
    """The leaves by name; PRNG keys as the numbers in them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _plain(x) for path, x in leaves}


def unflatten(like: Any, arrays: Arrays) -> Any:
    """Inverse of `flatten`; keys stay numbers (`with_keys`).

    `like`: the tree of shapes. ValueError names a leaf that is missing or of another shape.
    """

    def leaf(path: Any, wanted: Any) -> Any:
        name = jax.tree_util.keystr(path)
        wanted = jax.eval_shape(_plain, wanted)
        found = arrays.get(name)
        if found is None and not wanted.size:
            return np.zeros(wanted.shape, wanted.dtype)
        if found is None:
            raise ValueError(f"it has no {name}")
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise ValueError(
                f"{name} is {found.dtype}{list(found.shape)}, not "
                f"{wanted.dtype}{list(wanted.shape)}"
            )
        return found

    return jax.tree_util.tree_map_with_path(leaf, like)


def unkeyed(tree: Any) -> Any:
    """PRNG keys as the numbers in them."""
    return jax.tree.map(_plain, tree)


def with_keys(like: Any, tree: Any) -> Any:
    """Numbers as PRNG keys again, where `like` has keys."""

    def leaf(wanted: Any, x: Any) -> Any:
        if not is_key(wanted):
            return x
        kinds = []  # a shape does not tell the kind of its keys, a tracer of that shape does
        jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), wanted)
        return jax.random.wrap_key_data(x, impl=kinds[0])

    return jax.tree.map(leaf, like, tree)


def on_host(tree: Any) -> Any:
    """As NumPy arrays; PRNG keys, which NumPy has not, as they are."""
    return jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), tree)


def concatenated(*trees: Any) -> Any:
    """Along the first axis: NumPy arrays, and PRNG keys."""
    return jax.tree.map(lambda *x: (jnp if is_key(x[0]) else np).concatenate(x), *trees)


def _plain(x: Any) -> Any:
    return jax.random.key_data(x) if is_key(x) else x
