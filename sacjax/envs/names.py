"""Environments by name: `suite/id?option=value&...`; without a suite it is gymnax's.

A suite is imported when one of its environments is made.
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
_MUJOCO = (  # tasks that are Gymnasium's, where the suite is left out
    "Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedPendulum|InvertedDoublePendulum|"
    "Pusher|Reacher|Swimmer|Walker2d"
)


class Name(NamedTuple):
    """What a name says."""

    suite: str
    id: str  # as the suite calls it
    options: dict[str, Any]


def parse(name: str) -> Name:
    """InputError where the suite is unknown or the options are not `option=value`."""
    path, _, query = name.partition("?")
    suite, slash, rest = path.partition("/")
    if not slash:
        suite, rest = "gymnax", path
    if suite not in SUITES:
        near = difflib.get_close_matches(suite, SUITES, n=1)
        hint = f"did you mean {near[0]}/{rest}?" if near else f"use one of {', '.join(SUITES)}"
        raise InputError(f"unknown suite {suite!r} in {name!r}: {hint}")
    options = {}
    for part in filter(None, query.split("&")):
        option, equals, value = part.partition("=")
        if not (option.isidentifier() and equals):
            raise InputError(f"{name!r}: write options as in brax/ant?backend=spring&reset=fresh")
        options[option] = _literal(value)
    return Name(suite, rest, options)


def make_env(env: Any) -> MakeEnv:
    """A maker of E copies of `env`, a name or a gymnax `Environment` object.

    Raises InputError if the name is unknown, its suite is not installed, or its spaces are not ones
    that SAC can act in.
    """
    if isinstance(env, str):
        parsed = parse(env)
        return adapter(parsed.suite).make_env(env, parsed)
    return adapter("gymnax").make_object(env)


def adapter(suite: str) -> Any:
    """The module of a suite: `make_env(name, parsed)`, `known()`, and what drawing it needs."""
    assert suite in SUITES
    return importlib.import_module(f"{__package__}.{suite}")


def check_known(name: str, id: str, known: Iterable[str]) -> None:
    """InputError with the close matches if `id` is none of the suite's."""
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
    raise InputError(f"unknown environment {name!r}: {hint}")


def choose(name: str, options: dict[str, Any], **rules: Any) -> dict[str, Any]:
    """The options with their defaults. InputError where one breaks its rule or has none.

    A rule is a tuple, of which the first is the default, or the default of a count from 1.
    """
    for option, value in options.items():
        if option not in rules:
            known = f"use {', '.join(rules)}" if rules else "this suite has none"
            raise InputError(f"{name!r}: no option {option!r}: {known}")
        rule = rules[option]
        if isinstance(rule, tuple) and value not in rule:
            known = ", ".join(filter(None, rule))
            raise InputError(f"{name}: {option} ({value!r}) must be one of {known}")
        if isinstance(rule, int) and not (is_whole(value) and value >= 1):
            raise InputError(f"{name}: {option} ({value!r}) must be a whole number from 1")
    defaults = {x: rule[0] if isinstance(rule, tuple) else rule for x, rule in rules.items()}
    return defaults | options


def imported(module: str, name: str, extra: str) -> Any:
    """A suite's module; InputError names the extra that it comes with, where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]:
            why = "needs a package that is not installed"
        else:
            why = f"needs packages that cannot be imported ({error})"
        raise InputError(f"{name} {why}: pip install 'sacjax[{extra}]'") from error


@contextmanager
def made(name: str, remedy: str) -> Iterator[None]:
    """What a suite raises while it makes an environment, as an InputError."""
    try:
        yield
    except Exception as error:  # its packages, its arguments, its own checks, the network
        raise InputError(f"{name} cannot be made ({one_line(error)}): {remedy}") from error


def path_of(name: str) -> str:
    """A name as a relative path: `brax/ant?backend=spring` is `brax/ant-backend-spring`."""
    path, mark, query = name.partition("?")
    *suite, id = path.split("/")
    parts = [*suite, id + mark + query]
    return "/".join(re.sub(r"[^\w.-]+", "-", part).strip(".")[:150] or "-" for part in parts)


def _literal(text: str) -> Any:
    if text.casefold() in ("true", "false", "none"):
        text = text.capitalize()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
