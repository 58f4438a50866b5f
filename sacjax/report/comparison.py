"""Several runs side by side: read from their folders, scored, and what to know before comparing."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sacjax.config import Config
from sacjax.runs.curve import settings
from sacjax.runs.directory import check_is_run, read_config, read_description, tables
from sacjax.runs.metrics_csv import read_metrics
from sacjax.statistics import normalised
from sacjax.types import PLAIN, InputError


class Folder(NamedTuple):
    """A run: where it is, what it was made with, how far it is."""

    directory: Path
    config: Config
    content: dict[str, Any]  # config.json
    members: int  # those that have evaluations
    steps: tuple[int, int]  # environment steps of the member that is least far, and farthest

    @property
    def reached(self) -> str:
        """How far its members are: "300", or "300 to 1,100"."""
        return " to ".join(f"{step:,}" for step in sorted({*self.steps}))


class Entry(NamedTuple):
    """One thing to compare: the seeds of one setting, of one run or of several alike."""

    label: str
    env: str
    seeds: list[int]  # S
    steps: np.ndarray  # [epochs] environment steps
    returns: np.ndarray  # [S, epochs] mean over the episodes of an evaluation
    scores: np.ndarray  # [S] what counts at the end; not finite for a seed that diverged
    least: int  # environment steps of the seed that is least far
    settings: dict[str, Any]  # the fields of Config and Hyperparams
    folders: list[Folder]  # the runs that the seeds are of

    @property
    def alive(self) -> np.ndarray:
        """The scores of the seeds that did not diverge."""
        return self.scores[np.isfinite(self.scores)]

    @property
    def diverged(self) -> int:
        """How many seeds diverged."""
        return len(self.seeds) - len(self.alive)


class Panel(NamedTuple):
    """One environment's scores by label, or those of all environments, normalised."""

    title: str
    scores: dict[str, list[np.ndarray]]  # label -> an array per environment, without the diverged

    @property
    def together(self) -> bool:
        """Whether it has several environments."""
        return any(len(parts) > 1 for parts in self.scores.values())


def read(
    directories: Sequence[str | os.PathLike],
    labels: Sequence[str] = (),
    last: int = 1,
    until: int | None = None,
) -> list[Entry]:
    """Read the runs in `directories`, finished or not: an entry per setting.

    `labels`: a name for each; runs of several environments under one name are one algorithm, and
    runs of one environment and the same settings, with other seeds, are one run.
    A seed's score is the mean of its `last` evaluations, of those up to `until` environment steps.
    InputError where a folder is damaged, or different runs of an environment have one name.
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
    found: dict[tuple[str, str], Entry] = {}
    for path, name in zip(paths, names, strict=True):
        for entry in _read_run(path, name, last, until):
            key = entry.label, entry.env
            found[key] = _merged(found[key], entry) if key in found else entry
    order = environments(found.values())
    return sorted(found.values(), key=lambda entry: order.index(entry.env))


def _read_run(path: Path, name: str, last: int, until: int | None) -> list[Entry]:
    """An entry for each point of a run's grid that has evaluations."""
    check_is_run(path)
    content = read_description(path)
    unnamed = f"{content.get('env_object', 'environment')} object"  # config.json cannot hold it
    run = read_config(path, None if content["config"].get("env") else unnamed)
    table = path / "metrics.csv"
    csvs = tables(path) or [table]
    members, metrics = read_metrics(*csvs, swept=run.grid.swept)
    seeds = [int(member["seed"]) for member in members]
    shown = metrics["env_steps"] <= (np.inf if until is None else until)  # NaN is not
    counts, planned = shown.sum(1), run.grid.seeds * len(run.grid.settings)
    partial = csvs == [table] and len(seeds) < len(planned)  # of batches, the last may come yet
    alike = seeds == planned[: len(seeds)] and "eval_return" in metrics
    if not alike or (partial and shown.shape[1] > 1):
        raise InputError(f"{csvs[0]} is not that of config.json: restore it, or train again")
    if partial:
        raise InputError(f"{path} has no whole evaluation yet: wait for the first, or leave it out")
    if counts.min() < last:
        raise InputError(
            f"{path} has {counts.min()} evaluations{f' up to {until} steps' if until else ''} of "
            f"seed {seeds[counts.argmin()]}: use a smaller --last or a later --until, or leave it "
            "out"
        )
    steps, returns = metrics["env_steps"][counts.argmax()], metrics["eval_return"]
    ends = np.array([x[n - last : n].mean() for x, n in zip(returns, counts, strict=True)])
    least, most = int(steps[counts.min() - 1]), int(steps[counts.max() - 1])
    folder = Folder(path, run.config, content, len(seeds), (least, most))
    env = run.config.env.removeprefix("gymnax/")  # it is the same with it
    shared = vars(run.config) | {"env": env, "algorithm": content.get("algorithm", PLAIN)}
    return [
        Entry(
            label=f"{name}, {where}" if len(run.grid.settings) > 1 else name,
            env=env,
            seeds=[seeds[i] for i in index],
            steps=steps[: counts[index].max()],
            returns=returns[index, : counts[index].max()],
            scores=ends[index],
            least=int(steps[counts[index].min() - 1]),
            settings=shared | vars(point),
            folders=[folder],
        )
        for point, (where, index) in zip(run.grid.settings, settings(members).items(), strict=False)
    ]


def _merged(one: Entry, other: Entry) -> Entry:
    """Join the seeds of both. InputError if their settings differ or they share a seed."""
    shared = sorted({*one.seeds} & {*other.seeds})
    if one.settings != other.settings or shared:
        what = f"seed {shared[0]} is in both" if shared else "their settings differ"
        raise InputError(
            f"{one.folders[0].directory} and {other.folders[0].directory} are both {one.label!r} "
            f"in {one.env}, and {what}: give each a name of its own with --labels"
        )
    longer = max(one, other, key=lambda entry: len(entry.steps))
    returns = np.full((len(one.seeds) + len(other.seeds), len(longer.steps)), np.nan)
    returns[: len(one.seeds), : len(one.steps)] = one.returns
    returns[len(one.seeds) :, : len(other.steps)] = other.returns
    return one._replace(
        seeds=one.seeds + other.seeds,
        steps=longer.steps,
        returns=returns,
        scores=np.concatenate([one.scores, other.scores]),
        least=min(one.least, other.least),
        folders=one.folders + other.folders,
    )


def environments(entries: Iterable[Entry]) -> list[str]:
    """The environments, in the order in which they were given."""
    return list(dict.fromkeys(entry.env for entry in entries))


def folders(entries: Iterable[Entry]) -> list[Folder]:
    """The runs, each once."""
    return list({folder.directory: folder for e in entries for folder in e.folders}.values())


def panels(entries: list[Entry]) -> list[Panel]:
    """A panel per environment and, where labels have been run in all of several, one of all."""
    scores = {
        env: {e.label: e.alive for e in entries if e.env == env and len(e.alive)}
        for env in environments(entries)
    }
    found = [Panel(env, {label: [x] for label, x in here.items()}) for env, here in scores.items()]
    shared = [label for label in found[0].scores if all(label in x for x in scores.values())]
    if len(found) > 1 and shared:
        units = [normalised(here) for here in scores.values()]
        together = {label: [unit[label] for unit in units] for label in shared}
        found.append(Panel("All environments, normalised", together))
    return found


def differing(entries: list[Entry]) -> list[str]:
    """The settings that are not the same in all entries, the environment aside."""
    first = entries[0].settings
    differ = [name for name in first if any(e.settings[name] != first[name] for e in entries)]
    return [name for name in differ if name != "env"]


def notes(entries: list[Entry]) -> list[str]:
    """What a reader must know before comparing."""
    found = []
    for entry in entries:
        name = f"{entry.label} in {entry.env}"
        if entry.diverged:
            gone = f"{entry.diverged} of {len(entry.seeds)} seeds diverged"
            found.append(f"{name}: {gone}, left out of every statistic and of the IQM's curve.")
        if entry.least < entry.steps[-1]:
            found.append(f"{name}: its seeds are not equally far, each is scored where it is.")
    for env in environments(entries):
        ends = sorted({int(entry.steps[-1]) for entry in entries if entry.env == env})
        if len(ends) > 1:
            found.append(
                f"{env}: the runs end between {ends[0]:,} and {ends[-1]:,} steps, and each is "
                f"scored at its end; `--until {ends[0]}` compares at equal steps."
            )
    for folder in folders(entries):
        total, where = folder.config.total_steps, folder.directory
        if folder.steps[0] < total:
            found.append(f"{where}: shown to {folder.reached} of {total:,} steps.")
        planned = len(folder.content["seeds"]) * len(folder.content["hyperparams"])
        if folder.members < planned:
            found.append(f"{where}: {folder.members} of {planned} agents have evaluations yet.")
    versions = [folder.content["versions"] for folder in folders(entries)]
    shared = sorted(set.intersection(*map(set, versions)))
    used = {name: sorted({str(each[name]) for each in versions}) for name in shared}
    several = [f"{name} {' and '.join(each)}" for name, each in used.items() if len(each) > 1]
    if several:
        found.append(f"The runs were made with different versions: {', '.join(several)}.")
    return found
