"""Learning curves and tables: interquartile means with bootstrap intervals over seeds.

IQM: the mean of the middle half of the seeds; 95% intervals by the percentile bootstrap over seeds
(Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice", arXiv:2108.13264).
"""

import csv
import os
from pathlib import Path

import numpy as np

from sacjax.types import InputError

Member = dict[str, float]


def iqm(x: np.ndarray, axis: int = 0) -> np.ndarray:
    """Interquartile mean along `axis`."""
    from scipy import stats  # half a second to import, and needed only at the end of a run

    return stats.trim_mean(x, 0.25, axis=axis)


def interval(x: np.ndarray, resamples: int = 2_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95% bootstrap interval of the IQM over the first axis [S, ...] -> [...], [...].

    NaN for a single seed, which says nothing of its spread.
    """
    x = np.asarray(x, float)
    if len(x) < 2:
        return np.full(x.shape[1:], np.nan), np.full(x.shape[1:], np.nan)
    picks = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    low, high = np.percentile(iqm(x[picks], axis=1), [2.5, 97.5], axis=0)
    return low, high


def read_metrics(
    path: str | os.PathLike, swept: list[str] | None = None
) -> tuple[list[Member], dict[str, np.ndarray]]:
    """metrics.csv as members [M] and metrics, each [M, epochs]; NaN where a cell is empty.

    Columns before `seed` are the swept hyperparameters. A last epoch that is not there for all
    members is left out. Raises InputError where the file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: restore it, or train again")
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = list(rows[0])
        keys = names[: names.index("seed") + 1]
        if swept is not None and keys[:-1] != swept:
            raise InputError(f"its columns are keyed by {keys[:-1]}, config.json's by {swept}")
        series: dict[tuple, list[list[float]]] = {}
        for row in rows:
            values = [float("nan" if row[name] == "" else row[name]) for name in names]
            series.setdefault(tuple(values[: len(keys)]), []).append(values[len(keys) :])
        epochs = min(len(values) for values in series.values())
        table = np.array([values[:epochs] for values in series.values()])  # [M, epochs, metrics]
    except (ValueError, IndexError, KeyError, TypeError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}): restore it, or train again") from error
    members: list[Member] = [
        dict(zip(keys, (*point[:-1], int(point[-1])), strict=True)) for point in series
    ]
    return members, {name: table[..., i] for i, name in enumerate(names[len(keys) :])}


def settings(members: list[Member]) -> dict[str, list[int]]:
    """The points of the grid, named ("tau=0.005, actor_lr=0.0003"), with their members' indices."""
    groups: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        name = ", ".join(f"{k}={v:g}" for k, v in member.items() if k != "seed")
        groups.setdefault(name, []).append(i)
    return groups


def learning_curve(
    source: str | os.PathLike, target: str | os.PathLike, title: str | None = None
) -> None:
    """Draw metrics.csv: evaluation return against environment steps, single seeds faint."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    members, metrics = read_metrics(source)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    groups = settings(members)
    for color, (name, index) in enumerate(groups.items()):
        steps, returns = metrics["env_steps"][index[0]], metrics["eval_return"][index]
        shade = f"C{color % 10}"
        axes.plot(steps, returns.T, color=shade, alpha=0.25, linewidth=0.8)
        returns = returns[np.isfinite(returns[:, -1])]  # without those that diverged
        if not len(returns):
            continue
        low, high = interval(returns)
        axes.fill_between(steps, low, high, color=shade, alpha=0.2, linewidth=0)
        axes.plot(
            steps, iqm(returns), color=shade, linewidth=2.2, label=name or "IQM, 95% interval"
        )
    seeds = len({member["seed"] for member in members})
    axes.set_title(title or f"{Path(source).resolve().parent.name}, {seeds} seeds", loc="left")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of greedy episodes")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, loc="lower right", fontsize="small")
    target = Path(target)
    part = target.with_name(target.name + ".part")
    figure.savefig(part, format="png", dpi=150)
    os.replace(part, target)


def last_returns(metrics: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the episodes of the last evaluation, [M] each.

    Of a run's metrics, or of those that were read back from its table.
    """
    returns = metrics["eval_return"][:, -1]
    if returns.ndim == 1:
        return returns, metrics["eval_return_std"][:, -1]
    return returns.mean(-1), returns.std(-1)


def table(members: list[Member], returns: np.ndarray, stds: np.ndarray, title: str) -> str:
    """Text: a line per seed and setting, then IQM and interval. Means and standard deviations [M].

    Members without finite returns diverged, and do not count.
    """
    from rich.console import Console
    from rich.table import Table

    view = Table(show_edge=False, pad_edge=False)
    for name in ("", "return", "std of episodes", "95% interval"):
        view.add_column(name, justify="left" if name == "" else "right")
    for name, index in settings(members).items():
        if name:
            view.add_row(f"[bold]{name}[/bold]")
        for i in index:
            seed, finite = f"seed {members[i]['seed']}", np.isfinite(returns[i])
            cells = (f"{returns[i]:.1f}", f"{stds[i]:.1f}") if finite else ()
            view.add_row(seed, *(cells or ("diverged", "")))
        means = returns[index]
        means = means[np.isfinite(means)]
        what = "IQM" if len(means) == len(index) else f"IQM of {len(means)} of {len(index)}"
        low, high = interval(means)
        spread = f"[{low:.1f}, {high:.1f}]" if len(means) > 1 else "one seed has none"
        middle = f"{iqm(means):.1f}" if len(means) else "-"
        view.add_row(what, middle, "", spread if len(means) else "", style="bold", end_section=True)
    console = Console(width=100, highlight=False)
    with console.capture() as capture:
        console.print(view)
    return f"{title}\n{capture.get()}"
