"""The host side: run and resume populations, with progress, a folder, a clean stop.

Members are the points of the hyperparameter grid x the seeds, trained together or in batches. A run
that is killed and resumed ends, to the bit, like one that never stopped. `_train` is the loop.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np

from sacjax.config import Config, Hyperparams
from sacjax.devices import Strategy
from sacjax.runs import checkpoints, processes
from sacjax.runs.batches import at_hand, begin_batch, is_begun, write_table
from sacjax.runs.directory import (
    BATCHES,
    check_is_run,
    check_is_whole,
    created,
    read_config,
    write_config,
)
from sacjax.runs.epochs import Compiled, State, epochs, finished, told
from sacjax.runs.load import other_algorithm
from sacjax.runs.population import Population, check_memory, extended, make_population, points
from sacjax.runs.recorder import Options, Recorder, restored
from sacjax.runs.result import Run, in_host_memory, merged
from sacjax.runs.signals import put_off
from sacjax.sac import make_sac
from sacjax.types import InputError, OnEpoch, OnNan, is_whole


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
    settings, swept = points(hp)
    population = make_population(
        config, settings, swept, seeds, algorithm, strategy, devices, members_per_batch
    )
    check_memory(population)
    options = Options(checkpoint_every, keep, on_nan).checked()
    if directory is None:
        if checkpoint_every:
            raise InputError("checkpoint_every needs a folder to write to: give directory=")
        return _train_all(population, None, options, on_epoch, should_stop)
    with put_off(should_stop) as should_stop, _held(lambda: created(directory)):
        return _train_all(population, Path(directory), options, on_epoch, should_stop)


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
    the run, the layout as far as there are the devices for it. An algorithm of your own has to be
    given again, under the same name. The rest is `run`'s and `load`'s.
    Raises InputError if the folder is damaged, in use, or not a run's.
    """
    path, on_epoch = Path(directory), _checked_callables(on_epoch, should_stop)
    check_is_run(path)
    check_is_whole(path)
    checkpoints.check_path(path)
    with put_off(should_stop) as should_stop, _held(lambda: checkpoints.locked(path)):
        written = read_config(path, env)
        if other := other_algorithm(written.content, algorithm):
            raise InputError(f"{path} {other}: give that to resume(..., algorithm=...) in Python")
        config = written.config if extend_to is None else extended(written.config, extend_to)
        options = Options.of(written.content)
        given = {"every": checkpoint_every, "keep": keep, "on_nan": on_nan}
        options = options._replace(**{k: v for k, v in given.items() if v is not None}).checked()
        population = make_population(
            *(config, written.settings, written.swept, written.seeds, algorithm),
            *_layout(written.content, strategy, devices),
            written.content.get("per_batch"),
        )
        check_memory(population, again=True)
        return _train_all(population, path, options, on_epoch, should_stop, again=True)


def _train(
    population: Population,
    start: State | None,
    path: Path | None,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    options: Options,
    programs: dict[int, Compiled],
) -> Run:
    """Train one batch of members: run epoch by epoch, record, tell, stop when asked."""
    state = start
    with closing(Recorder(path, population, options, start)) as record:
        for state in epochs(population, start, programs):
            record.metrics(state)
            record.checkpoint_if_due(state)
            metrics = told(population, state, record.next_checkpoint(state))
            for tell in on_epoch if processes.is_first() else ():
                tell(state.env_steps, metrics)
            fell = state.new > 0 and options.on_nan == "stop"
            if fell or processes.any_of(should_stop()):
                break
        assert state is not None
        return record.finish(state)


def _train_all(
    population: Population,
    path: Path | None,
    options: Options,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    again: bool = False,
) -> Run:
    """Train all members at once, or batch after batch. `again` resumes what is in the folder."""
    follow = (on_epoch, should_stop, options)
    with ExitStack() as stack:
        if population.program.host is not None:
            stack.callback(population.program.host.close_all)
        if len(population.batches()) > 1:
            return _train_batches(population, path, *follow, again)
        if again and path and (path / BATCHES).exists():
            raise InputError(
                f"{path / 'config.json'} is of a run in one batch, and there are {path / BATCHES}: "
                "restore it, or train again in a new folder"
            )
        start = restored(population, path) if again and path else None
        if path and not finished(population, start):
            content = population.description() | options.noted()
            processes.first(partial(write_config, path, content, again))
        return _train(population, start, path, *follow, {})


def _train_batches(
    population: Population,
    path: Path | None,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    options: Options,
    again: bool,
) -> Run:
    """One batch after the other, each like a run in a folder of its own."""
    parts, programs = population.batches(), {}
    runs: list[Run] = []
    tabled, begun = 0, False
    places = [path and path / BATCHES / str(number) for number in range(1, len(parts) + 1)]
    for batch, place in zip(parts, places, strict=True):
        known = bool(again and place and is_begun(batch, place))
        done = at_hand(batch, place) if known and place else None
        if done is not None and done.completed:
            runs.append(in_host_memory(done))
            continue
        start = restored(batch, place) if known and place else None
        if path and place and not finished(batch, start):
            if not begun:
                content = population.description() | options.noted()
                processes.first(partial(write_config, path, content, again))
            content = batch.description() | options.noted()
            processes.first(partial(begin_batch, place, content, known))
            begun = True
        done = _train(batch, start, place, on_epoch, should_stop, options, programs)
        runs.append(in_host_memory(done))
        write_table(path, population, runs)
        tabled = len(runs)
        fell = len(done.diverged) > (len(start.diverged) if start else 0)
        if not done.completed or (fell and options.on_nan == "stop"):
            break
        if tabled < len(parts) and processes.any_of(should_stop()):  # asked at a batch's end
            break
    for batch, place in list(zip(parts, places, strict=True))[len(runs) :]:  # of an extended run
        later = at_hand(batch, place) if again and place and is_begun(batch, place) else None
        if later is None:
            break
        runs.append(in_host_memory(later))
    if tabled < len(runs):
        write_table(path, population, runs)
    whole = merged(runs)
    return whole._replace(completed=whole.completed and len(runs) == len(parts))


def _checked_seeds(seeds: int | Sequence[int]) -> list[int]:
    found = range(seeds) if is_whole(seeds) else seeds
    found = np.asarray(found) if isinstance(found, jax.Array) else found
    found = list(found) if np.iterable(found) else []
    whole = all(is_whole(seed) and 0 <= seed < 2**32 for seed in found)
    if not found or not whole or len(set(found)) < len(found):
        raise InputError(
            f"seeds ({seeds}) must be different whole numbers from 0 to 2**32 - 1: use seeds=8"
        )
    return [int(seed) for seed in found]


def _checked_callables(on_epoch: Sequence[OnEpoch], should_stop: Any) -> tuple[OnEpoch, ...]:
    if not callable(should_stop):
        raise InputError(
            f"should_stop ({should_stop!r}) must be a callable f() that says True or False: leave "
            "it out, or use should_stop=f"
        )
    found: tuple[Any, ...] = tuple(on_epoch) if np.iterable(on_epoch) else (None,)
    if not all(callable(tell) for tell in found):
        raise InputError(
            f"on_epoch ({on_epoch!r}) must be a list of callables f(step, metrics): use "
            "on_epoch=[f]"
        )
    return found


def _layout(
    content: dict[str, Any], strategy: str | None, devices: int | None
) -> tuple[str, int | None]:
    """What is given; for the rest what the run had, if that can be had here, on such devices."""
    if strategy is not None and devices is not None:
        return strategy, devices
    here = jax.default_backend()
    same = content.get("device", {}).get("platform", here) == here
    then = content.get("layout", {}) if same else {}
    if not isinstance(then, dict) or then.get("strategy", "auto") not in get_args(Strategy):
        raise InputError(
            f"config.json is damaged (layout {then!r}): restore it, or give --strategy"
        )
    if strategy is None:
        strategy = str(then.get("strategy", "auto"))
    if devices is None and not processes.several():
        before = then.get("devices")
        devices = before if before in range(1, jax.device_count() + 1) else None
    return strategy, devices


@contextmanager
def _held(hold: Callable[[], Any]) -> Iterator[None]:
    """In the first process only, which is the one that writes; what is refused there is in all."""
    with ExitStack() as stack:
        processes.first(lambda: stack.enter_context(hold()))
        yield
