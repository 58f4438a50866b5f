"""The errors that sacjax raises. This module imports nothing, so `sacjax --help` is quick."""


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
