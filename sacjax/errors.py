"""The errors that sacjax raises. Nothing is imported here: the command line starts with it."""


class InputError(ValueError):
    """A setting that cannot work, found before anything is traced. The message has the remedy."""


class RunError(RuntimeError):
    """A run cannot go on: the disk is full, say. The message has the remedy."""
