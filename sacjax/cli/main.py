"""The command line: `sacjax COMMAND ...`, its errors and exit codes.

Exit codes: 0 done; 2 bad input; 3 a file could not be written, or an environment failed; 4 stopped
because agents diverged; 130 and 143 stopped by Ctrl-C and SIGTERM with complete files. Programs and
environments are imported by the command that needs them, so help is quick.
"""

import importlib
import io
import os
import signal
import sys
from collections.abc import Callable

import tyro

import sacjax
from sacjax.cli.console import complain, drop_stdout, tell_reader
from sacjax.errors import InputError, RunError

COMMANDS = {
    "train": "Train independent seeds, or a sweep, as one program. Start here: train Pendulum-v1",
    "plan": "The memory that such a run needs, and what there is.",
    "resume": "Resume a run that was stopped or killed, or train past its end.",
    "evaluate": "Greedy returns of the agents that a run saved.",
    "render": "A GIF of a trained policy.",
    "report": "Runs side by side: an HTML page with curves and statistics.",
    "envs": "Environments by name.",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code."""
    from_shell, argv = argv is None, sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # letters that it does not have, as escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # nobody reads what a command prints
        code = drop_stdout(0)
    except KeyboardInterrupt as error:
        code = 128 + (error.args[0] if error.args else signal.SIGINT)
        code = _failed(argv, error, "\nsacjax: stopped", code)
        if from_shell:  # the epoch that is running would be waited for
            _leave(code)
    except InputError as error:
        code = _failed(argv, error, f"sacjax: error: {error}", 2)
    except PermissionError as error:
        code = _failed(argv, error, f"sacjax: error: {error}: change its permissions, or owner", 2)
    except RunError as error:
        code = _failed(argv, error, f"sacjax: {error}", 3)
    except OSError as error:  # of what is printed: files raise RunError
        code = drop_stdout(3)
        complain(f"sacjax: cannot write ({error}): make room, or write to another place")
    except SystemExit as stop:  # the parser has printed help, or what is wrong
        code = stop.code if isinstance(stop.code, int) else 0
        if code:
            tell_reader(argv, InputError("unknown or wrong options: stderr names them"))
    if code and from_shell and _is_one_of_several():  # the others are not waited for
        _leave(code)
    return code


def _dispatch(argv: list[str]) -> int:
    if argv[:1] == ["--version"]:
        print(f"sacjax {sacjax.__version__}")
        return 0
    if argv and argv[0] in COMMANDS:
        commands = importlib.import_module("sacjax.cli.commands")
        return getattr(commands, argv[0])(argv[1:])
    app = tyro.extras.SubcommandApp()
    for name, about in COMMANDS.items():
        app.command(name=name)(_documented(about))
    app.cli(
        prog="sacjax",
        description="Soft Actor-Critic, compiled end to end. `sacjax COMMAND --help` explains one.",
        args=argv or ["--help"],
    )
    return 0


def _documented(about: str) -> Callable[[], None]:
    """A stand-in for a command, for the list of all."""

    def command() -> None: ...

    command.__doc__ = about
    return command


def _failed(argv: list[str], error: BaseException, text: str, code: int) -> int:
    complain(text[0] + " ".join(text[1:].split()))
    tell_reader(argv, error)
    return code


def _leave(code: int) -> None:
    """End at once, without what Python waits for: threads that compute, other processes."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _is_one_of_several() -> bool:
    processes = sys.modules.get("sacjax.runs.processes")
    return processes is not None and processes.joined()
