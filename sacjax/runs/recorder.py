"""Write the files of a run during training, and restore the state of a run from a checkpoint."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np

from sacjax.devices import fill_up, gather, place
from sacjax.replay import grow
from sacjax.runs import arrays as stored
from sacjax.runs import checkpoints, curve, files, result
from sacjax.runs.directory import explain_write_errors
from sacjax.runs.divergence import Divergence
from sacjax.runs.epochs import State
from sacjax.runs.metrics_csv import MetricsFile, Row, to_rows
from sacjax.runs.population import Population
from sacjax.runs.processes import any_of, is_first, on_first
from sacjax.runs.provenance import Description
from sacjax.runs.result import Run, best_epochs, make_run
from sacjax.types import InputError, OnNan, is_whole
from sacjax.validation import check_choice

SERVICES = ("tensorboard", "wandb")  # loggers that `sacjax resume` continues
PAUSE = 300  # default seconds between checkpoints
_LOG = logging.getLogger("sacjax")
_HISTORY = "history "  # the prefix of metric names in a checkpoint
_HOST = "host "  # the prefix for environments outside of JAX
_BEST = "best "  # the prefix for the best agents


class Options(NamedTuple):
    """The options that a resumed run keeps.

    Attributes:
      every: the number of epochs between checkpoints. None means one checkpoint every `PAUSE`
        seconds, and 0 means no checkpoints.
      keep: the number of checkpoints to keep.
      on_nan: "freeze" to freeze a diverged member, or "stop" to stop the run.
      keep_best: whether the run writes agents/best.
      loggers: the names of the last session's loggers, such as "tensorboard" and "wandb".
    """

    every: int | None = None
    keep: int = 2
    on_nan: OnNan = "freeze"
    keep_best: bool = False
    loggers: tuple[str, ...] = ()

    def check(self) -> "Options":
        """Return the options as Python numbers. Raises InputError if an option is invalid."""
        every, keep, on_nan, *_ = self
        check_choice(on_nan, get_args(OnNan), "on_nan")
        if every is not None and (not is_whole(every) or every < 0):
            raise InputError(
                f"checkpoint_every ({every}) must be None or a whole number of epochs: use 10 or 0",
                "checkpoint_every",
            )
        if not is_whole(keep) or keep < 1:
            raise InputError(f"keep ({keep}) must be a whole number of at least 1: use 2", "keep")
        return self._replace(every=every if every is None else int(every), keep=int(keep))


class Recorder:
    """Write the files of a run into a folder that the caller has locked.

    If `path` is None, the recorder writes nothing.

    All processes call the methods with equal arguments. Each process writes its own shards of a
    checkpoint. The first process writes all other files.
    """

    def __init__(
        self, path: Path | None, population: Population, options: Options, start: State | None
    ):
        self._path, self._population, self._options = path, population, options
        before = start.history if start else []
        self._saved, self._time = len(before), time.monotonic()
        self._rows: MetricsFile | None = None
        self._best = start.best if start else {}
        if path is not None:
            first = [row for metrics in before for row in self._to_rows(metrics)]
            self._checkpoints = checkpoints.Writer(path, options.keep, resumed_from=len(before))
            self._rows = self._write(lambda: MetricsFile(path / "metrics.csv", first))

    def write_metrics(self, state: State) -> None:
        """Append a row to metrics.csv for each member."""
        if self._path is not None:
            new = self._to_rows(state.history[-1])
            self._write(lambda: self._rows and self._rows.append(new))

    def keep_best(self, state: State) -> None:
        """If a member has its best mean evaluation return so far, copy the member's agent."""
        if self._options.keep_best:
            best = best_epochs(np.stack([x["eval_return"] for x in state.history], axis=1))
            better = np.flatnonzero(best == len(state.history))
            now = stored.flatten(gather(state.loop.agent)) if better.size else {}
            for name, x in now.items():
                self._best.setdefault(name, np.array(x[: len(best)]))[better] = x[better]

    def checkpoint_if_due(self, state: State) -> None:
        """Start to write a checkpoint if the next checkpoint is due."""
        every = self._options.every
        if every is None:
            due = time.monotonic() - self._time > PAUSE
        else:
            due = every > 0 and len(state.history) % every == 0
        if self._path is not None and any_of(due):
            self._save(state)

    def next_checkpoint(self, state: State) -> float:
        """Estimate the seconds until the next checkpoint. Returns NaN if no checkpoint follows."""
        every, done, seconds = self._options.every, len(state.history), state.seconds
        if self._path is None or every == 0:
            return math.nan
        if every is None:
            wait = PAUSE - (time.monotonic() - self._time)
            ahead = max(math.ceil(wait / seconds), 1)  # checkpoints follow whole epochs
        else:
            ahead = every - done % every
        return min(ahead, self._population.config.num_epochs - done) * seconds

    def finish(self, state: State) -> Run:
        """Write the last checkpoint, the agents, the metrics and the curve, and return the run."""
        done, path = make_run(self._population, state), self._path
        if path is not None:
            if self._options.every != 0 and len(state.history) > self._saved:
                self._save(state)
            self._checkpoints.finish()
            self._write(lambda: result.save(done, path, self._best))
            self._write(lambda: write_summary(path, done))
        return done

    def close(self) -> None:
        """Close the files, even after an error."""
        if self._path is not None:
            self._checkpoints.close()
        if self._rows is not None:
            self._rows.close()

    def _save(self, state: State) -> None:
        arrays = stored.flatten(state.loop)
        arrays |= {f"{_HISTORY}{name}": x for name, x in state.metrics.items()}
        arrays |= {f"{_BEST}{name}": x for name, x in self._best.items()}
        if host := self._population.program.host:
            arrays |= {f"{_HOST}{name}": x for name, x in host.save().items()}
        note = self._population.description() | {"diverged": [d._asdict() for d in state.diverged]}
        self._checkpoints.save(len(state.history), note, arrays, self._population.size)
        self._saved, self._time = len(state.history), time.monotonic()

    def _to_rows(self, metrics: dict[str, np.ndarray]) -> list[Row]:
        grid = self._population.grid
        return to_rows(grid.members, grid.part[0], metrics)

    def _write(self, do: Callable[[], Any]) -> Any:
        """Call `do` in the first process. An OSError becomes a RunError with advice."""
        assert self._path is not None
        return on_first(explain_write_errors(self._path)(do))


def write_summary(directory: Path, run: Run) -> None:
    """Write learning_curve.png, and also diverged.json if any member diverged."""
    diverged = [
        d._asdict() | {"before_env_step": run.env_steps_after(d.epoch + 1)} | run.members[d.member]
        for d in run.diverged
    ]
    if diverged:
        files.write_text(directory / "diverged.json", json.dumps(diverged, indent=2) + "\n")
    else:
        (directory / "diverged.json").unlink(missing_ok=True)
    steps = run.metrics["env_steps"]
    steps = np.where(np.arange(steps.shape[1]) < run.epochs[:, None], steps, np.nan)
    env, title = run.config.env_name, directory.resolve().name
    title = title.encode(errors="replace").decode()  # without bytes that are not UTF-8
    shown = run.metrics | {"env_steps": steps}
    image = curve.learning_curve(run.members, shown, env if title == env else f"{title}: {env}")
    files.write_bytes(directory / "learning_curve.png", image)


def restore_state(population: Population, path: Path) -> State | None:
    """Return the state of the last checkpoint. If no checkpoint exists yet, warn and return None.

    Raises InputError if all checkpoints are damaged or belong to another run, or if the run has
    agents but no checkpoint.
    """
    found = checkpoints.restore(path)
    if found is None:
        if (path / "agents").is_dir():
            raise InputError(
                f"{path} has trained agents but no checkpoint to resume from (checkpoint_every was "
                "0, or the checkpoints were removed): train again in a new folder",
                "checkpoints",
            )
        if is_first():
            _LOG.warning("%s has no checkpoint yet: starting from the beginning", path)
        return None
    then = population.match(found.note)
    if found.epoch < population.config.num_epochs:
        _warn_of_changes(population, found.note)
    with checkpoints.explain_read_errors(path, found.epoch):
        loop = _restore_loop(population, then, found)
        metrics, host, best = (stored.select(found.arrays, x) for x in (_HISTORY, _HOST, _BEST))
    history = [
        {name: np.ascontiguousarray(x[:, i]) for name, x in metrics.items()}
        for i in range(found.epoch)
    ]
    diverged = [Divergence(**d) for d in found.note["diverged"]]
    return State(loop, history, diverged, host or None, best=best)


def _restore_loop(population: Population, then: Population, found: checkpoints.Checkpoint) -> Any:
    """Return the loop's state, with leaves [M', ...], on the population's devices.

    `then` is the checkpoint's population, which may have a smaller replay buffer.
    """
    devices, capacity = population.devices, population.config.capacity

    def place_rows(x: Any) -> Any:
        return place(fill_up(x, devices), devices)

    try:
        if then.config.capacity == capacity:  # saves memory: one array at a time
            return stored.unflatten(then.shapes(), found.arrays, place_rows)
        loop = stored.unflatten(then.shapes(), found.arrays)
        return jax.tree.map(place_rows, loop.replace(replay=grow(loop.replay, capacity)))
    except ValueError as error:
        raise InputError(
            f"the checkpoint of epoch {found.epoch} does not fit this version of sacjax or this "
            f"algorithm ({error}): resume with sacjax {found.note['versions']['sacjax']} and the "
            "run's algorithm",
            "algorithm",
        ) from error


def _warn_of_changes(population: Population, note: Description) -> None:
    """Warn if versions, the processor, the layout or JAX's settings have changed."""
    then, now = (
        x["versions"]
        | {"processor": (x["device"]["platform"], x["device"]["kind"], x["device"]["cpu"])}
        | {"layout": x["layout"], "settings of JAX": x["jax"]}
        for x in (note, population.description())
    )
    changes = [
        f"{name} changed" + (f" from {old} to {now[name]}" if isinstance(old, str) else "")
        for name, old in then.items()
        if name in now and json.dumps(old) != json.dumps(now[name])
    ]
    if changes:
        _LOG.warning("not bit-identical to an uninterrupted run: %s", ", ".join(changes))
