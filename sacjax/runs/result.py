"""A run as a value: its agents and metrics, saved, read back, and merged from batches."""

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
from sacjax.train import Program
from sacjax.types import Array, InputError, Key, RunError, is_key, one_line

_METRICS = "metrics "  # prefix of the names of metrics in agents/


class Run(NamedTuple):
    """A run that finished, was stopped, or was read from its folder.

    Attributes:
      config: the run's Config.
      members: M dictionaries of the swept hyperparameters and `seed`.
      metrics: the metrics of all evaluations by name, each [M, epochs, ...]; `make_program` lists
        them. They are padded after the last epoch of a member.
      agents: the algorithm's states, leaves [M, ...]. They are NumPy arrays if several devices or
        batches trained them, or if they were read from a folder.
      program: the functions of one member, as `make_program` returns them.
      algorithm: the function that made the learner, such as `make_sac`.
      keys: PRNG keys [M] of the loop; `epoch_keys(keys[i], epoch)` returns the keys of an epoch.
      epochs: the number of epochs [M] that each member has done.
      completed: False if the run was stopped before its end.
      diverged: the members that were frozen, in the order in which they diverged.
    """

    config: Config
    members: list[dict[str, float]]
    metrics: dict[str, np.ndarray]
    agents: Any
    program: Program
    algorithm: Callable
    keys: Key
    epochs: np.ndarray
    completed: bool
    diverged: list[Divergence]

    @property
    def env_steps(self) -> np.ndarray:
        """Environment steps [M] that each member has done, warm-up included."""
        return self.env_steps_after(self.epochs)

    def env_steps_after(self, epochs: Any) -> Any:
        """Return the environment steps of one member after that many epochs.

        Args:
          epochs: a number of epochs, or an array of numbers.

        Returns:
          Environment steps, warm-up included, of the same shape.
        """
        return self.config.warmup_steps + epochs * self.config.eval_every

    def agent(self, member: int) -> Any:
        """Return the agent of one member.

        Args:
          member: its index, from 0 to M - 1.

        Returns:
          The algorithm's state, for example a `TrainState`, with JAX arrays as leaves.

        Raises:
          InputError: there is no such member.
        """
        last = len(self.members) - 1
        if not 0 <= member <= last:
            raise InputError(f"member ({member}) must be from 0 to {last}", "member")
        return jax.tree.map(lambda x: jnp.asarray(x[member]), self.agents)

    def policy(self, member: int = 0, units: Units = "environment") -> Callable[[Any], Array]:
        """Return the greedy policy of one member, as `sacjax.policy` does.

        Args:
          member: its index, from 0 to M - 1.
          units: "environment" for actions within the environment's bounds, "unit" for [-1, 1].

        Returns:
          A compiled function of observations [..., O] to actions [..., A].

        Raises:
          InputError: there is no such member, or `units` is unknown.
        """
        return Policy(self.config, self.agent(member), self.algorithm, units, self.program)


def make_run(population: Population, state: State) -> Run:
    """Return the run so far. If several devices trained the agents, they become NumPy arrays."""
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


def save(run: Run, directory: Path) -> None:
    """Write the folder agents/: complete, or absent. Raises RunError."""
    folder = directory / "agents"
    note = {"diverged": [d._asdict() for d in run.diverged]}
    arrays = stored.flatten((run.agents, run.keys))
    arrays |= {f"{_METRICS}{name}": x for name, x in run.metrics.items()}
    try:
        stored.make_room(folder)
        stored.complete(folder, stored.write_part(folder, arrays), note)
    except OSError as error:
        raise RunError(
            f"the agents could not be written to {folder} ({one_line(error)}): {remedy(error)}, "
            f"then {resume_command(directory)}",
            "agents",
        ) from error


def read(population: Population, directory: Path) -> Run:
    """Read the folder agents/. Raises InputError if it is missing, damaged, or does not fit."""
    folder = directory / "agents"
    if not folder.is_dir():
        raise InputError(
            f"{directory} has no trained agents (no folder agents/): its run has not finished; "
            f"{resume_command(directory)} resumes it",
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
            f"({one_line(error)}): give those of the run, restore the folder, or "
            f"{resume_command(directory)}, which rewrites it from the last checkpoint",
            "agents",
        ) from error


def merge(runs: list[Run], planned: int) -> Run:
    """Merge batches into one run of `planned` members.

    If a member has fewer epochs than others, its metrics are padded: floats with NaN, and integers
    with the last value.
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
    """Move the agents to host memory, so that the devices have room for the next batch."""
    agents = jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), run.agents)
    return run._replace(agents=agents)
