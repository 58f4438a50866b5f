"""Import user-defined environments and algorithms by a name such as "module:Name"."""

import importlib
import operator
import re
from collections.abc import Callable
from typing import Any

from sacjax.types import PLAIN, InputError, one_line

OWN = re.compile(r"[\w.]+:[\w.]+")  # a user-defined environment or algorithm
used: set[str] = set()
"""Names of the user-defined objects that this process has used and may import again."""


def import_own(name: str, field: str) -> Any:
    """Import a user-defined class, object or function by a name such as "module:Name".

    Args:
      name: a module and the name of an object in the module.
      field: the setting whose value is the name, either "env" or "algorithm".

    Returns:
      The imported object.

    Raises:
      InputError: the module cannot be imported, or does not define the name.
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
    """Return `algorithm` if it is a function. If `algorithm` is a name, import the function.

    If `algorithm` is "sac", return `plain`. Raises InputError if the imported object is not a
    function.
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
