"""Train a population epoch by epoch.

Runs use the `epoch` function of `make_train`. This module compiles the function, and donates the
state to each call. `sacjax.devices` distributes the members over the devices.
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
from sacjax.types import EpochMetrics, named

_LOG = logging.getLogger("sacjax")
History = list[dict[str, np.ndarray]]  # the metrics [M, ...] of each epoch


class State(NamedTuple):
    """The state of a population after an epoch.

    M' is the number of members M, rounded up to a multiple of the number of devices.

    Attributes:
      loop: the training loop's state, with leaves [M', ...]. The next epoch overwrites this state.
      history: the metrics of all epochs so far.
      diverged: the members that have diverged so far.
      host: the saved environments that run outside of JAX, or None if no checkpoint
        was read.
      seconds: the duration of the epoch in seconds.
      new: the number of members that diverged in this epoch.
      best: the leaves [M, ...] of the best agents by name, or None. Only states from checkpoints
        have best agents.
    """

    loop: Any
    history: History
    diverged: list[Divergence]
    host: dict[str, np.ndarray] | None = None
    seconds: float = np.nan
    new: int = 0
    best: Any = None

    @property
    def env_steps(self) -> int:
        """The number of environment steps of each member."""
        return int(self.history[-1]["env_steps"][0])

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """All metrics by name, each [M, epochs, ...]."""
        history = self.history
        return {name: np.stack([m[name] for m in history], axis=1) for name in history[0]}


class Compiled(NamedTuple):
    """The compiled functions of a population.

    Attributes:
      init: the function (keys [M'], hp, env_params) -> loop, or None if every batch is resumed.
      epoch: the function (loop, frozen [M'], hp, env_params) -> loop, (metrics, finite).
    """

    init: Callable[..., Any] | None
    epoch: Any

    @property
    def memory(self) -> int:
        """The number of bytes that `epoch` needs on one device, or 0 if unknown."""
        found = isinstance(self.epoch, jax.stages.Compiled) and self.epoch.memory_analysis()
        if not found:
            return 0
        new = found.output_size_in_bytes - found.alias_size_in_bytes
        return found.argument_size_in_bytes + found.temp_size_in_bytes + new


def epochs(
    population: Population, state: State | None, compiled: Compiled | None
) -> Iterator[State]:
    """Train to the end and yield the state after each epoch.

    Diverged members stay frozen. Training also ends if all members have diverged.

    Args:
      population: the members.
      state: the state to resume from, or None to start from the beginning.
      compiled: the result of `prepare`. The result is None if the run is finished.
    """
    if compiled is None:
        return
    (hp, keys, env_params), (init, epoch) = _place_inputs(population), compiled
    loop, history, diverged, host, *_ = state or State(None, [], [])
    history, diverged, cut, odd = list(history), list(diverged), 0, False
    with errors_named(population.program.host, population.config.env):
        if loop is None:
            assert init is not None
            loop = _compute(lambda: init(keys, hp, env_params))
        if host:
            loop = _restore_host(population, loop, host)
    loop = jax.block_until_ready(loop)
    while not finished(population, State(loop, history, diverged)):
        begin = time.perf_counter()
        with errors_named(population.program.host, population.config.env):
            frozen = _place_frozen(population, diverged)
            loop, outcome = _compute(partial(epoch, loop, frozen, hp, env_params))
        metrics, finite = (
            {name: x[: population.size] for name, x in got.items()} for got in gather(outcome)
        )
        new = divergence.find(finite, len(history), diverged)
        if new:
            stored = int(metrics["env_steps"][0]), population.config.num_envs
            new = divergence.add_faults(new, loop.replay, population.program.example, *stored)
        diverged.extend(new)
        history.append(divergence.blank_frozen(metrics, diverged))
        state = State(loop, history, diverged, None, time.perf_counter() - begin, len(new))
        _warn_of_divergence(population, new, state.env_steps)
        cut = cut or _warn_of_cuts(metrics["eval_length"], population.config.eval_max_steps)
        odd = odd or _warn_of_returns(population, metrics, diverged)
        yield state


def finished(population: Population, state: State | None) -> bool:
    """Return whether all epochs are done or all members have diverged."""
    if state is None:
        return False
    ended = len(state.history) == population.config.num_epochs
    return ended or len(state.diverged) == population.size


def collect_metrics(population: Population, state: State, next_checkpoint: float) -> EpochMetrics:
    """Return the metrics [M, ...] of an epoch, in the form that `on_epoch` callbacks receive."""
    members = population.grid.members
    by_member = {name: np.array([member[name] for member in members]) for name in members[0]}
    by_member["member"] = np.arange(*population.grid.part)
    by_member["diverged"] = _mask_frozen(population, state.diverged)
    shared = {
        "members": population.grid.total,
        "total_steps": population.config.total_steps,
        "eval_every": population.config.eval_every,
        "updates_per_epoch": population.config.updates_per_epoch,
        "seconds": state.seconds,
        "next_checkpoint": next_checkpoint,
    }
    shared = {name: np.full(population.size, value) for name, value in shared.items()}
    return EpochMetrics(by_member | state.history[-1] | shared)


def prepare(
    population: Population, state: State | None, programs: dict[int, Compiled]
) -> Compiled | None:
    """Compile the functions that `epochs` needs. Returns None if the run is finished.

    Args:
      population: the members.
      state: the state to resume from, if any.
      programs: the compiled functions of earlier batches, by batch size. This function adds new
        functions to the dictionary.

    Raises:
      InputError: the memory is too small.
    """
    if finished(population, state):
        return None
    size, fresh = population.size, state is None
    if size not in programs:  # a later batch may need `init`
        programs[size] = compile_programs(population, fresh or size < population.grid.total)
    memory.check(population, programs[size].memory, resumed=not fresh)
    return programs[size]


def compile_programs(population: Population, fresh: bool = True) -> Compiled:
    """Compile the function `epoch` and, if `fresh` is True, the function `init`."""
    hp, keys, env_params = _place_inputs(population)
    axes = 0, 0 if len(population.grid.settings) > 1 else None, None
    where, layout = placement(population.devices), population.layout
    init = over_members(population.program.init, axes, **layout)
    init = jax.jit(init, out_shardings=where)
    epoch = divergence.guard(population.program.epoch)
    epoch = over_members(epoch, (0, *axes), donated=True, **layout)
    # Without out_shardings, XLA would put empty arrays on all devices.
    epoch = jax.jit(epoch, donate_argnums=0, out_shardings=where)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        jax.eval_shape(init, keys, hp, env_params),
    )
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return Compiled(init, epoch)
    # The two functions compile in parallel. eval_shape has already traced `init` without an error.
    lowered = epoch.lower(like, _place_frozen(population, []), hp, env_params)
    epoch_ready = _start_thread(lowered.compile)
    init_ready = _start_thread(init.lower(keys, hp, env_params).compile) if fresh else None
    compiled = Compiled(init_ready() if init_ready else None, epoch_ready())
    with contextlib.suppress(OSError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)  # returns half a GiB to the system
    return compiled


def _place_inputs(population: Population) -> tuple[Any, Any, Any]:
    """Return hyperparameters, keys [M'] and environment parameters as arrays on the devices."""
    devices = population.devices
    hp, keys = population.inputs()
    hp, env_params = as_arrays(hp, population.program.default_params)
    if len(population.grid.settings) > 1:
        hp = place(fill_up(hp, devices), devices)
    if several():  # JAX needs NumPy arrays if several processes pass equal values
        hp, env_params = jax.tree.map(
            lambda x: np.asarray(x) if x.is_fully_addressable else x, (hp, env_params)
        )
    return hp, place(fill_up(keys, devices), devices), env_params


def _restore_host(population: Population, loop: Any, host: dict[str, np.ndarray]) -> Any:
    """Restore the environments that run outside of JAX.

    Returns the loop's state, which contains the observations of the environments. If the
    environments cannot be restored, sacjax warns and starts new episodes.
    """
    envs = population.program.host
    if not envs.load(host):
        _LOG.warning(
            "not bit-identical to an uninterrupted run: %s is not deterministic, so new episodes "
            "begin",
            population.config.env,
        )
        loop = loop.replace(episodes=jax.tree.map(jnp.zeros_like, loop.episodes))
        if population.config.n_step > 1:
            loop = loop.replace(replay=replay.ended(loop.replay, population.config.num_envs))
    return loop.replace(obs=jax.device_put(envs.obs[None].astype(loop.obs.dtype), loop.obs.device))


def _compute(program: Callable[[], Any]) -> Any:
    """Run `program` in a thread and wait for its result."""
    return _start_thread(lambda: jax.block_until_ready(program()))()


def _start_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start `work` in a thread and return a function that waits for its result.

    Python handles signals only between two instructions of the main thread. If XLA ran in the main
    thread, a second Ctrl-C would have to wait for XLA. The new thread is a daemon thread, so it
    does not keep the process alive.
    """
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result


def _place_frozen(population: Population, diverged: list[Divergence]) -> Any:
    """Return the mask [M'] of the frozen members as an array on the devices."""
    frozen = fill_up(_mask_frozen(population, diverged), population.devices)
    return place(np.asarray(frozen), population.devices)


def _mask_frozen(population: Population, diverged: list[Divergence]) -> np.ndarray:
    """Return a mask [M] of the frozen members."""
    mask = np.zeros(population.size, bool)
    mask[[d.member for d in diverged]] = True
    return mask


def _warn_of_cuts(lengths: np.ndarray, limit: int) -> int:
    """Warn if evaluation episodes reached the step limit. Return the number of these episodes."""
    cut = int((lengths >= limit).sum())
    if cut and is_first():
        _LOG.warning(
            f"{cut} of {lengths.size} evaluation episodes were cut after eval_max_steps ({limit}) "
            "steps: give the environment a time limit, or set eval_max_steps. This warning comes "
            "once"
        )
    return cut


def _warn_of_returns(
    population: Population, metrics: dict[str, np.ndarray], diverged: list[Divergence]
) -> bool:
    """Warn if a member that did not diverge has returns that are not finite. Returns a bool."""
    ended = np.where(metrics["train_episodes"] > 0, metrics["train_return"], 0)
    finite = np.isfinite(metrics["eval_return"]).all(1) & np.isfinite(ended)
    odd = ~finite & ~_mask_frozen(population, diverged)
    if odd.any() and is_first():
        _LOG.warning(
            f"{odd.sum()} of {odd.size} members have not diverged, but some of their returns are "
            f"not finite: fix the rewards of {population.config.env_name}. This warning comes once"
        )
    return bool(odd.any())


def _warn_of_divergence(population: Population, new: list[Divergence], env_steps: int) -> None:
    for d in new if is_first() else ():
        number, who = population.grid.part[0] + d.member, named(population.grid.members[d.member])
        why = f"fix {population.config.env_name}: {d.fault}" if d.fault else d.quantities
        _LOG.warning(
            f"member {number} ({who}) diverged before step {env_steps:,} ({why}): frozen at its "
            "last finite state"
        )
