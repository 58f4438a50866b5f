"""Environments and algorithms of the user's own by name: "module:Name"."""

import importlib
import operator
import re
from collections.abc import Callable
from typing import Any

from sacjax.types import PLAIN, InputError, one_line

OWN = re.compile(r"[\w.]+:[\w.]+")  # "module:Name", an environment or algorithm of the user's own
used: set[str] = set()
"""The names with a "module:Name" that this process has used. A run's folder may name them again."""


def import_own(name: str, field: str) -> Any:
    """Import what "module:Name" names: a class, object or function of the user's own.

    Args:
      name: a module and a name in it.
      field: the setting at fault if this fails, "env" or "algorithm".

    Returns:
      The object with this name.

    Raises:
      InputError: the module cannot be imported, or it has no such name.
    """
    module, _, path = name.partition(":")
    try:
        return operator.attrgetter(path)(importlib.import_module(module))
    except Exception as error:  # a module can raise anything
        remedy = f"fix {module}, or name something that it defines, as in my_module:MyName"
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            remedy = f"install {module}, or add its folder to PYTHONPATH"
        text = f"cannot import {name.removesuffix(':__name__')} ({one_line(error)}): {remedy}"
        raise InputError(text, field) from error


def find_algorithm(algorithm: Any, plain: Callable) -> Callable:
    """Return the function that makes the learner: `algorithm`, or what its name stands for.

    `plain` is the function of the name "sac". Raises InputError if the name is not a function's.
    """
    if not isinstance(algorithm, str):
        return algorithm
    if algorithm == PLAIN:
        return plain
    found = import_own(algorithm, "algorithm")
    if not callable(found):
        must = "must be a function (config, env) -> Algorithm: name one"
        raise InputError(f"algorithm ({algorithm}) {must}", "algorithm")
    used.add(algorithm)
    return found
