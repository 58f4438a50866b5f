"""The host side: run, resume and load populations, with progress, a folder, a clean stop.

Members are the points of the hyperparameter grid x the seeds, trained together or in batches
(`sacjax.runs.batches`). A run that is killed and resumed ends, to the bit, like one that never
stopped.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np

from sacjax.bits import as_arrays
from sacjax.config import Config, Hyperparams
from sacjax.devices import Strategy, layout, over_members
from sacjax.envs.host import for_a_while
from sacjax.runs import batches, checkpoints, journal, processes
from sacjax.runs.directory import check_is_run, check_is_whole, created, read_config
from sacjax.runs.population import check_memory, extended, make_plan, points
from sacjax.runs.provenance import algorithm_name, surroundings
from sacjax.runs.result import Run, read
from sacjax.runs.signals import put_off
from sacjax.sac import make_sac
from sacjax.train import epoch_keys, make_program
from sacjax.types import InputError, OnEpoch, OnNan, is_whole, must_be

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
    plan = make_plan(
        config, settings, swept, seeds, algorithm, strategy, devices, members_per_batch
    )
    check_memory(plan)
    options = journal.Options(checkpoint_every, keep, on_nan).checked()
    if directory is None:
        if checkpoint_every:
            raise InputError("checkpoint_every needs a folder to write to: give directory=")
        return batches.train(plan, None, options, on_epoch, should_stop)
    with put_off(should_stop) as should_stop, _held(lambda: created(directory)):
        return batches.train(plan, Path(directory), options, on_epoch, should_stop)


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
        if other := _other_algorithm(written.content, algorithm):
            raise InputError(f"{path} {other}: give that to resume(..., algorithm=...) in Python")
        config = written.config if extend_to is None else extended(written.config, extend_to)
        options = journal.Options.of(written.content)
        given = {"every": checkpoint_every, "keep": keep, "on_nan": on_nan}
        options = options._replace(**{k: v for k, v in given.items() if v is not None}).checked()
        plan = make_plan(
            *(config, written.settings, written.swept, written.seeds, algorithm),
            *_layout(written.content, strategy, devices),
            written.content.get("per_batch"),
        )
        check_memory(plan, again=True)
        return batches.train(plan, path, options, on_epoch, should_stop, again=True)


def load(directory: str | os.PathLike, env: Any = None, algorithm: Callable = make_sac) -> Run:
    """The run that a folder holds. `env`: the environment, where it was an object of your own; an
    `algorithm` of your own is said if it is not given again.

    Raises InputError if the folder is damaged, or is not a run's.
    """
    path = Path(directory)
    check_is_whole(path)
    written = read_config(path, env)
    _check_kinds(path, written.content)
    program = make_program(written.config, algorithm)
    other = _other_algorithm(written.content, algorithm)
    try:
        found = read(path, written, program, algorithm)
    except InputError as error:
        if not other:
            raise
        raise InputError(f"{path} {other}: give that to load(..., algorithm=...)") from error
    if other:
        _LOG.warning("%s %s: its agents may act otherwise here", path, other)
    planned = len(written.settings) * len(written.seeds)
    if len(found.members) < planned:
        _LOG.warning(
            "%s: %d of %d members have agents; %s trains the others",
            *(path, len(found.members), planned, checkpoints.resuming(path)),
        )
    return found


def evaluate_run(run: Run, episodes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Greedy returns and lengths [M, episodes] of a run's agents, from its last evaluation's keys.

    With as many episodes as the run's own evaluations had, it is that last evaluation again.
    """
    must_be(Run, run, "run", "load('runs/Pendulum-v1')")
    if processes.several():
        raise InputError("several processes cannot evaluate a run together: load it in one")
    program = run.program
    if episodes is not None and episodes != run.config.eval_episodes:
        program = make_program(replace(run.config, eval_episodes=episodes), run.algorithm)
    keys = jax.vmap(lambda key, epoch: epoch_keys(key, epoch)[1])(run.keys, run.epochs - 1)
    _, env_params = as_arrays(Hyperparams(), program.default_params)
    if program.host is not None:  # outside of JAX: one after the other
        evaluate = jax.jit(program.evaluate)
        with for_a_while(program.host, run.config.env):
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


def _check_kinds(path: Path, content: dict[str, Any]) -> None:
    """Of its numbers, which can be converted, and of its keys, which cannot."""
    around = content.get("jax")
    then, now = around if isinstance(around, dict) else {}, surroundings()["jax"]
    here, there = now["x64"], then.get("x64", now["x64"])
    if there != here:
        _LOG.warning(
            "%s was trained with jax_enable_x64=%s and is loaded with %s: its numbers are rounded, "
            "or computed otherwise",
            *(path, there, here),
        )
    if (prng := then.get("prng", now["prng"])) != now["prng"]:
        raise InputError(f"the keys of {path} are of {prng}: set JAX_DEFAULT_PRNG_IMPL={prng}")


def _other_algorithm(content: dict[str, Any], algorithm: Callable) -> str:
    """What is wrong, if it is not the run's own, as far as names say."""
    was, here = content.get("algorithm"), algorithm_name(algorithm)
    return "" if was in (None, here) else f"was trained with the algorithm {was}, not {here}"


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
