"""Print the results of a run, commands to try next, and errors."""

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sacjax.errors import InputError, RunError, error_event, one_line


def print_error(text: str) -> None:
    """Print on stderr. If stderr is closed, print nothing."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


@contextlib.contextmanager
def explain_jax_errors() -> Iterator[None]:
    """If JAX cannot start, raise an InputError that names JAX's environment variables."""
    try:
        yield
    except Exception as error:  # JAX raises many kinds of errors
        names = sorted(name for name in os.environ if name.startswith(("JAX_", "XLA_")))
        raise InputError(
            f"JAX cannot start ({one_line(error)}): check "
            + (", ".join(names) or "the installed versions of jax and jaxlib"),
            "JAX_PLATFORMS" if "JAX_PLATFORMS" in names else None,
        ) from error


def drop_stdout(code: int) -> int:
    """Discard all later output to stdout, and return `code`.

    Python's output at exit is discarded too.
    """
    sys.stdout = io.StringIO()
    return code


def joined_processes() -> Any:
    """Return the module `sacjax.runs.processes` if JAX has several processes, else None.

    The function imports nothing, so that `--help` and `--version` do not wait for JAX.
    """
    processes = sys.modules.get("sacjax.runs.processes")
    return processes if processes is not None and processes.joined() else None


def print_json_error(argv: list[str], error: BaseException) -> None:
    """Print an "error" event for `--log-format json`, unless `JsonLines` has printed the error."""
    asked = "--log-format json" in " ".join(argv).replace("=", " ").replace("_", "-")
    processes = joined_processes()
    first = processes is None or processes.is_first()
    if asked and first and "printed" not in vars(error):
        with contextlib.suppress(OSError):
            print(error_event(error), flush=True)


def train_with_loggers(start: Callable, out: Path, loggers: Sequence[Any], grace: float) -> int:
    """Train until the end or until a signal stops the run. Then print the results.

    Args:
      start: the function `run` or `resume`, with all settings already passed.
      out: the run's directory.
      loggers: the loggers. Only the first process has loggers.
      grace: the largest number of seconds that the run continues after a signal.

    Returns:
      The exit code.

    Raises:
      RunError: all agents diverged, because an environment failed.
    """
    from sacjax.loggers import JsonLines, TensorBoard
    from sacjax.runs import processes
    from sacjax.runs.directory import resume_command
    from sacjax.runs.signals import StopOnSignal

    logged = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.watched())
        stop = stack.enter_context(StopOnSignal(grace))
        json_lines = next((x for x in loggers if isinstance(x, JsonLines)), None)
        if json_lines is not None:  # stdout is for JSON only
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        for logger in loggers:
            stack.enter_context(logger)
        on_epoch = [*loggers, lambda step, metrics: logged.append(step)]
        done = start(on_epoch=on_epoch, should_stop=stop.asked)
        # another process may have got the signal
        stopped = processes.largest(128 + stop.number if stop.asked() else 0)
        if json_lines is not None:
            json_lines.end(done, out)
    if loggers and json_lines is None:
        events = any(isinstance(logger, TensorBoard) for logger in loggers)
        _print_outcome(done, out, bool(logged), events)
    if loggers and done.completed and not logged:
        print_error(
            f"sacjax: nothing to do: this run has finished ({done.config.total_steps:,} steps). "
            f"Train further: {resume_command(out)} with --extend-to STEPS"
        )
    if len(done.diverged) == len(done.members):
        if fault := next((d.fault for d in done.diverged if d.fault), ""):
            message = f"all agents diverged, because {done.config.env_name} failed: {fault}"
            raise RunError(f"{message}. Fix it, then train again", fault.split()[0])
        print_error("sacjax: all agents diverged: use smaller learning rates")
        return 4
    if done.completed:
        return 0
    print_error(
        f"sacjax: stopped after {done.env_steps.min():,} of {done.config.total_steps:,} steps: "
        + _how_to_resume(out)
    )
    return stopped or 4


def _print_outcome(done: Any, out: Path, trained: bool, events: bool) -> None:
    """Print the returns, the files, and the commands to try next."""
    from sacjax.report import tables
    from sacjax.runs import curve

    steps = " to ".join(f"{step:,}" for step in sorted({*done.env_steps[[0, -1]].tolist()}))
    episodes = done.config.eval_episodes
    title = f"{done.config.env} after {steps} steps: greedy return, {episodes} episodes"
    last = curve.last_returns(done.metrics, done.epochs)
    files = [f"{path}{os.sep if path.is_dir() else ''}" for path in sorted(out.iterdir())]
    following = _next_commands(done, out, events) if done.completed and trained else []
    try:
        print(tables.of_run(done.members, *last, title), *files, *following, sep="\n", flush=True)
    except OSError as error:  # stdout is closed, or the disk is full
        drop_stdout(0)
        print_error(f"sacjax: cannot print the returns ({error}); the files are in {out}")


def _next_commands(done: Any, out: Path, events: bool) -> list[str]:
    """Return the commands to try after a finished run, one per line.

    `events` is True if the run logged to TensorBoard.
    """
    from sacjax.runs.directory import resume_command

    where = shlex.quote(str(out))
    own = where + " --trust" * resume_command(out).endswith(" --trust`")
    commands = {
        f"sacjax evaluate {own}": "print the agents' greedy returns again",
        f"sacjax render {own}": "write a GIF of the best agent",
        f"sacjax report {where}": "write curves and statistics as an HTML page",
    }
    if done.config.lr_schedule == "constant":
        further = 2 * done.config.total_steps - done.config.warmup_steps
        commands[f"sacjax resume {own} --extend-to {further}"] = "train further"
    if events:
        folder = shlex.quote(str(out / "tensorboard"))
        commands[f"tensorboard --logdir {folder}"] = "show the logged metrics in a browser"
    width = max(map(len, commands))
    return ["", *(f"  {command:{width}}  {about}" for command, about in commands.items())]


def _how_to_resume(out: Path) -> str:
    """Return the command that resumes a stopped run, or the reason why this is impossible."""
    from sacjax.runs import checkpoints, directory

    if any(checkpoints.epochs(place) for place in [out, *directory.batches(out)]):
        return f"{directory.resume_command(out)} resumes it"
    return "it cannot be resumed, because --checkpoint-every 0 kept no checkpoint"
