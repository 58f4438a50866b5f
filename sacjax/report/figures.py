"""The figures of a comparison: curves, performance profiles, improvement."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from sacjax.report.comparison import Entry, Panel, finite
from sacjax.runs.curve import draw_returns
from sacjax.statistics import performance_profile, probability_of_improvement

LINES = ["solid", "dashed", "dashdot", "dotted"]  # for ten labels each
DPI = 150
CURVE_POINTS = 200  # evaluations that are drawn of a longer curve
INK = dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "#24292f"
)


def styles(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    """A color and line for each label, the same in all figures."""
    labels = list(dict.fromkeys(entry.label for entry in entries))
    return {
        label: {"color": f"C{i % 10}", "linestyle": LINES[i // 10 % len(LINES)]}
        for i, label in enumerate(labels)
    }


def learning_curves(entries: list[Entry]) -> bytes:
    """PNG: evaluation return against environment steps, a panel per environment."""
    envs = list(dict.fromkeys(entry.env for entry in entries))
    style, notes = styles(entries), _diverged(entries)
    legend = [(_short(label) + notes.get(label, ""), look) for label, look in style.items()]

    def draw(axes: Any, env: str) -> None:
        for entry in (entry for entry in entries if entry.env == env):
            epochs = np.unique(np.linspace(0, len(entry.steps) - 1, CURVE_POINTS).astype(int))
            steps, returns = entry.steps[epochs], entry.returns[:, epochs]
            draw_returns(axes, steps, returns, entry.scores, style[entry.label])
        axes.set_title(env, loc="left", parse_math=False)
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.xaxis.set_major_locator(_ticks())

    return _figure(envs, draw, "return of greedy episodes", legend)


def profiles(panels: list[Panel], entries: list[Entry]) -> bytes:
    """PNG: the fraction of seeds that score above tau, of panels that have any."""
    style = styles(entries)
    drawn = [label for label in style if any(label in panel.scores for panel in panels)]
    legend = [(_short(label), style[label]) for label in drawn]

    def draw(axes: Any, panel: Panel) -> None:
        scores = np.concatenate([x for parts in panel.scores.values() for x in parts])
        margin = 0.04 * np.ptp(scores) or 1.0
        taus = np.linspace(scores.min() - margin, scores.max() + margin, 501)
        for label, parts in panel.scores.items():
            value, low, high = performance_profile(parts, taus)
            axes.fill_between(taus, low, high, color=style[label]["color"], alpha=0.16, linewidth=0)
            axes.plot(taus, value, **style[label], linewidth=2)
        axes.set_title(panel.title, loc="left", parse_math=False)
        axes.set_xlabel("normalised score τ" if panel.together else "return τ")
        axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_locator(_ticks())

    return _figure(panels, draw, "fraction of seeds above τ", legend)


def improvements(panels: list[Panel], entries: list[Entry]) -> bytes:
    """PNG: how likely a seed of each label beats one of the first label of its panel."""
    style = styles(entries)

    def draw(axes: Any, panel: Panel) -> None:
        first, *others = panel.scores
        for place, label in enumerate(others):
            value, low, high = probability_of_improvement(panel.scores[label], panel.scores[first])
            color = style[label]["color"]
            bar = {"color": color, "linewidth": 6, "alpha": 0.35, "solid_capstyle": "butt"}
            axes.plot([low, high], [place, place], **bar)
            axes.plot(value, place, "o", color=color, markersize=7)
        axes.axvline(0.5, color="0.55", linewidth=1, linestyle="dashed", zorder=0)
        axes.set_title(panel.title, loc="left", parse_math=False)
        axes.set_yticks(range(len(others)), map(_short, others), parse_math=False)
        axes.set_ylim(len(others) - 0.4, -0.6)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel(f"P(better than {_short(first)})", parse_math=False)

    heights = [0.3 * (len(panel.scores) - 1) + 0.1 for panel in panels]
    return _figure(panels, draw, "", heights=heights)


def _figure(
    panels: Sequence[Any],
    draw: Any,
    ylabel: str,
    legend: Sequence[tuple[str, dict[str, Any]]] = (),
    heights: Sequence[float] = (),
) -> bytes:
    """PNG of `draw(axes, panel)` for each, two beside each other, and below them the texts of
    `legend`, each with its line's look.

    With `heights` of axes, in inches, they are below each other.
    """
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: no global state, no display
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    columns = 1 if len(panels) == 1 or heights else 2
    rows = -(-len(panels) // columns)
    inches = list(heights) or [2.5 if columns > 1 else 3.2] * rows
    theme: Any = INK | {"font.size": 10}
    with matplotlib.rc_context(theme):
        width = 7.6 if columns == 1 else 5 * columns
        figure = Figure(
            figsize=(width, sum(inches) + 0.8 * rows), layout=ConstrainedLayoutEngine(h_pad=0.08)
        )
        grid = figure.subplots(rows, columns, squeeze=False, height_ratios=inches)
        for axes, panel in zip(grid.flat, panels, strict=False):
            draw(axes, panel)
            axes.grid(alpha=0.2)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        if legend:
            names = [text for text, _ in legend]
            across = _across(names, width)
            figure.set_figheight(figure.get_figheight() + 0.22 * -(-len(names) // across))
            place = {"loc": "outside lower left", "ncols": across, "frameon": False}
            lines = [Line2D([], [], linewidth=2, **look) for _, look in legend]
            for text in figure.legend(lines, names, **place).get_texts():
                text.set_parse_math(False)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=DPI)
    return image.getvalue()


def _across(names: list[str], width: float) -> int:
    """Columns of a legend that fit into `width` inches; Matplotlib fills them one by one."""
    for columns in range(len(names), 1, -1):
        rows = -(-len(names) // columns)
        each = [max(map(len, names[i : i + rows])) for i in range(0, len(names), rows)]
        if sum(each) + 7 * len(each) < 11 * width:
            return columns
    return 1


def _diverged(entries: list[Entry]) -> dict[str, str]:
    """What the legend adds to a label."""
    found: dict[str, str] = {}
    several = len({entry.env for entry in entries}) > 1
    for entry in entries:
        gone = len(entry.seeds) - len(finite(entry))
        if gone:
            where = f" in {entry.env}" if several else ""
            text = f" ({gone} of {len(entry.seeds)} diverged{where}, left out)"
            found[entry.label] = found.get(entry.label, "") + text
    return found


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])


def _short(label: str, most: int = 44) -> str:
    """A label as text of a figure, not longer than fits."""
    return label if len(label) <= most else f"{label[: most - 1]}…"
