"""The learning curve of a run, and the drawing functions that all figures of runs share."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from sacjax.runs.metrics_csv import Member, epochs_of
from sacjax.statistics import LEAST_SEEDS, interval, iqm

STYLE = Path(__file__).with_name("figures.mplstyle")


def settings(members: list[Member]) -> dict[str, list[int]]:
    """Return the indices of the members of each setting, such as "tau=0.005, actor_lr=0.0003"."""
    groups: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        swept = [f"{name}={value:.10g}" for name, value in member.items() if name != "seed"]
        groups.setdefault(", ".join(swept), []).append(i)
    return groups


def learning_curve(members: list[Member], metrics: dict[str, np.ndarray], run: str) -> bytes:
    """Draw a run's evaluation returns against environment steps.

    Single seeds are faint lines. The IQM line of a setting stops at the first step that one of its
    seeds has not reached; diverged seeds do not count. With more than 8 settings, the best 5 are in
    color and the others grey.

    Args:
      members: M dictionaries of the swept hyperparameters and `seed`.
      metrics: `env_steps` [M, epochs], NaN after a member's last epoch, and `eval_return`
        [M, epochs] or [M, epochs, episodes].
      run: the name of the run, for the title.

    Returns:
      The bytes of a PNG file.
    """
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    returns, epochs = metrics["eval_return"], epochs_of(metrics)
    returns = returns.mean(-1) if returns.ndim > 2 else returns
    last = returns[np.arange(len(members)), epochs - 1]
    steps = metrics["env_steps"][epochs.argmax()]
    groups, seeds = settings(members), len({member["seed"] for member in members})
    best = ranked(groups, last)[:5] if len(groups) > 8 else list(groups)  # a legend has room for 5
    looks: dict[str, Any] = {name: ("0.75", None) for name in groups if name not in best}
    others = len(looks)  # drawn first, below the colored ones
    whole = "IQM, 95% interval" if np.isfinite(last).sum() >= LEAST_SEEDS else "IQM"
    looks |= {name: (f"C{i}", name or whole) for i, name in enumerate(best)}
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
    """Sort the settings by the IQM of the members' scores [M]: best first, diverged last."""

    def score(name: str) -> float:
        alive = scores[groups[name]][np.isfinite(scores[groups[name]])]
        return float(iqm(alive)) if len(alive) else -np.inf

    return sorted(groups, key=score, reverse=True)


def draw_returns(
    axes: Any, steps: np.ndarray, returns: np.ndarray, scores: np.ndarray, label: Any, **look: Any
) -> None:
    """Draw the curves of one setting: a line per seed, and the IQM of the seeds.

    Args:
      axes: Matplotlib's axes.
      steps: environment steps [epochs].
      returns: evaluation returns [S, epochs], NaN if a seed has none.
      scores: last returns [S]. A seed whose score is not finite has diverged; the IQM omits it.
      label: the setting's name in the legend.
      **look: `color`, and other properties of the IQM line.
    """
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.plot(steps, returns.T, color=look["color"], alpha=0.22, linewidth=0.7)
    alive = returns[np.isfinite(scores)]
    reached = np.isfinite(alive).all(0) & (len(alive) > 0)
    steps, alive = steps[reached], alive[:, reached]
    low, high = interval(alive, resamples=500)
    axes.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
    mark = "o" if len(steps) == 1 else None
    axes.plot(steps, iqm(alive), **look, linewidth=2.2, marker=mark, label=label)


def png(figure: Any) -> bytes:
    """Return the bytes of the figure's PNG file."""
    image = io.BytesIO()
    figure.savefig(image)
    return image.getvalue()


def last_returns(
    metrics: dict[str, np.ndarray], epochs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and standard deviation [M] over the episodes of the last evaluations.

    `epochs` [M]: the epochs that each member has done.
    """
    returns = metrics["eval_return"][np.arange(len(epochs)), epochs - 1]
    return returns.mean(-1), returns.std(-1)
