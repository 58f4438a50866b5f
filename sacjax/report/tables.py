"""Tables: of a run, and of a comparison for its page and for the terminal."""

import shlex
import shutil
import sys
from typing import Any

import numpy as np

from sacjax.report import comparison
from sacjax.report.comparison import Entry, Panel, finite, runs_of
from sacjax.runs.curve import settings as points
from sacjax.runs.metrics_csv import Member
from sacjax.statistics import (
    Estimate,
    aggregate_iqm,
    interval,
    iqm,
    probability_of_improvement,
)

MANY_POINTS, MOST_ROWS = 8, 20  # of a sweep, in the table of a run
Cell = str | tuple[str, str]  # text, or text and a class of the page's style sheet
Table = tuple[list[str], list[list[Cell]]]  # names of columns, rows


def finals(entries: list[Entry], panels: list[Panel]) -> Table:
    """A row per entry, the environments' after each other."""
    scores = {panel.title: panel.scores for panel in panels}
    rows: list[list[Cell]] = []
    for env in dict.fromkeys(entry.env for entry in entries):
        first = next(iter(scores[env]), None)
        for entry in (entry for entry in entries if entry.env == env):
            ends, seeds = finite(entry), len(entry.seeds)
            row = [env, entry.label, f"{len(ends)} of {seeds}" if len(ends) < seeds else str(seeds)]
            row.append(f"{entry.steps[-1]:,.0f}")
            if len(ends):
                middle = aggregate_iqm([ends])
                row += [number(middle.value), spread(middle), number(ends.min())]
                better = probability_of_improvement([ends], next(iter(scores[env].values())))
                row.append("-" if entry.label == first else _beats(better, first, entries))
            else:
                row += ["all diverged", "", "", ""]
            rows.append([row[0], row[1], *((cell, "number") for cell in row[2:])])
    names = ["environment", "run", "seeds", "steps", "IQM", "95% interval", "worst seed"]
    return [*names, "P(beats first)"], rows


def totals(panel: Panel, entries: list[Entry]) -> Table:
    """A row per label, over all environments."""
    first = next(iter(panel.scores))
    rows: list[list[Cell]] = []
    for label, scores in panel.scores.items():
        better = probability_of_improvement(scores, panel.scores[first])
        cells = [estimate(aggregate_iqm(scores), ".3f")]
        cells.append("-" if label == first else _beats(better, first, entries))
        rows.append([label, *((cell, "number") for cell in cells)])
    return ["all environments", "normalised IQM [95%]", "P(beats first)"], rows


def normalisation(panel: Panel, entries: list[Entry]) -> str:
    """What the numbers of `totals` are."""
    missing = {entry.label for entry in entries} - set(panel.scores)
    text = (
        "Runs of the same name, over the environments. In each environment the lowest score of any "
        "seed shown is 0 and the highest 1, so these numbers hold within this report only. "
        "Every score counts once in the IQM; the improvement is the mean over environments."
    )
    left = f" Not run in every environment, or all diverged: {', '.join(sorted(missing))}."
    return text + (left if missing else "")


def matrix(panel: Panel) -> Table:
    """The probability that one label improves on another, for all pairs."""
    rows: list[list[Cell]] = []
    for label, scores in panel.scores.items():
        row: list[Cell] = [label]
        for other, others in panel.scores.items():
            p = probability_of_improvement(scores, others)
            shade = "good" if p.low > 0.5 else "bad" if p.high < 0.5 else "even"
            row.append(("", "even") if other == label else (estimate(p, ".2f"), shade))
        rows.append(row)
    return ["P(row better than column)", *panel.scores], rows


def settings(entries: list[Entry]) -> Table:
    """Those that differ; none may."""
    names = comparison.differing(entries)
    rows: list[list[Cell]] = [
        [entry.env, entry.label, *(_value(entry.settings[name]) for name in names)]
        for entry in entries
    ]
    return ["environment", "run", *names], rows if names else []


def runs(entries: list[Entry]) -> Table:
    """A row per folder: where it is, what it was made with."""
    rows: list[list[Cell]] = []
    for run in runs_of(entries):
        entry, content, seeds = run[0], run[0].content, run[0].content["seeds"]
        whole = seeds == list(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) > 2
        device, versions = content["device"], content["versions"]
        rows.append(
            [
                str(entry.directory),
                entry.env,
                f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds)),
                f"{comparison.reached(run)} of {entry.settings['total_steps']:,}",
                ", ".join(f"{n} {versions.get(n)}" for n in ("sacjax", "jax", "gymnax", "python")),
                f"{device.get('count')} x {device.get('kind')}, {device.get('cpu')}",
                shlex.join(map(str, content.get("command") or [])) or "from Python",
            ]
        )
    return ["folder", "environment", "seeds", "steps", "versions", "device", "command"], rows


def as_text(entries: list[Entry]) -> str:
    """Text: `finals`, the aggregate if there is one, and the notes."""
    from rich import table
    from rich.text import Text

    panels = comparison.panels(entries)
    shown = [finals(entries, panels)]
    together = [panel for panel in panels if panel.together]
    shown += [totals(panel, entries) for panel in together]
    said = [normalisation(panel, entries) for panel in together] + comparison.notes(entries)
    views: list[Any] = []
    for names, rows in shown:
        view = table.Table(show_edge=False, pad_edge=False)
        for i, name in enumerate(names):
            justify = "right" if rows and isinstance(rows[0][i], tuple) else "left"
            view.add_column(name, justify=justify, overflow="fold")
        for row in rows:
            view.add_row(*(Text(cell if isinstance(cell, str) else cell[0]) for cell in row))
        views += [view, ""]
    views += [Text(f"- {note}") for note in said]
    return printed(*views, width=120).rstrip("\n")


def of_run(members: list[Member], returns: np.ndarray, stds: np.ndarray, title: str) -> str:
    """Text: a line per seed and setting, then IQM and interval. Means and standard deviations [M].

    Members without finite returns diverged, and do not count. A sweep of many points has a line per
    point, the best ones first.
    """
    from rich.table import Table

    if len(points(members)) > MANY_POINTS:
        return f"{title}\n{_best_points(members, returns)}"
    view = Table(show_edge=False, pad_edge=False)
    for name in ("", "return", "std of episodes", "95% interval"):
        view.add_column(name, justify="left" if name == "" else "right")
    for name, index in points(members).items():
        if name:
            view.add_row(f"[bold]{name}[/bold]")
        for i in index:
            seed, finite = f"seed {members[i]['seed']}", np.isfinite(returns[i])
            cells = (f"{returns[i]:.1f}", f"{stds[i]:.1f}") if finite else ()
            view.add_row(seed, *(cells or ("diverged", "")))
        means = returns[index]
        means = means[np.isfinite(means)]
        what = "IQM" if len(means) == len(index) else f"IQM of {len(means)} of {len(index)}"
        middle, spread = _iqm_of(means)
        view.add_row(what, middle, "", spread, style="bold", end_section=True)
    return f"{title}\n{printed(view, width=100)}"


def _iqm_of(means: np.ndarray) -> tuple[str, str]:
    """The IQM of finite returns and its interval, as text."""
    if not len(means):
        return "-", ""
    low, high = interval(means)
    spread = f"[{low:.1f}, {high:.1f}]" if len(means) > 1 else "one seed has none"
    return f"{iqm(means):.1f}", spread


def _best_points(members: list[Member], returns: np.ndarray) -> str:
    """A line per point of the grid, by IQM; the best MOST_ROWS."""
    from rich.table import Table

    finite = {name: returns[index] for name, index in points(members).items()}
    finite = {name: x[np.isfinite(x)] for name, x in finite.items()}
    ranked = sorted(finite, key=lambda name: -iqm(finite[name]) if len(finite[name]) else np.inf)
    view = Table(show_edge=False, pad_edge=False)
    for name in ("best first", "IQM", "95% interval", "seeds"):
        view.add_column(name, justify="left" if name == "best first" else "right")
    for name in ranked[:MOST_ROWS]:
        alive, seeds = len(finite[name]), len(points(members)[name])
        counted = str(seeds) if alive == seeds else f"{alive} of {seeds}"
        view.add_row(name, *_iqm_of(finite[name]), counted)
    text, left = printed(view, width=100), len(ranked) - MOST_ROWS
    return text + (f"and {left} more points: metrics.csv has all of them\n" if left > 0 else "")


def printed(*views: Any, width: int) -> str:
    """Text: what rich makes of them one below the other, in as many columns, or a terminal's where
    it has fewer."""
    from rich.console import Console

    if sys.stdout is not None and sys.stdout.isatty():
        width = min(width, shutil.get_terminal_size((width, 24)).columns)
    console = Console(width=width, highlight=False)
    with console.capture() as capture:  # rich itself would leave where nobody reads
        for view in views:
            console.print(view)
    return capture.get()


def number(x: float) -> str:
    """As many decimals as say something: -1,234.5, 2.61, 0.031."""
    return f"{x:,.{1 if abs(x) >= 10 else 2 if abs(x) >= 1 else 3}f}"


def spread(x: Estimate) -> str:
    return f"[{number(x.low)}, {number(x.high)}]" if np.isfinite(x.low) else "one seed has none"


def estimate(x: Estimate, digits: str) -> str:
    """Value and interval."""
    ends = f" [{x.low:{digits}}, {x.high:{digits}}]" if np.isfinite(x.low) else ""
    return f"{x.value:{digits}}{ends}"


def _beats(better: Estimate, first: str | None, entries: list[Entry]) -> str:
    """Where the first run of all has no score here, it says whom instead."""
    return estimate(better, ".2f") + ("" if first == entries[0].label else f" (beats {first})")


def _value(x: Any) -> str:
    return f"{x:,g}" if isinstance(x, float) else f"{x:,}" if type(x) is int else str(x)
