"""Define `Run`, which is the result of training. Save, read and merge runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.config import Config
from sacjax.devices import gather
from sacjax.policies import Policy, Units
from sacjax.runs import arrays as stored
from sacjax.runs.directory import resume_command
from sacjax.runs.divergence import Divergence
from sacjax.runs.epochs import State
from sacjax.runs.files import remedy
from sacjax.runs.population import Population
from sacjax.train import MakeAlgorithm, Program
from sacjax.types import Array, InputError, Key, RunError, is_key, one_line

_METRICS = "metrics "  # the prefix of metric names in agents/


class Run(NamedTuple):
    """A run that has finished, was stopped, or was read from a folder.

    Attributes:
      config: the run's Config.
      members: a dictionary of the swept hyperparameters and `seed` for each of the M members.
      metrics: the metrics [M, epochs, ...] of all epochs by name. `make_program` lists the names.
        After the last epoch of a member, the metrics are padded.
      agents: the states of the algorithm, with leaves [M, ...]. The leaves are NumPy arrays if the
        run used several devices or batches, or was read from a folder.
      program: the training functions of one member, as returned by `make_program`.
      algorithm: the function that made the algorithm, such as `make_sac`.
      keys: the PRNG keys [M] of the members. `epoch_keys(keys[i], epoch)` returns an epoch's keys.
      epochs: the number of epochs [M] of each member.
      completed: False if the run was stopped before its end.
      diverged: the diverged members, which are frozen, in the order of their divergence.
    """

    config: Config
    members: list[dict[str, float]]
    metrics: dict[str, np.ndarray]
    agents: Any
    program: Program
    algorithm: MakeAlgorithm
    keys: Key
    epochs: np.ndarray
    completed: bool
    diverged: list[Divergence]

    @property
    def env_steps(self) -> np.ndarray:
        """The number of environment steps [M] of each member, including the warm-up."""
        return self.env_steps_after(self.epochs)

    def env_steps_after(self, epochs: Any) -> Any:
        """Return the number of environment steps that one member makes in `epochs` epochs.

        Args:
          epochs: a number of epochs, or an array of such numbers.

        Returns:
          The number of environment steps, including the warm-up, in the shape of `epochs`.
        """
        return self.config.warmup_steps + epochs * self.config.eval_every

    def agent(self, member: int) -> Any:
        """Return the agent of one member.

        Args:
          member: the index of the member, from 0 to M - 1.

        Returns:
          The algorithm's state, for example a `TrainState`, with JAX arrays as leaves.

        Raises:
          InputError: the member does not exist.
        """
        last = len(self.members) - 1
        if not 0 <= member <= last:
            raise InputError(f"member ({member}) must be from 0 to {last}", "member")
        return jax.tree.map(lambda x: jnp.asarray(x[member]), self.agents)

    def policy(self, member: int = 0, units: Units = "environment") -> Callable[[Any], Array]:
        """Return the greedy policy of one member, as `sacjax.policy` does.

        Args:
          member: the index of the member, from 0 to M - 1.
          units: "environment" for actions within the environment's bounds, or "unit" for actions
            in [-1, 1].

        Returns:
          A compiled function that maps observations [..., O] to actions [..., A].

        Raises:
          InputError: the member does not exist, or `units` is unknown.
        """
        return Policy(self.config, self.agent(member), self.algorithm, units, self.program)


def make_run(population: Population, state: State) -> Run:
    """Return the run so far. The agents are NumPy arrays if several devices trained them."""
    trained = state.loop.agent, state.loop.key
    if population.devices > 1:
        trained = jax.tree.map(lambda x: x[: population.size], gather(trained))
    return _make(population, trained, state.metrics, state.diverged)


def _make(population: Population, trained: Any, metrics: Any, diverged: list[Divergence]) -> Run:
    agents, keys = trained
    epochs = metrics["env_steps"].shape[1]
    return Run(
        config=population.config,
        members=population.grid.members,
        metrics=metrics,
        agents=agents,
        program=population.program,
        algorithm=population.algorithm,
        keys=keys,
        epochs=np.full(population.size, epochs),
        completed=epochs == population.config.num_epochs,
        diverged=diverged,
    )


def save(run: Run, directory: Path, best: stored.Arrays | None = None) -> None:
    """Write the folder agents/ atomically. Raises RunError if the write fails.

    `best` maps names to the leaves [M, ...] of the best agents. The function writes the leaves to
    agents/best.
    """
    folder = directory / "agents"
    note = {"diverged": [d._asdict() for d in run.diverged]}
    arrays = stored.flatten((run.agents, run.keys))
    arrays |= {f"{_METRICS}{name}": x for name, x in run.metrics.items()}
    try:
        stored.make_room(folder)
        if best:
            inner = stored.part_of(folder) / "best"
            stored.make_room(inner)
            arrays_best = arrays | {f"[0]{name}": x for name, x in best.items()}
            stored.complete(inner, stored.write_part(inner, arrays_best), note)
        stored.complete(folder, stored.write_part(folder, arrays), note)
    except OSError as error:
        raise RunError(
            f"the agents could not be written to {folder} ({one_line(error)}): {remedy(error)}, "
            f"then {resume_command(directory)}",
            "agents",
        ) from error


def read(population: Population, directory: Path, best: bool = False) -> Run:
    """Read agents/ or agents/best. Raises InputError if the folder is missing or damaged."""
    name = "agents/best" if best else "agents"
    folder, why = directory / name, "" if not best else ", or because keep_best was not set"
    if not folder.is_dir():
        raise InputError(
            f"{directory} has no trained agents (no folder {name}/), because the run has not "
            f"finished{why}: resume the run with {resume_command(directory)}",
            "agents",
        )
    try:
        found, shapes = stored.Stored(folder), population.shapes()
        trained = stored.unflatten((shapes.agent, shapes.key), found)
        diverged = [Divergence(**d) for d in found.note["diverged"]]
        return _make(population, trained, stored.select(found, _METRICS), diverged)
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{folder} is damaged, or does not fit this environment and algorithm "
            f"({one_line(error)}): pass the run's environment and algorithm, restore the folder, "
            f"or use {resume_command(directory)}, which writes the folder again",
            "agents",
        ) from error


def best_epochs(returns: np.ndarray) -> np.ndarray:
    """Return the epoch number [M], from 1, of each member's best evaluation."""
    return np.nan_to_num(returns.mean(-1), nan=-np.inf).argmax(1) + 1


def merge(runs: list[Run], planned: int) -> Run:
    """Merge batches into one run of `planned` members.

    The metrics of members with fewer epochs are padded: floats with NaN, and integers with their
    last value.
    """
    if len(runs[0].members) == planned:
        return runs[0]
    epochs = max(run.epochs.max() for run in runs)

    def pad(x: np.ndarray) -> np.ndarray:
        last = x[:, -1:]
        if np.issubdtype(x.dtype, np.floating):
            last = np.full_like(last, np.nan)
        return np.concatenate([x, np.repeat(last, epochs - x.shape[1], axis=1)], axis=1)

    def join(*x: Any) -> Any:
        return (jnp if is_key(x[0]) else np).concatenate(x)

    members = [member for run in runs for member in run.members]
    firsts = np.cumsum([0, *(len(run.members) for run in runs)]).tolist()
    diverged = [
        d._replace(member=d.member + first)
        for run, first in zip(runs, firsts, strict=False)
        for d in run.diverged
    ]
    ended = all(run.completed or len(run.diverged) == len(run.members) for run in runs)
    return runs[0]._replace(
        members=members,
        metrics={
            name: np.concatenate([pad(run.metrics[name]) for run in runs])
            for name in runs[0].metrics
        },
        agents=jax.tree.map(join, *(run.agents for run in runs)),
        keys=jnp.concatenate([run.keys for run in runs]),
        epochs=np.concatenate([run.epochs for run in runs]),
        completed=ended and len(members) == planned and len(diverged) < planned,
        diverged=diverged,
    )


def to_host(run: Run) -> Run:
    """Move the agents to host memory. The devices then have room for the next batch."""
    agents = jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), run.agents)
    return run._replace(agents=agents)
