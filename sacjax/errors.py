"""The errors that sacjax raises. This module imports nothing, so `sacjax --help` is quick."""


class InputError(ValueError):
    """An error in a setting, an argument or a file. The message says how to correct the error.

    sacjax raises this error before it traces or writes anything.

    Attributes:
      field: name of the wrong setting, argument, file or property of an environment, such as
        "replay_size", "seeds", "config.json" or "observation_space". The field is None if several
        values are wrong together.

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
      field: name of the faulty argument, file or property of an environment, such as "directory"
        or "reward". The field is None if there are several causes.
    """

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field
