"""Compare runs. The command `sacjax report` calls `compare`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Comparison(NamedTuple):
    """The result of `compare`."""

    text: str  # tables and notes for a terminal
    files: list[Path]  # report.html and its figures as PNGs


def compare(
    *directories: str | os.PathLike,
    labels: Sequence[str] = (),
    last: int = 1,
    until: int | None = None,
    out: str | os.PathLike = "report",
    command: Sequence[str] = (),
) -> Comparison:
    """Compare runs: learning curves, IQMs, performance profiles, probabilities of improvement.

    Each setting of a sweep is compared separately. The first directory is the baseline. Seeds that
    diverged are excluded, and a note lists them. Intervals are 95% stratified bootstrap intervals
    over seeds (Agarwal et al. 2021, arXiv:2108.13264). They need at least 5 seeds in every
    environment; `sacjax.statistics` explains why.

    >>> print(compare("runs/a", "runs/b", labels=["SAC", "two layers"]).text)

    Args:
      *directories: directories that `sacjax.run` or `sacjax train` wrote. The runs need not have
        finished.
      labels: a name for each directory (default: the directory's name). Runs of several
        environments under one label count as one algorithm and are aggregated. Runs of one
        environment under one label must have equal settings and different seeds; their seeds are
        pooled.
      last: number of final evaluations to average; their mean is a seed's score.
      until: compare at this many environment steps; later evaluations are ignored.
      out: directory for report.html and its figures. It must be new, empty, or an earlier report,
        which is replaced.
      command: a command, as a list of arguments. The page prints it as its origin.

    Returns:
      A `Comparison`: the tables and notes as text, and the paths of the files.

    Raises:
      InputError: a directory is not a run's, an option cannot work, or `out` is not an earlier
        report.
      RunError: the files cannot be written.
    """
    from sacjax.report import comparison, page, tables

    entries = comparison.read(directories, labels, last, until)
    files = page.write(entries, out, last, command)
    return Comparison(tables.as_text(entries), files)
