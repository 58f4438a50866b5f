"""What loggers show of an epoch: the progress of the whole run, and each metric as numbers."""

import functools
import importlib
import logging
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

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

    Batches of members train in order: the members before this batch have finished, the members
    after it have not started.

    Args:
        step: As `OnEpoch` receives it.
        metrics: As `OnEpoch` receives them.

    Returns:
        Numbers by name, NaN where there is no value. A member's return is the mean over its
        episodes; the aggregates are over the members of `metrics` that have a finite return.
        Times are in seconds. `time_left` expects that every epoch takes as long as this one.
    """
    told, members = len(metrics["member"]), int(metrics["members"][0])
    total, every, updates = (
        int(metrics[name][0]) for name in ("total_steps", "eval_every", "updates_per_epoch")
    )
    done = int(metrics["member"][0]) * total + told * step  # steps of all members
    left = members * total - done
    seconds = metrics["seconds"].max().item()  # NaN if all have diverged: nothing was trained
    returns = aggregate(metrics["eval_return"].mean(-1))
    return {
        "step": step,
        "total_steps": total,
        "done": done / (done + left),  # from 0 to 1
        "members": members,
        "told": told,
        "diverged": int(metrics["diverged"].sum()),
        **{f"return_{name}": x for name, x in returns.items()},
        "gradient_steps_per_second": told * updates / seconds,
        "seconds": seconds,
        "time_left": seconds * left / (told * every),
        "next_checkpoint": metrics["next_checkpoint"].min().item(),
    }


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Return an epoch's numbers by tag, for `TensorBoard` and `WandB`.

    Args:
        metrics: As `OnEpoch` receives them.

    Returns:
        The columns of metrics.csv for each member ("eval_return/seed_3", in a sweep
        "eval_return/seed_3_tau_0.005"), and their IQM, minimum and maximum over the members where
        they are finite ("eval_return/iqm"). NaN (no data) is left out.
    """
    members = range(len(metrics["member"]))
    series = {x: metrics[x] for x in metrics if x not in _NOT_LOGGED and x not in _SWEPT}
    names, rows = [_name(metrics, i) for i in members], [to_columns(series, i) for i in members]
    found = {}
    for metric in rows[0]:
        x = np.array([columns[metric] for columns in rows], float)
        values = dict(zip(names, x.tolist(), strict=True)) | aggregate(x)
        found |= {f"{metric}/{name}": v for name, v in values.items() if not math.isnan(v)}
    return found


def aggregate(x: np.ndarray) -> dict[str, float]:
    """Return the IQM, minimum and maximum of what is finite in x [M]; NaN if nothing is."""
    x = x[np.isfinite(x)]
    return {name: float(over(x)) if x.size else math.nan for name, over in _OVER_MEMBERS.items()}


def batch_name(metrics: dict[str, Any]) -> str:
    """Return "members_0_3" for the batch of members 0 to 3, "" if all members train together."""
    member = metrics["member"]
    return "" if len(member) == metrics["members"][0] else f"members_{member[0]}_{member[-1]}"


def require(module: str, extra: str) -> Any:
    """Import a module of an optional package. Raise InputError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{extra} needs a package: pip install 'sacjax[{extra}]'") from error


def survives(method: Callable[..., None]) -> Callable[..., None]:
    """Decorate a method of a logger, so that it never stops a run.

    The first failure is logged and sets `self.failed`. From then on the method does nothing, unless
    it is `__exit__`, which still closes what is open.
    """

    @functools.wraps(method)
    def guarded(self: Any, *args: Any) -> None:
        before = self.failed
        if before and method.__name__ != "__exit__":
            return
        try:
            method(self, *args)
        except Exception as error:  # W&B has errors of many kinds
            self.failed = True  # first: `JsonLines` prints the warning otherwise
            if not before:
                _LOG.warning("%s failed, the run goes on: %s", type(self).__name__, one_line(error))

    return guarded


def _name(metrics: dict[str, Any], i: int) -> str:
    """Return member i's name: its seed and its swept hyperparameters."""
    swept = [f"_{name}_{metrics[name][i]:.12g}" for name in _SWEPT if name in metrics]
    return f"seed_{metrics['seed'][i]}{''.join(swept)}"
