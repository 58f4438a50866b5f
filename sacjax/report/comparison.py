"""Several runs side by side: read from their folders, scored, and what to know before comparing."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sacjax.runs import curve
from sacjax.runs.directory import BATCHES, check_is_run, read_config, read_description, tables
from sacjax.runs.metrics_csv import read_metrics
from sacjax.statistics import normalised
from sacjax.types import PLAIN, InputError


class Entry(NamedTuple):
    """What is compared: the seeds of one run, or of several alike, at one point of the grid."""

    label: str
    env: str
    directory: Path
    seeds: list[int]  # S
    steps: np.ndarray  # [epochs] environment steps
    returns: np.ndarray  # [S, epochs] mean over the episodes of an evaluation
    scores: np.ndarray  # [S] what counts at the end; NaN for a seed that diverged
    settings: dict[str, Any]  # the fields of Config and Hyperparams
    content: dict[str, Any]  # config.json
    least: int  # environment steps of the seed that is least far
    parts: tuple["Entry", ...] = ()  # the runs whose seeds these are, if there are several


class Panel(NamedTuple):
    """One environment's scores by label, or those of all of them, normalised."""

    title: str
    scores: dict[str, list[np.ndarray]]  # label -> an array per environment, without the diverged

    @property
    def together(self) -> bool:
        """Whether it is of several environments."""
        return any(len(parts) > 1 for parts in self.scores.values())


def read(
    directories: Sequence[str | os.PathLike],
    labels: Sequence[str] = (),
    last: int = 1,
    until: int | None = None,
) -> list[Entry]:
    """The runs in `directories`, finished or not, each point of a sweep for itself.

    `labels`: a name for each; runs of several environments under one name are one algorithm, and
    runs of one environment and the same settings, with other seeds, are one run.
    A seed's score is the mean of its `last` evaluations, of those up to `until` environment steps.
    InputError where a folder is damaged, or two runs that are no such one have one name.
    """
    if not directories:
        raise InputError("name the folders of the runs, as in `sacjax report runs/a runs/b`")
    if labels and len(labels) != len(directories):
        raise InputError(
            f"--labels names {len(labels)} runs of {len(directories)}: give one for each DIR, in "
            "their order and after them"
        )
    if last < 1:
        raise InputError(f"--last ({last}) must be 1 evaluation or more")
    if until is not None and until < 1:
        raise InputError(f"--until ({until}) must be 1 environment step or more")
    if not all(label.strip() for label in labels):
        raise InputError("--labels has an empty one: give each run a name")
    paths = [Path(directory) for directory in directories]
    names = list(labels) or [path.resolve().name for path in paths]
    if not labels and len(set(names)) < len(names):
        names = [str(path) for path in paths]
    entries: list[Entry] = []
    for path, name in zip(paths, names, strict=True):
        entries += _read_run(path, name, last, until)
    seen: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = (entry.label, entry.env)
        seen[key] = _together(seen[key], entry) if key in seen else entry
    envs = list(dict.fromkeys(entry.env for entry in entries))
    return sorted(seen.values(), key=lambda entry: envs.index(entry.env))


def _together(one: Entry, other: Entry) -> Entry:
    """The seeds of both. InputError where they are not of one kind."""
    shared = sorted(set(one.seeds) & set(other.seeds))
    if one.settings != other.settings or shared:
        what = f"seed {shared[0]} is in both" if shared else "their settings differ"
        raise InputError(
            f"{one.directory} and {other.directory} are both {other.label!r} in {other.env}, and "
            f"{what}: give each a name of its own with --labels"
        )
    longer = max(one, other, key=lambda entry: len(entry.steps))
    returns = [
        np.pad(x, ((0, 0), (0, len(longer.steps) - x.shape[1])), constant_values=np.nan)
        for x in (one.returns, other.returns)
    ]
    return one._replace(
        seeds=one.seeds + other.seeds,
        steps=longer.steps,
        returns=np.concatenate(returns),
        scores=np.concatenate([one.scores, other.scores]),
        least=min(one.least, other.least),
        parts=(*(one.parts or (one,)), other),
    )


def runs_of(entries: Sequence[Entry]) -> list[list[Entry]]:
    """What is in each folder: the points of a sweep that have evaluations."""
    runs: dict[Path, list[Entry]] = {}
    for entry in entries:
        for part in entry.parts or (entry,):
            runs.setdefault(part.directory, []).append(part)
    return list(runs.values())


def reached(run: Sequence[Entry]) -> str:
    """To which environment step a folder's seeds have come: "300", or "300 to 1,100"."""
    low, high = min(entry.least for entry in run), max(int(entry.steps[-1]) for entry in run)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _read_run(path: Path, name: str, last: int, until: int | None) -> list[Entry]:
    check_is_run(path)
    content = read_description(path)
    config, (points, swept, seeds, _), _ = read_config(path, _env(content))
    csvs, in_batches = tables(path), (path / BATCHES).is_dir()
    if not csvs or (in_batches and not csvs[0].exists()):
        raise InputError(f"{path} has no evaluation yet: wait for the first, or leave it out")
    members, metrics = read_metrics(*csvs, swept=swept)
    planned = [seed for _ in points for seed in seeds]
    there = [int(member["seed"]) for member in members]  # the last ones may come yet
    first = metrics["env_steps"].shape[1] == 1 and there == planned[: len(there)]
    if first and not in_batches and len(there) < len(planned):
        raise InputError(f"{path} has no whole evaluation yet: wait for the first, or leave it out")
    same = there == (planned[: len(there)] if in_batches else planned)
    if not same or "eval_return" not in metrics:
        raise InputError(f"{csvs[0]} is not that of config.json: restore it, or train again")
    shown = metrics["env_steps"] <= (np.inf if until is None else until)  # NaN is not
    counts = shown.sum(1)
    if counts.min() < last:
        raise InputError(
            f"{path} has {counts.min()} evaluations{f' up to {until} steps' if until else ''} of "
            f"seed {there[counts.argmin()]}: use a smaller --last or a later --until, or leave it "
            "out"
        )
    returns = metrics["eval_return"]
    ends = np.array([x[n - last : n].mean() for x, n in zip(returns, counts, strict=True)])
    env = config.env.removeprefix("gymnax/")  # it is the same with it
    algorithm = content.get("algorithm", PLAIN)
    entries = []
    for i, point in enumerate(points):
        index = slice(i * len(seeds), min((i + 1) * len(seeds), len(there)))
        if index.start >= index.stop:
            break
        far, most = index.start + counts[index].argmax(), counts[index].max()
        where = curve.setting({field: getattr(point, field) for field in swept})
        entries.append(
            Entry(
                label=f"{name}, {where}" if len(points) > 1 else name,
                env=env,
                directory=path,
                seeds=there[index],
                steps=metrics["env_steps"][far, :most],
                returns=returns[index, :most],
                scores=np.where(np.isfinite(ends[index]), ends[index], np.nan),
                settings=vars(config) | {"env": env, "algorithm": algorithm} | vars(point),
                content=content,
                least=int(metrics["env_steps"][index, counts[index].min() - 1].min()),
            )
        )
    return entries


def _env(content: dict[str, Any]) -> str | None:
    """What to call an environment object, which config.json cannot hold."""
    config, name = content.get("config"), content.get("env_object", "environment")
    return f"{name} object" if isinstance(config, dict) and not config.get("env") else None


def finite(entry: Entry) -> np.ndarray:
    """The scores of the seeds that did not diverge."""
    return entry.scores[np.isfinite(entry.scores)]


def panels(entries: list[Entry]) -> list[Panel]:
    """A panel per environment and, where labels have been run in all of several, one of all."""
    by_env: dict[str, dict[str, np.ndarray]] = {}
    for entry in entries:
        scores = by_env.setdefault(entry.env, {})
        if len(finite(entry)):
            scores[entry.label] = finite(entry)
    found = [
        Panel(env, {label: [x] for label, x in scores.items()}) for env, scores in by_env.items()
    ]
    shared = [label for label in by_env[entries[0].env] if all(label in s for s in by_env.values())]
    if len(by_env) > 1 and shared:
        units = [normalised(scores) for scores in by_env.values()]
        together = {label: [unit[label] for unit in units] for label in shared}
        found.append(Panel("All environments, normalised", together))
    return found


def differing(entries: list[Entry]) -> list[str]:
    """The settings that are not the same in all, the environment aside."""
    names = [name for name in entries[0].settings if name != "env"]
    first = entries[0].settings
    return [name for name in names if any(e.settings[name] != first[name] for e in entries)]


def notes(entries: list[Entry]) -> list[str]:
    """What a reader must know before comparing."""
    said = []
    for entry in entries:
        gone, of = len(entry.seeds) - len(finite(entry)), len(entry.seeds)
        if gone:
            said.append(
                f"{entry.label} in {entry.env}: {gone} of {of} seeds diverged, left out of every "
                "statistic; its figures are those of the seeds that survived."
            )
    for env in dict.fromkeys(entry.env for entry in entries):
        here = [entry for entry in entries if entry.env == env]
        ends = sorted({int(entry.steps[-1]) for entry in here})
        if len(ends) > 1:
            said.append(
                f"{env}: the runs end between {ends[0]:,} and {ends[-1]:,} steps, and each is "
                f"scored at its end; `--until {ends[0]}` compares at equal steps."
            )
        episodes = sorted({entry.settings["eval_episodes"] for entry in here})
        if len(episodes) > 1:
            said.append(f"{env}: evaluations have {episodes[0]} to {episodes[-1]} episodes.")
    runs = runs_of(entries)
    for run in runs:
        total, content = run[0].settings["total_steps"], run[0].content
        if min(entry.least for entry in run) < total:
            said.append(f"{run[0].directory}: shown to {reached(run)} of {total:,} steps.")
        if any(entry.least < entry.steps[-1] for entry in run):
            said.append(
                f"{run[0].directory}: its seeds are not equally far, each is scored where it is."
            )
        there = sum(len(entry.seeds) for entry in run)
        planned = len(content["seeds"]) * len(content["hyperparams"])
        if there < planned:
            said.append(f"{run[0].directory}: {there} of {planned} agents have evaluations yet.")
    if any(len(finite(entry)) == 1 for entry in entries):
        said.append("A single seed has no interval: it says nothing of its spread.")
    versions = [run[0].content["versions"] for run in runs]
    shared = sorted(set.intersection(*map(set, versions)))
    found = {name: sorted({str(v[name]) for v in versions}) for name in shared}
    several = [f"{name} {' and '.join(each)}" for name, each in found.items() if len(each) > 1]
    if several:
        said.append(f"The runs were made with different versions: {', '.join(several)}.")
    return said
