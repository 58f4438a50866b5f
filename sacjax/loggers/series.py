"""An epoch's metrics as numbers of each member, and aggregates over all members."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from sacjax import statistics
from sacjax.config import Hyperparams
from sacjax.runs.directory import batches
from sacjax.runs.metrics_csv import read_metrics, row
from sacjax.types import InputError

_SWEPT = [field.name for field in fields(Hyperparams)]
_WHO = {*_SWEPT, "seed", "member", "members"}
_NO_SERIES = _WHO | {"seconds", "diverged", "next_checkpoint", "env_steps"}


class Series:
    """An epoch's metrics as numbers: of each member, and "iqm", "min", "max" over all of them.

    Who is told of in parts, batch by batch, is aggregated when all are there, with those that were
    told of before the run was resumed.
    """

    def __init__(self, directory: Path | None = None):
        """`directory`: the run's."""
        self._directory = directory
        self._waiting: dict[int, dict[str, dict[str, float]]] = {}  # by step and name

    def __call__(self, step: int, metrics: dict[str, Any]) -> dict[str, dict[str, float]]:
        """Name ("seed_3_tau_0.005", "iqm") -> metric -> number; NaN (no data) is left out."""
        who = range(len(metrics["member"]))
        if self._directory:
            self._waiting, self._directory = _intables_of(self._directory), None
        found = {_name(metrics, i): _row(metrics, i) for i in who}
        together = self._waiting.setdefault(step, {})
        together |= found
        if len(together) >= metrics["members"][0]:
            found |= _over_members(list(self._waiting.pop(step).values()))
        return {
            name: {metric: x for metric, x in row.items() if x == x} for name, row in found.items()
        }


def _name(metrics: dict[str, Any], i: int) -> str:
    swept = [f"_{name}_{metrics[name][i]:.12g}" for name in _SWEPT if name in metrics]
    return f"seed_{metrics['seed'][i]}{''.join(swept)}"


def _intables_of(directory: Path) -> dict[int, dict[str, dict[str, float]]]:
    """By step and name, what the tables of a run in batches have; nothing of one that is not."""
    found: dict[int, dict[str, dict[str, float]]] = {}
    for members, metrics in tables_of(directory):
        who = {name: np.array([member[name] for member in members]) for name in members[0]}
        for epoch in range(metrics["env_steps"].shape[1]):
            told = who | {name: x[:, epoch] for name, x in metrics.items()}
            rows = found.setdefault(int(told["env_steps"][0]), {})
            rows |= {_name(told, i): _row(told, i) for i in range(len(members))}
    return found


def tables_of(directory: Path) -> list[tuple[list[dict[str, float]], dict[str, np.ndarray]]]:
    try:
        return [read_metrics(place / "metrics.csv") for place in batches(directory)]
    except InputError:  # not whole; the run itself says so
        return []


def _row(metrics: dict[str, Any], i: int) -> dict[str, float]:
    """A member's columns of metrics.csv."""
    series = {name: value for name, value in metrics.items() if name not in _NO_SERIES}
    return {name: float(x) for name, x in row(series, i).items()}


def _over_members(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Aggregates of each metric over the members where it is finite."""
    found: dict[str, dict[str, float]] = {"iqm": {}, "min": {}, "max": {}}
    for metric in rows[0]:
        x = np.array([row[metric] for row in rows])
        x = x[np.isfinite(x)]
        if x.size:
            for name, over in (("iqm", statistics.iqm), ("min", np.min), ("max", np.max)):
                found[name][metric] = float(over(x))
    return found
