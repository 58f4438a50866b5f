"""The errors that sacjax raises. It imports nothing, so that the command line starts quickly."""


class InputError(ValueError):
    """A setting, argument or file that cannot work. The message names the remedy.

    sacjax raises it before it traces or writes anything.

    Attributes:
      field: what the error is about: a field of Config or Hyperparams, an argument, a field of an
        environment, or the name of a file, such as "replay_size", "seeds" or "config.json". None
        where no single one is at fault.
    """

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


class RunError(RuntimeError):
    """A run that cannot continue: the disk is full, or an environment failed.

    The message says how to recover.

    Attributes:
      field: the argument, environment or file at fault, as in `InputError`.
    """

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field
