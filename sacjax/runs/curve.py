"""The learning curve that a run draws of itself, and what all figures of runs share."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from sacjax.runs.metrics_csv import Member, epochs_of
from sacjax.statistics import interval, iqm

STYLE = Path(__file__).with_name("figures.mplstyle")


def settings(members: list[Member]) -> dict[str, list[int]]:
    """Group members by setting: "tau=0.005, actor_lr=0.0003" -> their indices."""
    groups: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        swept = [f"{name}={value:.10g}" for name, value in member.items() if name != "seed"]
        groups.setdefault(", ".join(swept), []).append(i)
    return groups


def learning_curve(members: list[Member], metrics: dict[str, np.ndarray], run: str) -> bytes:
    """Draw a run's evaluation returns against environment steps.

    Single seeds are faint. The IQM of a setting goes as far as all its seeds that have not
    diverged. Of more than 8 settings, the best 5 are in color and the others grey.

    Args:
      members: M dictionaries of the swept hyperparameters and `seed`.
      metrics: `env_steps` [M, epochs], NaN where a member has no such epoch yet, and `eval_return`
        [M, epochs] or [M, epochs, episodes].
      run: the title, a name of the run.

    Returns:
      A PNG.
    """
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    returns, epochs = metrics["eval_return"], epochs_of(metrics)
    returns = returns.mean(-1) if returns.ndim > 2 else returns
    last = returns[np.arange(len(members)), epochs - 1]
    steps = metrics["env_steps"][epochs.argmax()]
    groups, seeds = settings(members), len({member["seed"] for member in members})
    best = ranked(groups, last)[:5] if len(groups) > 8 else list(groups)  # as a legend has room for
    looks: dict[str, Any] = {name: ("0.75", None) for name in groups if name not in best}
    others = len(looks)  # they come first: those in color are on top
    looks |= {name: (f"C{i}", name or "IQM, 95% interval") for i, name in enumerate(best)}
    with matplotlib.rc_context(fname=STYLE):
        figure = Figure((7, 4.2))
        axes = figure.add_subplot(title=f"{run}, {seeds} seed{'s' if seeds > 1 else ''}")
        for name, (color, label) in looks.items():
            index = groups[name]
            if label and not np.isfinite(last[index]).any():
                label += " (all diverged)"
            draw_returns(axes, steps, returns[index], last[index], label, color=color)
        if others:
            axes.plot([], [], color="0.75", label=f"{others} others")
        axes.set_ylabel("return of greedy episodes")
        axes.legend(loc="lower right", fontsize="small")
        return png(figure)


def ranked(groups: dict[str, list[int]], scores: np.ndarray) -> list[str]:
    """Sort `settings` by the IQM of the members' scores [M], the best first, the diverged last."""

    def middle(name: str) -> float:
        alive = scores[groups[name]][np.isfinite(scores[groups[name]])]
        return float(iqm(alive)) if len(alive) else -np.inf

    return sorted(groups, key=middle, reverse=True)


def draw_returns(
    axes: Any, steps: np.ndarray, returns: np.ndarray, scores: np.ndarray, label: Any, **look: Any
) -> None:
    """Draw one setting's curves: its seeds, and the IQM of those that have a finite score.

    Steps [epochs], returns [S, epochs], NaN where a seed has none, scores [S]. `look`: `color`,
    and more for the line of the IQM.
    """
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.plot(steps, returns.T, color=look["color"], alpha=0.22, linewidth=0.7)
    alive = returns[np.isfinite(scores)]
    there = np.isfinite(alive).all(0) & (len(alive) > 0)
    steps, alive = steps[there], alive[:, there]
    low, high = interval(alive, resamples=500)
    axes.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
    mark = "o" if len(steps) == 1 else None
    axes.plot(steps, iqm(alive), **look, linewidth=2.2, marker=mark, label=label)


def png(figure: Any) -> bytes:
    """Content of the file that shows `figure`."""
    image = io.BytesIO()
    figure.savefig(image)
    return image.getvalue()


def last_returns(
    metrics: dict[str, np.ndarray], epochs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the episodes of each member's last evaluation, [M] each.

    `epochs` [M]: how many each member has done.
    """
    returns = metrics["eval_return"][np.arange(len(epochs)), epochs - 1]
    return returns.mean(-1), returns.std(-1)
