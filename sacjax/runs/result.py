"""A run as a value: made of its progress, read back from its folder, merged of its batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.bits import as_arrays
from sacjax.config import Config
from sacjax.policies import Units, of_program
from sacjax.runs import checkpoints, directory, processes
from sacjax.runs.divergence import Divergence
from sacjax.runs.epochs import State
from sacjax.runs.leaves import concatenated, on_host, unkeyed, with_keys
from sacjax.runs.metrics_csv import epochs_of, read_metrics
from sacjax.runs.population import Population
from sacjax.train import Program
from sacjax.types import Array, InputError, Key


class Run(NamedTuple):
    """A run, finished or read back from its folder."""

    config: Config
    members: list[dict[str, float]]  # M dictionaries: the swept hyperparameters, and `seed`
    metrics: dict[str, np.ndarray]  # each [M, epochs, ...]; see `make_program`
    agents: Any  # the algorithm's states, leaves [M, ...]; NumPy's if several devices, or batches,
    # have trained them, or if they were read back
    program: Program
    algorithm: Callable  # what it was made with
    keys: Key  # [M] the keys of the loop: `epoch_keys(keys[i], epoch)` are an epoch's
    epochs: np.ndarray  # [M] epochs done; of metrics, a member has as many
    completed: bool  # False if it was stopped before its end
    diverged: list[Divergence]  # the members that were frozen, in the order of time

    @property
    def env_steps(self) -> np.ndarray:
        """[M] environment steps done."""
        return self.config.warmup_steps + self.epochs * self.config.eval_every

    def agent(self, member: int) -> Any:
        """One member's agent, the algorithm's state. InputError if there is no such member."""
        if not 0 <= member < len(self.members):
            raise InputError(f"member ({member}) must be from 0 to {len(self.members) - 1}")
        return jax.tree.map(lambda x: jnp.asarray(x[member]), self.agents)

    def policy(self, member: int = 0, units: Units = "environment") -> Callable[[Any], Array]:
        """One member's greedy policy: `sacjax.policy` of its agent."""
        return of_program(self.program, self.config.env_name, self.agent(member), units)


def run_of(population: Population, state: State) -> Run:
    """The run that has come so far."""
    members, epochs = population.size, len(state.history)
    return Run(
        config=population.config,
        members=population.members,
        metrics=state.metrics,
        agents=_gathered(population, state.loop.agent),
        program=population.program,
        algorithm=population.algorithm,
        keys=_gathered(population, state.loop.key),
        epochs=np.full(members, epochs),
        completed=epochs == population.config.num_epochs,
        diverged=state.diverged,
    )


def read(path: Path, written: directory.Written, program: Program, algorithm: Callable) -> Run:
    """The run in a folder, whose config.json says `written`."""
    parts = directory.in_batches(path, "agents")
    if not parts:
        return read_one(path, written, program, algorithm)
    run = merged([read_one(part.parent, written, program, algorithm) for part in parts])
    all_there = len(run.members) == len(written.settings) * len(written.seeds)
    return run._replace(completed=run.completed and all_there)


def read_one(path: Path, written: directory.Written, program: Program, algorithm: Callable) -> Run:
    """The run in one folder: the whole, or a batch of it."""
    members, table = read_metrics(path / "metrics.csv", swept=written.swept)
    hp, env_params = as_arrays(written.settings[0], program.default_params)
    loop = jax.eval_shape(program.init, jax.random.key(0), hp, env_params)
    agents, keys = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(members), *x.shape), x.dtype), (loop.agent, loop.key)
    )
    numbers = jax.eval_shape(unkeyed, {"agents": agents, "keys": keys})
    tree = directory.restore_agents(path, numbers)
    epochs = tree["metrics"]["env_steps"].shape[1]
    if epochs_of(table).min() < epochs:
        raise InputError(
            f"{path / 'metrics.csv'} has lost rows, its agents are of epoch {epochs}: "
            f"{checkpoints.resuming(path)} writes it anew"
        )
    return Run(
        config=written.config,
        members=members,
        metrics=tree["metrics"],
        agents=with_keys(agents, tree["agents"]),
        program=program,
        algorithm=algorithm,
        keys=with_keys(keys, tree["keys"]),
        epochs=np.full(len(members), epochs),
        completed=epochs == written.config.num_epochs,
        diverged=directory.read_diverged(path, len(members)),
    )


def merged(runs: list[Run]) -> Run:
    """Batches as one run; where one has fewer epochs, the rest is NaN, or the last count again."""
    epochs = max(run.epochs.max() for run in runs)

    def padded(x: np.ndarray) -> np.ndarray:
        last = x[:, -1:]
        if np.issubdtype(x.dtype, np.floating):
            last = np.full_like(last, np.nan)
        return np.concatenate([x, np.repeat(last, epochs - x.shape[1], axis=1)], axis=1)

    return runs[0]._replace(
        members=[member for run in runs for member in run.members],
        metrics={
            name: np.concatenate([padded(run.metrics[name]) for run in runs])
            for name in runs[0].metrics
        },
        agents=concatenated(*(run.agents for run in runs)),
        keys=jnp.concatenate([run.keys for run in runs]),
        epochs=np.concatenate([run.epochs for run in runs]),
        completed=all(run.completed for run in runs),
        diverged=all_diverged(runs),
    )


def all_diverged(runs: list[Run]) -> list[Divergence]:
    """Of batches, numbered as in the whole population."""
    firsts = np.cumsum([0, *(len(run.members) for run in runs)])
    return [
        d._replace(member=d.member + int(first))
        for run, first in zip(runs, firsts, strict=False)
        for d in run.diverged
    ]


def _gathered(population: Population, tree: Any) -> Any:
    """Where it is, if that is one device; of several, which hold more than one could, in the host's
    memory, without the copies that filled up the last one."""
    if population.how["devices"] == 1:
        return tree
    return jax.tree.map(lambda x: x[: population.size], processes.everywhere(tree))


def in_host_memory(run: Run) -> Run:
    """The same run, its agents away from the devices that train the next batch."""
    return run._replace(agents=on_host(run.agents))
