"""A run as the command line follows it: its loggers, a clean stop, and what it reached."""

import contextlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sacjax.config import Config
from sacjax.flags import LogFlags
from sacjax.runs.signals import StopOnSignal
from sacjax.terminal import complain, lost
from sacjax.types import InputError


def say_loading(what: Any, flags: LogFlags) -> None:
    """On a terminal, until the bar takes the line."""
    if flags.log_format in ("auto", "bar") and sys.stderr.isatty():
        print(f"loading JAX and {what} ...", end="\r", file=sys.stderr, flush=True)


def steps_before(out: Path, config: Config) -> Any:
    """Of each member that has been trained [M], as far as its table can be read."""
    from sacjax.runs import directory
    from sacjax.runs.metrics_csv import epochs_of, read_metrics

    try:
        _, metrics = read_metrics(*directory.tables(out))
    except (InputError, ValueError):  # there is none yet, or a damaged one, which is made anew
        return None
    return config.warmup_steps + epochs_of(metrics) * config.eval_every


def follow(
    config: Config, members: int, out: Path, flags: LogFlags, start: Callable, before: Any = None
) -> int:
    """Run it with loggers and a clean stop, then show what it reached."""
    from sacjax import report
    from sacjax.progress import JsonLines
    from sacjax.runs import checkpoints, processes

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
        last = report.last_returns(done.metrics, done.epochs)
        files = [f"{path}{os.sep if path.is_dir() else ''}" for path in sorted(out.iterdir())]
        gone = lost(sys.stdout)
        try:
            print(report.table(done.members, *last, title), *files, sep="\n", flush=True)
        except OSError as error:
            gone = lost(sys.stdout) or error
        if gone is not None:
            complain(f"sacjax: cannot print the returns ({gone}), the files are in {out}")
    if first and done.completed and not trained:
        complain(
            f"sacjax: it was at its end, {config.total_steps:,} steps, already: "
            f"{checkpoints.resuming(out)} with --extend-to STEPS trains on"
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


def _how_to_go_on(out: Path) -> str:
    from sacjax.runs import checkpoints, directory

    places = [out, *(path.parent for path in directory.in_batches(out, "config.json"))]
    if any(checkpoints.epochs(place) for place in places):
        return f"{checkpoints.resuming(out)} goes on"
    return "it cannot go on, --checkpoint-every 0 has kept nothing"


def _loggers(config: Config, out: Path, flags: LogFlags, steps: Any) -> list[Any]:
    """What the flags ask for, the one on the terminal first. InputError if it is not to be had."""
    from sacjax.logs import TensorBoard, WandB
    from sacjax.progress import JsonLines, Progress

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
    return [Progress(config, steps=steps, show=show), *services]
