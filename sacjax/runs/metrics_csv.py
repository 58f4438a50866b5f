"""Write and read metrics.csv, which has one row for each evaluation of a member.

The run appends rows after each epoch. Numbers are written exactly, without rounding.
"""

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
_NAME = "metrics.csv"
_REMEDY = "restore the file, or use `sacjax resume`, which rewrites it from the last checkpoint"


class MetricsFile:
    """A metrics.csv file that is open for appending.

    In a resumed run, the file starts with the rows before the checkpoint.
    """

    def __init__(self, path: Path, before: Sequence[Row] = ()):
        write_table(path, before)
        self._file, self._has_header = path.open("a", newline=""), bool(before)

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows and flush the file. A missing value (NaN) becomes an empty cell."""
        self._file.write(_to_csv(rows, header=not self._has_header))
        self._file.flush()
        self._has_header = True

    def close(self) -> None:
        """Close the file. Errors are ignored, because `append` raises write errors."""
        with contextlib.suppress(OSError):
            self._file.close()


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write a whole metrics.csv."""
    write_text(path, _to_csv(rows, header=True))


def read_metrics(
    *paths: str | os.PathLike, swept: list[str] | None = None
) -> tuple[list[Member], dict[str, np.ndarray]]:
    """Read the metrics.csv of a run, or the metrics.csv of each batch.

    Members of different batches may have different numbers of epochs. If a file contains the last
    epoch for only some members, this epoch is ignored.

    Args:
      *paths: the files, in the order of the batches.
      swept: the expected names of the columns before `seed`, or None to accept any names.

    Returns:
      The members [M], and the metrics [M, epochs] by name. Metrics are NaN after a member's last
      epoch.

    Raises:
      InputError: a file is missing, empty or damaged.
    """
    tables = [_read_table(Path(path), swept) for path in paths]
    epochs = max(metrics["env_steps"].shape[1] for _, metrics in tables)

    def pad(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (0, epochs - x.shape[1])), constant_values=np.nan)

    names = tables[0][1]
    metrics = {name: np.concatenate([pad(x[name]) for _, x in tables]) for name in names}
    return [member for members, _ in tables for member in members], metrics


def epochs_of(metrics: dict[str, np.ndarray]) -> np.ndarray:
    """Return the number of epochs [M] of each member, from the result of `read_metrics`."""
    return np.isfinite(metrics["env_steps"]).sum(axis=1)


def to_columns(metrics: dict[str, np.ndarray], i: int) -> dict[str, int | float]:
    """Return the columns of member i, given the metrics [M, ...] of an epoch.

    A scalar becomes one column. A metric of evaluation episodes becomes a column for the mean and a
    column for the standard deviation. Other arrays of custom algorithms are omitted.
    """
    found = {}
    for name, value in metrics.items():
        if value.ndim == 1:
            found[name] = value[i].item()
        elif name in _OF_EPISODES:
            found[name], found[f"{name}_std"] = value[i].mean().item(), value[i].std().item()
    return found


def to_rows(members: list[Member], first: int, metrics: dict[str, np.ndarray]) -> list[Row]:
    """Return the rows of an epoch, given its metrics [M, ...] and the index of the first member."""
    return [
        {"member": first + i} | member | to_columns(metrics, i) for i, member in enumerate(members)
    ]


def _to_csv(rows: Iterable[Row], header: bool) -> str:
    file, rows = io.StringIO(newline=""), list(rows)
    if rows:
        writer = csv.DictWriter(file, list(rows[0]))
        if header:
            writer.writeheader()
        # NaN is the only number that differs from itself.
        writer.writerows({name: x if x == x else "" for name, x in row.items()} for row in rows)
    return file.getvalue()


def _read_table(path: Path, swept: list[str] | None) -> tuple[list[Member], dict[str, np.ndarray]]:
    if not path.is_file():
        raise InputError(f"{path} is missing: {_REMEDY}", _NAME)
    try:
        text = path.read_text(encoding="utf-8")
        lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))  # only whole lines
        if len(lines) < 2:
            raise InputError(
                f"{path} has no evaluation yet: wait for the first one, or use `sacjax resume`",
                _NAME,
            )
        names, *lines = lines
        cells = np.array([[float(cell or "nan") for cell in line] for line in lines])
        cells = cells.reshape(len(lines), len(names))
        if names[0] != "member":
            raise ValueError("the first column is not member")
        keys = names[1 : names.index("seed") + 1]
        if swept is not None and keys[:-1] != swept:
            raise ValueError(f"it has the columns {keys[:-1]}, but config.json sweeps {swept}")
        names.index("env_steps")  # ValueError if the column is missing
        rows = [cells[cells[:, 0] == number, 1:] for number in np.unique(cells[:, 0])]
        epochs = min(map(len, rows))  # ignores an incomplete last epoch
        table = np.stack([x[:epochs] for x in rows])  # [M, epochs, columns]
        members: list[Member] = [
            dict(zip(keys, (*who[:-1].tolist(), int(who[-1])), strict=True))
            for who in table[:, 0, : len(keys)]
        ]
    except InputError:
        raise
    except (ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}): {_REMEDY}", _NAME) from error
    return members, {name: table[..., i] for i, name in enumerate(names[1:]) if name not in keys}
