"""Environments behind one contract (`sacjax.types.Env`).

By name, `suite/id?option=value` (`sacjax.envs.names`), or as a gymnax `Environment` object. A suite
is imported when one of its environments is made.
"""

from importlib import import_module
from typing import Any

from sacjax.envs.names import SUITES, parse
from sacjax.types import MakeEnv


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
    return import_module(f"{__name__}.{suite}_adapter")


__all__ = ["adapter", "make_env"]
