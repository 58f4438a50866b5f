"""One batch of members, epoch by epoch: compiled, watched, told of and written down.

It calls the very `epoch` that `make_train` scans, jitted and laid out over members and devices by
`sacjax.devices`, with the state donated.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
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
from sacjax.runs.journal import Journal, Progress
from sacjax.runs.population import Plan
from sacjax.types import OnEpoch, OnNan, named

_LOG = logging.getLogger("sacjax")


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


def train(
    plan: Plan,
    files: Journal | None,
    progress: Progress | None,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    on_nan: OnNan,
    known: dict[int, Compiled] | None = None,
) -> Progress:
    """From `progress`, or from the beginning, to the end or to where it is stopped.

    `known`: programs of batches of the same run, by their number of members; new ones are added.
    """
    config, members = plan.config, plan.size
    loop: Any
    loop, history, diverged, host = progress or (None, [], [], None)

    stop, step = over(plan, progress), None
    if not stop and len(diverged) < members:
        loop, step = _start(plan, loop, {} if known is None else known)
        if host:
            with errors_named(plan.program.host, plan.config.env):
                loop = _put_back(plan, loop, host)
    while not stop:
        trained = step is not None and len(diverged) < members
        if step and trained:
            begin = time.perf_counter()
            with errors_named(plan.program.host, plan.config.env):
                loop, outcome = _patiently(partial(step, loop, _mask(plan, diverged)))
            metrics, finite = (
                {name: x[:members] for name, x in got.items()}
                for got in processes.everywhere(outcome)
            )
            seconds = time.perf_counter() - begin
            new = divergence.found(finite, len(history), diverged)
            diverged.extend(new)
            metrics = divergence.without(metrics, diverged)
        else:  # others go on: these are told of to the end, as if they were trained beside them
            metrics, new, seconds = divergence.nothing(history[-1], config), [], np.nan
        history.append(metrics)
        env_steps = int(metrics["env_steps"][0])
        _say(plan, new, env_steps)
        if files:
            files.after_epoch(loop, history, diverged, trained)
        ahead = files.next_checkpoint(len(history), seconds) if files else np.nan
        told = _told(plan, metrics, diverged) | {
            "seconds": np.full(members, seconds),
            "next_checkpoint": np.full(members, ahead),
        }
        for tell in on_epoch if processes.is_first() else ():
            tell(env_steps, told)
        stop = (
            over(plan, Progress(loop, history, diverged))
            or (bool(new) and on_nan == "stop")
            or processes.any_of(should_stop())
        )
    return Progress(loop, history, diverged)


def over(plan: Plan, progress: Progress | None) -> bool:
    """Whether there is nothing left to do. Members of a batch that have all diverged are told of
    to the end."""
    if progress is None:
        return False
    all_gone = len(progress.diverged) == plan.size
    return len(progress.history) == plan.config.num_epochs or (all_gone and not plan.is_part)


def compile_programs(plan: Plan, fresh: bool = True) -> Compiled:
    """Of a plan's members; `init` only if `fresh`."""
    hp, keys, env_params = _inputs(plan)
    epoch = divergence.guarded(plan.program.epoch)
    epoch = over_members(epoch, (0, *_axes(plan)), donated=True, **plan.how)
    where = processes.sharding(plan.how["devices"])
    # What XLA would give back otherwise is, for arrays of no elements, on all devices.
    epoch = jax.jit(epoch, donate_argnums=0, out_shardings=where)
    init = _jitted_init(plan)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        jax.eval_shape(init, keys, hp, env_params),
    )
    # `init` is traced (it has been once, for the shapes: it will not fail) and compiled beside it.
    epoch_ready = _aside(epoch.lower(like, _mask(plan, []), hp, env_params).compile)
    init_ready = _aside(init.lower(keys, hp, env_params).compile) if fresh else None
    return Compiled(init_ready() if init_ready else None, epoch_ready())


def _jitted_init(plan: Plan) -> Any:
    where = processes.sharding(plan.how["devices"])
    return jax.jit(over_members(plan.program.init, _axes(plan), **plan.how), out_shardings=where)


def _axes(plan: Plan) -> tuple[int | None, ...]:
    """Of keys, hyperparameters and the environment's parameters: 0 where members differ."""
    return 0, 0 if len(plan.settings) > 1 else None, None


def _start(plan: Plan, loop: Any, known: dict[int, Compiled]) -> tuple[Any, Callable]:
    """The first state, warm-up done, or `loop`; and the compiled epoch."""
    members = plan.size
    hp, keys, env_params = _inputs(plan)
    if members not in known:
        known[members] = compile_programs(plan, fresh=loop is None)
    elif loop is None and known[members].init is None:  # the batch before was gone on with
        init = _aside(_jitted_init(plan).lower(keys, hp, env_params).compile)()
        known[members] = known[members]._replace(init=init)
    init, epoch = known[members]
    if loop is None:
        assert init is not None
        with errors_named(plan.program.host, plan.config.env):
            loop = _patiently(lambda: init(keys, hp, env_params))
    return jax.block_until_ready(loop), lambda loop, frozen: epoch(loop, frozen, hp, env_params)


def _inputs(plan: Plan) -> tuple[Any, Any, Any]:
    """Hyperparameters, keys [M'] and the environment's parameters, where the programs want them."""
    devices = plan.how["devices"]
    hp, keys = plan.inputs()
    hp, env_params = as_arrays(hp, plan.program.default_params)
    if len(plan.settings) > 1:
        hp = processes.spread(fill_up(hp, devices), devices)
    if processes.several():  # what all have alike is handed over as NumPy arrays
        hp, env_params = (
            jax.tree.map(lambda x: np.asarray(x) if x.is_fully_addressable else x, tree)
            for tree in (hp, env_params)
        )
    return hp, processes.spread(fill_up(keys, devices), devices), env_params


def _put_back(plan: Plan, loop: Any, host: dict[str, np.ndarray]) -> Any:
    """The environments outside of JAX to where they were; the loop as it goes on from there."""
    envs = plan.program.host
    if not envs.load(host):
        _LOG.warning(
            "not to the bit what it would have been: %s does not repeat itself, so new episodes "
            "begin",
            plan.config.env,
        )
        loop = loop.replace(episodes=jax.tree.map(jnp.zeros_like, loop.episodes))
        if plan.config.n_step > 1:
            loop = loop.replace(replay=replay.ended(loop.replay, plan.config.num_envs))
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


def _told(
    plan: Plan, metrics: dict[str, np.ndarray], diverged: list[Divergence]
) -> dict[str, np.ndarray]:
    """For `OnEpoch`."""
    members = plan.members
    who = {name: np.array([member[name] for member in members]) for name in members[0]}
    who |= {"member": np.arange(*plan.part), "members": np.full(len(members), plan.population)}
    return who | metrics | {"diverged": _frozen(plan, diverged)}


def _mask(plan: Plan, diverged: list[Divergence]) -> Any:
    """Which members are frozen, with those that fill up the devices [M']."""
    devices = plan.how["devices"]
    return processes.spread(np.asarray(fill_up(_frozen(plan, diverged), devices)), devices)


def _frozen(plan: Plan, diverged: list[Divergence]) -> np.ndarray:
    """Which members are [M]."""
    mask = np.zeros(plan.size, bool)
    mask[[d.member for d in diverged]] = True
    return mask


def _say(plan: Plan, diverged: list[Divergence], env_steps: int) -> None:
    for d in diverged if processes.is_first() else ():
        who = named(plan.members[d.member])
        _LOG.warning(
            "member %d (%s) diverged before step %s (%s): frozen where all was finite",
            *(plan.part[0] + d.member, who, f"{env_steps:,}", d.quantities),
        )
