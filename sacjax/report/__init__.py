"""Compare runs of sacjax. The command `sacjax report` calls the function `compare`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Comparison(NamedTuple):
    """The text and the files that `compare` makes."""

    text: str  # tables and notes for a terminal
    files: list[Path]  # report.html and the figures of the report as PNG files


def compare(
    *directories: str | os.PathLike,
    labels: Sequence[str] = (),
    last: int = 1,
    until: int | None = None,
    out: str | os.PathLike = "report",
    command: Sequence[str] = (),
) -> Comparison:
    """Compare the evaluation returns of runs, and write a report.

    The report contains learning curves, interquartile means (IQMs), performance profiles and
    probabilities of improvement. Each setting of a sweep is compared separately. The run in the
    first directory is the baseline. The report excludes seeds that diverged, and a note states
    their number. Intervals are 95% stratified bootstrap intervals over seeds (Agarwal et al. 2021,
    arXiv:2108.13264). An interval needs at least 5 seeds in every environment, and
    `sacjax.statistics` explains why.

    >>> print(compare("runs/a", "runs/b", labels=["SAC", "two layers"]).text)

    Args:
      *directories: directories of runs, which `sacjax.run` or `sacjax train` wrote. Runs may be
        unfinished.
      labels: a label for each directory. The default is the name of the directory. If runs in
        several environments have equal labels, the report aggregates the runs as one algorithm. If
        runs in one environment have equal labels, the report pools the seeds of the runs. Pooled
        runs must have equal settings and different seeds.
      last: the number of evaluations in the score of a seed. The score is the mean return of the
        seed's last evaluations.
      until: a number of environment steps. Evaluations after this number of steps are ignored.
      out: the directory for report.html and the figures. `out` must be a new directory, an
        empty directory, or the directory of an earlier report. A new report replaces an earlier
        report.
      command: the arguments of the shell command that made the report. The report shows the
        arguments.

    Returns:
      A `Comparison`: the tables and notes as text, and the paths of the files.

    Raises:
      InputError: a directory does not contain a run, an argument is invalid, or `out` contains
        files that are not from a report.
      RunError: the files of the report cannot be written.
    """
    from sacjax.report import comparison, page, tables

    entries = comparison.read(directories, labels, last, until)
    files = page.write(entries, out, last, command)
    return Comparison(tables.as_text(entries), files)
