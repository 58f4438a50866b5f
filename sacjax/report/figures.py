"""Draw the learning curves, performance profiles and probabilities of improvement of runs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sacjax.report.comparison import Entry, Panel, environments
from sacjax.runs.curve import STYLE, draw_returns, png
from sacjax.statistics import performance_profile, probability_of_improvement

LINES = ["solid", "dashed", "dashdot", "dotted"]  # each line style is used for ten labels
CURVE_POINTS = 200  # largest number of evaluations in a curve
Looks = dict[str, dict[str, Any]]  # label -> keyword arguments of Matplotlib's lines
NAMES = ("learning_curves.png", "profiles.png", "improvement.png")


def draw(entries: list[Entry], panels: list[Panel]) -> dict[str, bytes]:
    """Draw all figures that have scores, and return a dictionary from file names to PNGs.

    Each label has one color and line style, which all figures use.
    """
    looks: Looks = {
        label: {"color": f"C{i % 10}", "linestyle": LINES[i // 10 % len(LINES)]}
        for i, label in enumerate(dict.fromkeys(entry.label for entry in entries))
    }
    found = {NAMES[0]: learning_curves(entries, looks)}
    if scored := [panel for panel in panels if panel.scores]:
        found[NAMES[1]] = profiles(scored, looks)
    if several := [panel for panel in panels if len(panel.scores) > 1]:
        found[NAMES[2]] = improvements(several, looks)
    return found


def learning_curves(entries: list[Entry], looks: Looks) -> bytes:
    """Draw the returns over environment steps. Each environment has a panel. Return the PNG."""
    diverged = {label: sum(e.diverged for e in entries if e.label == label) for label in looks}

    def draw(axes: Any, env: str) -> None:
        for entry in (entry for entry in entries if entry.env == env):
            epochs = np.unique(np.linspace(0, len(entry.steps) - 1, CURVE_POINTS).astype(int))
            steps, returns = entry.steps[epochs], entry.returns[:, epochs]
            draw_returns(axes, steps, returns, entry.scores, None, **looks[entry.label])
        axes.set(title=env, ylabel="return of greedy episodes")

    legend = [
        (_shorten(label) + (f" ({diverged[label]} diverged)" if diverged[label] else ""), look)
        for label, look in looks.items()
    ]
    return _figure(environments(entries), draw, legend)


def profiles(panels: list[Panel], looks: Looks) -> bytes:
    """Draw the fraction of seeds with scores above each threshold tau, and return the PNG."""

    def draw(axes: Any, panel: Panel) -> None:
        scores = np.concatenate([x for parts in panel.scores.values() for x in parts])
        margin = 0.04 * np.ptp(scores) or 1.0
        taus = np.linspace(scores.min() - margin, scores.max() + margin, 501)
        for label, parts in panel.scores.items():
            value, low, high = performance_profile(parts, taus)
            axes.fill_between(taus, low, high, color=looks[label]["color"], alpha=0.16, linewidth=0)
            axes.plot(taus, value, **looks[label], linewidth=2)
        what = "normalised score τ" if panel.together else "return τ"
        axes.set(title=panel.title, xlabel=what, ylabel="fraction of seeds above τ")
        axes.set_ylim(-0.03, 1.03)

    drawn = [label for label in looks if any(label in panel.scores for panel in panels)]
    return _figure(panels, draw, [(_shorten(label), looks[label]) for label in drawn])


def improvements(panels: list[Panel], looks: Looks) -> bytes:
    """Draw the probability that each label beats a panel's first label, and return the PNG."""

    def draw(axes: Any, panel: Panel) -> None:
        first, *others = panel.scores
        for place, label in enumerate(others):
            value, low, high = probability_of_improvement(panel.scores[label], panel.scores[first])
            color = looks[label]["color"]
            axes.hlines(place, low, high, color=color, linewidth=6, alpha=0.35)
            axes.plot(value, place, "o", color=color, markersize=7)
        axes.axvline(0.5, color="0.55", linewidth=1, linestyle="dashed", zorder=0)
        axes.set_yticks(range(len(others)), map(_shorten, others))
        axes.set(title=panel.title, xlabel=f"P(better than {_shorten(first)})")
        axes.set(xlim=(-0.03, 1.03), ylim=(len(others) - 0.4, -0.6))

    return _figure(panels, draw, heights=[0.3 * len(panel.scores) - 0.2 for panel in panels])


def _figure(
    panels: Sequence[Any],
    draw: Callable[[Any, Any], None],
    legend: Sequence[tuple[str, dict[str, Any]]] = (),
    heights: Sequence[float] = (),
) -> bytes:
    """Call `draw(axes, panel)` for each panel of a figure, and return the figure as a PNG.

    Args:
      panels: the content of each panel. A row has two panels, or one panel if `heights` is given.
      draw: a function that draws a panel on the given axes.
      legend: the text and the line style of each item in the legend below the panels.
      heights: the height of each panel in inches. If heights are given, all panels are in one
        column.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = 1 if len(panels) == 1 or heights else 2
    rows, width = -(-len(panels) // columns), 10 if columns > 1 else 7.6
    inches = list(heights) or [2.5 if columns > 1 else 3.2] * rows
    texts = [text for text, _ in legend]
    across = max(1, int(11 * width / (7 + max(map(len, texts), default=0))))  # texts per line
    size = width, sum(inches) + 0.8 * rows + 0.22 * -(-len(texts) // across)
    with matplotlib.rc_context(fname=STYLE):
        figure = Figure(size)
        grid = figure.subplots(rows, columns, squeeze=False, height_ratios=inches)
        for axes, panel in zip(grid.flat, panels, strict=False):
            draw(axes, panel)
            axes.locator_params("x", nbins=6)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[:, 1:].flat:
            axes.set_ylabel("")
        if legend:
            lines = [Line2D([], [], linewidth=2, **look) for _, look in legend]
            figure.legend(lines, texts, loc="outside lower left", ncols=across)
        return png(figure)


def _shorten(label: str) -> str:
    """Shorten a label to at most 44 characters, by removing characters from the middle."""
    return label if len(label) <= 44 else f"{label[:20]}…{label[-23:]}"
