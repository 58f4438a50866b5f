"""A population, epoch by epoch: compiled, watched for divergence.

It calls the very `epoch` that `make_train` scans, jitted and laid out over members and devices by
`sacjax.devices`, with the state donated.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import replay
from sacjax.bits import as_arrays
from sacjax.devices import fill_up, over_members
from sacjax.envs.host import errors_named
from sacjax.runs import divergence, processes
from sacjax.runs.divergence import Divergence
from sacjax.runs.leaves import Arrays
from sacjax.runs.population import Population
from sacjax.types import named

_LOG = logging.getLogger("sacjax")
History = list[dict[str, np.ndarray]]  # of each epoch, the metrics [M, ...]


class State(NamedTuple):
    """A population after an epoch."""

    loop: Any  # leaves [M', ...]; the next epoch is computed in its place
    history: History
    diverged: list[Divergence]
    host: Arrays | None = None  # of a restored one: where the environments outside of JAX are
    seconds: float = np.nan  # that the epoch took; NaN if every member was frozen
    new: int = 0  # members that diverged in it

    @property
    def env_steps(self) -> int:
        """Environment steps of each member."""
        return int(self.history[-1]["env_steps"][0])

    @property
    def trained(self) -> bool:
        """Whether any member was trained in this epoch."""
        return not np.isnan(self.seconds)

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Of each metric [M, epochs, ...]."""
        history = self.history
        return {name: np.stack([m[name] for m in history], axis=1) for name in history[0]}


class Compiled(NamedTuple):
    """The programs of a batch. M' members: those of the plan, filled up to all devices alike."""

    init: Callable[..., Any] | None  # (keys [M'], hp, env_params) -> loop
    epoch: Any  # (loop, frozen [M'], hp, env_params) -> loop, (metrics, finite)

    @property
    def memory(self) -> int | None:
        """Bytes that the epoch takes of one device, as XLA says; None where it does not."""
        found = self.epoch.memory_analysis()
        if found is None:
            return None
        new = found.output_size_in_bytes - found.alias_size_in_bytes
        return found.argument_size_in_bytes + found.temp_size_in_bytes + new


def epochs(
    population: Population, state: State | None, programs: "dict[int, Compiled]"
) -> Iterator[State]:
    """Train from `state`, or from the beginning, to the end: the state after each epoch.

    Diverged members stay frozen. If all members of a batch diverged, its remaining epochs have
    metrics without data, as if the batch were trained beside the others. `programs`: those of other
    batches of the run, by their number of members; new ones are added.
    """
    if finished(population, state):
        return
    config, members = population.config, population.size
    loop, history, diverged, host, *_ = state or State(None, [], [])
    step = None
    if len(diverged) < members:
        loop, step = _start(population, loop, programs)
        if host:
            with errors_named(population.program.host, config.env):
                loop = _put_back(population, loop, host)
    history, diverged, seconds, new = list(history), list(diverged), np.nan, []
    while not finished(population, State(loop, history, diverged)):
        if step and len(diverged) < members:
            begin = time.perf_counter()
            with errors_named(population.program.host, config.env):
                loop, outcome = _patiently(partial(step, loop, _mask(population, diverged)))
            metrics, finite = (
                {name: x[:members] for name, x in got.items()}
                for got in processes.everywhere(outcome)
            )
            seconds = time.perf_counter() - begin
            new = divergence.found(finite, len(history), diverged)
            diverged.extend(new)
            metrics = divergence.without(metrics, diverged)
        else:
            metrics, new, seconds = divergence.nothing(history[-1], config), [], np.nan
        history.append(metrics)
        state = State(loop, history, diverged, seconds=seconds, new=len(new))
        _warn(population, new, state.env_steps)
        yield state


def finished(population: Population, state: State | None) -> bool:
    """Whether no epoch is left. A whole population that diverged has none; a batch has."""
    if state is None:
        return False
    all_gone = len(state.diverged) == population.size
    ended = len(state.history) == population.config.num_epochs
    return ended or (all_gone and not population.is_part)


def told(population: Population, state: State, next_checkpoint: float) -> dict[str, np.ndarray]:
    """What an `OnEpoch` is told of an epoch."""
    members = population.members
    who = {name: np.array([member[name] for member in members]) for name in members[0]}
    who["member"] = np.arange(*population.part)
    who["members"] = np.full(len(members), population.total)
    return (
        who
        | state.history[-1]
        | {
            "diverged": _frozen(population, state.diverged),
            "seconds": np.full(len(members), state.seconds),
            "next_checkpoint": np.full(len(members), next_checkpoint),
        }
    )


def compile_programs(population: Population, fresh: bool = True) -> Compiled:
    """Of a plan's members; `init` only if `fresh`."""
    hp, keys, env_params = _inputs(population)
    epoch = divergence.guarded(population.program.epoch)
    epoch = over_members(epoch, (0, *_axes(population)), donated=True, **population.how)
    where = processes.sharding(population.how["devices"])
    # What XLA would give back otherwise is, for arrays of no elements, on all devices.
    epoch = jax.jit(epoch, donate_argnums=0, out_shardings=where)
    init = _jitted_init(population)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        jax.eval_shape(init, keys, hp, env_params),
    )
    # `init` is traced (it has been once, for the shapes: it will not fail) and compiled beside it.
    epoch_ready = _aside(epoch.lower(like, _mask(population, []), hp, env_params).compile)
    init_ready = _aside(init.lower(keys, hp, env_params).compile) if fresh else None
    return Compiled(init_ready() if init_ready else None, epoch_ready())


def _jitted_init(population: Population) -> Any:
    where = processes.sharding(population.how["devices"])
    return jax.jit(
        over_members(population.program.init, _axes(population), **population.how),
        out_shardings=where,
    )


def _axes(population: Population) -> tuple[int | None, ...]:
    """Of keys, hyperparameters and the environment's parameters: 0 where members differ."""
    return 0, 0 if len(population.settings) > 1 else None, None


def _start(population: Population, loop: Any, known: dict[int, Compiled]) -> tuple[Any, Callable]:
    """The first state, warm-up done, or `loop`; and the compiled epoch."""
    members = population.size
    hp, keys, env_params = _inputs(population)
    if members not in known:
        known[members] = compile_programs(population, fresh=loop is None)
    elif loop is None and known[members].init is None:  # the batch before was gone on with
        init = _aside(_jitted_init(population).lower(keys, hp, env_params).compile)()
        known[members] = known[members]._replace(init=init)
    init, epoch = known[members]
    if loop is None:
        assert init is not None
        with errors_named(population.program.host, population.config.env):
            loop = _patiently(lambda: init(keys, hp, env_params))
    return jax.block_until_ready(loop), lambda loop, frozen: epoch(loop, frozen, hp, env_params)


def _inputs(population: Population) -> tuple[Any, Any, Any]:
    """Hyperparameters, keys [M'] and the environment's parameters, where the programs want them."""
    devices = population.how["devices"]
    hp, keys = population.inputs()
    hp, env_params = as_arrays(hp, population.program.default_params)
    if len(population.settings) > 1:
        hp = processes.spread(fill_up(hp, devices), devices)
    if processes.several():  # what all have alike is handed over as NumPy arrays
        hp, env_params = (
            jax.tree.map(lambda x: np.asarray(x) if x.is_fully_addressable else x, tree)
            for tree in (hp, env_params)
        )
    return hp, processes.spread(fill_up(keys, devices), devices), env_params


def _put_back(population: Population, loop: Any, host: dict[str, np.ndarray]) -> Any:
    """The environments outside of JAX to where they were; the loop as it goes on from there."""
    envs = population.program.host
    if not envs.load(host):
        _LOG.warning(
            "not to the bit what it would have been: %s does not repeat itself, so new episodes "
            "begin",
            population.config.env,
        )
        loop = loop.replace(episodes=jax.tree.map(jnp.zeros_like, loop.episodes))
        if population.config.n_step > 1:
            loop = loop.replace(replay=replay.ended(loop.replay, population.config.num_envs))
    return loop.replace(obs=jax.device_put(envs.obs[None].astype(loop.obs.dtype), loop.obs.device))


def _patiently(program: Callable[[], Any]) -> Any:
    """What `program` computes, when it is there."""
    return _aside(lambda: jax.block_until_ready(program()))()


def _aside(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begins `work` in another thread; what is returned waits for it, and gives what it gave.

    Python handles signals, a second Ctrl-C say, between two of the main thread's own steps only,
    and what XLA compiles or computes is one step. The thread is a daemon, so that it can be left.
    """
    results: list[Any] = []

    def try_to() -> None:
        try:
            results.extend([work(), None])
        except BaseException as error:
            results.extend([None, error])

    thread = threading.Thread(target=try_to, daemon=True)
    thread.start()

    def finish() -> Any:
        thread.join()
        result, error = results
        if error is not None:
            raise error
        return result

    return finish


def _mask(population: Population, diverged: list[Divergence]) -> Any:
    """Which members are frozen, with those that fill up the devices [M']."""
    devices = population.how["devices"]
    return processes.spread(np.asarray(fill_up(_frozen(population, diverged), devices)), devices)


def _frozen(population: Population, diverged: list[Divergence]) -> np.ndarray:
    """Which members are [M]."""
    mask = np.zeros(population.size, bool)
    mask[[d.member for d in diverged]] = True
    return mask


def _warn(population: Population, diverged: list[Divergence], env_steps: int) -> None:
    for d in diverged if processes.is_first() else ():
        who = named(population.members[d.member])
        _LOG.warning(
            "member %d (%s) diverged before step %s (%s): frozen where all was finite",
            *(population.part[0] + d.member, who, f"{env_steps:,}", d.quantities),
        )
