"""A population, epoch by epoch: compiled, watched for divergence.

It calls the very `epoch` that `make_train` scans, jitted and laid out over members and devices by
`sacjax.devices`, with the state donated.
"""

import contextlib
import ctypes
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import replay
from sacjax.bits import as_arrays
from sacjax.devices import fill_up, gather, over_members, place, placement
from sacjax.envs.host import errors_named
from sacjax.runs import divergence, memory
from sacjax.runs.divergence import Divergence
from sacjax.runs.population import Population
from sacjax.runs.processes import is_first, several
from sacjax.types import named

_LOG = logging.getLogger("sacjax")
History = list[dict[str, np.ndarray]]  # of each epoch, the metrics [M, ...]


class State(NamedTuple):
    """A population after an epoch. M' members: M, filled up to all devices alike."""

    loop: Any  # leaves [M', ...]; the next epoch is computed in its place
    history: History
    diverged: list[Divergence]
    host: dict[str, np.ndarray] | None = None  # of a restored one: its environments outside of JAX
    seconds: float = np.nan  # that the epoch took
    new: int = 0  # members that diverged in it

    @property
    def env_steps(self) -> int:
        """Environment steps of each member."""
        return int(self.history[-1]["env_steps"][0])

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Of each metric [M, epochs, ...]."""
        history = self.history
        return {name: np.stack([m[name] for m in history], axis=1) for name in history[0]}


class Compiled(NamedTuple):
    """The programs of a population."""

    init: Callable[..., Any] | None  # (keys [M'], hp, env_params) -> loop
    epoch: Any  # (loop, frozen [M'], hp, env_params) -> loop, (metrics, finite)

    @property
    def memory(self) -> int:
        """Bytes that the epoch takes of one device, as XLA says; 0 where it does not."""
        found = isinstance(self.epoch, jax.stages.Compiled) and self.epoch.memory_analysis()
        if not found:
            return 0
        new = found.output_size_in_bytes - found.alias_size_in_bytes
        return found.argument_size_in_bytes + found.temp_size_in_bytes + new


def epochs(
    population: Population, state: State | None, compiled: Compiled | None
) -> Iterator[State]:
    """Train from `state`, or from the beginning, to the end: the state after each epoch.

    Diverged members stay frozen. Where all have diverged, it ends.

    Args:
      population: the members.
      state: where to resume.
      compiled: what `prepare` gave; None where the run is finished.
    """
    if compiled is None:
        return
    (hp, keys, env_params), (init, epoch) = _inputs(population), compiled
    loop, history, diverged, host, *_ = state or State(None, [], [])
    history, diverged, cut = list(history), list(diverged), 0
    with errors_named(population.program.host, population.config.env):
        if loop is None:
            assert init is not None
            loop = _patiently(lambda: init(keys, hp, env_params))
        if host:
            loop = _put_back(population, loop, host)
    loop = jax.block_until_ready(loop)
    while not finished(population, State(loop, history, diverged)):
        begin = time.perf_counter()
        with errors_named(population.program.host, population.config.env):
            frozen = _mask(population, diverged)
            loop, outcome = _patiently(partial(epoch, loop, frozen, hp, env_params))
        metrics, finite = (
            {name: x[: population.size] for name, x in got.items()} for got in gather(outcome)
        )
        new = divergence.found(finite, len(history), diverged)
        diverged.extend(new)
        history.append(divergence.without(metrics, diverged))
        state = State(loop, history, diverged, None, time.perf_counter() - begin, len(new))
        _warn(population, new, state.env_steps)
        cut = cut or _warn_of_cuts(metrics["eval_length"], population.config.eval_max_steps)
        yield state


def finished(population: Population, state: State | None) -> bool:
    """Whether no epoch is left, or no member."""
    if state is None:
        return False
    ended = len(state.history) == population.config.num_epochs
    return ended or len(state.diverged) == population.size


def told(population: Population, state: State, next_checkpoint: float) -> dict[str, np.ndarray]:
    """What an `OnEpoch` is told of an epoch."""
    members = population.grid.members
    of_each = {name: np.array([member[name] for member in members]) for name in members[0]}
    of_each["member"] = np.arange(*population.grid.part)
    of_each["diverged"] = _frozen(population, state.diverged)
    of_all = {
        "members": population.grid.total,
        "total_steps": population.config.total_steps,
        "eval_every": population.config.eval_every,
        "updates_per_epoch": population.config.updates_per_epoch,
        "seconds": state.seconds,
        "next_checkpoint": next_checkpoint,
    }
    of_all = {name: np.full(population.size, value) for name, value in of_all.items()}
    return of_each | state.history[-1] | of_all


def prepare(
    population: Population, state: State | None, programs: dict[int, Compiled]
) -> Compiled | None:
    """Compile what `epochs` needs, if it is not finished. Raises InputError if memory is short.

    `programs`: those of other batches of the run, by their number of members. New ones are added.
    """
    if finished(population, state):
        return None
    size, fresh = population.size, state is None
    if size not in programs:  # other batches of this size may start afresh
        programs[size] = compile_programs(population, fresh or size < population.grid.total)
    memory.check(population, programs[size].memory, again=not fresh)
    return programs[size]


def compile_programs(population: Population, fresh: bool = True) -> Compiled:
    """Compile the epoch and, if `fresh`, `init` beside it."""
    hp, keys, env_params = _inputs(population)
    axes = 0, 0 if len(population.grid.settings) > 1 else None, None
    where, how = placement(population.devices), population.how
    init = over_members(population.program.init, axes, **how)
    init = jax.jit(init, out_shardings=where)
    epoch = divergence.guarded(population.program.epoch)
    epoch = over_members(epoch, (0, *axes), donated=True, **how)
    # What XLA would give back otherwise is, for arrays of no elements, on all devices.
    epoch = jax.jit(epoch, donate_argnums=0, out_shardings=where)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        jax.eval_shape(init, keys, hp, env_params),
    )
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return Compiled(init, epoch)
    # `init` is traced (it has been once, for the shapes: it will not fail) and compiled beside it.
    epoch_ready = _aside(epoch.lower(like, _mask(population, []), hp, env_params).compile)
    init_ready = _aside(init.lower(keys, hp, env_params).compile) if fresh else None
    compiled = Compiled(init_ready() if init_ready else None, epoch_ready())
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)  # XLA has freed half a GiB, which glibc would keep
    return compiled


def _inputs(population: Population) -> tuple[Any, Any, Any]:
    """Hyperparameters, keys [M'] and the environment's parameters, where the programs want them."""
    devices = population.devices
    hp, keys = population.inputs()
    hp, env_params = as_arrays(hp, population.program.default_params)
    if len(population.grid.settings) > 1:
        hp = place(fill_up(hp, devices), devices)
    if several():  # what all have alike is handed over as NumPy arrays
        hp, env_params = (
            jax.tree.map(lambda x: np.asarray(x) if x.is_fully_addressable else x, tree)
            for tree in (hp, env_params)
        )
    return hp, place(fill_up(keys, devices), devices), env_params


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
    """Begin `work` in another thread; what is returned waits for its result.

    Python handles signals, a second Ctrl-C say, between two of the main thread's own steps only,
    and what XLA compiles or computes is one step. The thread is a daemon, so that it can be left.
    """
    done: Future[Any] = Future()

    def try_to() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=try_to, daemon=True).start()
    return done.result


def _mask(population: Population, diverged: list[Divergence]) -> Any:
    """Which members are frozen, with those that fill up the devices [M']."""
    frozen = fill_up(_frozen(population, diverged), population.devices)
    return place(np.asarray(frozen), population.devices)


def _frozen(population: Population, diverged: list[Divergence]) -> np.ndarray:
    """Which members are [M]."""
    mask = np.zeros(population.size, bool)
    mask[[d.member for d in diverged]] = True
    return mask


def _warn_of_cuts(lengths: np.ndarray, limit: int) -> int:
    """Return how many evaluation episodes reached the limit, with a warning if any did."""
    cut = int((lengths >= limit).sum())
    if cut and is_first():
        _LOG.warning(
            "%d of %d evaluation episodes were cut after eval_max_steps (%d) steps. Give the "
            "environment a time limit, or set eval_max_steps. This is reported once",
            *(cut, lengths.size, limit),
        )
    return cut


def _warn(population: Population, diverged: list[Divergence], env_steps: int) -> None:
    for d in diverged if is_first() else ():
        who = named(population.grid.members[d.member])
        _LOG.warning(
            "member %d (%s) diverged before step %s (%s): frozen where all was finite",
            *(population.grid.part[0] + d.member, who, f"{env_steps:,}", d.quantities),
        )
