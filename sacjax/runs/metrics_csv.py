"""metrics.csv: a row per member and evaluation, written as they come and read back exactly."""

import contextlib
import csv
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sacjax.runs.files import write_text
from sacjax.types import InputError

Member = dict[str, float]
_OF_EPISODES = ("eval_return", "eval_length")  # [M, eval_episodes]
_REMEDY = "restore it, or `sacjax resume` its run, which writes it anew from its last checkpoint"


class MetricsFile:
    """metrics.csv: whole rows, flushed as they come, after those that there are already."""

    def __init__(self, path: Path, before: Iterable[dict[str, Any]] = ()):
        text = io.StringIO(newline="")
        columns = _write_rows(text, before, None)
        write_text(path, text.getvalue())
        self._file, self._columns = path.open("a", newline=""), columns

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Numbers are written so that they read back exactly; NaN (no data) as an empty cell."""
        self._columns = _write_rows(self._file, rows, self._columns)
        self._file.flush()

    def close(self) -> None:
        """What could not be written was said by `append`."""
        with contextlib.suppress(OSError):
            self._file.close()


def read_metrics(
    *paths: str | os.PathLike, swept: list[str] | None = None
) -> tuple[list[Member], dict[str, np.ndarray]]:
    """metrics.csv, or those of batches, as members [M] and metrics, each [M, epochs].

    NaN where a cell is empty, and where another batch has more rows: `epochs_of` counts them. A
    last epoch that a file does not have for all its members is left out. Columns before `seed` are
    the swept hyperparameters. Raises InputError where a file is missing or damaged.
    """
    tables = [_read_table(Path(path), swept) for path in paths]
    epochs = max(metrics["env_steps"].shape[1] for _, metrics in tables)
    metrics = {
        name: np.concatenate(
            [
                np.pad(x[name], ((0, 0), (0, epochs - x[name].shape[1])), constant_values=np.nan)
                for _, x in tables
            ]
        )
        for name in tables[0][1]
    }
    return [member for members, _ in tables for member in members], metrics


def epochs_of(metrics: dict[str, np.ndarray]) -> np.ndarray:
    """How many epochs each member has in what `read_metrics` gave [M]."""
    return np.isfinite(metrics["env_steps"]).sum(axis=1)


def row(metrics: dict[str, np.ndarray], i: int) -> dict[str, int | float]:
    """Member i's columns, of an epoch's metrics [M, ...]: the numbers, and of several episodes the
    means and standard deviations. Other arrays, of somebody's own algorithm, have no column."""
    found = {}
    for name, value in metrics.items():
        if value.ndim == 1:
            found[name] = value[i].item()
        elif name in _OF_EPISODES:
            found[name], found[f"{name}_std"] = value[i].mean().item(), value[i].std().item()
    return found


def _write_rows(
    file: Any, rows: Iterable[dict[str, Any]], columns: list[str] | None
) -> list[str] | None:
    """The rows, and before the first one its columns; the columns."""
    writer = csv.writer(file)
    for row in rows:
        if columns is None:
            columns = list(row)
            writer.writerow(columns)
        writer.writerow([_cell(row[name]) for name in columns])
    return columns


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _read_table(path: Path, swept: list[str] | None) -> tuple[list[Member], dict[str, np.ndarray]]:
    if not path.is_file():
        raise InputError(f"{path} is missing: {_REMEDY}")
    try:
        text = path.read_bytes().decode()
        text = text[: text.rfind("\n") + 1]  # without a row that is half written
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        if not rows:
            raise InputError(
                f"{path} has no evaluation yet: wait for the first, or `sacjax resume` its run"
            )
        names = list(rows[0])
        keys = names[1 : names.index("seed") + 1]
        if names[0] != "member":
            raise ValueError("its first column is not member")
        if swept is not None and keys[:-1] != swept:
            raise ValueError(f"its columns are keyed by {keys[:-1]}, config.json's by {swept}")
        series: dict[tuple, list[list[float]]] = {}
        for row in rows:
            values = [float("nan" if row[name] == "" else row[name]) for name in names]
            first = len(keys) + 1
            series.setdefault(tuple(values[1:first]), []).append(values[first:])
        epochs = min(len(values) for values in series.values())
        table = np.array([values[:epochs] for values in series.values()])  # [M, epochs, metrics]
        names.index("env_steps")  # ValueError: without it nothing says how far it is
        members: list[Member] = [
            dict(zip(keys, (*point[:-1], int(point[-1])), strict=True)) for point in series
        ]
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}): {_REMEDY}") from error
    return members, {name: table[..., i] for i, name in enumerate(names[len(keys) + 1 :])}
