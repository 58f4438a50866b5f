"""Train populations, write their files, and resume runs that were stopped.

A population has one member for each pair of a hyperparameter point and a seed. The members train
together or in batches. If a run is killed and resumed, its results have the same bits as an
uninterrupted run. The training loop is in `_train`.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import sacjax
from sacjax.config import Config, Hyperparams
from sacjax.runs import directory as folders
from sacjax.runs import memory
from sacjax.runs.directory import BATCHES
from sacjax.runs.epochs import Compiled, collect_metrics, epochs, prepare
from sacjax.runs.files import expanded
from sacjax.runs.load import choose_algorithm, describe_mismatch
from sacjax.runs.metrics_csv import Row, to_rows, write_table
from sacjax.runs.population import Population, extended, make_grid, make_population
from sacjax.runs.processes import any_of, is_first, on_first, several
from sacjax.runs.provenance import Description
from sacjax.runs.recorder import SERVICES, Options, Recorder, restore_state, write_summary
from sacjax.runs.result import Run, merge, read, to_host
from sacjax.runs.signals import GRACE, deferred
from sacjax.sac import make_sac
from sacjax.train import MakeAlgorithm
from sacjax.types import InputError, OnEpoch, OnNan, is_whole

_LOG = logging.getLogger("sacjax")


class Session(NamedTuple):
    """The options, callbacks and compiled functions that all batches of a run share."""

    options: Options
    on_epoch: tuple[OnEpoch, ...]
    should_stop: Callable[[], bool]
    programs: dict[int, Compiled]


def run(
    config: Config,
    hp: Hyperparams = Hyperparams(),
    *,
    seeds: int | Sequence[int] = 8,
    directory: str | os.PathLike | None = None,
    on_epoch: Sequence[OnEpoch] = (),
    should_stop: Callable[[], bool] = lambda: False,
    algorithm: MakeAlgorithm = make_sac,
    strategy: str = "auto",
    devices: int | None = None,
    members_per_batch: int | None = None,
    checkpoint_every: int | None = None,
    keep: int = 2,
    on_nan: OnNan = "freeze",
    keep_best: bool = False,
    grace: float = GRACE,
) -> Run:
    """Train one member for each pair of a hyperparameter point and a seed.

    One compiled program trains all members.

    If you pass a `directory`, the run writes its settings, metrics, checkpoints, learning curve and
    trained agents to the folder. `sacjax.runs.directory` lists the files, and `resume` can continue
    the run. Ctrl-C and SIGTERM then stop the run after the current epoch, and the files are
    complete. A second signal stops the run at once. If your program has its own signal handlers,
    the run does not replace your handlers.

    A member diverges if its losses or parameters become NaN or infinite. A diverged member is
    frozen at its last finite state, with a warning. The other members are unaffected.

    Args:
      config: the settings that all members share.
      hp: the hyperparameters. Array fields are broadcast against each other. The result is a
        grid of hyperparameter points.
      seeds: a number of seeds (8 means the seeds 0 to 7), or a sequence of different seeds.
        Members are sorted by point first, and then by seed. Seed s starts from
        `jax.random.key(s)`, so a run with `seeds=[17]` repeats one member of a run with
        `seeds=100`.
      directory: a new or empty folder for the files, or None to write no files.
      on_epoch: callbacks `f(step, metrics)` that the run calls after each epoch, such as the
        loggers in `sacjax.loggers`. The type `sacjax.types.OnEpoch` explains the arguments.
      should_stop: a function that the run calls after each epoch. The run stops if the function
        returns True.
      algorithm: a function (config, env) -> `Algorithm`, such as
        `functools.partial(make_sac, ...)`, or the name "module:function" of such a function.
      strategy: "vmap" to train all members of a device at the same time, "map" to train one
        member after another, or "auto" for the faster strategy. The strategy affects only the
        speed and the rounding.
      devices: the number of devices, or None for as many devices as are useful.
      members_per_batch: the largest number of members that train at once, or None for all members.
        A smaller number needs less memory.
      checkpoint_every: the number of epochs between checkpoints. None means one checkpoint every
        five minutes, and 0 means no checkpoints. A run with checkpoints also writes a checkpoint
        when it ends or is stopped.
      keep: the number of checkpoints to keep.
      on_nan: "freeze" to freeze a diverged member and continue, or "stop" to stop the run after the
        epoch in which a member diverges.
      keep_best: If True, keep a copy of each member's agent from the member's best evaluation.
        The best evaluation has the highest mean return. The folder agents/best contains the best
        agents, and `load(directory, best=True)` reads the best agents. A resumed run continues to
        keep the best agents.
      grace: the largest number of seconds that a run continues after a signal. After this time, the
        run stops before the epoch ends, and `resume` continues from the last checkpoint.

    Returns:
      The run, which contains the trained agents and all metrics.

    Raises:
      InputError: a setting cannot work, or the memory is too small. No file has been written.
      RunError: a file cannot be written, or an environment failed.

    >>> done = run(config, seeds=2)
    >>> len(done.members), done.completed
    (2, True)
    """
    seeds, on_epoch = _check_seeds(seeds), _check_callables(on_epoch, should_stop)
    _warn_if_forked()
    grid = make_grid(hp, seeds)
    population = make_population(config, grid, algorithm, strategy, devices, members_per_batch)
    memory.check(population)
    services = _name_services(on_epoch)
    options = Options(checkpoint_every, keep, on_nan, bool(keep_best), services).check()
    session = Session(options, on_epoch, should_stop, {})
    if directory is None:
        for name, asked in (("checkpoint_every", checkpoint_every), ("keep_best", keep_best)):
            if asked:
                raise InputError(f"{name} needs a folder: pass directory", name)
        return _train_all(population, None, session)
    path = expanded(directory)
    with deferred(should_stop, grace) as stop, _enter_on_first(lambda: folders.created(path)):
        return _train_all(population, path, session._replace(should_stop=stop))


def resume(
    directory: str | os.PathLike,
    *,
    extend_to: int | None = None,
    env: Any = None,
    on_epoch: Sequence[OnEpoch] = (),
    should_stop: Callable[[], bool] = lambda: False,
    algorithm: MakeAlgorithm | None = None,
    strategy: str | None = None,
    devices: int | None = None,
    checkpoint_every: int | None = None,
    keep: int | None = None,
    on_nan: OnNan | None = None,
    grace: float = GRACE,
    trust: bool = False,
) -> Run:
    """Resume the run in `directory` from its last complete checkpoint.

    The result has the same bits as an uninterrupted run. If the layout, the device or the version
    of a package has changed, the results differ by rounding, and a warning names the change. A run
    without a checkpoint starts from the beginning, with a warning.

    Args:
      directory: the folder that `run` wrote.
      extend_to: a larger value of `total_steps`. The results are equal to the results of a run that
        started with the larger value.
      env: the environment of the run, if it was an object. A folder stores only the object's name.
      on_epoch: the callbacks, as in `run`.
      should_stop: the function that stops the run, as in `run`.
      algorithm: the function that made the run's algorithm, as in `load`.
      strategy: the strategy, as in `run`, or None to keep the run's strategy.
      devices: the number of devices, as in `run`. None keeps the run's number of devices, if this
        machine has enough devices.
      checkpoint_every: the number of epochs between checkpoints, as in `run`. None keeps the run's
        value.
      keep: the number of checkpoints to keep, or None to keep the run's value.
      on_nan: the reaction to divergence, as in `run`, or None to keep the run's value.
      grace: the largest number of seconds that a run continues after a signal, as in `run`.
      trust: whether to import the modules that config.json names, as in `load`.

    Returns:
      The whole run, which includes the epochs before the resume.

    Raises:
      InputError: `directory` is not the folder of a run, or the folder is damaged or in use.
      RunError: a file cannot be written, or an environment failed.
    """
    path, on_epoch = expanded(directory), _check_callables(on_epoch, should_stop)
    _warn_if_forked()
    folders.check_is_run(path)
    with deferred(should_stop, grace) as stop, _enter_on_first(lambda: folders.locked(path)):
        config, grid, content = saved = folders.read_config(path, env)
        algorithm = choose_algorithm(path, saved, env, algorithm, trust)
        if mismatch := describe_mismatch(content, algorithm):
            raise InputError(
                f"{path} {mismatch}: pass the run's algorithm to resume(..., algorithm=...) in "
                "Python",
                "algorithm",
            )
        if extend_to is not None:
            config = extended(config, extend_to)
        given = {"every": checkpoint_every, "keep": keep, "on_nan": on_nan}
        given = {name: value for name, value in given.items() if value is not None}
        given["loggers"] = _name_services(on_epoch)
        options = Options(**content["options"] | given).check()
        strategy, devices = _choose_layout(content, strategy, devices)
        per_batch = content.get("per_batch")
        population = make_population(config, grid, algorithm, strategy, devices, per_batch)
        memory.check(population, resumed=True)
        return _train_all(population, path, Session(options, on_epoch, stop, {}), resumed=True)


def _train(
    population: Population, path: Path | None, session: Session, resumed: bool
) -> tuple[Run, bool]:
    """Train one batch epoch by epoch, write its files, and call the callbacks.

    Returns the run, and whether it was stopped.
    """
    start = state = restore_state(population, path) if resumed and path else None
    compiled = prepare(population, start, session.programs)
    if path and compiled:
        _write_config(path, population, session.options, resumed)
    stopped = False
    with closing(Recorder(path, population, session.options, start)) as record:
        for state in epochs(population, start, compiled):
            record.write_metrics(state)
            record.keep_best(state)
            record.checkpoint_if_due(state)
            metrics = collect_metrics(population, state, record.next_checkpoint(state))
            for callback in session.on_epoch if is_first() else ():
                callback(state.env_steps, metrics)
            diverged = state.new > 0 and session.options.on_nan == "stop"
            stopped = diverged or any_of(session.should_stop())
            if stopped:
                break
        assert state is not None
        return record.finish(state), stopped


def _train_all(
    population: Population, path: Path | None, session: Session, resumed: bool = False
) -> Run:
    """Train all members, at once or in batches."""
    with ExitStack() as stack:
        if population.program.host is not None:
            stack.callback(population.program.host.close_all)
        if len(population.batches()) > 1:
            return _train_batches(population, path, session, resumed)
        if resumed and path and (path / BATCHES).exists():
            raise InputError(
                f"{path / 'config.json'} describes a run without batches, but {path / BATCHES} "
                "exists: restore config.json, or train again in a new folder",
                "config.json",
            )
        return _train(population, path, session, resumed)[0]


def _train_batches(
    population: Population, path: Path | None, session: Session, resumed: bool
) -> Run:
    """Train one batch after another. Each batch has its own folder."""
    batches = population.batches()
    places = [path and path / BATCHES / str(number + 1) for number in range(len(batches))]
    pairs = zip(batches, places, strict=True)
    started = [resumed and _has_started(batch, place) for batch, place in pairs]
    if path:
        _write_config(path, population, session.options, resumed)
    runs: list[Run] = []
    stopped = False
    for batch, place, has_started in zip(batches, places, started, strict=True):
        done = _read_batch(batch, place) if has_started and place else None
        if not stopped and not (done and done.completed):
            done, stopped = _train(batch, place, session, has_started)
        if done is None:
            break
        runs.append(to_host(done))
        if path:
            on_first(partial(_write_run_files, path, population, runs))
    return merge(runs, population.size)


def _write_config(path: Path, population: Population, options: Options, resumed: bool) -> None:
    content = population.description() | {"options": options._asdict()}
    on_first(partial(folders.write_config, path, content, resumed))


def _has_started(batch: Population, place: Path | None) -> bool:
    """Return whether the batch has a folder. Raises InputError if its config.json differs."""
    if place is None or not (place / "config.json").exists():
        return False
    batch.match(folders.read_config(place, batch.config.env).content)
    return True


def _read_batch(batch: Population, place: Path) -> Run | None:
    """Read a trained batch from its folder, and rewrite its metrics.csv.

    Returns None if the agents are missing or damaged in any process.
    """
    done = None
    if (place / "agents").is_dir():
        try:
            done = read(batch, place)
        except InputError as error:
            _LOG.warning("%s: training this batch from its last checkpoint", error)
    if any_of(done is None) or done is None:
        return None
    on_first(partial(write_table, place / "metrics.csv", _all_rows(done, batch.grid.part[0])))
    return done


def _write_run_files(path: Path, population: Population, runs: list[Run]) -> None:
    """Write metrics.csv, diverged.json and the learning curve for all batches so far."""
    whole = merge([run._replace(agents=()) for run in runs], population.size)
    firsts = [batch.grid.part[0] for batch in population.batches()]
    table = [row for run, first in zip(runs, firsts, strict=False) for row in _all_rows(run, first)]
    with folders.explain_write_errors(path):
        write_table(path / "metrics.csv", table)
        write_summary(path, whole)


def _all_rows(run: Run, first: int) -> list[Row]:
    """Return the rows of one batch. `first` is the index of the batch's first member in the run."""
    return [
        row
        for epoch in range(run.epochs.max())
        for row in to_rows(
            run.members, first, {name: x[:, epoch] for name, x in run.metrics.items()}
        )
    ]


def _check_seeds(seeds: int | Sequence[int]) -> list[int]:
    found = range(seeds) if is_whole(seeds) else seeds
    found = np.asarray(found) if isinstance(found, jax.Array) else found
    found = list(found) if np.iterable(found) else []
    whole = all(is_whole(seed) and 0 <= seed < 2**32 for seed in found)
    if not found or not whole or len(set(found)) < len(found):
        raise InputError(
            f"seeds ({seeds}) must be different whole numbers from 0 to 2**32 - 1: use seeds=8",
            "seeds",
        )
    return [int(seed) for seed in found]


def _check_callables(on_epoch: Sequence[OnEpoch], should_stop: Any) -> tuple[OnEpoch, ...]:
    found: tuple[Any, ...] = tuple(on_epoch) if np.iterable(on_epoch) else (None,)
    if not all(map(callable, found)):
        raise InputError(
            f"on_epoch ({on_epoch!r}) must be a list of callables f(step, metrics): use [f]",
            "on_epoch",
        )
    if not callable(should_stop):
        raise InputError(
            f"should_stop ({should_stop!r}) must be a function f() that returns True or False: "
            "use lambda: False",
            "should_stop",
        )
    return found


def _warn_if_forked() -> None:
    """Warn if this process was forked after JAX had started. Such a process may wait forever."""
    if sacjax._forked_after_start:
        _LOG.warning(
            "this process was forked after JAX had started, so training may hang: use "
            "multiprocessing.get_context('spawn')"
        )


def _name_services(on_epoch: tuple[OnEpoch, ...]) -> tuple[str, ...]:
    """Return the names of the loggers that `sacjax resume` continues."""
    return tuple(name for f in on_epoch if (name := getattr(f, "service", "")) in SERVICES)


def _choose_layout(
    content: Description, strategy: str | None, devices: int | None
) -> tuple[str, int | None]:
    """Return the strategy and the number of devices.

    For an argument that is None, the function uses the run's value if this machine supports it.
    """
    then = content.get("layout", {})
    if content["device"]["platform"] != jax.default_backend():
        then = {}
    if devices is None and not several() and then.get("devices", 1) <= jax.device_count():
        devices = then.get("devices")
    return strategy or then.get("strategy", "auto"), devices


@contextmanager
def _enter_on_first(make: Callable[[], Any]) -> Iterator[None]:
    """Enter a context manager in the first process. Errors are raised in every process."""
    with ExitStack() as stack:
        on_first(lambda: stack.enter_context(make()))
        yield
