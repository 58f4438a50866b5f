"""A run as a value: its agents and metrics, saved, read back, and merged from batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.config import Config
from sacjax.devices import gather
from sacjax.policies import Units, of_program
from sacjax.runs import arrays as stored
from sacjax.runs.directory import resume_command
from sacjax.runs.divergence import Divergence
from sacjax.runs.epochs import State
from sacjax.runs.files import remedy
from sacjax.runs.population import Population
from sacjax.train import Program
from sacjax.types import Array, InputError, Key, RunError, is_key, one_line

_METRICS = "metrics "  # the names of metrics begin with it, where they are stored


class Run(NamedTuple):
    """A run, finished or stopped, or read back from its folder."""

    config: Config
    members: list[dict[str, float]]  # M dictionaries: the swept hyperparameters, and `seed`
    metrics: dict[str, np.ndarray]  # each [M, epochs, ...]; see `make_program`
    agents: Any  # the algorithm's states, leaves [M, ...]: NumPy arrays, if several devices or
    # batches trained them, or if they were read back
    program: Program
    algorithm: Callable  # what it was made with
    keys: Key  # [M] the keys of the loop: `epoch_keys(keys[i], epoch)` are an epoch's
    epochs: np.ndarray  # [M] epochs done; of metrics, a member has as many
    completed: bool  # False if it was stopped before its end
    diverged: list[Divergence]  # the members that were frozen, in the order of time

    @property
    def env_steps(self) -> np.ndarray:
        """[M] environment steps done."""
        return self.env_steps_after(self.epochs)

    def env_steps_after(self, epochs: Any) -> Any:
        """Environment steps after so many epochs."""
        return self.config.warmup_steps + epochs * self.config.eval_every

    def agent(self, member: int) -> Any:
        """One member's agent, the algorithm's state. Raises InputError if there is no such one."""
        if not 0 <= member < len(self.members):
            raise InputError(f"member ({member}) must be from 0 to {len(self.members) - 1}")
        return jax.tree.map(lambda x: jnp.asarray(x[member]), self.agents)

    def policy(self, member: int = 0, units: Units = "environment") -> Callable[[Any], Array]:
        """One member's greedy policy: `sacjax.policy` of its agent."""
        return of_program(self.program, self.config.env_name, self.agent(member), units)


def run_of(population: Population, state: State) -> Run:
    """The run so far. Agents of several devices, which one might not hold, are NumPy arrays."""
    trained = state.loop.agent, state.loop.key
    if population.devices > 1:
        trained = jax.tree.map(lambda x: x[: population.size], gather(trained))
    return _run(population, trained, state.metrics, state.diverged)


def _run(population: Population, trained: Any, metrics: Any, diverged: list[Divergence]) -> Run:
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
    """Write agents/: complete, or absent. Raises RunError."""
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
            f"then {resume_command(directory)}"
        ) from error


def read(population: Population, directory: Path) -> Run:
    """What `save` wrote. Raises InputError where it is missing, damaged, or another algorithm's."""
    folder = directory / "agents"
    if not folder.is_dir():
        raise InputError(
            f"{directory} holds no trained agents (no folder agents/): its run did not end; "
            f"{resume_command(directory)} resumes it"
        )
    try:
        found, shapes = stored.Stored(folder), population.shapes()
        trained = stored.unflatten((shapes.agent, shapes.key), found)
        names = [name for name in found if name.startswith(_METRICS)]
        metrics = {name.removeprefix(_METRICS): found[name] for name in names}
        diverged = [Divergence(**d) for d in found.note["diverged"]]
        return _run(population, trained, metrics, diverged)
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{folder} is damaged, or not of this environment and algorithm ({one_line(error)}): "
            f"give those it was trained with, restore it, or {resume_command(directory)}, which "
            "makes it anew from its last checkpoint"
        ) from error


def merged(runs: list[Run], planned: int) -> Run:
    """Batches as one run of `planned` members.

    Where a member has fewer epochs, its metrics end with NaN, or with the last count.
    """
    epochs = max(run.epochs.max() for run in runs)

    def padded(x: np.ndarray) -> np.ndarray:
        last = x[:, -1:]
        if np.issubdtype(x.dtype, np.floating):
            last = np.full_like(last, np.nan)
        return np.concatenate([x, np.repeat(last, epochs - x.shape[1], axis=1)], axis=1)

    def joined(*x: Any) -> Any:
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
            name: np.concatenate([padded(run.metrics[name]) for run in runs])
            for name in runs[0].metrics
        },
        agents=jax.tree.map(joined, *(run.agents for run in runs)),
        keys=jnp.concatenate([run.keys for run in runs]),
        epochs=np.concatenate([run.epochs for run in runs]),
        completed=ended and len(members) == planned and len(diverged) < planned,
        diverged=diverged,
    )


def in_host_memory(run: Run) -> Run:
    """The same run, its agents away from the devices that train the next batch."""
    agents = jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), run.agents)
    return run._replace(agents=agents)
