"""Run the command line `sacjax COMMAND ...`, print its errors, and return an exit code.

- 0: the command succeeded.
- 2: an argument or a file is invalid.
- 3: a file could not be written, or an environment failed.
- 4: the run stopped because agents diverged.
- 130 and 143: Ctrl-C or SIGTERM stopped the run, and its files are complete.

Each command imports JAX and environments itself, so that `--help` is quick.
"""

import importlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable

import tyro

import sacjax
from sacjax.cli.console import (
    drop_stdout,
    explain_jax_errors,
    joined_processes,
    print_error,
    print_json_error,
)
from sacjax.errors import InputError, RunError

COMMANDS = {
    "train": "Train independent seeds, or a sweep, as one program. Start here: train Pendulum-v1",
    "plan": "Print the memory that a run needs, and the memory that is available.",
    "resume": "Resume a run that was stopped or killed, or train past its end.",
    "evaluate": "Print the greedy returns of the agents that a run saved.",
    "render": "Write a GIF of a trained policy.",
    "report": "Compare runs: write an HTML page with curves and statistics.",
    "envs": "List the environments by name.",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    from_shell = argv is None
    argv = [_expand_home(word) for word in (sys.argv[1:] if argv is None else argv)]
    if from_shell:  # sacjax ignores invalid values of variables that it does not need
        os.environ["MPLBACKEND"] = "agg"
        kept = [x for x in warnings.filters if x[0] != "error"]  # ignores PYTHONWARNINGS=error
        warnings.filters[:] = kept  # pyright: ignore[reportIndexIssue]
    if "" not in sys.path:  # at the end, so that packages take precedence over local files
        sys.path.append("")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for encodings other than UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # stdout is closed, as in `sacjax envs | head`
        code = drop_stdout(0)
    except KeyboardInterrupt as error:
        code = 128 + (error.args[0] if error.args else signal.SIGINT)
        code = _fail(argv, error, "\nsacjax: stopped", code)
        if from_shell:  # Python would wait for the current epoch
            _leave(code)
    except InputError as error:
        code = _fail(argv, error, f"sacjax: error: {error}", 2)
    except PermissionError as error:
        code = _fail(argv, error, f"sacjax: error: {error}: change its permissions or owner", 2)
    except RunError as error:
        code = _fail(argv, error, f"sacjax: {error}", 3)
    except OSError as error:  # only stdout can raise OSError here
        code = drop_stdout(3)
        print_error(f"sacjax: cannot write ({error}): make room, or write to another place")
    except SystemExit as stop:  # the parser has printed help or an error
        code = stop.code if isinstance(stop.code, int) else 0
        if code:
            print_json_error(argv, InputError("unknown or invalid options: stderr names them"))
    if code and from_shell and joined_processes():  # Python would wait for the other processes
        _leave(code)
    return code


def _dispatch(argv: list[str]) -> int:
    """Run the command that `argv` names, or print the version or the list of commands."""
    if argv[:1] == ["--version"]:
        print(f"sacjax {sacjax.__version__}")
        return 0
    if argv and argv[0] in COMMANDS:
        with explain_jax_errors():
            importlib.import_module("jax")
        commands = importlib.import_module("sacjax.cli.commands")
        return getattr(commands, argv[0])(argv[1:])
    app = tyro.extras.SubcommandApp()
    for name, about in COMMANDS.items():
        app.command(name=name)(_documented(about))
    app.cli(
        prog="sacjax",
        description="Soft Actor-Critic, compiled end to end. Try `sacjax COMMAND --help`.",
        args=argv or ["--help"],
    )
    return 0


def _expand_home(word: str) -> str:
    """Expand ~ in a word. The shell does not expand ~ in --out=~/runs."""
    name, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return name + equals + os.path.expanduser(value)


def _documented(about: str) -> Callable[[], None]:
    """Return a command that only provides its help text for the list of commands."""

    def command() -> None: ...

    command.__doc__ = about
    return command


def _fail(argv: list[str], error: BaseException, text: str, code: int) -> int:
    """Print an error on one line, and return `code`.

    With `--log-format json`, the function also prints the error as JSON.
    """
    print_error(text[0] + " ".join(text[1:].split()))
    print_json_error(argv, error)
    return code


def _leave(code: int) -> None:
    """End the process now. Python's own exit would wait for threads and for other processes."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
