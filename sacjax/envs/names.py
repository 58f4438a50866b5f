"""Make environments from names of the form `suite/id?option=value&...`.

A name without a suite is the id of a gymnax environment. sacjax imports a suite only to make an
environment of this suite.
"""

import ast
import difflib
import importlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sacjax.types import InputError, MakeEnv, is_whole, one_line

SUITES = ("gymnax", "brax", "playground", "gymnasium", "envpool")
_MUJOCO = (  # tasks of Gymnasium; users often write them without a suite
    "Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedPendulum|InvertedDoublePendulum|"
    "Pusher|Reacher|Swimmer|Walker2d"
)


class Name(NamedTuple):
    """The parts of an environment's name.

    Attributes:
      suite: one of `SUITES`.
      id: the name of the environment within its suite.
      options: the options after "?". Values that are Python literals are parsed.
    """

    suite: str
    id: str
    options: dict[str, Any]


def parse(name: str) -> Name:
    """Split the name of an environment into its parts.

    Args:
      name: a name of the form `suite/id?option=value&...`.

    Returns:
      The suite, the id and the options. This function does not check the id.

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
        near = difflib.get_close_matches(suite, SUITES, n=1)
        hint = f"did you mean {near[0]}/{rest}?" if near else f"use one of {', '.join(SUITES)}"
        raise InputError(f"unknown suite {suite!r} in {name!r}: {hint}", "env")
    options = {}
    for part in filter(None, query.split("&")):
        option, equals, value = part.partition("=")
        if not (option.isidentifier() and equals):
            example = "write options as in brax/ant?backend=spring&reset=fresh"
            raise InputError(f"malformed option {part!r} in {name!r}: {example}", "env")
        options[option] = _literal(value)
    return Name(suite, rest, options)


def make_env(env: Any) -> MakeEnv:
    """Return a function that makes copies of an environment.

    Actions are in [-1, 1] and episodes reset automatically. `sacjax.types.Env` describes the
    interface.

    Args:
      env: a name, or a gymnax `Environment` object. `sacjax envs` lists the names.

    Returns:
      A function that takes the number of copies E and returns an `Env`. All arrays of the `Env`
      have the leading axis E.

    Raises:
      InputError: the name is unknown, the suite is not installed, or SAC cannot use the action
        space or the observation space.

    >>> env = make_env("Pendulum-v1")(8)
    >>> env.action_size
    1
    """
    if isinstance(env, str):
        parsed = parse(env)
        return adapter(parsed.suite).make_env(env, parsed)
    return adapter("gymnax").make_object(env)


def adapter(suite: str) -> Any:
    """Import the module of a suite.

    Args:
      suite: one of `SUITES`.

    Returns:
      A module with the functions `make_env(name, parsed)` and `known()`. If the suite can draw, the
      module also has `pictures(name, parsed, episode)`.
    """
    assert suite in SUITES
    return importlib.import_module(f"{__package__}.{suite}")


def check_known(name: str, id: str, known: Iterable[str]) -> None:
    """Raise InputError with close matches if a suite has no environment `id`."""
    known = list(known)
    if id in known:
        return
    suite = parse(name).suite if "/" in name else ""
    folded = {other.casefold(): f"{suite}/{other}" if suite else other for other in known}
    near = [folded[x] for x in difflib.get_close_matches(id.casefold(), folded, n=3, cutoff=0.5)]
    if not suite and (task := re.fullmatch(rf"({_MUJOCO})-v(\d+)", id)):
        near = [f"gymnasium/{task[1]}-v{'4' if task[2] == '4' else '5'}"]
    command = f"sacjax envs {suite}".strip()
    hint = f"did you mean {' or '.join(near)}?" if near else f"see `{command}`"
    raise InputError(f"unknown environment {name!r}: {hint}", "env")


def resolve_options(name: str, options: dict[str, Any], **rules: Any) -> dict[str, Any]:
    """Check the options in a name, and add the default values of missing options.

    Args:
      name: the full name of the environment, which error messages show.
      options: the options that the name contains.
      **rules: one rule per option. A tuple lists the allowed values, and its first value is the
        default. A number is a default value, and the option accepts whole numbers from 1.

    Returns:
      A dictionary with a value for each option that has a rule.

    Raises:
      InputError: an option is unknown, or its value is not allowed.
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
    """Import the package of a suite, or raise InputError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"pip install 'sacjax[{extra}]'"
        raise InputError(f"cannot import {module} for {name} ({error}): {remedy}", "env") from error


@contextmanager
def creation_errors(name: str, remedy: str) -> Iterator[None]:
    """Raise InputError if a suite cannot make an environment within the `with` block."""
    try:
        yield
    except Exception as error:  # a suite can raise any error, such as a network error
        raise InputError(f"cannot make {name} ({one_line(error)}): {remedy}", "env") from error


def path_of(name: str) -> str:
    """Convert the name of an environment to a relative path.

    Args:
      name: any string.

    Returns:
      A relative path that stays inside its folder. Each part has at most 150 characters.

    >>> path_of("brax/ant?backend=spring")
    'brax/ant-backend-spring'
    """
    path, mark, query = name.partition("?")
    *suite, id = path.split("/")
    parts = [*suite, id + mark + query]
    return "/".join(re.sub(r"[^\w.-]+", "-", part).strip(".")[:150] or "-" for part in parts)


def _literal(text: str) -> Any:
    """Parse the value of an option. A text that is not a Python literal stays a string."""
    if text.casefold() in ("true", "false", "none"):
        text = text.capitalize()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
