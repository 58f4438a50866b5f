"""The host side: run and resume populations, with progress, a folder, a clean stop.

Members are the points of the hyperparameter grid x the seeds, trained together or in batches. A run
that is killed and resumed ends, to the bit, like one that never stopped. `_train` is the loop.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sacjax.config import Config, Hyperparams
from sacjax.runs import directory as folders
from sacjax.runs import memory
from sacjax.runs.directory import BATCHES
from sacjax.runs.epochs import Compiled, epochs, prepare, told
from sacjax.runs.load import other_algorithm
from sacjax.runs.metrics_csv import Row, rows, write_table
from sacjax.runs.population import Population, extended, make_grid, make_population
from sacjax.runs.processes import any_of, is_first, on_first, several
from sacjax.runs.recorder import Options, Recorder, restore_state, write_summary
from sacjax.runs.result import Run, in_host_memory, merged, read
from sacjax.runs.signals import GRACE, put_off
from sacjax.sac import make_sac
from sacjax.types import InputError, OnEpoch, OnNan, is_whole

_LOG = logging.getLogger("sacjax")


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
    grace: float = GRACE,
) -> Run:
    """Train members = points of the grid `hp` x `seeds`, as one program.

    Seed s starts from `jax.random.key(s)`, so `seeds=[17]` repeats member 17 of `seeds=100`. With a
    `directory` (new or empty), writes what `sacjax.runs.directory` lists: a checkpoint after every
    `checkpoint_every` epochs (None: five minutes apart; 0: none), at the end and when stopped, of
    which the last `keep` stay; `resume` goes on from there. After each epoch comes every
    `on_epoch(step, metrics)`, as `types.OnEpoch` says, then `should_stop`: True ends the run there,
    with whole files. So do, with a `directory`, Ctrl-C and SIGTERM that nobody else handles: they
    take effect once the files are complete, a second one at once. `strategy` and `devices` are
    `devices.layout`'s: how members are laid out changes rounding and speed only. A population too
    large for the memory is trained `members_per_batch` at a time. A member whose losses or
    parameters are no longer finite is frozen where they last were, and a warning says so; with
    `on_nan` "stop" the run ends there.
    Raises InputError before anything is allocated or written, RunError where the files can no
    longer be written.
    """
    seeds, on_epoch = _checked_seeds(seeds), _checked_callables(on_epoch, should_stop)
    grid = make_grid(hp, seeds)
    population = make_population(config, grid, algorithm, strategy, devices, members_per_batch)
    memory.check(population)
    options = Options(checkpoint_every, keep, on_nan).checked()
    if directory is None:
        if checkpoint_every:
            raise InputError("checkpoint_every needs a folder to write to: give directory=")
        return _train_all(population, None, options, on_epoch, should_stop)
    path = Path(directory)
    with put_off(should_stop, grace) as should_stop, _held(lambda: folders.created(path)):
        return _train_all(population, path, options, on_epoch, should_stop)


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
    grace: float = GRACE,
) -> Run:
    """Go on with the run in `directory` from its last whole checkpoint, to the bit as if unstopped.

    Without any checkpoint yet, from the beginning, which is said. `extend_to`: environment steps to
    train to, past the configured end; the outcome is that of a run that was configured so. On other
    versions or another layout of devices it goes on to rounding only. What is None is as it was in
    the run, the layout as far as there are the devices for it. An algorithm of your own has to be
    given again, under the same name. The rest is `run`'s and `load`'s.
    Raises InputError if the folder is damaged, in use, or not a run's.
    """
    path, on_epoch = Path(directory), _checked_callables(on_epoch, should_stop)
    folders.check_is_run(path)
    with put_off(should_stop, grace) as should_stop, _held(lambda: folders.locked(path)):
        config, grid, content = folders.read_config(path, env)
        if other := other_algorithm(content, algorithm):
            raise InputError(f"{path} {other}: give that to resume(..., algorithm=...) in Python")
        if extend_to is not None:
            config = extended(config, extend_to)
        given = {"every": checkpoint_every, "keep": keep, "on_nan": on_nan}
        given = {name: value for name, value in given.items() if value is not None}
        options = Options(**content["options"] | given).checked()
        layout = _layout(content, strategy, devices)
        population = make_population(config, grid, algorithm, *layout, content.get("per_batch"))
        memory.check(population, again=True)
        return _train_all(population, path, options, on_epoch, should_stop, again=True)


def _train(
    population: Population,
    path: Path | None,
    again: bool,
    options: Options,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    programs: dict[int, Compiled],
) -> tuple[Run, bool]:
    """Run epoch by epoch, record, tell, stop when asked; the run, and whether it was stopped.

    `again` resumes what is in the folder.
    """
    start = state = restore_state(population, path) if again and path else None
    compiled = prepare(population, start, programs)
    if path and compiled:
        _write_config(path, population, options, again)
    stopped = False
    with closing(Recorder(path, population, options, start)) as record:
        for state in epochs(population, start, compiled):
            record.metrics(state)
            record.checkpoint_if_due(state)
            metrics = told(population, state, record.next_checkpoint(state))
            for tell in on_epoch if is_first() else ():
                tell(state.env_steps, metrics)
            fell = state.new > 0 and options.on_nan == "stop"
            stopped = fell or any_of(should_stop())
            if stopped:
                break
        assert state is not None
        return record.finish(state), stopped


def _train_all(
    population: Population,
    path: Path | None,
    options: Options,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    again: bool = False,
) -> Run:
    """Train all members at once, or batch after batch."""
    follow = partial(
        _train, options=options, on_epoch=on_epoch, should_stop=should_stop, programs={}
    )
    with ExitStack() as stack:
        if population.program.host is not None:
            stack.callback(population.program.host.close_all)
        if len(population.batches()) > 1:
            return _train_batches(population, path, options, follow, again)
        if again and path and (path / BATCHES).exists():
            raise InputError(
                f"{path / 'config.json'} is of a run in one batch, and there are {path / BATCHES}: "
                "restore it, or train again in a new folder"
            )
        return follow(population, path, again)[0]


def _train_batches(
    population: Population, path: Path | None, options: Options, train: Callable, again: bool
) -> Run:
    """One batch after the other, each a run in a folder of its own."""
    batches = population.batches()
    places = [path and path / BATCHES / str(number + 1) for number in range(len(batches))]
    begun = [
        again and place is not None and _is_begun(batch, place)
        for batch, place in zip(batches, places, strict=True)
    ]
    if path:
        _write_config(path, population, options, again)
    runs: list[Run] = []
    stopped = False
    for batch, place, there in zip(batches, places, begun, strict=True):
        done = _read_back(batch, place) if there and place else None
        if not stopped and not (done and done.completed):
            done, stopped = train(batch, place, there)
        if done is None:
            break
        runs.append(in_host_memory(done))
        if path:
            on_first(partial(_write_whole, path, population, runs))
    return merged(runs, population.size)


def _write_config(path: Path, population: Population, options: Options, again: bool) -> None:
    content = population.description() | {"options": options._asdict()}
    on_first(partial(folders.write_config, path, content, again))


def _is_begun(batch: Population, place: Path) -> bool:
    """Whether the batch has a folder. Raises InputError where it is another batch's."""
    if not (place / "config.json").exists():
        return False
    batch.as_noted(folders.read_config(place, batch.config.env).content)
    return True


def _read_back(batch: Population, place: Path) -> Run | None:
    """A batch from its agents, and its metrics.csv anew; None where the agents are not whole."""
    done = None
    if (place / "agents").is_dir():
        try:
            done = read(batch, place)
        except InputError as error:
            _LOG.warning("%s: making it anew", error)
    if done is None or any_of(done is None):
        return None
    on_first(partial(write_table, place / "metrics.csv", _rows_of(done, batch.grid.part[0])))
    return done


def _write_whole(path: Path, population: Population, runs: list[Run]) -> None:
    """metrics.csv, the curve and who diverged, of the batches so far."""
    whole = merged([run._replace(agents=()) for run in runs], population.size)
    firsts = [batch.grid.part[0] for batch in population.batches()]
    table = [row for run, first in zip(runs, firsts, strict=False) for row in _rows_of(run, first)]
    with folders.written(path):
        write_table(path / "metrics.csv", table)
        write_summary(path, whole)


def _rows_of(run: Run, first: int) -> list[Row]:
    """Of a run whose members have equally many epochs, numbered from `first`."""
    return [
        row
        for epoch in range(run.epochs.max())
        for row in rows(run.members, first, {name: x[:, epoch] for name, x in run.metrics.items()})
    ]


def _checked_seeds(seeds: int | Sequence[int]) -> list[int]:
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


def _checked_callables(on_epoch: Sequence[OnEpoch], should_stop: Any) -> tuple[OnEpoch, ...]:
    found: tuple[Any, ...] = tuple(on_epoch) if np.iterable(on_epoch) else (None,)
    if not all(map(callable, found)):
        raise InputError(
            f"on_epoch ({on_epoch!r}) must be a list of callables f(step, metrics): use [f]"
        )
    if not callable(should_stop):
        raise InputError(
            f"should_stop ({should_stop!r}) must be a callable f() that says True or False"
        )
    return found


def _layout(
    content: dict[str, Any], strategy: str | None, devices: int | None
) -> tuple[str, int | None]:
    """What is given, else what the run had, as far as these devices are here."""
    then = content.get("layout", {})
    if content["device"]["platform"] != jax.default_backend():
        then = {}
    if devices is None and not several() and then.get("devices", 1) <= jax.device_count():
        devices = then.get("devices")
    return strategy or then.get("strategy", "auto"), devices


@contextmanager
def _held(hold: Callable[[], Any]) -> Iterator[None]:
    """In the first process only, which is the one that writes; what is refused there is in all."""
    with ExitStack() as stack:
        on_first(lambda: stack.enter_context(hold()))
        yield
