"""The learning curve that a run draws of itself."""

import io
from typing import Any

import numpy as np

from sacjax.runs.metrics_csv import Member, epochs_of
from sacjax.statistics import interval, iqm


def settings(members: list[Member]) -> dict[str, list[int]]:
    """The points of the grid, named ("tau=0.005, actor_lr=0.0003"), with their members' indices."""
    groups: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        swept = {name: value for name, value in member.items() if name != "seed"}
        groups.setdefault(setting(swept), []).append(i)
    return groups


def setting(swept: Member) -> str:
    """A point of the grid in words: "tau=0.005, actor_lr=0.0003"."""
    return ", ".join(f"{name}={value:.10g}" for name, value in swept.items())


def learning_curve(members: list[Member], metrics: dict[str, np.ndarray], run: str) -> bytes:
    """PNG of evaluation return against environment steps, single seeds faint.

    The IQM goes as far as all seeds do that have not diverged. `metrics`: env_steps and eval_return
    [M, epochs], NaN where a member has no such epoch. `run`: what it is.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    epochs = epochs_of(metrics)
    last = metrics["eval_return"][np.arange(len(members)), epochs - 1]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    groups = {name: np.array(index) for name, index in settings(members).items()}
    best = _best(groups, last)
    others = [name for name in groups if name not in best]
    for name in [*others, *best]:  # those in color are on top
        index = groups[name]
        steps = metrics["env_steps"][index[epochs[index].argmax()]]
        color, label = "0.75", None
        if name in best:
            color, label = f"C{best.index(name) % 10}", name or "IQM, 95% interval"
            label += "" if np.isfinite(last[index]).any() else " (all diverged)"
        returns = metrics["eval_return"][index]
        draw_returns(axes, steps, returns, last[index], {"color": color}, label)
    if others:
        axes.plot([], [], color="0.75", label=f"{len(others)} others")
    seeds = len({member["seed"] for member in members})
    plural = "s" if seeds > 1 else ""
    axes.set_title(f"{run}, {seeds} seed{plural}", loc="left", parse_math=False)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of greedy episodes")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    return image.getvalue()


def _best(groups: dict[str, np.ndarray], last: np.ndarray) -> list[str]:
    """The points that a legend has room for: all, or of more than 8 the five of the best IQM."""
    if len(groups) <= 8:
        return list(groups)

    def score(name: str) -> float:
        finite = last[groups[name]]
        finite = finite[np.isfinite(finite)]
        return float(iqm(finite)) if len(finite) else -np.inf

    return sorted(groups, key=score, reverse=True)[:5]


def draw_returns(
    axes: Any,
    steps: np.ndarray,
    returns: np.ndarray,
    scores: np.ndarray,
    look: dict[str, Any],
    label: str | None = None,
) -> None:
    """One setting's curves: seeds faint, and the IQM of those that have a finite score, as far as
    all of these go.

    Steps [epochs], returns [S, epochs], NaN where a seed has none, scores [S].
    """
    axes.plot(steps, returns.T, color=look["color"], alpha=0.22, linewidth=0.7)
    alive = returns[np.isfinite(scores)]
    if not len(alive):
        axes.plot([], [], **look, linewidth=2.2, label=label)  # the legend names it
        return
    there = np.isfinite(alive).all(0)
    steps, alive = steps[there], alive[:, there]
    low, high = interval(alive, resamples=500)
    axes.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
    mark = "o" if len(steps) == 1 else None
    axes.plot(steps, iqm(alive), **look, linewidth=2.2, marker=mark, label=label)


def last_returns(
    metrics: dict[str, np.ndarray], epochs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the episodes of each member's last evaluation, [M] each.

    Of a run's metrics, or of those that were read back from its table; `epochs` [M] are done.
    """
    who, last = np.arange(len(epochs)), epochs - 1
    returns = metrics["eval_return"][who, last]
    if returns.ndim == 1:
        return returns, metrics["eval_return_std"][who, last]
    return returns.mean(-1), returns.std(-1)
