"""Make the tables and figures of the documents."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def fill_in(path: Path, name: str, text: str) -> None:
    """Replace the text between two markers of a document."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, after_begin = path.read_text().split(begin)
    _, after = after_begin.split(end)
    path.write_text(before + begin + text + "\n" + end + after)


def mean_and_range(scores: np.ndarray) -> str:
    """Format the mean of the scores, with the lowest and highest in brackets."""
    digits = 0 if abs(scores).max() >= 100 else 1
    mean, low, high = (f"{x:,.{digits}f}" for x in (scores.mean(), scores.min(), scores.max()))
    return f"{mean} [{low}, {high}]" if scores.size > 1 else mean


def seed_count(seeds: int) -> str:
    """Format a number of seeds: "1 seed", "2 seeds"."""
    return f"{seeds} seed{'s' if seeds > 1 else ''}"


def grid(panels: int, width: float, height: float, margin: float = 0) -> tuple[Figure, list[Any]]:
    """Make a figure with panels, four to a row. Sizes are per panel, in inches."""
    across = min(panels, 4)
    down = -(-panels // across)
    size = (width * across + margin, height * down)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(np.ravel(figure.subplots(down, across, squeeze=False)))
    for unused in axes[panels:]:
        unused.axis("off")
    return figure, axes[:panels]


def dress(axes: Any, title: str, xlabel: str) -> None:
    """Give a panel its title and a light grid, without a box."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set(xlabel=xlabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def over_steps(axes: Any, title: str, xlabel: str = "environment steps") -> None:
    """Style a panel whose x axis is environment steps."""
    dress(axes, title, xlabel)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
