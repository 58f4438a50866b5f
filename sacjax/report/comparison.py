"""Read runs from directories, compute the score of each seed, and list how the runs differ."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sacjax.config import Config
from sacjax.runs.curve import settings
from sacjax.runs.directory import check_is_run, read_config, read_description, tables
from sacjax.runs.files import expanded
from sacjax.runs.metrics_csv import read_metrics
from sacjax.statistics import LEAST_SEEDS, normalised
from sacjax.types import PLAIN, InputError


class Folder(NamedTuple):
    """The description of a run, which is read from the directory of the run."""

    directory: Path
    config: Config
    content: dict[str, Any]  # the content of config.json
    members: int  # number of members with evaluations
    steps: tuple[int, int]  # the smallest and the largest number of environment steps of a member

    @property
    def reached(self) -> str:
        """The smallest and largest number of environment steps, such as "300 to 1,100"."""
        return " to ".join(f"{step:,}" for step in sorted({*self.steps}))


class Entry(NamedTuple):
    """All seeds of one setting in one environment. The seeds can be from several runs."""

    label: str
    env: str
    seeds: list[int]  # [S]
    steps: np.ndarray  # [epochs] environment steps
    returns: np.ndarray  # [S, epochs] mean return of each evaluation
    scores: np.ndarray  # [S] mean return of the last evaluations, not finite for diverged seeds
    least: int  # environment steps of the seed with the fewest steps
    settings: dict[str, Any]  # the values of Config and Hyperparams
    folders: list[Folder]  # the runs that trained the seeds

    @property
    def alive(self) -> np.ndarray:
        """The scores of the seeds that did not diverge."""
        return self.scores[np.isfinite(self.scores)]

    @property
    def diverged(self) -> int:
        """The number of seeds that diverged."""
        return len(self.seeds) - len(self.alive)


class Panel(NamedTuple):
    """The scores in one environment, or the normalised scores in all environments."""

    title: str
    scores: dict[str, list[np.ndarray]]  # label -> arrays of finite scores, one per environment

    @property
    def together(self) -> bool:
        """True if the panel has scores from several environments."""
        return any(len(parts) > 1 for parts in self.scores.values())


def read(
    directories: Sequence[str | os.PathLike],
    labels: Sequence[str] = (),
    last: int = 1,
    until: int | None = None,
) -> list[Entry]:
    """Read finished and unfinished runs, and return an entry for each setting and environment.

    `sacjax.report.compare` explains the arguments. The function raises InputError if a directory is
    damaged, or if runs with equal labels cannot be pooled.
    """
    unlabelled = len(labels) != len(directories) or not all(map(str.strip, labels))
    for wrong, field, message in (
        (not directories, "directories", "name the runs, as in `sacjax report runs/a runs/b`"),
        (last < 1, "last", f"last ({last}) must be 1 evaluation or more"),
        (until is not None and until < 1, "until", f"until ({until}) must be 1 step or more"),
        (
            labels and unlabelled,
            "labels",
            f"labels ({', '.join(labels)}) must be one name for each of {len(directories)} runs: "
            "write them after the DIRs, in the same order",
        ),
    ):
        if wrong:
            raise InputError(message, field)
    paths = [expanded(directory) for directory in directories]
    names = list(labels) or [path.resolve().name for path in paths]
    if not labels and len(set(names)) < len(names):
        names = [str(path) for path in paths]
    found: dict[tuple[str, str], Entry] = {}
    for path, name in zip(paths, names, strict=True):
        for entry in _read_run(path, name, last, until):
            key = entry.label, entry.env
            found[key] = _pool(found[key], entry) if key in found else entry
    order = environments(found.values())
    return sorted(found.values(), key=lambda entry: order.index(entry.env))


def _read_run(path: Path, name: str, last: int, until: int | None) -> list[Entry]:
    """Return an entry for each point of a run's grid that has evaluations."""
    check_is_run(path)
    content = read_description(path)
    unnamed = f"{content.get('env_object', 'environment')} object"  # JSON cannot store objects
    run = read_config(path, None if content["config"].get("env") else unnamed)
    table = path / "metrics.csv"
    csvs = tables(path) or [table]
    members, metrics = read_metrics(*csvs, swept=run.grid.swept)
    seeds = [int(member["seed"]) for member in members]
    shown = metrics["env_steps"] <= (np.inf if until is None else until)  # False for NaN
    counts, planned = shown.sum(1), run.grid.seeds * len(run.grid.settings)
    partial = csvs == [table] and len(seeds) < len(planned)  # some seeds may not have started
    matches = seeds == planned[: len(seeds)] and "eval_return" in metrics
    if not matches or (partial and shown.shape[1] > 1):
        message = f"{csvs[0]} does not match config.json: restore the file, or train again"
        raise InputError(message, "metrics.csv")
    if partial:
        message = f"{path} has no complete evaluation yet: wait for one, or leave the run out"
        raise InputError(message, "metrics.csv")
    if counts.min() < last:
        where = f"{path}, seed {seeds[counts.argmin()]}{f', until {until} steps' if until else ''}"
        raise InputError(
            f"last ({last}) must be at most the number of evaluations ({counts.min()} in {where}): "
            "use a smaller --last or a larger --until, or leave the run out",
            "last",
        )
    steps, returns = metrics["env_steps"][counts.argmax()], metrics["eval_return"]
    ends = np.array([x[n - last : n].mean() for x, n in zip(returns, counts, strict=True)])
    least, most = int(steps[counts.min() - 1]), int(steps[counts.max() - 1])
    folder = Folder(path, run.config, content, len(seeds), (least, most))
    env = run.config.env.removeprefix("gymnax/")  # gymnax is the default suite
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


def _pool(one: Entry, other: Entry) -> Entry:
    """Combine the seeds of two entries into one entry.

    Raises InputError if the entries have different settings, or a seed in common.
    """
    shared = sorted({*one.seeds} & {*other.seeds})
    if one.settings != other.settings or shared:
        what = f"seed {shared[0]} is in both" if shared else "their settings differ"
        raise InputError(
            f"{one.folders[0].directory} and {other.folders[0].directory} have the same label "
            f"{one.label!r} in {one.env}, but {what}: give each run its own name with --labels",
            "labels",
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
    """Return the names of the environments, in the order of the entries."""
    return list(dict.fromkeys(entry.env for entry in entries))


def folders(entries: Iterable[Entry]) -> list[Folder]:
    """Return the runs of all entries, without duplicates."""
    return list({folder.directory: folder for e in entries for folder in e.folders}.values())


def panels(entries: list[Entry]) -> list[Panel]:
    """Return a panel for each environment.

    The last panel contains the normalised scores in all environments, if there are several
    environments and a label has scores in each of them.
    """
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
    """Return the names of the settings that differ between entries. The environment is omitted."""
    first = entries[0].settings
    differ = [name for name in first if any(e.settings[name] != first[name] for e in entries)]
    return [name for name in differ if name != "env"]


def notes(entries: list[Entry]) -> list[str]:
    """Return warnings about the comparison, for example about diverged seeds or unfinished runs."""
    found = []
    for entry in entries:
        name = f"{entry.label} in {entry.env}"
        if entry.diverged:
            gone = f"{entry.diverged} of {len(entry.seeds)} seeds diverged"
            found.append(f"{name}: {gone}. All statistics and the IQM curve exclude them.")
        if entry.least < entry.steps[-1]:
            found.append(f"{name}: seeds end at different steps. Each is scored at its own end.")
    for env in environments(entries):
        ends = sorted({int(entry.steps[-1]) for entry in entries if entry.env == env})
        if len(ends) > 1:
            found.append(
                f"{env}: the runs end between {ends[0]:,} and {ends[-1]:,} steps. Each is scored "
                f"at its own end. Use `--until {ends[0]}` to compare at equal steps."
            )
    if few := sum(0 < len(entry.alive) < LEAST_SEEDS for entry in entries):
        found.append(
            f"No interval for {few} of {len(entries)} runs: with fewer than {LEAST_SEEDS} seeds, a "
            "bootstrap interval only repeats the worst and the best seed. Train more seeds."
        )
    for folder in folders(entries):
        total, where = folder.config.total_steps, folder.directory
        if folder.steps[0] < total:
            found.append(f"{where}: the report covers {folder.reached} of {total:,} steps.")
        planned = len(folder.content["seeds"]) * len(folder.content["hyperparams"])
        if folder.members < planned:
            found.append(f"{where}: only {folder.members} of {planned} agents have evaluations.")
    versions = [folder.content["versions"] for folder in folders(entries)]
    shared = sorted(set.intersection(*map(set, versions)))
    used = {name: sorted({str(each[name]) for each in versions}) for name in shared}
    several = [f"{name} {' and '.join(each)}" for name, each in used.items() if len(each) > 1]
    if several:
        found.append(f"The runs were made with different versions: {', '.join(several)}.")
    return found
