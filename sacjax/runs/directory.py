"""A run's folder: files that are complete or absent, read with clear errors.

config.json          everything needed to repeat the run: settings, seeds, versions, device
metrics.csv          one row per member and evaluation, flushed after each epoch (`metrics_csv.py`)
checkpoints/         everything needed to resume (`checkpoints.py`)
diverged.json        the members that diverged, if any did
learning_curve.png   IQM and interval over seeds
agents/              the trained agents of all members, and their metrics (`arrays.py`)
agents/best/         with keep_best: each member's agent at its best evaluation
batches/             if members are trained in batches: a folder like this one for each batch

The plot, agents and diverged.json are written when a run ends or is stopped.
"""

import contextlib
import fcntl
import itertools
import json
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sacjax.config import Config, Hyperparams
from sacjax.runs.files import PART, remedy, write_text
from sacjax.runs.population import Grid
from sacjax.runs.provenance import FORMAT, Description, describe_resumed
from sacjax.types import PLAIN, InputError, RunError, one_line

BATCHES = "batches"  # the subfolder with the folders of a run's batches


def whole_run(directory: Path) -> Path:
    """Return the folder to resume: this one, or that of the run if this one is a batch."""
    whole = directory.parent.parent
    batched = directory.parent.name == BATCHES and (whole / "config.json").is_file()
    return whole if batched else directory


def resume_command(directory: Path) -> str:
    """Return the command that resumes the run, in Python if an object has to be passed again."""
    whole = whole_run(directory)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        content = json.loads((whole / "config.json").read_text())
        objects = [", env=..."] if content["config"]["env"] is None else []
        objects += [", algorithm=..."] if content.get("algorithm", PLAIN) != PLAIN else []
        if objects:
            return f"`sacjax.resume({str(whole)!r}{''.join(objects)})`"
    return f"`sacjax resume {shlex.quote(str(whole))}`"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock the folder against other processes that write. Raises InputError if it is locked.

    The kernel holds the lock and releases it when the process ends, even if it is killed.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            why = f"cannot be locked ({error.strerror}): use a file system with flock"
            if isinstance(error, BlockingIOError):
                why = "is being written by another process: wait for it, or stop it first"
            raise InputError(f"{directory} {why}", "directory") from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def created(directory: Path) -> Iterator[None]:
    """Create the folder, or take an empty one, and lock it. Raises InputError."""
    with _explain_create_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    with locked(directory):
        left = PART + "config.json"  # a run that was killed at once left it
        if any(path.name != left for path in directory.iterdir()):
            raise InputError(
                f"{directory} is not empty, it may hold another run: give a new folder with --out, "
                f"remove it yourself, or resume it by {resume_command(directory)}",
                "directory",
            )
        yield


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[Path]:
    """Create `directory`; if it exists already, create directory-2, directory-3 and so on.

    The folder is removed after the block if it is still empty. Raises InputError.
    """
    names = (f"{directory.name}-{number}" for number in itertools.count(2))
    path, made = directory, [folder for folder in directory.parents if not folder.exists()]
    with _explain_create_errors(directory.parent):
        while True:
            try:
                path.mkdir(parents=True)
                break
            except FileExistsError:
                path = directory.with_name(next(names))
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # not empty
            for folder in (path, *made):
                folder.rmdir()


@contextlib.contextmanager
def _explain_create_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise InputError(f"{path} is a file: give a new folder with --out", "directory") from error
    except OSError as error:
        raise InputError(
            f"cannot write to {path} ({error.strerror}): give a folder you may write to with --out",
            "directory",
        ) from error


@contextlib.contextmanager
def explain_write_errors(directory: Path, then: str | None = None) -> Iterator[None]:
    """Raise an OSError of a write to the run's folder as a RunError that says how to recover.

    `then`: the step after the remedy, by default the command that resumes the run.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write to {directory} ({error.strerror or error}): {remedy(error)}, then "
            + (then or resume_command(directory)),
            "directory",
        ) from error


def batches(directory: Path) -> list[Path]:
    """Return the folders of the batches that have started, in order."""
    found, number = [], 1
    while (path := directory / BATCHES / str(number)) and (path / "config.json").exists():
        found.append(path)
        number += 1
    return found


def tables(directory: Path) -> list[Path]:
    """Return the metrics.csv of the run, or of each batch, without empty files."""
    found = [place / "metrics.csv" for place in batches(directory) or [directory]]
    return [path for path in found if not path.exists() or path.stat().st_size]


def write_config(directory: Path, content: Description, resumed: bool = False) -> None:
    """Write config.json. For a resumed run, update the existing one (`describe_resumed`).

    Raises RunError if it cannot be written.
    """
    if resumed:
        content = describe_resumed(read_description(directory), content)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with explain_write_errors(directory, None if resumed else "start again"):
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / "config.json", text)


class SavedConfig(NamedTuple):
    """What config.json holds: the settings, the members, and the whole content."""

    config: Config
    grid: Grid
    content: Description


def check_is_run(directory: Path) -> None:
    """Raise InputError if this is not the folder of a run, or is the folder of one batch."""
    if not (directory / "config.json").is_file():
        raise InputError(
            f"{directory} is not a run's folder (no config.json): give the folder that --out named",
            "directory",
        )
    whole = whole_run(directory.absolute())
    if whole != directory.absolute():
        raise InputError(f"{directory} is a batch of {whole}: give that folder", "directory")


def read_description(directory: str | os.PathLike) -> Description:
    """Read config.json. Raises InputError if it is damaged or has another format."""
    path = Path(directory) / "config.json"
    with _explain_damage(path):
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise InputError(
                f"{path} has format {content['format']}, this sacjax reads {FORMAT}: use the "
                f"version that wrote it, git tag v{content['versions']['sacjax']}",
                "config.json",
            )
        content |= {name: dict(content[name]) for name in ("config", "versions", "device")}
        return content | {"jax": dict(content.get("jax", {}))}  # older runs lack this key


def read_config(directory: str | os.PathLike, env: Any = None) -> SavedConfig:
    """Read the settings of a run. `env`: the environment, if the run's was an object."""
    content = read_description(directory)
    with _explain_damage(Path(directory) / "config.json"):
        fields = content["config"] | ({} if env is None else {"env": env})
        if fields["env"] is None:
            raise InputError(
                f"{directory} was trained on an environment object: in Python, give it to "
                "sacjax.load or sacjax.resume(directory, env=...)",
                "env",
            )
        points = [{k: float(v) for k, v in hp.items()} for hp in content["hyperparams"]]
        settings, seeds = [Hyperparams(**hp) for hp in points], [int(x) for x in content["seeds"]]
        for name, found in (("seeds", seeds), ("hyperparams", settings)):
            if not found or len(set(found)) < len(found):
                raise ValueError(f"{name} is empty, or has duplicates")
        if unknown := set(content["swept"]) - vars(Hyperparams()).keys():
            raise ValueError(f"no hyperparameters {unknown}")
        config, trained_on = Config(**fields), content.get("env_object")
        if not isinstance(config.env, str) and trained_on not in (None, config.env_name):
            raise InputError(
                f"{directory} was trained on {trained_on}, not {config.env_name}: give env", "env"
            )
        first, end = content.get("part", (0, len(settings) * len(seeds)))
        return SavedConfig(config, Grid(settings, content["swept"], seeds, (first, end)), content)


@contextlib.contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # with JSON's and UTF-8's
        raise InputError(
            f"{path} is damaged ({one_line(error)}): restore it, or train again", "config.json"
        ) from error
