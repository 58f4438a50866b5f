"""What the command line prints: a run's outcome, what to type next, errors."""

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def complain(text: str) -> None:
    """Print on stderr, as long as there is one."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def drop_stdout(code: int) -> int:
    """Let what is still printed go nowhere, also what Python flushes at its exit; `code`."""
    sys.stdout = io.StringIO()
    return code


def tell_reader(argv: list[str], error: BaseException) -> None:
    """Print an event "error" for whoever reads JSON lines, unless `JsonLines` has."""
    from sacjax.loggers import json_lines

    asked = "--log-format json" in " ".join(argv).replace("=", " ").replace("_", "-")
    processes = sys.modules.get("sacjax.runs.processes")
    first = processes is None or not processes.joined() or processes.is_first()
    if asked and first and not json_lines.was_told(error):
        with contextlib.suppress(OSError):
            print(json_lines.error_event(error), flush=True)


def say_loading(what: Any, log_format: str) -> None:
    """On a terminal, until the bar takes the line."""
    if log_format in ("auto", "bar") and sys.stderr.isatty():
        print(f"loading JAX and {what} ...", end="\r", file=sys.stderr, flush=True)


def follow(start: Callable, out: Path, loggers: Sequence[Any], grace: float) -> int:
    """Train with loggers and a clean stop, then show what was reached.

    Args:
      start: `run` or `resume` with its settings.
      out: the run's folder.
      loggers: none in a process that is not the first one.
      grace: seconds from a signal until the run stops in the middle of an epoch.

    Returns:
      The exit code.
    """
    from sacjax.loggers import JsonLines
    from sacjax.runs import processes
    from sacjax.runs.directory import resume_command
    from sacjax.runs.signals import StopOnSignal

    told = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.watched())
        stop = stack.enter_context(StopOnSignal(grace))
        reader = next((x for x in loggers if isinstance(x, JsonLines)), None)
        if reader is not None:  # nothing else is printed to stdout
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        for logger in loggers:
            stack.enter_context(logger)
        tell = [*loggers, lambda step, metrics: told.append(step)]
        done = start(on_epoch=tell, should_stop=stop.asked)
        stopped = processes.largest(128 + stop.number if stop.asked() else 0)  # here or elsewhere
        if reader is not None:
            reader.end(done, out)
    if loggers and reader is None:
        _show(done, out, bool(told))
    if loggers and done.completed and not told:
        complain(
            f"sacjax: nothing to do: this run has finished ({done.config.total_steps:,} steps). "
            f"Train further: {resume_command(out)} with --extend-to STEPS"
        )
    if done.completed:
        return 0
    if len(done.diverged) == len(done.members):
        complain("sacjax: all agents diverged: use smaller learning rates")
        return 4
    complain(
        f"sacjax: stopped after {done.env_steps.min():,} of {done.config.total_steps:,} steps: "
        + _how_to_resume(out)
    )
    return stopped or 4


def _show(done: Any, out: Path, trained: bool) -> None:
    """Print the returns, the files, and what to type next."""
    from sacjax.report import tables
    from sacjax.runs import curve

    steps = " to ".join(f"{step:,}" for step in sorted({*done.env_steps[[0, -1]].tolist()}))
    episodes = done.config.eval_episodes
    title = f"{done.config.env} after {steps} steps: greedy return, {episodes} episodes"
    last = curve.last_returns(done.metrics, done.epochs)
    files = [f"{path}{os.sep if path.is_dir() else ''}" for path in sorted(out.iterdir())]
    following = _next_commands(done, out) if done.completed and trained else []
    try:
        print(tables.of_run(done.members, *last, title), *files, *following, sep="\n", flush=True)
    except OSError as error:  # nobody reads it, or there is no room
        drop_stdout(0)
        complain(f"sacjax: cannot print the returns ({error}), the files are in {out}")


def _next_commands(done: Any, out: Path) -> list[str]:
    """What to type after a run that has ended, a line each."""
    where = shlex.quote(str(out))
    commands = {
        f"sacjax evaluate {where}": "the agents' greedy returns again",
        f"sacjax render {where}": "a GIF of the best agent",
        f"sacjax report {where}": "curves and statistics as an HTML page",
    }
    if done.config.lr_schedule == "constant":
        further = 2 * done.config.total_steps - done.config.warmup_steps
        commands[f"sacjax resume {where} --extend-to {further}"] = "train on"
    width = max(map(len, commands))
    return ["", *(f"  {command:{width}}  {what}" for command, what in commands.items())]


def _how_to_resume(out: Path) -> str:
    from sacjax.runs import checkpoints, directory

    if any(checkpoints.epochs(place) for place in [out, *directory.batches(out)]):
        return f"{directory.resume_command(out)} resumes it"
    return "it cannot be resumed, --checkpoint-every 0 has kept nothing"
