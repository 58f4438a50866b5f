"""Read and write the folder of a run. Each file is either complete or absent.

- `config.json`: the settings, seeds, versions and device of the run.
- `metrics.csv`: a table with one row for each evaluation of a member.
- `checkpoints/`: the checkpoints from which the run can be resumed.
- `diverged.json`: the list of diverged members. The file exists only if a member diverged.
- `learning_curve.png`: a plot of the returns, the IQM and a confidence interval.
- `agents/`: the trained agents of all members, and their metrics.
- `agents/best/`: a copy of each member's agent from the member's best evaluation. The folder
  exists only if `keep_best` is True.
- `batches/`: one folder for each batch, if members train in batches. The folder of a batch
  contains the files above.

A run writes the plot, the agents and diverged.json when the run ends or is stopped.
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
from sacjax.envs.names import own_module
from sacjax.own import OWN
from sacjax.runs.files import PART, remedy, write_text
from sacjax.runs.population import Grid
from sacjax.runs.provenance import FORMAT, Description, describe_resumed
from sacjax.types import PLAIN, InputError, RunError, one_line

BATCHES = "batches"  # the subfolder for the folders of batches


def whole_run(directory: Path) -> Path:
    """Return the folder of the whole run. `directory` may be the folder of one batch."""
    whole = directory.parent.parent
    batched = directory.parent.name == BATCHES and (whole / "config.json").is_file()
    return whole if batched else directory


def resume_command(directory: Path) -> str:
    """Return the command that resumes the run.

    The command is Python code if the run has an environment object or a custom algorithm.
    """
    whole, flag = whole_run(directory), ""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        content = json.loads((whole / "config.json").read_text())
        env, algorithm = content["config"]["env"], content.get("algorithm", PLAIN)
        own = OWN.fullmatch(algorithm)
        flag = " --trust" if own or own_module(env) else ""
        objects = [", env=..."] if env is None else []
        objects += [", algorithm=..."] if algorithm != PLAIN and not own else []
        if objects:
            objects += [", trust=True"] if flag else []
            return f"`sacjax.resume({str(whole)!r}{''.join(objects)})`"
    return f"`sacjax resume {shlex.quote(str(whole))}{flag}`"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock the folder against writes by other processes.

    Raises InputError if another process has locked the folder. If a process ends or is killed, the
    operating system releases the locks of the process.
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
    """Create and lock a folder. Raises InputError if the folder exists and is not empty."""
    with _explain_create_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    with locked(directory):
        left = PART + "config.json"  # a killed run may leave this file
        if any(path.name != left for path in directory.iterdir()):
            raise InputError(
                f"{directory} is not empty and may contain a run: give a new folder with --out, "
                f"delete this folder, or resume the run with {resume_command(directory)}",
                "directory",
            )
        yield


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[Path]:
    """Create `directory`, or directory-2, directory-3 and so on if `directory` exists.

    If the folder is empty after the block, it is deleted. Raises InputError if no folder can be
    created.
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
        with contextlib.suppress(OSError):  # the folder is not empty
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
            f"cannot write to {path} ({error.strerror}): give a writable folder with --out",
            "directory",
        ) from error


@contextlib.contextmanager
def explain_write_errors(directory: Path, then: str | None = None) -> Iterator[None]:
    """Turn an OSError in the block into a RunError that says how to recover.

    `then` is the last step of the advice (default: the command that resumes the run).
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
    """Return the folders of all batches that have started, sorted."""
    found, number = [], 1
    while (path := directory / BATCHES / str(number)) and (path / "config.json").exists():
        found.append(path)
        number += 1
    return found


def tables(directory: Path) -> list[Path]:
    """Return the path of metrics.csv, or the paths of all batches. Empty files are omitted."""
    found = [place / "metrics.csv" for place in batches(directory) or [directory]]
    return [path for path in found if not path.exists() or path.stat().st_size]


def write_config(directory: Path, content: Description, resumed: bool = False) -> None:
    """Write config.json, or update the file if the run is resumed.

    Raises RunError if the file cannot be written.
    """
    if resumed:
        content = describe_resumed(read_description(directory), content)
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with explain_write_errors(directory, None if resumed else "start again"):
        directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / "config.json", text)


class SavedConfig(NamedTuple):
    """The content of config.json, with the settings and the members as objects."""

    config: Config
    grid: Grid
    content: Description


def check_is_run(directory: Path) -> None:
    """Raise InputError unless `directory` is the folder of a whole run."""
    if not (directory / "config.json").is_file():
        raise InputError(
            f"{directory} is not the folder of a run (no config.json): give the folder that "
            "`sacjax train` wrote",
            "directory",
        )
    whole = whole_run(directory.absolute())
    if whole != directory.absolute():
        raise InputError(f"{directory} is only a batch: give the run's folder {whole}", "directory")


def read_description(directory: str | os.PathLike) -> Description:
    """Read config.json. Raises InputError if the file is damaged or has an unknown format."""
    path = Path(directory) / "config.json"
    with _explain_damage(path):
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise InputError(
                f"{path} has format {content['format']}, but this version of sacjax reads format "
                f"{FORMAT}: use the git tag v{content['versions']['sacjax']}, which wrote the file",
                "config.json",
            )
        content |= {name: dict(content[name]) for name in ("config", "versions", "device")}
        return content | {"jax": dict(content.get("jax", {}))}  # older runs lack this key


def read_config(directory: str | os.PathLike, env: Any = None) -> SavedConfig:
    """Read the settings of a run. `env` is the environment, if the run used an object."""
    content = read_description(directory)
    with _explain_damage(Path(directory) / "config.json"):
        fields = content["config"] | ({} if env is None else {"env": env})
        if fields["env"] is None:
            raise InputError(
                f"{directory} was trained on an environment object: in Python, pass the object as "
                "`env` to sacjax.load or sacjax.resume",
                "env",
            )
        points = [{k: float(v) for k, v in hp.items()} for hp in content["hyperparams"]]
        settings, seeds = [Hyperparams(**hp) for hp in points], [int(x) for x in content["seeds"]]
        for name, found in (("seeds", seeds), ("hyperparams", settings)):
            if not found or len(set(found)) < len(found):
                raise ValueError(f"{name} is empty, or has duplicates")
        if unknown := set(content["swept"]) - vars(Hyperparams()).keys():
            raise ValueError(f"unknown hyperparameters {unknown}")
        config, trained_on = Config(**fields), content.get("env_object")
        if not isinstance(config.env, str) and trained_on not in (None, config.env_name):
            raise InputError(
                f"{directory} was trained on {trained_on}, not {config.env_name}: pass a "
                f"{trained_on} object as `env`",
                "env",
            )
        first, end = content.get("part", (0, len(settings) * len(seeds)))
        return SavedConfig(config, Grid(settings, content["swept"], seeds, (first, end)), content)


@contextlib.contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:  # also invalid UTF-8
        raise InputError(
            f"{path} is damaged ({one_line(error)}): restore the file, or train again",
            "config.json",
        ) from error
