"""Train what a plan says: all members at once, or batch after batch, in folders of their own."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from sacjax.runs import directory, epochs, files, journal, processes
from sacjax.runs.divergence import Divergence
from sacjax.runs.leaves import on_host
from sacjax.runs.population import Plan
from sacjax.runs.result import Run, all_diverged, merged, read_one, run_of
from sacjax.types import InputError, OnEpoch

_LOG = logging.getLogger("sacjax")


def train(
    plan: Plan,
    path: Path | None,
    options: journal.Options,
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    again: bool = False,
) -> Run:
    """All members, or batch after batch; `again`: what is in the folder already is gone on with."""

    begun = False

    def begin() -> None:
        nonlocal begun
        if path and not begun:
            directory.write_config(path, plan.description() | options.noted(), again)
        begun = True

    batches, follow = plan.batches(), (on_epoch, should_stop, options)
    with ExitStack() as stack:
        if plan.program.host is not None:
            stack.callback(plan.program.host.close_all)
        if len(batches) == 1:
            if again and path and (path / directory.BATCHES).exists():
                raise InputError(
                    f"{path / 'config.json'} is of a run in one batch, and there are "
                    f"{path / directory.BATCHES}: restore it, or train again in a new folder"
                )
            return _train_batch(plan, path, begin, again, {}, *follow)[0]
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
    tabled = 0  # of them, how many are in the whole run's table
    compiled: dict[int, epochs.Compiled] = {}

    def place_of(number: int) -> Path | None:
        return path and path / directory.BATCHES / str(number)

    def before(number: int, batch: Plan) -> tuple[bool, Run | None]:
        """Whether a batch was begun already, and what it has come to."""
        place = place_of(number)
        if place is None or not (again and _is_begun(batch, place)):
            return False, None
        return True, _at_hand(batch, place)

    def keep(done: Run) -> None:  # in the host's memory, away from the next batch
        runs.append(done._replace(agents=on_host(done.agents)))

    def write_table() -> None:
        nonlocal tabled
        tabled = len(runs)
        if path:
            processes.first(partial(_write_table, path, plan, all_diverged(runs)))

    for number, batch in enumerate(batches, 1):
        place = place_of(number)
        started, done = before(number, batch)
        if done is not None and done.completed:
            keep(done)
            continue

        def begin_batch(
            batch: Plan = batch, place: Path | None = place, started: bool = started
        ) -> None:
            begin()
            if place:
                with directory.written(place):
                    place.mkdir(parents=True, exist_ok=True)
                directory.write_config(place, batch.description() | options.noted(), started)

        done, fell = _train_batch(batch, place, begin_batch, started, compiled, *follow)
        keep(done)
        write_table()
        if not done.completed or (fell and options.on_nan == "stop"):
            break
        if number < len(batches) and processes.any_of(should_stop()):  # asked at a batch's end
            break
    stopped = len(runs)
    for number, batch in enumerate(batches[stopped:], stopped + 1):  # where a run is extended
        if (later := before(number, batch)[1]) is None:
            break
        keep(later)
    if tabled < len(runs):
        write_table()
    whole = merged(runs)
    return whole._replace(completed=whole.completed and len(runs) == len(batches))


def _train_batch(
    plan: Plan,
    path: Path | None,
    begin: Callable[[], None],
    again: bool,
    compiled: dict[int, epochs.Compiled],
    on_epoch: Sequence[OnEpoch],
    should_stop: Callable[[], bool],
    options: journal.Options,
) -> tuple[Run, bool]:
    """And whether a member has diverged in it now.

    `begin` is called when what is there already has been found in order, and is not all there is.
    """
    progress = _progress(plan, path) if again and path else None
    follow = (on_epoch, should_stop, options.on_nan, compiled)
    if path is None:
        done = run_of(plan, epochs.train(plan, None, progress, *follow))
        return done, bool(done.diverged)
    if not epochs.over(plan, progress):
        processes.first(begin)
    before, known = (progress.history, len(progress.diverged)) if progress else ([], 0)
    with closing(journal.Journal(path, plan, options, before)) as files:
        progress = epochs.train(plan, files, progress, *follow)
        done = run_of(plan, progress)
        files.at_the_end(progress, done.agents, done.keys)
        return done, len(done.diverged) > known


def _progress(plan: Plan, path: Path) -> journal.Progress | None:
    found = journal.progress(plan, path)
    if found is None and processes.of_first((path / "agents").is_dir()):
        raise InputError(
            f"{path} has trained agents and no checkpoint to go on from (checkpoint_every was "
            "0, or they were removed): train again in a new folder"
        )
    if found is None and processes.is_first():
        _LOG.warning("%s has no checkpoint yet: starting from the beginning", path)
    return found


def _is_begun(plan: Plan, path: Path) -> bool:
    """Whether this batch is in its folder. InputError where another one is."""

    def check() -> bool:
        if not (path / "config.json").exists():
            return False
        journal.same_run(plan, directory.read_config(path, plan.config.env).content)
        return True

    return bool(processes.of_first(bool(processes.first(check))))


def _at_hand(plan: Plan, path: Path) -> Run | None:
    """What a batch's folder holds, so far; None where its files are not all in order, which are
    then made anew from its last checkpoint."""
    if not processes.of_first((path / "agents").is_dir()):
        return None
    done = None
    try:
        who = plan.config, plan.settings, plan.swept, plan.seeds
        written = directory.Written(*who, plan.description())
        done = read_one(path, written, plan.program, plan.algorithm)
    except InputError as error:
        _LOG.warning("%s: making it anew", error)
    return None if processes.any_of(done is None) else done


def _write_table(path: Path, plan: Plan, diverged: list[Divergence]) -> None:
    """metrics.csv, the curve and who diverged, of all batches so far."""
    tables = directory.tables(path)
    texts = [table.read_text() for table in tables]
    header, whole = texts[0].partition("\n")[0] + "\n", path / "metrics.csv"
    with directory.written(path):
        files.write_text(whole, header + "".join(t.partition("\n")[2] for t in texts))
        journal.write_curve(path, plan, tables)
        directory.write_diverged(path, diverged, plan.members, plan.config)
