"""Runs side by side: `compare` is what `sacjax report` calls."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Comparison(NamedTuple):
    """What `compare` made."""

    text: str  # the tables and notes, for a terminal
    files: list[Path]  # report.html, and its figures as PNGs


def compare(
    *directories: str | os.PathLike,
    labels: Sequence[str] = (),
    last: int = 1,
    until: int | None = None,
    out: str | os.PathLike = "report",
    command: Sequence[str] = (),
) -> Comparison:
    """Compare runs: learning curves, IQMs, performance profiles, probabilities of improvement.

    Each point of a sweep is compared for itself. The first directory is what the others are
    measured against. Seeds that diverged are left out, and a note says so.

    Args:
      *directories: folders that `sacjax.run` or `sacjax train` wrote, also of runs that still go.
      labels: a name for each directory (default: the folders' names). Runs of several environments
        under one label are one algorithm, aggregated over them.
      last: the evaluations at the end whose mean is a seed's score.
      until: environment steps to compare at; later evaluations are left out.
      out: the folder for report.html and its figures: new, empty, or of an earlier report.
      command: what the page says that it was made with.

    Returns:
      The tables as text, and the files.

    Raises:
      InputError: a directory is not a run's, or `out` holds something else.
      RunError: the files cannot be written.
    """
    from sacjax.report import comparison, page, tables

    entries = comparison.read([Path(x) for x in directories], labels, last, until)
    files = page.write(entries, out, last, command)
    return Comparison(tables.as_text(entries), files)
