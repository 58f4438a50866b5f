"""A run's folder: what is in it, written whole or not at all, and read with clear errors.

config.json          everything needed to repeat the run: settings, seeds, versions, device
metrics.csv          one row per member and evaluation, flushed as it goes (`metrics_csv.py`)
checkpoints/         everything needed to go on (`checkpoints.py`)
diverged.json        the members that were frozen, if any were
learning_curve.png   IQM and interval over seeds
agents/              the trained agents of all members, and their metrics (an orbax checkpoint)
batches/             where members are trained in batches: a folder like this one for each

The plot, agents and diverged.json are written when a run ends or is stopped.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sacjax.config import Config, Hyperparams
from sacjax.runs import processes, store
from sacjax.runs.checkpoints import BATCHES, check_path, locked, resuming, whole_run
from sacjax.runs.divergence import Divergence
from sacjax.runs.files import PART, remedy, write_text
from sacjax.runs.provenance import FORMAT, gone_on
from sacjax.types import InputError, RunError, one_line


@contextlib.contextmanager
def created(directory: str | os.PathLike) -> Iterator[Path]:
    """A new folder, or an empty one, locked meanwhile. InputError where it is not to be had."""
    path = Path(directory)
    check_path(path)
    with _writable(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    with locked(path):
        left = PART + "config.json"  # of a run that was killed at once: nothing yet
        if any(x.name != left for x in path.iterdir()):
            raise InputError(
                f"{path} is not empty, it may hold another run: give a new folder with --out, "
                f"remove it yourself, or go on with it by {resuming(path)}"
            )
        yield path


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise InputError(f"{path} is a file: give a new folder with --out") from error
    except OSError as error:
        raise InputError(
            f"cannot write to {path} ({error.strerror}): give a folder you may write to with --out"
        ) from error


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[Path]:
    """`directory`, or the first of directory-2, directory-3 ... that nobody else has: made, and
    removed again where nothing was written to it. InputError where that is not allowed."""
    made = [path for path in directory.parents if not path.exists()]
    number, path = 1, directory
    while not _made(path):
        number += 1
        path = directory.with_name(f"{directory.name}-{number}")
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # not empty
            for folder in (path, *made):
                folder.rmdir()


def _made(path: Path) -> bool:
    """False where it is there already. Of those that ask at once, one is told True."""
    while True:
        with _writable(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _writable(path):
            try:
                path.mkdir()
            except FileExistsError:
                return False
            except FileNotFoundError:  # who has made the parent has removed it meanwhile
                continue
            return True


def in_batches(directory: Path, name: str) -> list[Path]:
    """What of this name the folders of batches have, the first batch first, up to one without."""
    found, number = [], 1
    while (path := directory / BATCHES / str(number) / name).exists():
        found.append(path)
        number += 1
    return found


def tables(directory: Path) -> list[Path]:
    """metrics.csv, or those of the batches; those that have rows."""
    found = in_batches(directory, "metrics.csv") or [directory / "metrics.csv"]
    return [path for path in found if not path.exists() or path.stat().st_size]


@contextlib.contextmanager
def written(directory: Path, then: str | None = None) -> Iterator[None]:
    """What cannot be written to a run's folder is a RunError with the remedy."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write to {directory} ({error.strerror or error}): {remedy(error)}, then "
            + (then or resuming(directory))
        ) from error


def write_config(directory: Path, content: dict[str, Any], again: bool = False) -> None:
    """config.json, from `description`; `again`: of a run that goes on, whose own description stays,
    but for what has changed. RunError if it cannot be written."""
    if again:
        content = gone_on(read_description(directory), content)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with written(directory, None if again else "start again"):
        write_text(directory / "config.json", text)


class Written(NamedTuple):
    """What config.json says."""

    config: Config
    settings: list[Hyperparams]
    swept: list[str]
    seeds: list[int]
    content: dict[str, Any]  # the whole file


def check_is_run(directory: str | os.PathLike) -> None:
    """InputError if this is no run's folder."""
    if not (Path(directory) / "config.json").is_file():
        raise InputError(f"{directory} is not a run's folder (no config.json): give what --out was")


def check_is_whole(directory: Path) -> None:
    """InputError if this is the folder of a batch: alone it is no run."""
    whole = whole_run(directory.absolute())
    if whole != directory.absolute():
        raise InputError(f"{directory} is a batch of {whole}: give that folder")


def read_description(directory: str | os.PathLike) -> dict[str, Any]:
    """What `write_config` wrote. InputError if this is no run's folder, or a damaged one."""
    check_is_run(directory)
    path = Path(directory) / "config.json"
    with _damage_named(path):
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise InputError(
                f"{path} has format {content['format']}, this sacjax reads {FORMAT}: use the "
                f"version that wrote it, git tag v{content['versions']['sacjax']}"
            )
        return content | {name: content[name] for name in ("config", "versions", "device")}


def read_config(directory: str | os.PathLike, env: Any = None) -> Written:
    """The run that `read_description` describes. `env`: the environment, where it was an object."""
    content = read_description(directory)
    with _damage_named(Path(directory) / "config.json"):
        fields = content["config"] | ({} if env is None else {"env": env})
        if fields["env"] is None:
            raise InputError(
                f"{directory} was trained on an environment object: in Python, give it to "
                "sacjax.load or sacjax.resume(directory, env=...)"
            )
        settings = [
            Hyperparams(**{k: float(v) for k, v in hp.items()}) for hp in content["hyperparams"]
        ]
        seeds, swept = [int(seed) for seed in content["seeds"]], list(content["swept"])
        for name, found in (("seeds", seeds), ("hyperparams", settings)):
            if not found or len(set(found)) < len(found):
                raise ValueError(f"no {name}, or some twice")
        if unknown := set(swept) - {field.name for field in dataclasses.fields(Hyperparams)}:
            raise ValueError(f"no hyperparameters {unknown}")
        config, was = Config(**fields), content.get("env_object")
        if not isinstance(config.env, str) and was not in (None, config.env_name):
            raise InputError(f"{directory} was trained on {was}, not {config.env_name}: give env")
        return Written(config, settings, swept, seeds, content)


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # also of JSON and UTF-8
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {error}): restore it, or train again"
        ) from error


def write_diverged(
    directory: Path, diverged: list[Divergence], members: list[dict[str, float]], config: Config
) -> None:
    """diverged.json, if any did: who, before which environment step, what was not finite."""
    path = directory / "diverged.json"
    if diverged:
        told = [
            d._asdict()
            | {"before_env_step": config.warmup_steps + (d.epoch + 1) * config.eval_every}
            | members[d.member]
            for d in diverged
        ]
        write_text(path, json.dumps(told, indent=2) + "\n")
    else:
        path.unlink(missing_ok=True)


def read_diverged(directory: Path, members: int) -> list[Divergence]:
    """What `write_diverged` wrote, of a run of so many members."""
    path = directory / "diverged.json"
    if not path.exists():
        return []
    with _damage_named(path):
        told = json.loads(path.read_text())
        found = [Divergence(*(d[name] for name in Divergence._fields)) for d in told]
        if any(d.member not in range(members) or d.epoch < 0 for d in found):
            raise ValueError(f"there are {members} members")
        return found


def save_agents(directory: Path, tree: Any) -> None:
    """agents/: complete, or absent; those of before are replaced."""
    new, place = (directory.absolute() / name for name in ("agents.new", "agents"))
    failed: Exception | None = None
    try:
        store.write(new, jax.tree.map(_of_elements, tree))
        if processes.is_first():
            old = place.with_name("agents.old")
            shutil.rmtree(old, ignore_errors=True)
            if place.exists():
                os.replace(place, old)
            os.replace(new, place)
            shutil.rmtree(old, ignore_errors=True)
    except Exception as error:  # orbax and its stores raise many kinds where the disk is full
        failed = error
    if processes.any_of(failed is not None):
        why = one_line(failed) if failed else "another process could not write its part"
        raise RunError(
            f"the agents could not be written to {place} ({why}): {remedy(failed)}, then "
            f"{resuming(directory)}"
        ) from failed


def _of_elements(x: Any) -> Any:
    """For an array of no elements, which orbax does not write, or its shape: one of some."""
    if x.size:
        return x
    shape = tuple(max(1, length) for length in x.shape)
    kind = jax.ShapeDtypeStruct if isinstance(x, jax.ShapeDtypeStruct) else np.zeros
    return kind(shape, x.dtype)


def restore_agents(directory: Path, like: dict[str, Any]) -> dict[str, Any]:
    """The tree that `save_agents` was given, as NumPy arrays; `like` has its shapes and dtypes, but
    for the metrics. Of several processes each reads for itself."""
    path = directory.absolute() / "agents"
    if not path.is_dir():
        raise InputError(
            f"{directory} holds no trained agents (no folder agents/): its run did not end; "
            f"{resuming(directory)} goes on with it"
        )
    try:
        like = like | {"metrics": store.shapes(path, alone=True)["metrics"]}
        wanted = jax.tree.map(_of_elements, like)
        tree = store.read(path, wanted, alone=True)
        found, expected = ([x.shape for x in jax.tree.leaves(t)] for t in (tree, wanted))
        if found != expected:
            raise ValueError("arrays of other shapes")
        return jax.tree.map(
            lambda to, x: x if to.size else np.empty(to.shape, to.dtype), like, tree
        )
    except Exception as error:  # orbax and its stores raise many kinds for damaged files
        raise InputError(
            f"{path} is damaged, or not of this environment and algorithm ({one_line(error)}): "
            f"give those it was trained with, restore it, or {resuming(directory)}, which makes it "
            "anew from its last checkpoint"
        ) from error
