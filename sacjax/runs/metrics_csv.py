"""metrics.csv: a row per member and evaluation, written as they come and read back exactly."""

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sacjax.runs.files import write_text
from sacjax.types import InputError

Member = dict[str, float]
Row = dict[str, Any]
_OF_EPISODES = ("eval_return", "eval_length")  # [M, eval_episodes]
_REMEDY = "restore it, or `sacjax resume` its run, which writes it anew from its last checkpoint"


class MetricsFile:
    """metrics.csv: whole rows, flushed as they come, after those before."""

    def __init__(self, path: Path, before: Sequence[Row] = ()):
        write_table(path, before)
        self._file, self._begun = path.open("a", newline=""), bool(before)

    def append(self, rows: Iterable[Row]) -> None:
        """Numbers are written so that they read back exactly; NaN (no data) as an empty cell."""
        self._file.write(_text(rows, header=not self._begun))
        self._file.flush()
        self._begun = True

    def close(self) -> None:
        """Close the file; `append` has raised what could not be written."""
        with contextlib.suppress(OSError):
            self._file.close()


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write a whole metrics.csv."""
    write_text(path, _text(rows, header=True))


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


def rows(members: list[Member], first: int, metrics: dict[str, np.ndarray]) -> list[Row]:
    """A row per member of an epoch's metrics [M, ...]: its number from `first`, its settings, then
    every metric."""
    return [{"member": first + i} | member | row(metrics, i) for i, member in enumerate(members)]


def _text(rows: Iterable[Row], header: bool) -> str:
    file, rows = io.StringIO(newline=""), list(rows)
    if rows:
        writer = csv.DictWriter(file, list(rows[0]))
        if header:
            writer.writeheader()
        # NaN is the one number that is not equal to itself.
        writer.writerows({name: x if x == x else "" for name, x in row.items()} for row in rows)
    return file.getvalue()


def _read_table(path: Path, swept: list[str] | None) -> tuple[list[Member], dict[str, np.ndarray]]:
    if not path.is_file():
        raise InputError(f"{path} is missing: {_REMEDY}")
    try:
        text = path.read_text(encoding="utf-8")
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))  # whole lines
        if len(lines) < 2:
            raise InputError(
                f"{path} has no evaluation yet: wait for the first, or `sacjax resume` its run"
            )
        names, *lines = lines
        cells = np.array([[float(cell or "nan") for cell in line] for line in lines])
        cells = cells.reshape(len(lines), len(names))
        if names[0] != "member":
            raise ValueError("its first column is not member")
        keys = names[1 : names.index("seed") + 1]
        if swept is not None and keys[:-1] != swept:
            raise ValueError(f"its columns are keyed by {keys[:-1]}, config.json's by {swept}")
        names.index("env_steps")  # ValueError: without it nothing says how far it is
        rows = [cells[cells[:, 0] == number, 1:] for number in np.unique(cells[:, 0])]
        epochs = min(map(len, rows))  # a last row that is half written is left out
        table = np.stack([x[:epochs] for x in rows])  # [M, epochs, columns]
        members: list[Member] = [
            dict(zip(keys, (*who[:-1].tolist(), int(who[-1])), strict=True))
            for who in table[:, 0, : len(keys)]
        ]
    except InputError:
        raise
    except (ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}): {_REMEDY}") from error
    return members, {name: table[..., i] for i, name in enumerate(names[1:]) if name not in keys}
