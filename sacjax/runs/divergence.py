"""Detect members with NaN or infinite numbers, and freeze them at their last finite state.

Members exchange no data, so a diverged member does not affect the other members.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.devices import gather
from sacjax.replay import ReplayState
from sacjax.types import Array, Metrics, Transition

_UNCHECKED = "eval_", "train_", "info_"  # NaN if no episode has ended
_COUNTS = "env_steps", "gradient_steps", "replay_size"  # these counts grow even for frozen members


class Divergence(NamedTuple):
    """A member that diverged.

    Attributes:
      member: the index of the member in the run, from 0.
      epoch: the index of the first epoch whose result was discarded, from 0.
      quantities: the comma-separated names of the metrics that were not finite. The list also
        contains the fields of the algorithm's state that were not finite.
      fault: the environment's error, such as "reward is nan in environment step 204", or "" if the
        environment made no error.
    """

    member: int
    epoch: int
    quantities: str
    fault: str = ""


def guard(epoch: Callable) -> Callable:
    """Return an epoch function that detects divergence and freezes the agents of diverged members.

    For one member, the signature changes from `epoch(loop, hp, env_params) -> (loop, metrics)` to
    `epoch(loop, frozen, hp, env_params) -> (loop, (metrics, finite))`. If `frozen` [] is True or a
    value of `finite` (name -> bool []) is False, the new function discards the new agent. For a
    frozen member, the environment and the replay continue, but do not affect the agent.
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
    """Return the members that diverged in this epoch. The arrays in `finite` have shape [M]."""
    before = {divergence.member for divergence in known}
    names, bad = np.array(list(finite)), ~np.stack(list(finite.values()))  # [fields, M]
    return [
        Divergence(member, epoch, ", ".join(names[bad[:, member]]))
        for member in np.flatnonzero(bad.any(0)).tolist()
        if member not in before
    ]


def add_faults(
    new: list[Divergence], replay: ReplayState, example: Transition, env_steps: int, num_envs: int
) -> list[Divergence]:
    """Return copies of the divergences that contain the environment's errors.

    If an action is NaN, later observations and rewards are not the environment's errors. Any
    other observation, reward or discount is an error if the number or its square is not finite.

    Args:
      new: the members that diverged.
      replay: the replays of all members, leaves [M', C, ...].
      example: one transition, without leading axes.
      env_steps: the number of steps that each member has put into its replay.
      num_envs: the number of copies E of the environment.
    """
    rows, ages = gather(_find_bad_rows(replay))
    fields = "observation", "action", "reward", "discount", "observation"
    names = np.repeat(fields, [x.size for x in example])  # the field's name for each number
    found = []
    for d in new:
        row, age = rows[d.member], int(ages[d.member])
        usable = _is_usable(row)
        first = int(usable.argmin())
        step = env_steps - replay.rows.shape[1] + age  # from 0
        overwritten = step >= num_envs > age  # one of the oldest steps in the replay
        fault = f"{names[first]} is {row[first]:g} {'in or before' if overwritten else 'in'} "
        fault += f"environment step {step + 1:,}"
        if num_envs > 1:
            fault += f" (step {step // num_envs + 1:,} of copy {step % num_envs})"
        is_fault = not usable[first] and names[first] != "action"
        found.append(d._replace(fault=fault if is_fault else ""))
    return found


@jax.jit
@jax.vmap
def _find_bad_rows(replay: ReplayState) -> tuple[Array, Array]:
    """Return the oldest row [W] with an unusable number. Also return the number of older rows.

    If no number is unusable, the function returns any row. Unwritten rows contain zeros.
    """
    capacity = len(replay.rows)
    age = (jnp.arange(capacity, dtype=replay.position.dtype) - replay.position) % capacity
    bad = jnp.where(_is_usable(replay.rows).all(1), capacity, age).argmin()
    return replay.rows[bad], age[bad]


def _is_usable(x: Any) -> Any:
    """Return True for each number whose square is finite, because losses square numbers."""
    return abs(x) < jnp.finfo(x.dtype).max ** 0.5


def blank_frozen(metrics: dict[str, np.ndarray], known: list[Divergence]) -> dict[str, np.ndarray]:
    """Return the metrics [M, ...] of an epoch, without the data of frozen members.

    For frozen members, floats become NaN and integers become 0. Counts since the start of the run
    are unchanged.
    """
    frozen = [divergence.member for divergence in known]
    metrics = {name: x.copy() for name, x in metrics.items()}
    for name, x in metrics.items():
        if name not in _COUNTS:
            x[frozen] = np.nan if np.issubdtype(x.dtype, np.floating) else 0
    return metrics


def _check_finite(metrics: Metrics, agent: Any, before: Any) -> dict[str, Array]:
    """Check whether each metric and each field of the algorithm's state is finite.

    Metrics of episodes are not checked, because a return is NaN if no episode has ended. A number
    that did not change in the epoch is not checked either. For example, if the temperature is 0,
    its logarithm is always infinite. The state is checked as one vector, because separate checks of
    all arrays would add a second of compilation.
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
    """List the floating-point arrays, each with the name of its top-level field."""
    return [
        (jax.tree_util.keystr(path[:1]).strip(".[]'") or "state", x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]


def _flatten_floats(tree: Any) -> Array:
    """Concatenate all floating-point arrays into one vector."""
    found = [x.ravel().astype(float) for _, x in _list_floats(tree)]
    return jnp.concatenate(found) if found else jnp.zeros(0)
