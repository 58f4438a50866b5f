"""The errors that sacjax raises. This module imports no package, so `sacjax --help` is quick."""

import json


class InputError(ValueError):
    """A setting, argument or file that cannot work. The message names the remedy.

    sacjax raises this error before it traces or writes anything.

    Attributes:
      field: the setting, argument, part of an environment or file at fault, such as "replay_size",
        "seeds", "observation_space" or "config.json". None if several are at fault together.

    Example:
      >>> from sacjax import Config, InputError
      >>> try:
      ...   Config("Pendulum-v1", batch_size=0)
      ... except InputError as error:
      ...   print(error.field)
      batch_size
    """

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


class RunError(RuntimeError):
    """A run that cannot continue: the disk is full, or an environment failed.

    The message says how to recover.

    Attributes:
      field: the argument, the part of an environment or the file at fault, such as "directory" or
        "reward". None if several are at fault together.
    """

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


def one_line(error: Exception) -> str:
    """Return the type of `error` and the first 200 characters of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def error_event(error: BaseException) -> str:
    """Return the event "error" of `--log-format json`, a line."""
    message, field = str(error) or type(error).__name__, getattr(error, "field", None)
    return json.dumps({"event": "error", "message": message, "field": field})
