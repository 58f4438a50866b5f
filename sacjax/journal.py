"""What a run writes as it goes, and how it is read back to go on."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from sacjax import checkpoints, folder, report
from sacjax.config import Config
from sacjax.divergence import Divergence
from sacjax.plan import Plan, shapes
from sacjax.replay import grow
from sacjax.train import make_program
from sacjax.types import InputError, Key, OnNan, RunError

PAUSE = 300  # seconds between checkpoints where nobody said otherwise
_LOG = logging.getLogger("sacjax")
_HISTORY = "history "  # the names of metrics in a checkpoint begin with it
History = list[dict[str, np.ndarray]]  # of each epoch, the metrics [M, ...]


class Progress(NamedTuple):
    """How far a run is."""

    loop: Any  # leaves [M, ...]
    history: History
    diverged: list[Divergence]


class Journal:
    """What a run writes as it goes, into a folder that is locked by the caller."""

    def __init__(
        self, path: Path, plan: Plan, every: int | None, keep: int, progress: Progress | None = None
    ):
        before = [] if progress is None else progress.history
        rows = [row for metrics in before for row in _rows(plan.members, metrics)]
        self._path, self._plan, self._every, self._keep = path, plan, every, keep
        self._saved, self._time = len(before), time.monotonic()
        with self._written():
            self._rows = folder.MetricsFile(path / "metrics.csv", rows)

    def after_epoch(self, loop: Any, history: History, diverged: list[Divergence]) -> None:
        """A row for each member, and a checkpoint if it is time for one."""
        with self._written():
            self._rows.append(_rows(self._plan.members, history[-1]))
        if self._every is None:
            due = time.monotonic() - self._time > PAUSE
        else:
            due = self._every > 0 and len(history) % self._every == 0
        if due:
            self._save(loop, history, diverged)

    def next_checkpoint(self, epochs: int, seconds: float) -> float:
        """Seconds until there is one, where `epochs` are done and each takes `seconds`."""
        if self._every == 0:
            return math.nan
        if self._every is None:
            wait = PAUSE - (time.monotonic() - self._time)
            ahead = max(math.ceil(wait / seconds), 1)  # it is made at the end of an epoch
        else:
            ahead = self._every - epochs % self._every
        return min(ahead, self._plan.config.num_epochs - epochs) * seconds

    def at_the_end(
        self, loop: Any, history: History, diverged: list[Divergence], agents: Any, keys: Key
    ) -> None:
        """The last checkpoint, the agents and the curve."""
        if self._every != 0 and len(history) > self._saved:
            self._save(loop, history, diverged)
        with self._written():
            folder.write_diverged(self._path, diverged)
            folder.save_agents(self._path, agent_tree(agents, keys, len(history)))
            report.learning_curve(self._path / "metrics.csv", self._path / "learning_curve.png")

    def close(self) -> None:
        """Whatever happened."""
        self._rows.close()

    def _save(self, loop: Any, history: History, diverged: list[Divergence]) -> None:
        arrays = checkpoints.flatten(loop)
        arrays |= {f"{_HISTORY}{name}": x for name, x in stacked(history).items()}
        note = self._plan.description() | {"diverged": [d._asdict() for d in diverged]}
        checkpoints.save(self._path, len(history), note, arrays, self._keep)
        self._saved, self._time = len(history), time.monotonic()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write to {self._path} ({error.strerror or error}): make room, then "
                f"`sacjax resume {self._path}`"
            ) from error


def progress(plan: Plan, found: checkpoints.Checkpoint) -> Progress:
    """A checkpoint as the state of this run. InputError if it is not one of this run's."""
    note, now = found.note, plan.description()
    env = note["config"]["env"] or plan.config.env  # an object is not written down
    was = Config(**(note["config"] | {"env": env}))
    same = replace(was, total_steps=plan.config.total_steps) == plan.config
    same &= was.total_steps <= plan.config.total_steps
    same &= all(note[name] == now[name] for name in ("hyperparams", "swept", "seeds"))
    if not same:
        raise InputError(
            "config.json is not the one that the checkpoints were made with: restore it, or train "
            "again in a new folder"
        )
    then, now = (
        x["versions"]
        | {"processor": (x["device"]["platform"], x["device"]["kind"], x["device"]["cpu"])}
        | {"layout": x["layout"], "settings of JAX": x["jax"]}
        for x in (note, now)
    )
    if changed := [name for name in then if then[name] != now.get(name)]:
        _LOG.warning("not to the bit what it would have been: %s changed", ", ".join(changed))
    members, program = len(plan.members), plan.program
    if was.capacity != plan.config.capacity:
        program = make_program(was, plan.algorithm)
    like = shapes(program, plan.settings, plan.seeds)
    metrics = {
        name.removeprefix(_HISTORY): x
        for name, x in found.arrays.items()
        if name.startswith(_HISTORY)
    }
    try:
        loop = checkpoints.unflatten(like, {k: x[:members] for k, x in found.arrays.items()})
    except ValueError as error:
        raise InputError(
            f"the checkpoint of epoch {found.epoch} is of another program ({error}): resume with "
            f"sacjax {note['versions']['sacjax']}, and the algorithm that it was trained with"
        ) from error
    if was.capacity != plan.config.capacity:
        loop = loop.replace(replay=grow(loop.replay, plan.config.capacity))
    loop = checkpoints.with_keys(like, loop)
    return Progress(
        loop,
        [
            {name: np.ascontiguousarray(x[:, i]) for name, x in metrics.items()}
            for i in range(found.epoch)
        ],
        [Divergence(**d) for d in note["diverged"]],
    )


def check_settings(every: int | None, keep: int, on_nan: str) -> None:
    """InputError where they cannot be followed."""
    if on_nan not in get_args(OnNan):
        raise InputError(f"on_nan ({on_nan!r}) must be one of {', '.join(get_args(OnNan))}")
    if every is not None and (not isinstance(every, int) or every < 0):
        raise InputError(
            f"checkpoint_every ({every}) must be None or a whole number of epochs: use 10, or 0 "
            "for no checkpoints"
        )
    if not isinstance(keep, int) or keep < 1:
        raise InputError(f"keep ({keep}) must be a whole number from 1: use 2")


def stacked(history: History) -> dict[str, np.ndarray]:
    """Of each metric [M, epochs, ...]."""
    return {name: np.stack([m[name] for m in history], axis=1) for name in history[0]}


def _rows(members: list[dict[str, float]], metrics: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row per member: who it is, then every metric; a mean and a standard deviation over
    episodes where there are several."""
    rows = []
    for i, member in enumerate(members):
        row: dict[str, Any] = dict(member)
        for name, value in metrics.items():
            row[name] = value[i].item() if value.ndim == 1 else value[i].mean().item()
            if value.ndim > 1:
                row[name + "_std"] = value[i].std().item()
        rows.append(row)
    return rows


def agent_tree(agents: Any, keys: Key, epochs: int) -> dict[str, Any]:
    """What agents/ holds."""
    return {"agents": agents, "keys": keys, "epochs": np.asarray(epochs)}
