"""Compare runs. The command `sacjax report` calls `compare`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Comparison(NamedTuple):
    """The result of `compare`."""

    text: str  # tables and notes for a terminal
    files: list[Path]  # report.html and the PNG files of its figures


def compare(
    *directories: str | os.PathLike,
    labels: Sequence[str] = (),
    last: int = 1,
    until: int | None = None,
    out: str | os.PathLike = "report",
    command: Sequence[str] = (),
) -> Comparison:
    """Compare runs by learning curves, IQMs, performance profiles, probabilities of improvement.

    Each setting of a sweep is compared separately. The first directory is the baseline. Seeds that
    diverged are excluded, and a note lists them. Intervals are 95% stratified bootstrap intervals
    over seeds (Agarwal et al. 2021, arXiv:2108.13264).

    >>> print(compare("runs/a", "runs/b", labels=["SAC", "two layers"]).text)

    Args:
      *directories: directories that `sacjax.run` or `sacjax train` wrote. Unfinished runs can be
        compared too.
      labels: a name for each directory (default: the directory's name). If runs of several
        environments have the same label, they are aggregated as one algorithm. If runs of one
        environment have the same label, their seeds are pooled. Such runs must have equal settings
        and different seeds.
      last: the number of final evaluations. The mean of these evaluations is a seed's score.
      until: a number of environment steps. Later evaluations are ignored.
      out: the directory for report.html and its figures. The directory must be new, empty, or an
        earlier report, which is replaced.
      command: the command that made the report, as a list of arguments. The page shows the command.

    Returns:
      A `Comparison`: the tables and notes as text, and the paths of the files.

    Raises:
      InputError: a directory is not the folder of a run, an option is invalid, or `out` has other
        files.
      RunError: the files cannot be written.
    """
    from sacjax.report import comparison, page, tables

    entries = comparison.read([Path(x) for x in directories], labels, last, until)
    files = page.write(entries, out, last, command)
    return Comparison(tables.as_text(entries), files)
