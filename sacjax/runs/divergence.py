"""Divergence: a member with NaN or infinite numbers is frozen at its last finite state.

Members exchange nothing, so the other members are unaffected, bit for bit.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.types import Array, Metrics

_UNCHECKED = "eval_", "train_", "info_"  # NaN if no episode has ended
_COUNTS = "env_steps", "gradient_steps", "replay_size"  # a frozen member's counts keep growing


class Divergence(NamedTuple):
    """A member that diverged.

    Attributes:
      member: its index in the run, from 0.
      epoch: the first epoch whose result was discarded, from 0.
      quantities: the names that were not finite, separated by commas: metrics, and fields of the
        algorithm's state.
    """

    member: int
    epoch: int
    quantities: str


def guard(epoch: Callable) -> Callable:
    """Return an epoch that also checks for divergence and freezes the agents of diverged members.

    `epoch(loop, hp, env_params) -> (loop, metrics)` becomes
    `(loop, frozen, hp, env_params) -> (loop, (metrics, finite))`, for one member. It discards
    the new agent if `frozen` [] is True or any value of `finite` (name -> bool []) is False. The
    rest of the loop's state always advances; for a frozen member it is unused.
    """

    def guarded_epoch(
        loop: Any, frozen: Array, hp: Any, env_params: Any
    ) -> tuple[Any, tuple[Metrics, dict[str, Array]]]:
        new, metrics = epoch(loop, hp, env_params)
        finite = _check_finite(metrics, new.agent, loop.agent)
        keep = jnp.all(jnp.stack([*finite.values(), ~frozen]))
        agent = jax.lax.cond(keep, lambda: new.agent, lambda: loop.agent)
        return new.replace(agent=agent), (metrics, finite)

    return guarded_epoch


def find(finite: dict[str, np.ndarray], epoch: int, known: list[Divergence]) -> list[Divergence]:
    """Return the members that diverged in this epoch; `finite` has arrays [M] from `guard`."""
    before = {divergence.member for divergence in known}
    names, bad = np.array(list(finite)), ~np.stack(list(finite.values()))  # [fields, M]
    return [
        Divergence(member, epoch, ", ".join(names[bad[:, member]]))
        for member in np.flatnonzero(bad.any(0)).tolist()
        if member not in before
    ]


def blank_frozen(metrics: dict[str, np.ndarray], known: list[Divergence]) -> dict[str, np.ndarray]:
    """Return an epoch's metrics [M, ...] without data for the frozen members.

    Their floats become NaN and their integers 0. Counts since the start keep their values.
    """
    frozen = [divergence.member for divergence in known]
    metrics = {name: x.copy() for name, x in metrics.items()}
    for name, x in metrics.items():
        if name not in _COUNTS:
            x[frozen] = np.nan if np.issubdtype(x.dtype, np.floating) else 0
    return metrics


def _check_finite(metrics: Metrics, agent: Any, before: Any) -> dict[str, Array]:
    """Return whether each metric and each field of the algorithm's state is finite, by name.

    The loop's own metrics are not checked: a return is NaN if no episode has ended. Numbers that
    were not finite before the epoch and have not changed are ignored; the logarithm of a
    temperature of 0 is such a number. The state is checked as one vector, because a check of each
    array would add a second of compilation.
    """
    finite = {
        name: jnp.isfinite(x).all()
        for name, x in metrics.items()
        if not name.startswith(_UNCHECKED) and jnp.issubdtype(x.dtype, jnp.inexact)
    }
    new, old = _flatten_floats(agent), _flatten_floats(before)
    same = (new == old) | (jnp.isnan(new) & jnp.isnan(old))
    ok, end = jnp.isfinite(new) | same, 0
    for field, leaves in itertools.groupby(_list_floats(agent), key=lambda leaf: leaf[0]):
        begin, end = end, end + sum(x.size for _, x in leaves)
        finite[field] = finite.get(field, True) & ok[begin:end].all()
    return finite


def _list_floats(tree: Any) -> list[tuple[str, Array]]:
    """List the floating-point arrays with the name of their top-level field, field by field."""
    return [
        (jax.tree_util.keystr(path[:1]).strip(".[]'") or "state", x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]


def _flatten_floats(tree: Any) -> Array:
    """Concatenate all floating-point arrays into one vector."""
    found = [x.ravel().astype(float) for _, x in _list_floats(tree)]
    return jnp.concatenate(found) if found else jnp.zeros(0)
