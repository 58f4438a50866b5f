"""Create the tables of a run or of a comparison of runs, for terminals and for HTML pages."""

import io
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sacjax.report import comparison
from sacjax.report.comparison import Entry, Panel
from sacjax.runs import curve
from sacjax.runs.metrics_csv import Member
from sacjax.statistics import LEAST_SEEDS, Estimate, aggregate_iqm, probability_of_improvement

MANY_SETTINGS, MOST_ROWS = 8, 20  # with more than 8 settings, a table shows the best 20
_NO_INTERVAL = f"none below {LEAST_SEEDS} seeds"
Cell = str | tuple[str, str]  # a text, or a text and a CSS class


class Table(NamedTuple):
    """A table whose cells are texts, for a terminal or for an HTML page."""

    names: list[str]  # the names of the columns
    rows: Sequence[Sequence[Cell]]
    left: int  # the first `left` columns are aligned to the left


def finals(entries: list[Entry], panels: list[Panel]) -> Table:
    """Return a table of the scores of the seeds, with a row for each entry."""
    scores = {panel.title: panel.scores for panel in panels}
    rows = []
    for entry in entries:
        seeds, *middle = _summarize(entry.scores)
        row = [entry.env, entry.label, seeds, f"{entry.steps[-1]:,.0f}", *middle]
        if len(entry.alive):
            row += [number(entry.alive.min()), _beats(scores[entry.env], entry.label, entries)]
        else:
            row += ["", ""]
        rows.append(row)
    names = ["environment", "run", "seeds", "steps", "IQM", "95% interval", "worst seed"]
    return Table([*names, "P(beats first)"], rows, left=2)


def totals(panel: Panel, entries: list[Entry]) -> Table:
    """Return a table of the scores in all environments together, with a row for each label."""
    rows = [
        [label, estimate(aggregate_iqm(scores), ".3f"), _beats(panel.scores, label, entries)]
        for label, scores in panel.scores.items()
    ]
    return Table(["all environments", "normalised IQM [95%]", "P(beats first)"], rows, left=1)


def normalisation(panel: Panel, entries: list[Entry]) -> str:
    """Return a text that explains the numbers in the table of `totals`."""
    missing = {entry.label for entry in entries} - set(panel.scores)
    text = (
        "Runs with the same name are aggregated over the environments. In each environment the "
        "lowest score of any seed is 0 and the highest is 1, so these numbers hold in this report "
        "only. Every score counts once in the IQM. The improvement is the mean over environments."
    )
    left = f" Missing in some environment, or all diverged: {', '.join(sorted(missing))}."
    return text + (left if missing else "")


def matrix(panel: Panel) -> Table:
    """Return a table of the probabilities of improvement between all pairs of labels."""

    def cell(label: str, other: str) -> Cell:
        if label == other:
            return "", "even"
        p = probability_of_improvement(panel.scores[label], panel.scores[other])
        return estimate(p, ".2f"), "good" if p.low > 0.5 else "bad" if p.high < 0.5 else "even"

    labels = list(panel.scores)
    rows = [[label, *(cell(label, other) for other in labels)] for label in labels]
    return Table(["P(row better than column)", *labels], rows, left=1 + len(labels))


def settings(entries: list[Entry]) -> Table:
    """Return a table of the settings that differ between entries, with a row for each entry.

    If no setting differs, the table has no rows.
    """
    names = comparison.differing(entries)
    rows = [[e.env, e.label, *(_value(e.settings[name]) for name in names)] for e in entries]
    return Table(["environment", "run", *names], rows if names else [], left=2 + len(names))


def as_text(entries: list[Entry]) -> str:
    """Return the tables and notes of a comparison of runs as text."""
    from rich.text import Text

    panels = comparison.panels(entries)
    together = [panel for panel in panels if panel.together]
    tables = [finals(entries, panels), *(totals(panel, entries) for panel in together)]
    sentences = [normalisation(panel, entries) for panel in together] + comparison.notes(entries)
    views = [view for table in tables for view in (as_rich(table), "")]
    return render_text(*views, *(Text(f"- {note}") for note in sentences), width=120).rstrip("\n")


def of_run(members: list[Member], returns: np.ndarray, stds: np.ndarray, title: str) -> str:
    """Return a table of the returns of a run as text.

    For each setting, the table has a line for each seed, and a line with the IQM and the interval
    of the IQM. If a sweep has many settings, the table lists only the best settings, with one
    line each. A member whose return is not finite has diverged, and is excluded from the IQM.

    Args:
      members: one dictionary per member of the run, with `seed` and the swept hyperparameters.
      returns: the mean return of each member, [M].
      stds: the standard deviation of the returns of each member's episodes, [M].
      title: the first line of the text, above the table.
    """
    groups = curve.settings(members)
    if len(groups) > MANY_SETTINGS:
        return f"{title}\n{_best(groups, returns)}"
    rows: list[list[str]] = []
    for name, index in groups.items():
        rows += [[name, "", "", ""]] if name else []
        for i in index:
            finite = np.isfinite(returns[i])
            cells = [number(returns[i]), number(stds[i])] if finite else ["diverged", ""]
            rows.append([f"seed {members[i]['seed']}", *cells, ""])
        counted, middle, ends = _summarize(returns[index])
        rows.append([f"IQM of {counted}", middle, "", ends])
    view = as_rich(Table(["", "return", "std of episodes", "95% interval"], rows, left=1))
    for line, (name, *_) in zip(view.rows, rows, strict=True):
        line.style = "" if name.startswith("seed") else "bold"
        line.end_section = name.startswith("IQM")
    return f"{title}\n{render_text(view, width=100)}"


def _best(groups: dict[str, list[int]], returns: np.ndarray) -> str:
    """Return a table of the `MOST_ROWS` settings that have the largest IQMs, as text."""
    ranked = curve.ranked(groups, returns)
    rows = [[x, *_summarize(returns[groups[x]])] for x in ranked[:MOST_ROWS]]
    table = Table(["best first", "seeds", "IQM", "95% interval"], rows, left=1)
    text, left = render_text(as_rich(table), width=100), len(ranked) - MOST_ROWS
    return text + (f"and {left} more settings: metrics.csv has all of them\n" if left > 0 else "")


def as_rich(table: Table) -> Any:
    """Convert a table to an object that the package rich can print."""
    from rich.table import Table as View
    from rich.text import Text

    view = View(show_edge=False, pad_edge=False)
    for i, name in enumerate(table.names):
        justify = "left" if i < table.left else "right"
        view.add_column(Text(name), justify=justify, overflow="fold")
    for row in table.rows:
        view.add_row(*(Text(cell if isinstance(cell, str) else cell[0]) for cell in row))
    return view


def render_text(*views: Any, width: int) -> str:
    """Convert rich objects to text. Lines fit into `width` columns and into the terminal."""
    from rich.console import Console

    terminal, text = sys.stdout is not None and sys.stdout.isatty(), io.StringIO()
    if terminal:
        width = min(width, shutil.get_terminal_size((width, 24)).columns)
    console = Console(file=text, width=width, highlight=False, force_terminal=terminal)
    console.print(*views, sep="\n")
    return text.getvalue()


def number(x: float) -> str:
    """Format a number, such as -1,234.5, 2.61 or 0.031. Larger numbers have fewer decimals."""
    return f"{x:,.{1 if abs(x) >= 10 else 2 if abs(x) >= 1 else 3}f}"


def estimate(x: Estimate, digits: str) -> str:
    """Format an estimate as its value, followed by its interval if the interval is finite."""
    ends = f" [{x.low:{digits}}, {x.high:{digits}}]" if np.isfinite(x.low) else ""
    return f"{x.value:{digits}}{ends}"


def _summarize(scores: np.ndarray) -> tuple[str, str, str]:
    """Return three texts: the number of finite scores, the IQM, and the interval of the IQM."""
    alive = scores[np.isfinite(scores)]
    counted = f"{len(alive)} of {len(scores)}" if len(alive) < len(scores) else str(len(scores))
    if len(alive) == 0:
        return counted, "all diverged", ""
    value, low, high = aggregate_iqm([alive])
    ends = f"[{number(low)}, {number(high)}]" if np.isfinite(low) else _NO_INTERVAL
    return counted, number(value), ends


def _beats(scores: dict[str, list[np.ndarray]], label: str, entries: list[Entry]) -> str:
    """Format the probability that the label `label` beats the first label in `scores`.

    If the first label in `scores` is not the label of the first entry, the text names the first
    label in `scores`.
    """
    first = next(iter(scores))
    if label == first:
        return "-"
    better = estimate(probability_of_improvement(scores[label], scores[first]), ".2f")
    return better if first == entries[0].label else f"{better} (beats {first})"


def _value(x: Any) -> str:
    """Format the value of a setting as text."""
    return f"{x:,g}" if isinstance(x, float) else f"{x:,}" if type(x) is int else str(x)
