"""Functions for all loggers, for example to compute the progress of a run."""

import functools
import importlib
import logging
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Self

import numpy as np

from sacjax import statistics
from sacjax.config import Hyperparams
from sacjax.runs.metrics_csv import to_columns
from sacjax.types import InputError, one_line

_LOG = logging.getLogger("sacjax")
_SWEPT = [field.name for field in fields(Hyperparams)]
_NOT_LOGGED = {"seed", "member", "members", "seconds", "diverged", "next_checkpoint", "env_steps"}
_NOT_LOGGED |= {"total_steps", "eval_every", "updates_per_epoch"}
_OVER_MEMBERS = {"iqm": statistics.iqm, "min": np.min, "max": np.max}


def progress(step: int, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of a whole run, for `ProgressBar` and `JsonLines`.

    Batches of members train one after another. Members of earlier batches have finished, and
    members of later batches have not started.

    Args:
      step: the number of environment steps of each member so far.
      metrics: the metrics [M, ...] of the epoch by name, as in `sacjax.types.OnEpoch`.

    Returns:
      Numbers by name. A missing value is NaN. A member's return is the mean over its episodes.
      The IQM and the range include only members with a finite return. Times are in seconds.
      `time_left` assumes that all epochs take equally long.
    """
    trained, members = len(metrics["member"]), int(metrics["members"][0])
    total, every, updates = (
        int(metrics[name][0]) for name in ("total_steps", "eval_every", "updates_per_epoch")
    )
    done = int(metrics["member"][0]) * total + trained * step  # steps of all members
    left = members * total - done
    seconds = metrics["seconds"].max().item()  # NaN if all members diverged
    returns = aggregate(metrics["eval_return"].mean(-1))
    return {
        "step": step,
        "total_steps": total,
        "done": done / (done + left),  # a fraction from 0 to 1
        "members": members,
        "told": trained,
        "diverged": int(metrics["diverged"].sum()),
        **{f"return_{name}": x for name, x in returns.items()},
        "gradient_steps_per_second": trained * updates / seconds,
        "seconds": seconds,
        "time_left": seconds * left / (trained * every),
        "next_checkpoint": metrics["next_checkpoint"].min().item(),
    }


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the numbers that `TensorBoard` and `WandB` log after an epoch, by tag.

    Args:
      metrics: the metrics [M, ...] of the epoch by name, as in `sacjax.types.OnEpoch`.

    Returns:
      Numbers by tag. Each column of metrics.csv has a tag per member, such as "eval_return/seed_3",
      or "eval_return/seed_3_tau_0.005" in a sweep. Each column also has tags for the IQM,
      minimum and maximum, such as "eval_return/iqm". These tags include only members with finite
      values. NaN values are omitted.
    """
    members = range(len(metrics["member"]))
    series = {x: metrics[x] for x in metrics if x not in _NOT_LOGGED and x not in _SWEPT}
    names, rows = (
        [_name_member(metrics, i) for i in members],
        [to_columns(series, i) for i in members],
    )
    found = {}
    for metric in rows[0]:
        x = np.array([columns[metric] for columns in rows], float)
        values = dict(zip(names, x.tolist(), strict=True)) | aggregate(x)
        found |= {f"{metric}/{name}": v for name, v in values.items() if not math.isnan(v)}
    return found


def aggregate(x: np.ndarray) -> dict[str, float]:
    """Return the IQM, minimum and maximum of the finite values of x [M].

    If no value is finite, return NaN.
    """
    x = x[np.isfinite(x)]
    return {name: float(over(x)) if x.size else math.nan for name, over in _OVER_MEMBERS.items()}


def batch_name(metrics: dict[str, Any]) -> str:
    """Return "members_0_3" for the batch of members 0 to 3, or "" if all members train together."""
    member = metrics["member"]
    return "" if len(member) == metrics["members"][0] else f"members_{member[0]}_{member[-1]}"


def require(module: str, extra: str) -> Any:
    """Import and return a module of an optional package.

    If the package is not installed, the function raises an InputError that names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"{extra} needs a package: pip install 'sacjax[{extra}]'"
        raise InputError(message, extra) from error


class Logger:
    """The base class of loggers. Use loggers in `with` statements."""

    failed = False  # whether a method has failed

    def __enter__(self) -> Self:
        return self


def survives(method: Callable[..., None]) -> Callable[..., None]:
    """Decorate a method of a logger, so that a failure of the method does not stop the run.

    The first failure logs a warning and sets `self.failed`. Later calls do nothing. Only
    `__exit__` still closes files.
    """

    @functools.wraps(method)
    def guarded(self: Any, *args: Any) -> None:
        if self.failed and method.__name__ != "__exit__":
            return
        try:
            method(self, *args)
        except Exception as error:  # W&B raises many kinds of errors
            if not self.failed:
                self.failed = True  # first, so that `JsonLines` ignores the warning
                name = type(self).__name__
                _LOG.warning("%s failed, the run continues: %s", name, one_line(error))

    return guarded


def _name_member(metrics: dict[str, Any], i: int) -> str:
    """Return a name for member i that contains the seed and the swept hyperparameters."""
    swept = [f"_{name}_{metrics[name][i]:.12g}" for name in _SWEPT if name in metrics]
    return f"seed_{metrics['seed'][i]}{''.join(swept)}"
