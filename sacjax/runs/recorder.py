"""What a run writes as it goes, and how it is read back to resume."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np

from sacjax.devices import fill_up, place
from sacjax.replay import grow
from sacjax.runs import arrays as stored
from sacjax.runs import checkpoints, curve, files, result
from sacjax.runs.directory import written
from sacjax.runs.divergence import Divergence
from sacjax.runs.epochs import State
from sacjax.runs.metrics_csv import MetricsFile, rows
from sacjax.runs.population import Population
from sacjax.runs.processes import any_of, is_first, on_first
from sacjax.runs.result import Run, run_of
from sacjax.types import InputError, OnNan, is_whole

PAUSE = 300  # seconds between checkpoints where nobody said otherwise
_LOG = logging.getLogger("sacjax")
_HISTORY = "history "  # the names of metrics in a checkpoint begin with it
_HOST = "host "  # and those of environments outside of JAX


class Options(NamedTuple):
    """What a run does as it goes; a resumed run does likewise."""

    every: int | None = None  # epochs between checkpoints; None: PAUSE apart, 0: none
    keep: int = 2  # checkpoints
    on_nan: OnNan = "freeze"

    def checked(self) -> "Options":
        """The same options as Python's own numbers. Raises InputError."""
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
    """Writes what a run leaves, into a folder that the caller has locked; or nothing.

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
            first = [row for metrics in before for row in self._rows_of(metrics)]
            self._checkpoints = checkpoints.Writer(path, options.keep, begun=len(before))
            self._rows = self._write(lambda: MetricsFile(path / "metrics.csv", first))

    def metrics(self, state: State) -> None:
        """Append a row for each member."""
        if self._path is not None:
            new = self._rows_of(state.history[-1])
            self._write(lambda: self._rows and self._rows.append(new))

    def checkpoint_if_due(self, state: State) -> None:
        """Begin a checkpoint, if it is time for one."""
        every = self._options.every
        if every is None:
            due = time.monotonic() - self._time > PAUSE
        else:
            due = every > 0 and len(state.history) % every == 0
        if self._path is not None and any_of(due):
            self._save(state)

    def next_checkpoint(self, state: State) -> float:
        """Seconds until the next one, as this epoch's time says; NaN if none comes."""
        every, done, seconds = self._options.every, len(state.history), state.seconds
        if self._path is None or every == 0:
            return math.nan
        if every is None:
            wait = PAUSE - (time.monotonic() - self._time)
            ahead = max(math.ceil(wait / seconds), 1)  # it is made at the end of an epoch
        else:
            ahead = every - done % every
        return min(ahead, self._population.config.num_epochs - done) * seconds

    def finish(self, state: State) -> Run:
        """Write the last checkpoint, the agents with their metrics, and the curve; the run."""
        done, path = run_of(self._population, state), self._path
        if path is not None:
            if self._options.every != 0 and len(state.history) > self._saved:
                self._save(state)
            self._checkpoints.finish()
            self._write(lambda: result.save(done, path))
            self._write(lambda: write_summary(path, done))
        return done

    def close(self) -> None:
        """Let go of the files, whatever happened."""
        if self._path is not None:
            self._checkpoints.close()
        if self._rows is not None:
            self._rows.close()

    def _save(self, state: State) -> None:
        arrays = stored.flatten(state.loop)
        arrays |= {f"{_HISTORY}{name}": x for name, x in state.metrics.items()}
        if host := self._population.program.host:
            arrays |= {f"{_HOST}{name}": x for name, x in host.save().items()}
        note = self._population.description() | {"diverged": [d._asdict() for d in state.diverged]}
        self._checkpoints.save(len(state.history), note, arrays, self._population.size)
        self._saved, self._time = len(state.history), time.monotonic()

    def _rows_of(self, metrics: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        grid = self._population.grid
        return rows(grid.members, grid.part[0], metrics)

    def _write(self, do: Callable[[], Any]) -> Any:
        path = self._path
        assert path is not None

        def do_or_name_the_remedy() -> Any:
            with written(path):
                return do()

        return on_first(do_or_name_the_remedy)


def write_summary(directory: Path, run: Run) -> None:
    """Write diverged.json, if any member diverged, and learning_curve.png."""
    told = [
        d._asdict() | {"before_env_step": run.env_steps_after(d.epoch + 1)} | run.members[d.member]
        for d in run.diverged
    ]
    if told:
        files.write_text(directory / "diverged.json", json.dumps(told, indent=2) + "\n")
    else:
        (directory / "diverged.json").unlink(missing_ok=True)
    steps = run.metrics["env_steps"]
    steps = np.where(np.arange(steps.shape[1]) < run.epochs[:, None], steps, np.nan)
    env, title = run.config.env_name, directory.resolve().name
    title = title.encode(errors="replace").decode()  # what UTF-8 can write
    shown = run.metrics | {"env_steps": steps}
    image = curve.learning_curve(run.members, shown, env if title == env else f"{title}: {env}")
    files.write_bytes(directory / "learning_curve.png", image)


def restore_state(population: Population, path: Path) -> State | None:
    """The state to resume from; None, with a warning, if there is no checkpoint yet.

    Raises InputError where all checkpoints are damaged, are another run's, or were never made.
    """
    found = checkpoints.restore(path)
    if found is None:
        if (path / "agents").is_dir():
            raise InputError(
                f"{path} has trained agents and no checkpoint to resume from (checkpoint_every was "
                "0, or they were removed): train again in a new folder"
            )
        if is_first():
            _LOG.warning("%s has no checkpoint yet: starting from the beginning", path)
        return None
    then = population.as_noted(found.note)
    if found.epoch < population.config.num_epochs:
        _warn_of_changes(population, found.note)
    with checkpoints.read_here(path, found.epoch):
        loop = _loop(population, then, found)
        metrics, host = (
            {n.removeprefix(kind): found.arrays[n] for n in found.arrays if n.startswith(kind)}
            for kind in (_HISTORY, _HOST)
        )
    history = [
        {name: np.ascontiguousarray(x[:, i]) for name, x in metrics.items()}
        for i in range(found.epoch)
    ]
    diverged = [Divergence(**d) for d in found.note["diverged"]]
    return State(loop, history, diverged, host or None)


def _loop(population: Population, then: Population, found: checkpoints.Checkpoint) -> Any:
    """The checkpoint's arrays as the loop's state on the population's devices, leaves [M', ...].

    `then`: the population as the checkpoint's note describes it.
    """
    devices, capacity = population.devices, population.config.capacity

    def onto_devices(x: Any) -> Any:
        return place(fill_up(x, devices), devices)

    try:
        if then.config.capacity == capacity:  # array by array: replays may be most of the memory
            return stored.unflatten(then.shapes(), found.arrays, onto_devices)
        loop = stored.unflatten(then.shapes(), found.arrays)
        return jax.tree.map(onto_devices, loop.replace(replay=grow(loop.replay, capacity)))
    except ValueError as error:
        raise InputError(
            f"the checkpoint of epoch {found.epoch} is of another program ({error}): resume with "
            f"sacjax {found.note['versions']['sacjax']}, and the algorithm that it was trained with"
        ) from error


def _warn_of_changes(population: Population, note: dict[str, Any]) -> None:
    """Warn of what has changed since the checkpoint was made."""
    then, now = (
        x["versions"]
        | {"processor": (x["device"]["platform"], x["device"]["kind"], x["device"]["cpu"])}
        | {"layout": x["layout"], "settings of JAX": x["jax"]}
        for x in (note, population.description())
    )
    changed = [
        f"{name} ({was}, now {now.get(name)})" if isinstance(was, str) else name
        for name, was in then.items()
        if name in now and json.dumps(was) != json.dumps(now[name])
    ]
    if changed:
        _LOG.warning("not to the bit what it would have been, changed: %s", ", ".join(changed))
