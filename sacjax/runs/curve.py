"""Draw the learning curve of a run. The figures of reports use the same functions."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from sacjax.runs.metrics_csv import Member, epochs_of
from sacjax.statistics import LEAST_SEEDS, interval, iqm

STYLE = Path(__file__).with_name("figures.mplstyle")


def settings(members: list[Member]) -> dict[str, list[int]]:
    """Group the indices of members by setting. One setting is "tau=0.005, actor_lr=0.0003"."""
    groups: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        swept = [f"{name}={value:.10g}" for name, value in member.items() if name != "seed"]
        groups.setdefault(", ".join(swept), []).append(i)
    return groups


def learning_curve(members: list[Member], metrics: dict[str, np.ndarray], run: str) -> bytes:
    """Draw a run's evaluation returns against environment steps.

    Each seed has a faint line, and each setting has an IQM line. The IQM line ends at the last step
    that all seeds of the setting reached. The IQM excludes diverged seeds. If there are more than 8
    settings, only the best 5 settings are colored. The other settings are grey.

    Args:
      members: a dictionary of the swept hyperparameters and `seed` for each member.
      metrics: `eval_return` [M, epochs] or [M, epochs, episodes], and `env_steps` [M, epochs].
        `env_steps` is NaN after a member's last epoch.
      run: the name of the run, for the title of the figure.

    Returns:
      The bytes of a PNG file.
    """
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would need a display

    returns, epochs = metrics["eval_return"], epochs_of(metrics)
    returns = returns.mean(-1) if returns.ndim > 2 else returns
    last = returns[np.arange(len(members)), epochs - 1]
    steps = metrics["env_steps"][epochs.argmax()]
    groups, seeds = settings(members), len({member["seed"] for member in members})
    best = ranked(groups, last)[:5] if len(groups) > 8 else list(groups)  # a legend has room for 5
    looks: dict[str, Any] = {name: ("0.75", None) for name in groups if name not in best}
    others = len(looks)  # grey lines are drawn first, below the colored lines
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
    """Sort the settings by the IQM of their scores [M], best first. Diverged settings are last."""

    def score(name: str) -> float:
        alive = scores[groups[name]][np.isfinite(scores[groups[name]])]
        return float(iqm(alive)) if len(alive) else -np.inf

    return sorted(groups, key=score, reverse=True)


def draw_returns(
    axes: Any, steps: np.ndarray, returns: np.ndarray, scores: np.ndarray, label: Any, **look: Any
) -> None:
    """Draw a line for each seed of one setting, and a line for the IQM of the seeds.

    Args:
      axes: Matplotlib's axes.
      steps: environment steps [epochs].
      returns: evaluation returns [S, epochs]. Missing evaluations are NaN.
      scores: last returns [S]. The IQM omits seeds whose score is not finite.
      label: the setting's name in the legend.
      **look: the `color` of all lines, and further properties, which affect only the IQM line.
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
    """Return the mean and standard deviation [M] of the returns in each member's last evaluation.

    `epochs` [M] is the number of epochs of each member.
    """
    returns = metrics["eval_return"][np.arange(len(epochs)), epochs - 1]
    return returns.mean(-1), returns.std(-1)
