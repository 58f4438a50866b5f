"""The errors that sacjax raises. This module imports no packages, so `sacjax --help` is quick."""

import json


class InputError(ValueError):
    """An error in a setting, an argument or a file. The message says how to correct the error.

    sacjax raises this error before it traces or writes anything.

    Attributes:
      field: name of the wrong setting, argument, file or property of an environment, such as
        "replay_size", "seeds", "config.json" or "observation_space". The field is None if the
        error concerns several values.

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
    """An error that stops a run, such as a full disk or the failure of an environment.

    The message says how to recover.

    Attributes:
      field: name of the wrong argument, file or property of an environment, such as "directory"
        or "reward". The field is None if the error has several causes.
    """

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


def one_line(error: Exception) -> str:
    """Return the type of `error` and the first 200 characters of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def error_event(error: BaseException) -> str:
    """Return the line of JSON that `--log-format json` prints for an error."""
    message, field = str(error) or type(error).__name__, getattr(error, "field", None)
    return json.dumps({"event": "error", "message": message, "field": field})
