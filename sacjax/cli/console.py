"""What the command line shows: loggers, results, errors, and streams that take no more."""

import contextlib
import errno
import io
import math
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sacjax.errors import InputError

if TYPE_CHECKING:
    from sacjax.cli.flags import LogFlags
    from sacjax.config import Config


def say_loading(what: Any, flags: "LogFlags") -> None:
    """On a terminal, until the bar takes the line."""
    if flags.log_format in ("auto", "bar") and sys.stderr.isatty():
        print(f"loading JAX and {what} ...", end="\r", file=sys.stderr, flush=True)


def steps_before(out: Path, config: "Config") -> Any:
    """Of each member that has been trained [M], as far as its table can be read."""
    from sacjax.runs import directory
    from sacjax.runs.metrics_csv import epochs_of, read_metrics

    try:
        _, metrics = read_metrics(*directory.tables(out))
    except (InputError, ValueError):  # there is none yet, or a damaged one, which is made anew
        return None
    return config.warmup_steps + epochs_of(metrics) * config.eval_every


def follow(
    config: "Config",
    members: int,
    out: Path,
    flags: "LogFlags",
    start: Callable,
    before: Any = None,
) -> int:
    """Run it with loggers and a clean stop, then show what it reached."""
    from sacjax.loggers import JsonLines
    from sacjax.report import tables
    from sacjax.runs import curve, directory, processes
    from sacjax.runs.signals import StopOnSignal

    trained = False

    def note_trained(step: int, metrics: dict[str, Any]) -> None:
        nonlocal trained  # and not only told of
        trained = trained or not math.isnan(metrics["seconds"].max())

    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.watched())
        stop = stack.enter_context(StopOnSignal())
        first = processes.is_first()
        loggers = _loggers(config, out, flags, before) if first else []
        loggers = [stack.enter_context(x) for x in loggers]
        done = start(on_epoch=[*loggers, note_trained], should_stop=stop.asked)
        stopped = processes.largest(128 + stop.number if stop.asked() else 0)  # here or elsewhere
    steps = done.env_steps
    if not loggers:
        pass  # not the first process: it is the one that tells
    elif isinstance(loggers[0], JsonLines):
        loggers[0].end(done, out)
        lost(sys.stdout)  # which has been said
    else:
        after = " to ".join(f"{step:,}" for step in sorted({steps.min(), steps.max()}))
        title = f"{config.env} after {after} steps: greedy return, {config.eval_episodes} episodes"
        last = curve.last_returns(done.metrics, done.epochs)
        files = [f"{path}{os.sep if path.is_dir() else ''}" for path in sorted(out.iterdir())]
        gone = lost(sys.stdout)
        try:
            shown = [tables.of_run(done.members, *last, title), *files]
            shown += _next_commands(done, out) if done.completed and trained else []
            print(*shown, sep="\n", flush=True)
        except OSError as error:
            gone = lost(sys.stdout) or error
        if gone is not None:
            complain(f"sacjax: cannot print the returns ({gone}), the files are in {out}")
    if first and done.completed and not trained:
        complain(
            f"sacjax: it was at its end, {config.total_steps:,} steps, already: "
            f"{directory.resume_command(out)} with --extend-to STEPS trains on"
        )
    if len(done.diverged) == members:
        complain("sacjax: all agents diverged: use smaller learning rates")
        return 4
    if not done.completed:
        trained = int((steps >= config.total_steps).sum())
        alike = len(steps) == members and len(set(steps)) == 1
        whose = "" if alike else f", {trained} of {members} members are at the end"
        complain(
            f"sacjax: stopped after {steps.min():,} of {config.total_steps:,} steps{whose}: "
            + _how_to_go_on(out)
        )
        return stopped or 4
    return 0


def _next_commands(done: Any, out: Path) -> list[str]:
    """What to type after a run that has ended, a line each."""
    config, where = done.config, shlex.quote(str(out))
    further = 2 * config.total_steps - config.warmup_steps
    commands = {
        f"sacjax evaluate {where}": "the agents' greedy returns again",
        f"sacjax render {where}": "a GIF of the best agent",
        f"sacjax report {where}": "curves and statistics as an HTML page",
    }
    if config.lr_schedule == "constant":
        commands[f"sacjax resume {where} --extend-to {further}"] = "train on"
    width = max(map(len, commands))
    return ["", *(f"  {command:{width}}  {what}" for command, what in commands.items())]


def _how_to_go_on(out: Path) -> str:
    from sacjax.runs import checkpoints, directory

    places = [out, *directory.batches(out)]
    if any(checkpoints.epochs(place) for place in places):
        return f"{directory.resume_command(out)} goes on"
    return "it cannot go on, --checkpoint-every 0 has kept nothing"


def _loggers(config: "Config", out: Path, flags: "LogFlags", steps: Any) -> list[Any]:
    """What the flags ask for, the one on the terminal first. InputError if it is not to be had."""
    from sacjax.loggers import JsonLines, ProgressBar, TensorBoard, WandB

    services: list[Any] = [TensorBoard(out)] if flags.tensorboard else []
    if flags.wandb:
        services.append(WandB(out, project=flags.wandb_project))
    for asked, name, left in (
        (flags.tensorboard, "--tensorboard", out / "tensorboard"),
        (flags.wandb, "--wandb", out / "wandb.json"),
    ):
        if not asked and left.exists():
            complain(f"sacjax: {left} is of before, and is not gone on with: {name} does that")
    if flags.log_format == "json":
        return [JsonLines(config, steps=steps), *services]
    show = {"auto": None, "bar": True, "none": False}[flags.log_format]
    return [ProgressBar(config, steps=steps, show=show), *services]


def any_text() -> None:
    """What a terminal's encoding does not have is written as an escape, and is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def with_streams(command: Callable[[], int]) -> int:
    """The exit code of `command`, or why its output could not be written: 141 where nobody reads it
    any longer, as of other commands, 3 where there is no room. Never a traceback, also none of
    Python's at its exit."""
    try:
        code = command()
        gone = lost(sys.stdout)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        code, gone = 0, lost(sys.stdout) or error
    if not code and isinstance(gone, BrokenPipeError):
        code = 141
    elif not code and gone is not None:
        complain(f"sacjax: cannot write ({gone}): make room, or write to another place")
        code = 3
    lost(sys.stderr)
    return code


def leave(code: int, at_once: bool = False) -> int:
    """The exit code. `at_once`, and where there are other processes, without what would be waited
    for at the end: the epoch that is running, the others, writes that cannot end."""
    if at_once or _is_one_of_several():
        lost(sys.stdout)
        lost(sys.stderr)
        os._exit(code)
    return code


def _is_one_of_several() -> bool:
    if "sacjax.runs.processes" not in sys.modules:
        return False
    from sacjax.runs import processes

    return processes.joined()


def complain(text: str) -> None:
    """On stderr, as long as there is one."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def tell_reader(argv: list[str], error: BaseException) -> None:
    """An event "error" for whoever reads JSON lines, if `JsonLines` has not told it already."""
    from sacjax.loggers import json_lines

    asked = "--log-format json" in " ".join(argv).replace("=", " ").replace("_", "-")
    if not asked or json_lines.was_told(error):
        return
    if _is_one_of_several():
        from sacjax.runs import processes

        if not processes.is_first():
            return
    with contextlib.suppress(OSError):
        print(json_lines.error_event(error), flush=True)


def lost(stream: Any) -> OSError | None:
    """Flush it. Where it takes no more: why, and the rest goes nowhere, also at Python's exit."""
    if stream is None:  # there never was one
        return None
    try:
        stream.flush()
        return None
    except OSError as error:
        with contextlib.suppress(OSError):  # a stream that is no file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return error
