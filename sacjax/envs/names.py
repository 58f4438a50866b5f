"""Make environments from names of the form `suite/id?option=value&...`.

A name without a suite is the id of a gymnax environment. sacjax imports the package of a suite only
to make an environment of the suite, or to suggest similar names. An id of the form "module:Name"
refers to an environment in a Python module of the user.
"""

import ast
import difflib
import importlib
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from sacjax.own import used
from sacjax.types import InputError, MakeEnv, is_whole, one_line

SUITES = ("gymnax", "brax", "playground", "gymnasium", "envpool")
_CONSTANTS = {"true": True, "false": False, "none": None, "inf": math.inf, "nan": math.nan}


class Name(NamedTuple):
    """The parts of the name of an environment.

    Attributes:
      suite: one of `SUITES`.
      id: the name of the environment within the suite.
      options: the options after "?", as a dictionary. Values that are Python literals are parsed.
    """

    suite: str
    id: str
    options: dict[str, Any]


def parse(name: str) -> Name:
    """Split the name of an environment into its parts.

    Args:
      name: a name of the form `suite/id?option=value&...`.

    Returns:
      A `Name` with the suite, the id and the options. The id is not checked.

    Raises:
      InputError: the suite is unknown, or an option does not have the form `option=value`.

    >>> parse("brax/ant?backend=spring")
    Name(suite='brax', id='ant', options={'backend': 'spring'})
    """
    path, _, query = name.partition("?")
    suite, slash, rest = path.partition("/")
    if not slash:
        suite, rest = "gymnax", path
    if suite not in SUITES:
        near = difflib.get_close_matches("gymnasium" if suite == "gym" else suite, SUITES, n=1)
        names = [f"{near[0]}/{rest}"] if near else _similar("", rest, [])
        hint = f"did you mean {' or '.join(names)}?" if names else f"use one of {', '.join(SUITES)}"
        raise InputError(f"unknown suite {suite!r} in {name!r}: {hint}", "env")
    options = {}
    for part in filter(None, query.split("&")):
        option, equals, value = part.partition("=")
        if not (option.isidentifier() and equals) or option in options or "?" in value:
            example = "write each once, with & between them: brax/ant?backend=spring&reset=fresh"
            raise InputError(f"malformed option {part!r} in {name!r}: {example}", "env")
        options[option] = _literal(option, value)
    return Name(suite, rest, options)


def own_module(name: Any) -> str:
    """Return the name of the user's module that contains an environment.

    Return "" if `name` does not refer to a module of the user.
    """
    id = parse(name).id if isinstance(name, str) else ""
    return id.partition(":")[0] if ":" in id else ""


def make_env(env: Any) -> MakeEnv:
    """Return a function that makes copies of an environment.

    The environment accepts actions in [-1, 1], and resets episodes automatically.
    `sacjax.types.Env` describes the interface of environments.

    Args:
      env: the name of an environment, or a gymnax `Environment` object with or without gymnax's
        wrappers. `sacjax envs` lists the names. The name "module:Name" refers to the
        object, class or function `Name` in your own module.

    Returns:
      A function that takes the number of copies E and returns an `Env`. All arrays of an `Env`
      have the leading axis E.

    Raises:
      InputError: the name is unknown, the suite is not installed, or SAC does not support the
        observation or action space.

    >>> env = make_env("Pendulum-v1")(8)
    >>> env.action_size
    1
    """
    if isinstance(env, str):
        parsed = parse(env)
        make = adapter(parsed.suite).make_env(env, parsed)
        used.add(env)
        return make
    return adapter("gymnax").make_object(env)


def adapter(suite: str) -> Any:
    """Import the adapter of a suite. Each adapter is a module of sacjax.

    Args:
      suite: one of `SUITES`.

    Returns:
      A module with the functions `make_env(name, parsed)` and `known()`. If sacjax can draw the
      suite's environments, the module also has the function `pictures(name, parsed, episode)`.
    """
    assert suite in SUITES
    return importlib.import_module(f"{__package__}.{suite}")


def check_known(name: str, id: str, known: Iterable[str]) -> None:
    """Raise an InputError that suggests similar names, unless `known` contains `id`."""
    known = list(known)
    if id in known:
        return
    suite = parse(name).suite
    names = _similar(suite, id, known)
    names = [x if "/" in name else x.removeprefix("gymnax/") for x in names]
    command = f"sacjax envs {suite}".removesuffix(" gymnax")
    hint = f"did you mean {' or '.join(names)}?" if names else f"see `{command}`"
    if suite == "gymnasium":
        hint += f". If your own module registers it, write gymnasium/my_module:{id}"
    raise InputError(f"unknown environment {name!r}: {hint}", "env")


def _similar(own: str, id: str, known: Iterable[str]) -> list[str]:
    """Return up to four names of environments that are similar to `id`.

    `known` contains the ids of the suite `own`. The function first looks for `id` in `known`, and
    ignores case, punctuation and versions. The function searches other suites only if `known` does
    not contain `id`.
    """
    typed, found, exact = _stem(id), {}, []  # found: stem -> suite -> id
    for suite in (own, *(x for x in SUITES if x != own)):
        with suppress(Exception), warnings.catch_warnings(action="ignore"):  # if not installed
            ids = known if suite == own else adapter(suite).known()
            for other in sorted(ids, key=lambda x: (x.casefold() == id.casefold(), len(x), x)):
                found.setdefault(_stem(other), {})[suite] = other
        exact = [stem for stem in (typed, typed + "-v") if stem in found]
        if exact and suite == own:
            break
    stems = exact or difflib.get_close_matches(typed, found, n=3, cutoff=0.8)
    pairs = [(suite, other) for stem in stems for suite, other in found[stem].items()]
    first = {other: f"{suite}/{other}" for suite, other in reversed(pairs)}  # without duplicate ids
    return [*reversed(first.values())][:4]


def _stem(id: str) -> str:
    """Return an id in lower case without punctuation, and replace the version by "-v"."""
    stem = re.sub(r"-v\d+$", "", id.casefold())
    return re.sub(r"-misc$|[\W_]", "", stem) + "-v" * (len(stem) < len(id))


def resolve_options(name: str, options: dict[str, Any], **rules: Any) -> dict[str, Any]:
    """Check the options in the name of an environment, and add the defaults of missing options.

    Args:
      name: the full name of the environment, used in error messages.
      options: the options that the name contains.
      **rules: a rule for each option. A tuple lists the allowed values, and its first
        value is the default. A number is the default of an option that accepts whole numbers of
        at least 1.

    Returns:
      A dictionary with a value for each option that has a rule.

    Raises:
      InputError: an option is unknown, or the value of an option is not allowed.
    """
    for option, value in options.items():
        if option not in rules:
            known = f"use {', '.join(rules)}" if rules else "this suite has no options"
            raise InputError(f"unknown option {option!r} in {name!r}: {known}", option)
        rule = rules[option]
        if isinstance(rule, tuple) and value not in rule:
            known = ", ".join(filter(None, rule))
            raise InputError(f"{option} ({value!r}) of {name!r} must be one of {known}", option)
        if isinstance(rule, int) and not (is_whole(value) and value >= 1):
            bad = f"{option} ({value!r}) of {name!r}"
            raise InputError(f"{bad} must be a whole number of at least 1", option)
    defaults = {x: rule[0] if isinstance(rule, tuple) else rule for x, rule in rules.items()}
    return defaults | options


def import_suite(module: str, name: str, extra: str) -> Any:
    """Import a suite's package, or raise InputError with the command that installs the package."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"pip install 'sacjax[{extra}]'"
        raise InputError(f"cannot import {module} for {name} ({error}): {remedy}", "env") from error


@contextmanager
def creation_errors(
    name: str, extra: str, options: Callable[[], Iterable[str]] = tuple, otherwise: str = ""
) -> Iterator[None]:
    """Re-raise errors as InputError while a suite makes an environment.

    Args:
      name: the full name of the environment.
      extra: the optional dependency of sacjax that installs the suite, such as "brax".
      options: a function that returns the names of the environment's options.
      otherwise: the advice in the error message if the cause is neither a missing package nor an
        unknown option.
    """
    try:
        yield
    except Exception as error:  # suites raise many kinds of errors, such as network errors
        text, is_missing = str(error), type(error).__name__ == "DependencyNotInstalled"
        fix = "check its options" if "?" in name else "it has a fault itself"
        remedy = otherwise or fix
        if "unexpected keyword argument" in text:
            remedy = f"use the options {', '.join(options())}"
        elif is_missing or isinstance(error, ImportError):
            other = "pip install" in text and "mujoco" not in text.casefold()
            remedy = "install what it names" if other else f"pip install 'sacjax[{extra}]'"
        raise InputError(f"cannot make {name} ({one_line(error)}): {remedy}", "env") from error


def parameters(function: Callable) -> list[str]:
    """Return the names of a function's parameters, except `**kwargs`."""
    found = inspect.signature(function).parameters.values()
    return [x.name for x in found if x.kind != x.VAR_KEYWORD]


def path_of(name: str) -> str:
    """Convert the name of an environment to a relative path.

    Args:
      name: the name of an environment, or any other string.

    Returns:
      A relative path in which no part is "..". Each part has at most 150 characters.

    >>> path_of("brax/ant?backend=spring")
    'brax/ant-backend-spring'
    """
    path, mark, query = name.partition("?")
    *suite, id = path.split("/")
    parts = [*suite, id + mark + query]
    return "/".join(re.sub(r"[^\w.-]+", "-", part).strip(".")[:150] or "-" for part in parts)


def _literal(option: str, text: str) -> Any:
    """Parse the value of an option. If a value is not a Python literal, return it as a string."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return ast.literal_eval(_Constants().visit(tree))
    except (ValueError, SyntaxError, TypeError) as error:
        if text.lstrip().startswith(("(", "[", "{")):
            message = f"{option} ({text}) is no tuple, list or dictionary ({one_line(error)}): "
            raise InputError(message + f"write {option}=(0.8,inf)", option) from error
        return text


class _Constants(ast.NodeTransformer):
    """Replaces the words true, false, none, inf and nan, in any case, by Python values."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        id = node.id.casefold()
        return ast.Constant(_CONSTANTS[id]) if id in _CONSTANTS else node
