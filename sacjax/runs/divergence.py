"""A member whose numbers are no longer finite is frozen where they last were; the others go on.

Members exchange nothing, so the others are to the bit what they would have been without it.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.types import Array, Metrics

_COUNTS = "env_steps", "gradient_steps", "replay_size"  # since the start: these go on


class Divergence(NamedTuple):
    """What happened to a member."""

    member: int  # its index
    epoch: int  # the first one whose outcome was not kept, from 0
    quantities: str  # what was not finite: metrics, and fields of the algorithm's state


def guarded(epoch: Callable) -> Callable:
    """`epoch(loop, hp, env_params) -> (loop, metrics)`, watched.

    It becomes `(loop, frozen, hp, env_params) -> (loop, (metrics, finite))`. Of one member: the
    agent stays as it was where `frozen` [] is True, or anything in `finite` (name -> bool []) is
    not. Everything else in the loop goes on, and is of no use any more.
    """

    def guarded_epoch(
        loop: Any, frozen: Array, hp: Any, env_params: Any
    ) -> tuple[Any, tuple[Metrics, dict[str, Array]]]:
        new, metrics = epoch(loop, hp, env_params)
        finite = _finite(metrics, new.agent, loop.agent)
        keep = jnp.all(jnp.stack([*finite.values(), ~frozen]))
        agent = jax.lax.cond(keep, lambda: new.agent, lambda: loop.agent)
        return new.replace(agent=agent), (metrics, finite)

    return guarded_epoch


def found(finite: dict[str, np.ndarray], epoch: int, known: list[Divergence]) -> list[Divergence]:
    """The members that diverged in this epoch, from `guarded`'s answer, [M] each."""
    before = {divergence.member for divergence in known}
    names, bad = np.array(list(finite)), ~np.stack(list(finite.values()))  # [fields, M]
    return [
        Divergence(member, epoch, ", ".join(names[bad[:, member]]))
        for member in np.flatnonzero(bad.any(0)).tolist()
        if member not in before
    ]


def without(metrics: dict[str, np.ndarray], known: list[Divergence]) -> dict[str, np.ndarray]:
    """The metrics [M, ...] of an epoch, with no data for the members frozen before it: NaN, and
    where they are whole numbers, but for counts since the start, 0."""
    frozen = [divergence.member for divergence in known]
    metrics = {name: x.copy() for name, x in metrics.items()}
    for name, x in metrics.items():
        if name not in _COUNTS:
            x[frozen] = np.nan if np.issubdtype(x.dtype, np.floating) else 0
    return metrics


def _finite(metrics: Metrics, agent: Any, before: Any) -> dict[str, Array]:
    """Name -> whether it is finite: the algorithm's own metrics, and each field of its state.

    The loop's metrics do not count: a return can be NaN because no episode has ended. Nor does what
    was not finite before and is the same still: the logarithm of a temperature of 0. The state is
    checked as one vector: each array by itself would be a second of compilation.
    """
    finite = {
        name: jnp.isfinite(x).all()
        for name, x in metrics.items()
        if not name.startswith(("eval_", "train_")) and jnp.issubdtype(x.dtype, jnp.inexact)
    }
    new, old = _vector(agent), _vector(before)
    same = (new == old) | (jnp.isnan(new) & jnp.isnan(old))
    ok, end = jnp.isfinite(new) | same, 0
    for field, leaves in itertools.groupby(_floats(agent), key=lambda leaf: leaf[0]):
        begin, end = end, end + sum(x.size for _, x in leaves)
        finite[field] = finite.get(field, True) & ok[begin:end].all()
    return finite


def _floats(tree: Any) -> list[tuple[str, Array]]:
    """The arrays, each with the name of its field; those of one field beside each other."""
    return [
        (jax.tree_util.keystr(path[:1]).strip(".[]'") or "state", x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]


def _vector(tree: Any) -> Array:
    found = [x.ravel().astype(float) for _, x in _floats(tree)]
    return jnp.concatenate(found) if found else jnp.zeros(0)
