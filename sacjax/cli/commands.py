"""The commands: each takes its arguments and returns its exit code.

What needs JAX or an environment is imported inside, once the arguments are known to be right.
"""

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sacjax.cli import flags
from sacjax.cli.console import complain, follow, say_loading
from sacjax.config import Config, Hyperparams
from sacjax.presets import settle
from sacjax.runs.signals import GRACE
from sacjax.types import InputError, named


def train(argv: list[str]) -> int:
    """Train independent seeds, or a sweep, as one program."""
    args = flags.parse_train(argv, "train")
    config, hp = settings(args)
    say_loading(config.env, args.logs.log_format)
    start_jax(args.processes)
    from sacjax.envs.names import path_of
    from sacjax.runs import directory, processes
    from sacjax.runs.run import run

    if args.out is None and processes.several():
        raise InputError("several processes write to one folder: give all of them the same --out")
    place = directory.claimed(Path("runs") / path_of(config.env))
    with place if args.out is None else contextlib.nullcontext(args.out) as out:
        start = partial(run, config, hp, seeds=args.seeds, directory=out, **args.options)
        return follow(start, out, _loggers(args.logs, out), args.options.get("grace", GRACE))


def plan(argv: list[str]) -> int:
    """Print the memory that a run needs, and what there is."""
    args = flags.parse_train(argv, "plan")
    if args.processes != flags.ProcessFlags():
        raise InputError(
            "`sacjax plan` is of one process: plan for its share of the seeds, without "
            "--distributed or --coordinator"
        )
    config, hp = settings(args)
    say_loading(config.env, args.logs.log_format)
    start_jax(args.processes)
    from sacjax.runs import epochs, memory
    from sacjax.runs.population import make_grid, make_population
    from sacjax.sac import make_sac

    layout = {name: args.options.get(name) for name in ("devices", "members_per_batch")}
    strategy = args.options.get("strategy", "auto")
    grid = make_grid(hp, list(args.seeds))
    planned, compiled = make_population(config, grid, make_sac, strategy, *layout.values()), 0
    if memory.of(planned).enough:
        batch = max(planned.batches(), key=lambda batch: batch.size)
        compiled = epochs.compile_programs(batch, fresh=False).memory
    print(memory.table(planned, compiled))
    memory.check(planned, compiled)
    return 0


def resume(argv: list[str]) -> int:
    """Resume a run that was stopped or killed, or train past its end."""
    args = flags.parse_resume(argv)
    say_loading(args.dir, args.logs.log_format)
    start_jax(args.processes)
    from sacjax.runs.directory import check_is_run
    from sacjax.runs.run import resume

    check_is_run(args.dir)
    start = partial(resume, args.dir, extend_to=args.extend_to, **args.run)
    return follow(start, args.dir, _loggers(args.logs, args.dir), args.run.get("grace", GRACE))


@flags.parsed
def evaluate(dir: Path, /, *, episodes: int | None = None) -> int:
    """Greedy returns of the agents in DIR, from the start states of the run's last evaluation.

    Args:
      dir: folder that `sacjax train` wrote.
      episodes: episodes per agent (default: as in training, which repeats the last evaluation).
    """
    start_jax()
    from sacjax.report import tables
    from sacjax.runs.load import evaluate_run, load

    done = load(dir)
    returns = evaluate_run(done, episodes)[0].copy()
    returns[[d.member for d in done.diverged]] = float("nan")  # frozen: shown as diverged
    title = f"{done.config.env}: greedy return, {returns.shape[1]} episodes"
    print(tables.of_run(done.members, returns.mean(1), returns.std(1), title))
    return 0


@flags.parsed
def render(
    dir: Path, /, *, member: int | None = None, frames: int = 200, out: Path | None = None
) -> int:
    """A GIF of an agent in DIR: the episode of its last evaluation with the median return.

    Args:
      dir: folder that `sacjax train` wrote.
      member: which agent, counted from 0 as in metrics.csv (default: the best of the last
        evaluation).
      frames: environment steps to show at most.
      out: GIF to write (default: policy.gif in DIR).
    """
    start_jax()
    import numpy as np

    from sacjax.report.render import render, without_a_screen
    from sacjax.runs import curve

    without_a_screen()
    from sacjax.runs.load import load

    done, target = load(dir), out or dir / "policy.gif"
    if member is None:
        last, _ = curve.last_returns(done.metrics, done.epochs)
        member = int(np.nan_to_num(last, nan=-np.inf).argmax())
    total = render(done, member, target, frames)
    ends = {d.member: d.epoch for d in done.diverged}
    frozen = f", diverged, frozen after {ends[member]} epochs" if member in ends else ""
    print(f"{target}: {named(done.members[member])}, return {total:.1f}{frozen}")
    return 0


@flags.parsed
def report(
    dirs: tuple[Path, ...],
    /,
    *,
    labels: tuple[str, ...] = (),
    last: int = 1,
    until: int | None = None,
    out: Path = Path("report"),
) -> int:
    """Runs side by side: learning curves, IQMs, performance profiles, probability of improvement.

    Reads config.json and metrics.csv of each DIR, also of a run that is still going, and writes
    report.html, which needs no other file, and its figures as PNGs. Each point of a sweep is
    compared by itself. The first DIR is what the others are measured against. Seeds that diverged
    are left out, and a note says so.

    Args:
      dirs: folders that `sacjax train` wrote.
      labels: a name for each DIR (default: the folders'). Runs of several environments under one
        name are one algorithm, aggregated over them: report a/pendulum a/reacher --labels a a
      last: evaluations at the end whose mean is a seed's score.
      until: environment steps to compare at: later evaluations are left out (default: the end).
      out: folder for the page: new, empty, or of an earlier report, which is replaced.
    """
    from sacjax.report import compare

    typed = {"labels": labels, "last": last, "until": until, "out": out}
    text, files = compare(*dirs, **typed, command=["sacjax", *sys.argv[1:]])
    print(text, *files, sep="\n")
    return 0


@flags.parsed
def envs(
    suite: Literal["gymnax", "brax", "playground", "gymnasium", "envpool"] | None = None, /
) -> int:
    """Environments by name.

    Of gymnasium and envpool also those whose actions are not a bounded Box, which `sacjax train`
    refuses.

    Args:
      suite: list the environments of this suite.
    """
    import numpy as np
    from rich.table import Table

    from sacjax.envs.gymnax import continuous_envs
    from sacjax.envs.names import SUITES, adapter
    from sacjax.presets import PRESETS
    from sacjax.report.tables import printed

    if suite is not None:
        print("\n".join(f"{suite}/{id}" for id in adapter(suite).known()))
        return 0
    view = Table(show_edge=False, pad_edge=False)
    for name in ("environment", "obs", "action", "bounds", "time limit", "preset"):
        view.add_column(name, no_wrap=name == "environment")
    for name, (env, params, space) in continuous_envs().items():
        obs = env.observation_space(params).shape
        limit = str(params.max_steps_in_episode)
        has = "yes" if name in PRESETS["gymnax"] else "the paper's"
        bounds = f"{np.min(space.low):g} to {np.max(space.high):g}"
        view.add_row(name, str(obs), str(space.shape), bounds, limit, has)
    print(printed(view, width=110))
    print("Other suites, each an extra (pip install 'sacjax[brax]'), and what is in them:")
    print("\n".join(f"  sacjax envs {suite}" for suite in SUITES[1:]))
    return 0


def settings(args: flags.Train) -> tuple[Config, Hyperparams]:
    """A run's settings, hyperparameters as a grid where they are swept."""
    config, hp = settle(args.env, args.preset, args.given)
    return config, flags.swept(hp, args.sweep)


def start_jax(several: Any = None) -> None:
    """Before anything that makes arrays is imported, as gymnax does."""
    from sacjax.devices import keep_compiled_programs, use_all_cores

    with contextlib.suppress(RuntimeError):  # `main` was called where JAX has started already
        use_all_cores()
    keep_compiled_programs()
    if several is not None and several != flags.ProcessFlags():
        from sacjax.runs import processes

        if several.coordinator:
            complain(f"sacjax: waiting for all processes at {several.coordinator}")
        processes.join(several.coordinator, several.num_processes, several.process_id)


def _loggers(asked: flags.LogFlags, out: Path) -> list[Any]:
    """What the flags ask for, in the first process. InputError if it is not to be had."""
    from sacjax.loggers import JsonLines, ProgressBar, TensorBoard, WandB
    from sacjax.runs import processes

    if not processes.is_first():
        return []
    show = {"auto": None, "bar": True, "none": False}
    first: Callable = JsonLines
    if asked.log_format != "json":
        first = partial(ProgressBar, show=show[asked.log_format])
    services: list[Any] = [TensorBoard(out)] if asked.tensorboard else []
    services += [WandB(out, project=asked.wandb_project)] if asked.wandb else []
    for wanted, name, left in (
        (asked.tensorboard, "--tensorboard", out / "tensorboard"),
        (asked.wandb, "--wandb", out / "wandb.json"),
    ):
        if not wanted and left.exists():
            complain(
                f"sacjax: warning: {left} is from an earlier session and will not be updated; "
                f"pass {name} to continue it"
            )
    return [first(), *services]
