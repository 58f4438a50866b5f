"""The command line: sacjax train | resume | plan | evaluate | render | report | envs.

Kept quick to start: JAX programs and environments are imported by the command that needs them.
Exit codes: 0 done; 2 bad input, or what may not be read: nothing was changed; 3 the files, or what
a command prints, could not be written any longer; 4 stopped because agents diverged; 130 and 143
stopped by Ctrl-C and SIGTERM, files complete; 141 nobody reads any longer what a command prints.
Training needs no reader: the code of `train` and `resume` is the run's own, whatever becomes of
stdout.
"""

import contextlib
import difflib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import sacjax
from sacjax.cli.console import (
    any_text,
    complain,
    follow,
    leave,
    say_loading,
    steps_before,
    tell_reader,
    with_streams,
)
from sacjax.errors import InputError, RunError

OVERVIEW = """\
usage: sacjax COMMAND ...

Soft Actor-Critic, compiled end to end.

  sacjax train ENV [options]      train independent seeds, or a sweep, as one program
  sacjax plan ENV [options]       the memory that such a run needs, and what there is
  sacjax resume DIR [options]     go on with a run that was stopped or killed, or past its end
  sacjax evaluate DIR [options]   greedy returns of the agents that a run saved
  sacjax render DIR [options]     a GIF of a trained policy
  sacjax report DIR ... [options] runs side by side: an HTML page with curves and statistics
  sacjax envs [SUITE]             environments by name

`sacjax COMMAND --help` explains a command. Start here: sacjax train Pendulum-v1
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code."""
    from_shell, argv = argv is None, sys.argv[1:] if argv is None else argv
    if from_shell:
        any_text()
    return with_streams(lambda: _command(argv, from_shell))


def _command(argv: list[str], from_shell: bool) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "plan": _plan,
        "resume": _resume,
        "evaluate": _evaluate,
        "render": _render,
        "report": _report,
        "envs": _envs,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(OVERVIEW, end="")
        return 0
    if argv[0] == "--version":
        print(f"sacjax {sacjax.__version__}")
        return 0
    try:
        if argv[0] not in commands:
            close = difflib.get_close_matches(argv[0], commands, n=1)
            hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(commands)}"
            raise InputError(f"unknown command {argv[0]!r}: {hint}")
        return commands[argv[0]](argv[1:])
    except InputError as error:
        return _refused(argv, error, str(error))
    except PermissionError as error:
        if error.filename is None:
            raise
        return _refused(argv, error, f"{error}: change its permissions, or its owner")
    except RunError as error:
        complain(f"sacjax: {' '.join(str(error).split())}")
        tell_reader(argv, error)
        return leave(3, at_once=from_shell)  # writes that failed would go on telling of it
    except KeyboardInterrupt as error:
        complain("\nsacjax: stopped")
        tell_reader(argv, error)
        return leave(130, at_once=from_shell)
    except SystemExit as stop:  # the parser has printed help, or on stderr what is wrong
        if not stop.code:
            return 0
        tell_reader(argv, InputError("unknown or wrong options: stderr names them"))
        raise


def _refused(argv: list[str], error: Exception, why: str) -> int:
    """Bad input: told in one line."""
    complain(f"sacjax: error: {' '.join(why.split())}")
    tell_reader(argv, error)
    return leave(2)


def _start_jax(processes_: Any = None) -> None:
    """Before anything that makes arrays is imported, as gymnax does."""
    from sacjax.cli.flags import ProcessFlags
    from sacjax.devices import keep_compiled_programs, use_all_cores

    with contextlib.suppress(RuntimeError):  # `main` was called where JAX has started already
        use_all_cores()
    keep_compiled_programs()
    flags = processes_ or ProcessFlags()
    if flags != ProcessFlags():
        from sacjax.runs import processes

        if flags.coordinator:
            complain(f"sacjax: waiting for all processes at {flags.coordinator}")
        processes.join(flags.coordinator, flags.num_processes, flags.process_id)


def _train(argv: list[str]) -> int:
    from sacjax.cli.flags import parse_train

    given = {argument.split("=")[0].replace("_", "-") for argument in argv}
    if "--extend-to" in given:
        if "--out" in given or not (argv[0].startswith("-") or Path(argv[0]).exists()):
            raise InputError(
                "--extend-to goes on with a run that is there, in its own folder: use "
                "`sacjax train --extend-to STEPS DIR`, without ENV and without --out"
            )
        return _resume(argv)
    args = parse_train(argv)
    config, hp = args.config, args.hp
    say_loading(config.env, args.logs)
    _start_jax(args.processes)
    from sacjax.envs.names import path_of
    from sacjax.runs import directory, processes
    from sacjax.runs.population import make_grid
    from sacjax.runs.run import run

    if args.out is None and processes.several():
        raise InputError("several processes write to one folder: give all of them the same --out")
    members = make_grid(hp, list(args.seeds)).size
    place = directory.claimed(Path("runs") / path_of(config.env))
    with place if args.out is None else contextlib.nullcontext(args.out) as out:
        start = partial(run, config, hp, seeds=args.seeds, directory=out, **args.options)
        return follow(config, members, out, args.logs, start)


def _plan(argv: list[str]) -> int:
    from sacjax.cli.flags import ProcessFlags, parse_train

    what = (
        "The memory that a run with these options of `sacjax train` needs on each device, as "
        "estimated and as XLA says, and what there is. Nothing is trained or written."
    )
    args = parse_train(argv, "plan", what)
    config, hp = args.config, args.hp
    if args.processes != ProcessFlags():
        raise InputError(
            "`sacjax plan` is of one process: plan for its share of the seeds, without "
            "--distributed or --coordinator"
        )
    say_loading(config.env, args.logs)
    _start_jax()
    from sacjax.runs import epochs, memory
    from sacjax.runs.population import make_grid, make_population
    from sacjax.sac import make_sac

    how = {name: args.options.get(name) for name in ("devices", "members_per_batch")}
    strategy = args.options.get("strategy", "auto")
    grid = make_grid(hp, list(args.seeds))
    plan = make_population(config, grid, make_sac, strategy, *how.values())
    compiled = 0
    if memory.of(plan).enough:
        batch = max(plan.batches(), key=lambda batch: batch.size)
        compiled = epochs.compile_programs(batch, fresh=False).memory
    print(memory.table(plan, compiled))
    memory.check(plan, compiled)
    return 0


def _resume(argv: list[str]) -> int:
    from sacjax.cli.flags import parse_resume

    args = parse_resume(argv)
    say_loading(args.dir, args.logs)
    _start_jax(args.processes)
    from sacjax.runs import directory
    from sacjax.runs.population import extended
    from sacjax.runs.run import resume

    written = directory.read_config(args.dir)
    config, members = written.config, written.grid.total
    if args.extend_to is not None:
        config = extended(config, args.extend_to)
    start = partial(resume, args.dir, extend_to=args.extend_to, **args.run)
    return follow(config, members, args.dir, args.logs, start, steps_before(args.dir, config))


def _evaluate(argv: list[str]) -> int:
    from sacjax.cli.flags import Evaluate, parse

    args = parse(Evaluate, argv, "evaluate")
    _start_jax()
    from sacjax.report import tables
    from sacjax.runs.load import evaluate_run, load

    done = load(args.dir)
    returns = evaluate_run(done, args.episodes)[0].copy()
    returns[[d.member for d in done.diverged]] = float("nan")  # frozen: shown as diverged
    title = f"{done.config.env}: greedy return, {returns.shape[1]} episodes"
    print(tables.of_run(done.members, returns.mean(1), returns.std(1), title))
    return 0


def _render(argv: list[str]) -> int:
    from sacjax.cli.flags import Render, parse

    args = parse(Render, argv, "render")
    _start_jax()
    import numpy as np

    from sacjax.report.render import render, without_a_screen
    from sacjax.runs import curve

    without_a_screen()
    from sacjax.runs.load import load
    from sacjax.types import named

    done = load(args.dir)
    member = args.member
    if member is None:
        last, _ = curve.last_returns(done.metrics, done.epochs)
        member = int(np.nan_to_num(last, nan=-np.inf).argmax())
    target = args.out or args.dir / "policy.gif"
    total = render(done, member, target, args.frames)
    ends = {d.member: d.epoch for d in done.diverged}
    frozen = f", diverged, frozen after {ends[member]} epochs" if member in ends else ""
    print(f"{target}: {named(done.members[member])}, return {total:.1f}{frozen}")
    return 0


def _report(argv: list[str]) -> int:
    from sacjax.cli.flags import Report, parse

    args = parse(Report, argv, "report")
    from sacjax.report import compare

    command = ["sacjax", "report", *argv]
    text, files = compare(
        *args.dirs,
        labels=args.labels,
        last=args.last,
        until=args.until,
        out=args.out,
        command=command,
    )
    print(text, *files, sep="\n")
    return 0


def _envs(argv: list[str]) -> int:
    import numpy as np
    from rich.table import Table

    from sacjax.envs.gymnax import continuous_envs
    from sacjax.envs.names import SUITES, adapter
    from sacjax.presets import PRESETS
    from sacjax.report.tables import printed

    if argv and argv[0] in ("-h", "--help"):
        print(
            f"usage: sacjax envs [{' | '.join(SUITES)}]\n\nThe environments of a suite by name; of "
            "gymnasium and envpool also those\nwhose actions are not a bounded Box, which `sacjax "
            "train` refuses."
        )
        return 0
    if len(argv) > 1 or (argv and argv[0] not in SUITES):
        raise InputError(f"`sacjax envs` takes the name of one suite: {', '.join(SUITES)}")
    if argv:
        print("\n".join(f"{argv[0]}/{id}" for id in adapter(argv[0]).known()))
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
    for suite in SUITES[1:]:
        print(f"  sacjax envs {suite}")
    return 0
