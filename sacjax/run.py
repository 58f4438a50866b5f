"""The host side: runs `Program` epoch by epoch, with progress, a folder, and a clean stop.

It calls the very `epoch` that `make_train` scans, jitted and laid out over members (the points of
the hyperparameter grid x the seeds) and devices by `sacjax.members`, with the state donated.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import folder, report
from sacjax.config import Config, Hyperparams
from sacjax.members import fill_up, layout, over_members
from sacjax.replay import replay_bytes
from sacjax.sac import make_sac
from sacjax.train import Program, as_arrays, epoch_keys, make_program
from sacjax.types import InputError, Key


class EpochReport(NamedTuple):
    """What `on_epoch` is told. M members, the grid's points outermost, the seeds innermost."""

    env_steps: int  # per member, so far
    total_steps: int
    gradient_steps: int  # of all members, in this epoch
    seconds: float  # that this epoch took, evaluation included, compilation not
    metrics: dict[str, np.ndarray]  # each [M, ...]; see `make_program`


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


def run(
    config: Config,
    hp: Hyperparams = Hyperparams(),
    *,
    seeds: int | Sequence[int] = 8,
    directory: str | os.PathLike | None = None,
    on_epoch: Sequence[Callable[[EpochReport], None]] = (),
    should_stop: Callable[[], bool] = lambda: False,
    algorithm: Callable = make_sac,
    strategy: str = "auto",
    devices: int | None = None,
) -> Run:
    """Train members = points of the grid `hp` x `seeds`, as one program.

    Seed s starts from `jax.random.key(s)`, so `seeds=[17]` repeats member 17 of `seeds=100`. With a
    `directory` (new or empty), writes what `sacjax.folder` lists. After each epoch come `on_epoch`,
    then `should_stop`: True ends the run there, with whole files. `strategy` and `devices` are
    `members.layout`'s: how members are laid out changes rounding and speed only. Raises InputError
    before anything is traced or written.
    """
    seeds = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds ({seeds}) must be different whole numbers from 0: use seeds=8")
    program = make_program(config, algorithm)
    settings, swept = _points(hp)
    members = [
        {name: float(getattr(point, name)) for name in swept} | {"seed": seed}
        for point in settings
        for seed in seeds
    ]
    strategy, devices = layout(len(members), strategy, devices)
    how: dict[str, Any] = {"strategy": strategy, "devices": devices}
    _check_memory(config, program, len(members))
    path = None if directory is None else folder.create(directory)

    if path:
        folder.write_config(path, config, settings, swept, seeds)
    rows = folder.MetricsFile(path / "metrics.csv") if path else None
    history: list[dict[str, np.ndarray]] = []
    try:
        loop, step = _start(program, settings, seeds, how)
        while len(history) < config.num_epochs and not (history and should_stop()):
            begin = time.perf_counter()
            loop, metrics = step(loop)
            metrics = {name: np.asarray(x)[: len(members)] for name, x in metrics.items()}
            seconds = time.perf_counter() - begin
            history.append(metrics)
            if rows:
                rows.append(_rows(members, metrics))
            gradient_steps = config.eval_every // config.steps_per_iteration
            gradient_steps *= config.updates_per_iteration * len(members)
            told = EpochReport(
                int(metrics["env_steps"][0]), config.total_steps, gradient_steps, seconds, metrics
            )
            for tell in on_epoch:
                tell(told)
    finally:
        if rows:
            rows.close()

    run = Run(
        config=config,
        members=members,
        metrics={name: np.stack([m[name] for m in history], axis=1) for name in history[0]},
        agents=_gathered(loop.agent, len(members)),
        program=program,
        algorithm=algorithm,
        keys=_gathered(loop.key, len(members)),
        epochs=len(history),
        completed=len(history) == config.num_epochs,
    )
    if path:
        folder.save_agents(path, _agent_tree(run.agents, run.keys, run.epochs))
        report.learning_curve(path / "metrics.csv", path / "learning_curve.png")
    return run


def load(directory: str | os.PathLike, env: Any = None, algorithm: Callable = make_sac) -> Run:
    """The run that a folder holds. `env`: the environment, where it was an object of your own.

    Raises InputError if the folder is damaged, or is not a run's.
    """
    path = Path(directory)
    config, settings, swept, seeds = folder.read_config(path, env)
    program = make_program(config, algorithm)
    keys = _keys(len(settings), seeds)
    hp, env_params = as_arrays(settings[0], program.default_params)
    loop = jax.eval_shape(jax.vmap(program.init, (0, None, None)), keys, hp, env_params)
    like = _agent_tree(loop.agent, loop.key, 0)
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


def _start(
    program: Program, settings: list[Hyperparams], seeds: list[int], how: dict[str, Any]
) -> tuple[Any, Callable]:
    """The first state, warm-up done, and the compiled epoch. One compilation of each."""
    grid = len(settings) > 1
    hp = settings[0]
    if grid:  # the points in the order of the members
        hp = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), len(seeds)), *settings)
        hp = fill_up(hp, how["devices"])
    hp, env_params = as_arrays(hp, program.default_params)
    axes = (0, 0 if grid else None, None)
    epoch = jax.jit(over_members(program.epoch, axes, donated=True, **how), donate_argnums=0)
    init = jax.jit(over_members(program.init, axes, **how))
    keys = fill_up(_keys(len(settings), seeds), how["devices"])
    with ThreadPoolExecutor(1) as aside:  # one compiles while the other is traced and compiled
        compiling = aside.submit(init.lower(keys, hp, env_params).compile)
        shapes = jax.eval_shape(init, keys, hp, env_params)
        compiled = epoch.lower(shapes, hp, env_params).compile()
        loop = compiling.result()(keys, hp, env_params)
    return jax.block_until_ready(loop), lambda loop: compiled(loop, hp, env_params)


def _keys(points: int, seeds: list[int]) -> Key:
    return jax.vmap(jax.random.key)(jnp.tile(jnp.array(seeds, jnp.uint32), points))


def _points(hp: Hyperparams) -> tuple[list[Hyperparams], list[str]]:
    """A grid's points, row by row, and the names of the fields that vary over it."""
    arrays = {name: np.asarray(value) for name, value in vars(hp).items()}
    size = arrays["gamma"].size
    points = [  # through str: float32's 0.005 is 0.005, not 0.00499999988824129
        Hyperparams(**{name: float(str(value.flat[i])) for name, value in arrays.items()})
        for i in range(size)
    ]
    if len(set(points)) < size:
        raise InputError("a point of the grid occurs twice: give each swept value once")
    return points, [name for name, value in arrays.items() if np.unique(value).size > 1]


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


def _gathered(tree: Any, members: int) -> Any:
    """On one device, without the copies that filled up the last one."""
    tree = jax.device_put(tree, jax.local_devices()[0])
    if len(jax.tree.leaves(tree)[0]) == members:
        return tree
    return jax.jit(lambda tree: jax.tree.map(lambda x: x[:members], tree))(tree)


def _agent_tree(agents: Any, keys: Key, epochs: int) -> dict[str, Any]:
    return {"agents": agents, "keys": keys, "epochs": np.asarray(epochs)}


def _check_memory(config: Config, program: Program, members: int) -> None:
    needed = members * replay_bytes(config, program.example)
    device = jax.devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    available = (stats or {}).get("bytes_limit")
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if available and needed > available:
        fits = int(config.capacity * available / needed * 0.8) // config.num_envs * config.num_envs
        raise InputError(
            f"the replays of {members} members need {needed / 2**30:.1f} GiB and this device has "
            f"{available / 2**30:.1f}: use replay_size={fits} or fewer seeds"
        )
