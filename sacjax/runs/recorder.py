"""What a run writes as it goes, and how it is read back to go on."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np

from sacjax.config import Config
from sacjax.replay import grow
from sacjax.runs import checkpoints, curve, files, processes
from sacjax.runs.directory import save_agents, write_diverged, written
from sacjax.runs.divergence import Divergence
from sacjax.runs.epochs import State
from sacjax.runs.leaves import Arrays, flatten, unflatten, unkeyed, with_keys
from sacjax.runs.metrics_csv import MetricsFile, row
from sacjax.runs.population import Population
from sacjax.runs.result import Run, run_of
from sacjax.train import make_program
from sacjax.types import InputError, OnNan, is_whole

PAUSE = 300  # seconds between checkpoints where nobody said otherwise
_LOG = logging.getLogger("sacjax")
_HISTORY = "history "  # the names of metrics in a checkpoint begin with it
_HOST = "host "


class Options(NamedTuple):
    """What a run does as it goes; a resumed one does likewise."""

    every: int | None = None  # epochs between checkpoints; None: PAUSE apart, 0: none
    keep: int = 2  # checkpoints
    on_nan: OnNan = "freeze"

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Options":
        """From config.json. InputError where that is damaged."""
        try:
            return cls(**content.get("options", {}))
        except TypeError as error:
            raise InputError(f"config.json is damaged ({error}): restore it") from error

    def noted(self) -> dict[str, Any]:
        """For config.json."""
        return {"options": self._asdict()}

    def checked(self) -> "Options":
        """InputError where they cannot be followed."""
        every, keep, on_nan = self
        if on_nan not in get_args(OnNan):
            raise InputError(f"on_nan ({on_nan!r}) must be one of {', '.join(get_args(OnNan))}")
        if every is not None and (not is_whole(every) or every < 0):
            raise InputError(
                f"checkpoint_every ({every}) must be None or a whole number of epochs: use 10, or "
                "0 for no checkpoints"
            )
        if not is_whole(keep) or keep < 1:
            raise InputError(f"keep ({keep}) must be a whole number from 1: use 2")
        return Options(every if every is None else int(every), int(keep), on_nan)


class Recorder:
    """What a run writes as it goes, into a folder that is locked by the caller; or nothing.

    All processes of a run call it alike; the first one writes, but for the checkpoints' arrays.
    """

    def __init__(
        self, path: Path | None, population: Population, options: Options, start: State | None
    ):
        self._path, self._population, self._options = path, population, options
        before = start.history if start else []
        self._saved, self._time = len(before), time.monotonic()
        self._rows: MetricsFile | None = None
        if path is not None:
            rows = [each for metrics in before for each in _rows(population, metrics)]
            self._checkpoints = checkpoints.Writer(path, options.keep, begun=len(before))
            self._rows = self._first(lambda: MetricsFile(path / "metrics.csv", rows))

    def metrics(self, state: State) -> None:
        """Append a row for each member."""
        if self._path is not None:
            rows = _rows(self._population, state.history[-1])
            self._first(lambda: self._rows and self._rows.append(rows))

    def checkpoint_if_due(self, state: State) -> None:
        """Begin a checkpoint, if it is time for one and any member was trained."""
        every = self._options.every
        if self._path is None or not state.trained:
            due = False
        elif every is None:
            due = time.monotonic() - self._time > PAUSE
        else:
            due = every > 0 and len(state.history) % every == 0
        if processes.of_first(due):
            self._save(state)

    def next_checkpoint(self, state: State) -> float:
        """Seconds until the next one, as this epoch's time says; NaN if none comes."""
        every, done, seconds = self._options.every, len(state.history), state.seconds
        if self._path is None or every == 0 or math.isnan(seconds):
            return math.nan
        if every is None:
            wait = PAUSE - (time.monotonic() - self._time)
            ahead = max(math.ceil(wait / seconds), 1)  # it is made at the end of an epoch
        else:
            ahead = every - done % every
        return min(ahead, self._population.config.num_epochs - done) * seconds

    def finish(self, state: State) -> Run:
        """The last checkpoint, the agents with their metrics, and the curve; the run."""
        done, path = run_of(self._population, state), self._path
        if path is None:
            return done
        if self._options.every != 0 and len(state.history) > self._saved:
            self._save(state)
        self._checkpoints.finish()
        who = self._population.members, self._population.config
        self._first(lambda: write_diverged(path, state.diverged, *who))
        numbers = np.asarray(jax.random.key_data(done.keys))
        tree = {"agents": unkeyed(done.agents), "keys": numbers, "metrics": done.metrics}
        save_agents(path, tree)
        self._first(lambda: write_curve(path, self._population, [path / "metrics.csv"]))
        return done

    def close(self) -> None:
        """Let go of the files, whatever happened."""
        if self._path is not None:
            self._checkpoints.close()
        if self._rows is not None:
            self._rows.close()

    def _save(self, state: State) -> None:
        arrays = flatten(state.loop)
        arrays |= {f"{_HISTORY}{name}": x for name, x in state.metrics.items()}
        if host := self._population.program.host:
            arrays |= {f"{_HOST}{name}": x for name, x in host.save().items()}
        note = self._population.description() | {"diverged": [d._asdict() for d in state.diverged]}
        self._checkpoints.save(len(state.history), note, arrays)
        self._saved, self._time = len(state.history), time.monotonic()

    def _first(self, do: Callable[[], Any]) -> Any:
        path = self._path
        assert path is not None

        def do_or_name_the_remedy() -> Any:
            with written(path):
                return do()

        return processes.first(do_or_name_the_remedy)


def write_curve(directory: Path, population: Population, tables: list[Path]) -> None:
    """learning_curve.png of a run's table, or of its batches'."""
    name, env = directory.resolve().name, population.config.env_name
    image = curve.learning_curve(tables, env if name == env else f"{name}: {env}")
    files.write_bytes(directory / "learning_curve.png", image)


def restored(population: Population, path: Path) -> State | None:
    """The state to resume from; None, with a warning, if there is no checkpoint yet.

    Raises InputError where all checkpoints are damaged, or the run ended without any.
    """
    found = _restore_state(population, path)
    if found is None and processes.of_first((path / "agents").is_dir()):
        raise InputError(
            f"{path} has trained agents and no checkpoint to go on from (checkpoint_every was "
            "0, or they were removed): train again in a new folder"
        )
    if found is None and processes.is_first():
        _LOG.warning("%s has no checkpoint yet: starting from the beginning", path)
    return found


def _restore_state(population: Population, directory: Path) -> State | None:
    """The last whole checkpoint as the state of this run, on the devices that the plan has.

    None where there is none. Raises InputError where all are damaged, or not of this run.
    """
    filled = -(-population.size // population.how["devices"]) * population.how["devices"]
    place = processes.sharding(population.how["devices"])
    was = population.config

    def like(note: dict[str, Any], shapes: Arrays) -> Arrays:
        nonlocal was
        was = same_run(population, note)

        def placed(name: str, x: Any) -> Any:
            if (
                name.startswith((_HISTORY, _HOST))
                or x.shape[0] != filled
                or was.capacity != population.config.capacity
            ):
                return x
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

        return {name: placed(name, x) for name, x in shapes.items()}

    found = checkpoints.restore(directory, like)
    if found is None:
        return None
    if found.epoch < population.config.num_epochs:
        _warn_of_changes(population, found.note)
    metrics, host = (
        {name.removeprefix(kind): x for name, x in found.arrays.items() if name.startswith(kind)}
        for kind in (_HISTORY, _HOST)
    )
    epochs = [
        {name: np.ascontiguousarray(x[:, i]) for name, x in metrics.items()}
        for i in range(found.epoch)
    ]
    loop = _loop(population, was, found, filled)
    diverged = [Divergence(**d) for d in found.note["diverged"]]
    return State(loop, epochs, diverged, host or None)


def _loop(population: Population, was: Config, found: checkpoints.Checkpoint, filled: int) -> Any:
    """The checkpoint's arrays as the loop's state, leaves [M', ...]."""
    program, members = population.program, population.size
    if was.capacity != population.config.capacity:
        program = make_program(was, population.algorithm)
    like = population._replace(program=program).shapes()
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((filled, *x.shape[1:]), x.dtype), like)

    def refit(x: Any) -> Any:
        """Without the copies that filled up other devices, with those that fill up these."""
        if isinstance(x, jax.Array) or len(x) == filled:
            return x
        x = x[:members]
        return np.concatenate([x, np.repeat(x[-1:], filled - members, 0)]) if len(x) else x

    arrays = {k: x for k, x in found.arrays.items() if not k.startswith(_HOST)}
    found.arrays.clear()  # replays may be most of the memory: none is held longer than needed
    try:
        loop = unflatten(like, {k: refit(arrays.pop(k)) for k in list(arrays)})
    except ValueError as error:
        raise InputError(
            f"the checkpoint of epoch {found.epoch} is of another program ({error}): resume with "
            f"sacjax {found.note['versions']['sacjax']}, and the algorithm that it was trained with"
        ) from error
    if was.capacity != population.config.capacity:
        loop = loop.replace(replay=grow(loop.replay, population.config.capacity))
    here = [x for x in jax.tree.leaves(loop) if not isinstance(x, jax.Array)]
    placed = iter(processes.spread(here, population.how["devices"]))
    loop = jax.tree.map(lambda x: x if isinstance(x, jax.Array) else next(placed), loop)
    return with_keys(like, loop)


def same_run(population: Population, note: dict[str, Any]) -> Config:
    """The config that was described in `note`, of a checkpoint or a batch. InputError if it is not
    this run's, but for the end."""
    now = population.description()
    env = note["config"]["env"] or population.config.env  # an object is not written down
    was = Config(**(note["config"] | {"env": env}))
    same = replace(was, total_steps=population.config.total_steps) == population.config
    same &= was.total_steps <= population.config.total_steps
    same &= all(note[name] == now[name] for name in ("hyperparams", "swept", "seeds"))
    same &= list(note.get("part", now["part"])) == list(now["part"])
    if not same:
        raise InputError(
            "config.json is not the one that the checkpoints were made with: restore it, or train "
            "again in a new folder"
        )
    x64 = note["jax"]["x64"]
    if x64 != now["jax"]["x64"]:
        raise InputError(f"it was trained with jax_enable_x64={x64}: set JAX_ENABLE_X64={int(x64)}")
    prng = note["jax"]["prng"]
    if prng != now["jax"]["prng"]:
        raise InputError(f"its keys are of {prng}: set JAX_DEFAULT_PRNG_IMPL={prng}")
    return was


def _warn_of_changes(population: Population, note: dict[str, Any]) -> None:
    """What is another than when the checkpoint was made."""
    then, now = (
        x["versions"]
        | {"processor": (x["device"]["platform"], x["device"]["kind"], x["device"]["cpu"])}
        | {"layout": x["layout"], "settings of JAX": x["jax"]}
        for x in (note, population.description())
    )
    changed = [
        f"{name} ({was}, now {now.get(name)})" if isinstance(was, str) else name
        for name, was in then.items()
        if was != now.get(name)
    ]
    if changed:
        _LOG.warning("not to the bit what it would have been, changed: %s", ", ".join(changed))


def _rows(population: Population, metrics: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row per member: its number in the population, its settings, then every metric."""
    return [
        {"member": population.part[0] + i} | member | row(metrics, i)
        for i, member in enumerate(population.members)
    ]
