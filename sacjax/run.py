"""The host side: run, resume and load populations, with progress, a folder, a clean stop.

Members are the points of the hyperparameter grid x the seeds, trained together or in batches
(`sacjax.driver` trains one). A run that is killed and resumed ends, to the bit, like one that never
stopped.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax import checkpoints, driver, folder, journal, processes, report
from sacjax.config import Config, Hyperparams
from sacjax.divergence import Divergence
from sacjax.envs.host import errors_named
from sacjax.leaves import with_keys
from sacjax.members import layout, over_members
from sacjax.plan import Plan, check_memory, extended, make_plan, points
from sacjax.sac import make_sac
from sacjax.train import Program, as_arrays, epoch_keys, make_program
from sacjax.types import InputError, Key, OnEpoch, OnNan

_LOG = logging.getLogger("sacjax")
_BATCHES = "batches"  # a folder, with a run's folder for each batch in it


class Run(NamedTuple):
    """A run, finished or read back from its folder."""

    config: Config
    members: list[dict[str, float]]  # M dictionaries: the swept hyperparameters, and `seed`
    metrics: dict[str, np.ndarray]  # each [M, epochs, ...]; see `make_program`
    agents: Any  # the algorithm's states, leaves [M, ...]
    program: Program
    algorithm: Callable  # what it was made with
    keys: Key  # [M] the keys of the loop: `epoch_keys(keys[i], epoch)` are an epoch's
    epochs: int  # epochs done (by the first batch, where there are several)
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
    members_per_batch: int | None = None,
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
    with whole files. `strategy` and `devices` are `members.layout`'s: how members are laid out
    changes rounding and speed only. A population too large for the memory is trained
    `members_per_batch` at a time. A member whose losses or parameters are no longer finite is
    frozen where they last were, and a warning says so; with `on_nan` "stop" the run ends there.
    Raises InputError before anything is allocated or written, RunError where the files can no
    longer be written.
    """
    seeds = list(range(seeds)) if isinstance(seeds, int) else [int(seed) for seed in seeds]
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds ({seeds}) must be different whole numbers from 0: use seeds=8")
    settings, swept = points(hp)
    plan = make_plan(
        config, settings, swept, seeds, algorithm, strategy, devices, members_per_batch
    )
    check_memory(plan)
    options = journal.Options(checkpoint_every, keep, on_nan).checked()
    if directory is None:
        if checkpoint_every:
            raise InputError("checkpoint_every needs a folder to write to: give directory=")
        return _train(plan, None, options, on_epoch, should_stop)
    with _held(lambda: folder.created(directory)):
        return _train(plan, Path(directory), options, on_epoch, should_stop)


def resume(
    directory: str | os.PathLike,
    *,
    extend_to: int | None = None,
    env: Any = None,
    on_epoch: Sequence[OnEpoch] = (),
    should_stop: Callable[[], bool] = lambda: False,
    algorithm: Callable = make_sac,
    strategy: str | None = None,
    devices: int | None = None,
    checkpoint_every: int | None = None,
    keep: int | None = None,
    on_nan: OnNan | None = None,
) -> Run:
    """Go on with the run in `directory` from its last whole checkpoint, to the bit as if unstopped.

    Without any checkpoint yet, from the beginning, which is said. `extend_to`: environment steps to
    train to, past the configured end; the outcome is that of a run that was configured so. On other
    versions or another layout of devices it goes on to rounding only. What is None is as it was in
    the run, the layout as far as there are the devices for it. The rest is `run`'s and `load`'s.
    Raises InputError if the folder is damaged, in use, or not a run's.
    """
    path = Path(directory)
    folder.check_is_run(path)
    with _held(lambda: checkpoints.locked(path)):
        written = folder.read_config(path, env)
        config = written.config if extend_to is None else extended(written.config, extend_to)
        options = journal.Options.of(written.content)
        given = {"every": checkpoint_every, "keep": keep, "on_nan": on_nan}
        options = options._replace(**{k: v for k, v in given.items() if v is not None}).checked()
        if strategy is None and devices is None:
            strategy, devices = _layout_before(written.content)
        plan = make_plan(
            *(config, written.settings, written.swept, written.seeds, algorithm),
            *(strategy or "auto", devices, written.content.get("per_batch")),
        )
        check_memory(plan)
        return _train(plan, path, options, on_epoch, should_stop, again=True)


def load(directory: str | os.PathLike, env: Any = None, algorithm: Callable = make_sac) -> Run:
    """The run that a folder holds. `env`: the environment, where it was an object of your own.

    Raises InputError if the folder is damaged, or is not a run's.
    """
    path = Path(directory)
    written = folder.read_config(path, env)
    program = make_program(written.config, algorithm)
    if parts := _in_batches(path, "agents"):
        return _merged([_loaded(p.parent, written, program, algorithm) for p in parts])
    return _loaded(path, written, program, algorithm)


def evaluate_run(run: Run, episodes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Greedy returns and lengths [M, episodes] of a run's agents, from its last evaluation's keys.

    With as many episodes as the run's own evaluations had, it is that last evaluation again.
    """
    program = run.program
    if episodes is not None and episodes != run.config.eval_episodes:
        program = make_program(replace(run.config, eval_episodes=episodes), run.algorithm)
    keys = jax.vmap(lambda key: epoch_keys(key, run.epochs - 1)[1])(run.keys)
    _, env_params = as_arrays(Hyperparams(), program.default_params)
    if program.host is not None:  # outside of JAX: one after the other
        evaluate = jax.jit(program.evaluate)
        with errors_named(program.host, run.config.env):
            results = [
                evaluate(jax.tree.map(lambda x: x[i], run.agents), keys[i], env_params)  # noqa: B023
                for i in range(len(run.members))
            ]
        returns, lengths = (np.stack(x) for x in zip(*results, strict=True))
        return returns, lengths
    strategy, _ = layout(len(run.members))  # as in training, to the rounding
    evaluate = jax.jit(over_members(program.evaluate, (0, 0, None), strategy=strategy, devices=1))
    returns, lengths = evaluate(run.agents, keys, env_params)
    return np.asarray(returns), np.asarray(lengths)


def _train(
    plan: Plan,
    path: Path | None,
    options: journal.Options,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    again: bool = False,
) -> Run:
    """All members, or batch after batch; `again`: what is in the folder already is gone on with."""

    def begin() -> None:
        if path:
            folder.write_config(path, plan.description() | options.noted())

    batches, follow = plan.batches(), (on_epoch, should_stop, options)
    with ExitStack() as stack:
        if plan.program.host is not None:
            stack.callback(plan.program.host.close_all)
        if len(batches) == 1:
            return _train_batch(plan, path, begin, again, {}, *follow)
        return _train_batches(plan, batches, path, begin, again, *follow)


def _train_batches(
    plan: Plan,
    batches: list[Plan],
    path: Path | None,
    begin: Callable[[], None],
    again: bool,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    options: journal.Options,
) -> Run:
    """One after the other, in folders of their own."""
    follow = (on_epoch, should_stop, options)
    runs: list[Run] = []
    compiled: dict[int, driver.Compiled] = {}
    for number, batch in enumerate(batches, 1):
        place = path and path / _BATCHES / str(number)
        done = _finished(batch, place) if again and place else None
        if done is None:
            started = again and place is not None and (place / "config.json").exists()

            def begin_batch(batch: Plan = batch, place: Path | None = place) -> None:
                begin()
                if place:
                    place.mkdir(parents=True, exist_ok=True)
                    folder.write_config(place, batch.description() | options.noted())

            done = _train_batch(batch, place, begin_batch, started, compiled, *follow)
        runs.append(done._replace(agents=jax.tree.map(np.asarray, done.agents)))
        if path:
            processes.first(lambda: _write_table(path, _diverged(runs)))
        over = done.completed or len(done.diverged) == len(done.members)
        if not over or (done.diverged and options.on_nan == "stop"):
            break
    merged = _merged(runs) if not (path and again) else load(path, plan.config.env, plan.algorithm)
    return merged._replace(completed=merged.completed and len(runs) == len(batches))


def _train_batch(
    plan: Plan,
    path: Path | None,
    begin: Callable[[], None],
    again: bool,
    compiled: dict[int, driver.Compiled],
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    options: journal.Options,
) -> Run:
    """`begin` is called when what is there already has been found in order."""
    progress = _progress(plan, path) if again and path else None
    follow = (on_epoch, should_stop, options.on_nan, compiled)
    if path is None:
        return _run_of(plan, driver.train(plan, None, progress, *follow))
    processes.first(begin)
    before = [] if progress is None else progress.history
    with closing(journal.Journal(path, plan, options, before)) as files:
        progress = driver.train(plan, files, progress, *follow)
        done = _run_of(plan, progress)
        files.at_the_end(progress, done.agents, done.keys)
        return done


def _progress(plan: Plan, path: Path) -> journal.Progress | None:
    found = journal.progress(plan, path)
    if found is None and (path / "agents").is_dir():
        raise InputError(
            f"{path} has trained agents and no checkpoint to go on from (checkpoint_every was "
            "0, or they were removed): train again in a new folder"
        )
    if found is None and processes.is_first():
        _LOG.warning("%s has no checkpoint yet: starting from the beginning", path)
    return found


def _run_of(plan: Plan, progress: journal.Progress) -> Run:
    members, epochs = len(plan.members), len(progress.history)
    return Run(
        config=plan.config,
        members=plan.members,
        metrics=journal.stacked(progress.history),
        agents=_gathered(progress.loop.agent, members),
        program=plan.program,
        algorithm=plan.algorithm,
        keys=_gathered(progress.loop.key, members),
        epochs=epochs,
        completed=epochs == plan.config.num_epochs,
        diverged=progress.diverged,
    )


def _gathered(tree: Any, members: int) -> Any:
    """On one device, without the copies that filled up the last one; as NumPy arrays in several
    processes."""
    if processes.several():
        return jax.tree.map(lambda x: x[:members], processes.everywhere(tree))
    tree = jax.device_put(tree, jax.local_devices()[0])
    if len(jax.tree.leaves(tree)[0]) == members:
        return tree
    return jax.jit(lambda tree: jax.tree.map(lambda x: x[:members], tree))(tree)


def _loaded(path: Path, written: folder.Written, program: Program, algorithm: Callable) -> Run:
    """The run in one folder: the whole, or a batch of it."""
    members, metrics = report.read_metrics(path / "metrics.csv", written.swept)
    hp, env_params = as_arrays(written.settings[0], program.default_params)
    loop = jax.eval_shape(program.init, jax.random.key(0), hp, env_params)
    agents, keys = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(members), *x.shape), x.dtype), (loop.agent, loop.key)
    )
    numbers = jax.eval_shape(jax.random.key_data, keys)
    tree = folder.restore_agents(path, journal.agent_tree(agents, numbers, 0))
    epochs = int(tree["epochs"])
    return Run(
        config=written.config,
        members=members,
        metrics={name: x[:, :epochs] for name, x in metrics.items()},  # others are of a later try
        agents=tree["agents"],
        program=program,
        algorithm=algorithm,
        keys=with_keys(keys, tree["keys"]),
        epochs=epochs,
        completed=epochs == written.config.num_epochs,
        diverged=folder.read_diverged(path),
    )


def _finished(plan: Plan, path: Path) -> Run | None:
    """A batch that needs no more training."""
    if not (path / "agents").is_dir():
        return None
    written = folder.read_config(path, plan.config.env)._replace(config=plan.config)
    done = _loaded(path, written, plan.program, plan.algorithm)
    return done if done.completed or len(done.diverged) == len(done.members) else None


def _merged(runs: list[Run]) -> Run:
    """Batches as one run; where one has fewer epochs, the rest is NaN, or the last count again."""
    epochs = max(run.epochs for run in runs)

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
        agents=jax.tree.map(lambda *x: np.concatenate(x), *(run.agents for run in runs)),
        keys=jnp.concatenate([run.keys for run in runs]),
        completed=all(run.completed for run in runs),
        diverged=_diverged(runs),
    )


def _diverged(runs: list[Run]) -> list[Divergence]:
    """Of batches, numbered as in the whole population."""
    firsts = np.cumsum([0, *(len(run.members) for run in runs)])
    return [
        d._replace(member=d.member + int(first))
        for run, first in zip(runs, firsts, strict=False)
        for d in run.diverged
    ]


def _in_batches(path: Path, name: str) -> list[Path]:
    """What of this name the batches' folders have, first batch first."""
    return sorted((path / _BATCHES).glob(f"*/{name}"), key=lambda p: int(p.parent.name))


def _write_table(path: Path, diverged: list[Divergence]) -> None:
    """metrics.csv, the curve and who diverged, of all batches so far."""
    texts = [table.read_text() for table in _in_batches(path, "metrics.csv")]
    header = texts[0].partition("\n")[0] + "\n"
    folder.write_text(path / "metrics.csv", header + "".join(t.partition("\n")[2] for t in texts))
    report.learning_curve(path / "metrics.csv", path / "learning_curve.png")
    folder.write_diverged(path, diverged)


def _layout_before(content: dict[str, Any]) -> tuple[str, int | None]:
    """The layout that a run had, if it can be had here."""
    then = content.get("layout", {})
    if processes.several() or then.get("devices", 0) not in range(1, jax.device_count() + 1):
        return then.get("strategy", "auto"), None
    return then["strategy"], then["devices"]


@contextmanager
def _held(hold: Callable[[], Any]) -> Iterator[None]:
    """In the first process only, which is the one that writes; what is refused there is in all."""
    with ExitStack() as stack:
        processes.first(lambda: stack.enter_context(hold()))
        yield
