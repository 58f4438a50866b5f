"""The host side: runs `Program` epoch by epoch, with progress, a folder, checkpoints, a clean stop.

It calls the very `epoch` that `make_train` scans, jitted and laid out over members (the points of
the hyperparameter grid x the seeds) and devices by `sacjax.members`, with the state donated. A run
that is killed and resumed ends, to the bit, like one that never stopped.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import checkpoints, divergence, folder, journal, report
from sacjax.config import Config, Hyperparams
from sacjax.divergence import Divergence
from sacjax.members import fill_up, layout, over_members
from sacjax.plan import Plan, extended, make_plan, member_keys, points, shapes
from sacjax.sac import make_sac
from sacjax.train import Program, as_arrays, epoch_keys, make_program
from sacjax.types import InputError, Key, OnEpoch, OnNan

_LOG = logging.getLogger("sacjax")


class Run(NamedTuple):
    """A run, finished or read back from its folder."""

    config: Config
    members: list[dict[str, float]]  # M dictionaries: the swept hyperparameters, and `seed`
    metrics: dict[str, np.ndarray]  # each [M, epochs, ...]; see `make_program`
    agents: Any  # the algorithm's states, leaves [M, ...]
    program: Program
    algorithm: Callable  # what it was made with
    keys: Key  # [M] the keys of the loop: `epoch_keys(keys[i], epoch)` are an epoch's
    epochs: int  # epochs done
    completed: bool  # False if it was stopped before its end
    diverged: list[Divergence]  # the members that were frozen, in the order of time


def run(
    config: Config,
    hp: Hyperparams = Hyperparams(),
    *,
    seeds: int | Sequence[int] = 8,
    directory: str | os.PathLike | None = None,
    on_epoch: Sequence[OnEpoch] = (),
    should_stop: Callable[[], bool] = lambda: False,
    algorithm: Callable = make_sac,
    strategy: str = "auto",
    devices: int | None = None,
    checkpoint_every: int | None = None,
    keep: int = 2,
    on_nan: OnNan = "freeze",
) -> Run:
    """Train members = points of the grid `hp` x `seeds`, as one program.

    Seed s starts from `jax.random.key(s)`, so `seeds=[17]` repeats member 17 of `seeds=100`. With a
    `directory` (new or empty), writes what `sacjax.folder` lists: a checkpoint after every
    `checkpoint_every` epochs (None: five minutes apart; 0: none), at the end and when stopped, of
    which the last `keep` stay; `resume` goes on from there. After each epoch comes every
    `on_epoch(step, metrics)`, as `types.OnEpoch` says, then `should_stop`: True ends the run there,
    with whole files. `strategy` and `devices` are
    `members.layout`'s: how members are laid out changes rounding and speed only. A member whose
    losses or parameters are no longer finite is frozen where they last were, and a warning says so;
    with `on_nan` "stop" the run ends there. Raises InputError before anything is traced or written,
    RunError where the files can no longer be written.
    """
    seeds = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds ({seeds}) must be different whole numbers from 0: use seeds=8")
    settings, swept = points(hp)
    plan = make_plan(config, settings, swept, seeds, algorithm, strategy, devices)
    journal.check_settings(checkpoint_every, keep, on_nan)
    if directory is None:
        if checkpoint_every:
            raise InputError("checkpoint_every needs a folder to write to: give directory=")
        return _train(plan, None, None, on_epoch, should_stop, on_nan)
    with folder.created(directory) as path:
        folder.write_config(path, plan.description())
        with closing(journal.Journal(path, plan, checkpoint_every, keep)) as files:
            return _train(plan, files, None, on_epoch, should_stop, on_nan)


def resume(
    directory: str | os.PathLike,
    *,
    extend_to: int | None = None,
    env: Any = None,
    on_epoch: Sequence[OnEpoch] = (),
    should_stop: Callable[[], bool] = lambda: False,
    algorithm: Callable = make_sac,
    strategy: str = "auto",
    devices: int | None = None,
    checkpoint_every: int | None = None,
    keep: int = 2,
    on_nan: OnNan = "freeze",
) -> Run:
    """Go on with the run in `directory` from its last whole checkpoint, to the bit as if unstopped.

    Without any checkpoint yet, from the beginning, which is said. `extend_to`: environment steps to
    train to, past the configured end; the outcome is that of a run that was configured so. On other
    versions or another layout of devices it goes on to rounding only. The rest is `run`'s and
    `load`'s. Raises InputError if the folder is damaged, in use, or not a run's.
    """
    path = Path(directory)
    config, settings, swept, seeds = folder.read_config(path, env)
    if extend_to is not None:
        config = extended(config, extend_to)
    journal.check_settings(checkpoint_every, keep, on_nan)
    plan = make_plan(config, settings, swept, seeds, algorithm, strategy, devices)
    with checkpoints.locked(path):
        found = checkpoints.restore(path)
        if found is None and (path / "agents").is_dir():
            raise InputError(
                f"{path} has trained agents and no checkpoint to go on from (checkpoint_every was "
                "0, or they were removed): train again in a new folder"
            )
        if found is None:
            _LOG.warning("%s has no checkpoint yet: starting from the beginning", path)
        progress = None if found is None else journal.progress(plan, found)
        if extend_to is not None:
            folder.write_config(path, plan.description())
        with closing(journal.Journal(path, plan, checkpoint_every, keep, progress)) as files:
            return _train(plan, files, progress, on_epoch, should_stop, on_nan)


def load(directory: str | os.PathLike, env: Any = None, algorithm: Callable = make_sac) -> Run:
    """The run that a folder holds. `env`: the environment, where it was an object of your own.

    Raises InputError if the folder is damaged, or is not a run's.
    """
    path = Path(directory)
    config, settings, swept, seeds = folder.read_config(path, env)
    program = make_program(config, algorithm)
    loop = shapes(program, settings, seeds)
    like = journal.agent_tree(loop.agent, loop.key, 0)
    tree = folder.restore_agents(path, like)
    members, metrics = report.read_metrics(path / "metrics.csv", swept)
    return Run(
        config=config,
        members=members,
        metrics=metrics,
        agents=tree["agents"],
        program=program,
        algorithm=algorithm,
        keys=tree["keys"],
        epochs=int(tree["epochs"]),
        completed=int(tree["epochs"]) == config.num_epochs,
        diverged=folder.read_diverged(path),
    )


def evaluate_run(run: Run, episodes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Greedy returns and lengths [M, episodes] of a run's agents, from its last evaluation's keys.

    With as many episodes as the run's own evaluations had, it is that last evaluation again.
    """
    program = run.program
    if episodes is not None and episodes != run.config.eval_episodes:
        program = make_program(replace(run.config, eval_episodes=episodes), run.algorithm)
    keys = jax.vmap(lambda key: epoch_keys(key, run.epochs - 1)[1])(run.keys)
    _, env_params = as_arrays(Hyperparams(), program.default_params)
    strategy, _ = layout(len(run.members))  # as in training, to the rounding
    evaluate = jax.jit(over_members(program.evaluate, (0, 0, None), strategy=strategy, devices=1))
    returns, lengths = evaluate(run.agents, keys, env_params)
    return np.asarray(returns), np.asarray(lengths)


def _train(
    plan: Plan,
    files: journal.Journal | None,
    progress: journal.Progress | None,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    on_nan: OnNan,
) -> Run:
    """From `progress`, or from the beginning, to the end or to where it is stopped."""
    config, members = plan.config, len(plan.members)
    loop: Any
    loop, history, diverged = progress or (None, [], [])
    stop = len(history) == config.num_epochs or len(diverged) == members
    step: Callable | None = None
    if not stop:
        loop, step = _start(plan, loop)
    while step and not stop:
        begin = time.perf_counter()
        loop, (metrics, finite) = step(loop, _mask(plan, diverged))
        metrics, finite = (
            {name: np.asarray(x)[:members] for name, x in got.items()} for got in (metrics, finite)
        )
        seconds = time.perf_counter() - begin
        metrics = divergence.without(metrics, diverged)
        new = divergence.found(finite, len(history), diverged)
        history.append(metrics)
        diverged.extend(new)
        env_steps = int(metrics["env_steps"][0])
        _say(plan, new, env_steps)
        if files:
            files.after_epoch(loop, history, diverged)
        told = _told(plan, metrics, diverged, seconds)
        told["next_checkpoint"] = np.full(
            members, files.next_checkpoint(len(history), seconds) if files else np.nan
        )
        for tell in on_epoch:
            tell(env_steps, told)
        over = len(history) == config.num_epochs or len(diverged) == members
        stop = over or (bool(new) and on_nan == "stop") or should_stop()
    run = Run(
        config=config,
        members=plan.members,
        metrics=journal.stacked(history),
        agents=_gathered(loop.agent, members),
        program=plan.program,
        algorithm=plan.algorithm,
        keys=_gathered(loop.key, members),
        epochs=len(history),
        completed=len(history) == config.num_epochs,
        diverged=diverged,
    )
    if files:
        files.at_the_end(loop, history, diverged, run.agents, run.keys)
    return run


def _mask(plan: Plan, diverged: list[Divergence]) -> np.ndarray:
    """Which members are frozen, with those that fill up the devices [M']."""
    mask = np.zeros(len(plan.members), bool)
    mask[[d.member for d in diverged]] = True
    return np.asarray(fill_up(mask, plan.how["devices"]))


def _told(
    plan: Plan, metrics: dict[str, np.ndarray], diverged: list[Divergence], seconds: float
) -> dict[str, np.ndarray]:
    """For `OnEpoch`."""
    members = len(plan.members)
    who = {name: np.array([m[name] for m in plan.members]) for name in plan.members[0]}
    return (
        who
        | metrics
        | {
            "member": np.arange(members),
            "seconds": np.full(members, seconds),
            "diverged": _mask(plan, diverged)[:members],
        }
    )


def _say(plan: Plan, diverged: list[Divergence], env_steps: int) -> None:
    for d in diverged:
        who = ", ".join(f"{name} {value:g}" for name, value in plan.members[d.member].items())
        _LOG.warning(
            "member %d (%s) diverged before step %s (%s): frozen where all was finite",
            *(d.member, who, f"{env_steps:,}", d.quantities),
        )


def _start(plan: Plan, loop: Any) -> tuple[Any, Callable]:
    """The first state, warm-up done, or `loop`, in its place; and the compiled epoch."""
    program, seeds, how = plan.program, plan.seeds, plan.how
    grid = len(plan.settings) > 1
    hp = plan.settings[0]
    if grid:  # the points in the order of the members
        hp = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), len(seeds)), *plan.settings)
        hp = fill_up(hp, how["devices"])
    hp, env_params = as_arrays(hp, program.default_params)
    axes, frozen = (0, 0 if grid else None, None), _mask(plan, [])
    epoch = over_members(divergence.guarded(program.epoch), (0, *axes), donated=True, **how)
    epoch = jax.jit(epoch, donate_argnums=0)
    init = jax.jit(over_members(program.init, axes, **how))
    keys = fill_up(member_keys(len(plan.settings), seeds), how["devices"])
    like = jax.eval_shape(init, keys, hp, env_params)
    if loop is None:
        with ThreadPoolExecutor(1) as aside:  # one compiles while the other is traced and compiled
            compiling = aside.submit(init.lower(keys, hp, env_params).compile)
            compiled = epoch.lower(like, frozen, hp, env_params).compile()
            loop = compiling.result()(keys, hp, env_params)
    else:
        compiled = epoch.lower(like, frozen, hp, env_params).compile()
        placed = compiled.input_shardings[0][0]
        loop = jax.device_put(fill_up(loop, how["devices"]), placed, may_alias=False)
    return jax.block_until_ready(loop), lambda loop, frozen: compiled(loop, frozen, hp, env_params)


def _gathered(tree: Any, members: int) -> Any:
    """On one device, without the copies that filled up the last one."""
    tree = jax.device_put(tree, jax.local_devices()[0])
    if len(jax.tree.leaves(tree)[0]) == members:
        return tree
    return jax.jit(lambda tree: jax.tree.map(lambda x: x[:members], tree))(tree)
