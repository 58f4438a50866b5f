"""Make gymnax environments from names or from `Environment` objects.

The name of a gymnax environment is an id such as "Pendulum-v1", or has the form gymnax/<id>. The
environments of gymnax have no options. An id of the form "module:Name" refers to the user's own
environment. `Name` is an `Environment` object, or a class or function that returns one.

gymnax (1.0 or later) resets episodes automatically, and distinguishes `terminated` from
`truncated`. After a reset, `info` contains the last observation of the episode. The adapter makes
copies of the environment, rescales actions, keeps dtypes constant, and checks the spaces.
"""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.envs import names
from sacjax.envs.base import (
    check_spaces,
    drop_weak_types,
    flatten,
    keep_dtypes,
    make_record,
    make_timestep,
    rescale,
)
from sacjax.envs.names import Name
from sacjax.own import import_own
from sacjax.prng import lean, standard
from sacjax.types import Array, Env, EnvParams, InputError, Key, MakeEnv, TimeStep


class _LazyModule(ModuleType):
    """A module that Python imports when an attribute of the module is first used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system reads these attributes
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _import_lazily(*names: str) -> Iterator[None]:
    """Within a `with` block, delay the import of each named module until the first use.

    gymnax imports pyplot and seaborn for drawing. The import of gymnax takes 1.8 s in total, but
    only 0.5 s without pyplot and seaborn.
    """
    stand_ins = {name: _LazyModule(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    yield
    for name in stand_ins:
        del sys.modules[name]


with _import_lazily("matplotlib.pyplot", "seaborn"):
    import gymnax
    from gymnax.environments.environment import Environment
    from gymnax.environments.spaces import Box, gspc
    from gymnax.wrappers import GymnaxToDmEnvWrapper
    from gymnax.wrappers.purerl import GymnaxWrapper

_LOG = logging.getLogger("sacjax")
_REMEDY = "reset_env, step_env and the spaces must fit together, as in docs/environments.md"
_ADDED = ("terminated", "truncated", "final_observation")  # gymnax adds these entries to info
_DOWNLOADS = ("MNISTBandit-bsuite",)  # this environment downloads data and has discrete actions
_errors = partial(names.creation_errors, extra="", otherwise=_REMEDY)


def make_env(name: str, parsed: Name) -> MakeEnv:
    """Return a function that makes copies of a gymnax environment.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: the id is unknown, the name has options, or SAC does not support the
        observation or action space.
    """
    if ":" in parsed.id:
        return make_object(_find(name))
    names.resolve_options(name, parsed.options)
    return _make(name, _load(parsed.id))


def make_object(env: Environment) -> MakeEnv:
    """Return a function that makes copies of a user's own environment.

    The environment must add 1 to `state.time` in every step. Otherwise, episodes never reach
    the time limit. sacjax logs a warning if a step does not change `state.time`.

    Args:
      env: a gymnax `Environment` object, with or without gymnax's wrappers for JAX.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: `env` is not an `Environment`, SAC does not support the observation or action
        space, or the results of `reset_env` and `step_env` are inconsistent.
    """
    base = base_env(env)
    make = _make(base.name, env, convert_keys=standard)
    sample = base.action_space(env.default_params).sample  # wrappers can change the actions
    action = make(1).bounds[0] if base is env else sample(jax.random.key(0))
    _check_steps(env, base, make(1), action)
    if type(base).is_truncated is Environment.is_truncated:  # gymnax limits `state.time`
        _check_time(base, env.default_params, action)
    return make


def _check_steps(env: Environment, base: Environment, made: Env, action: Array) -> None:
    """Trace a reset and a step. Raise InputError unless gymnax and sacjax can use the results."""
    key, params = jax.random.key(0), made.default_params
    first = _trace(base, "reset_env", 2, key, params)
    *after, reward, terminated, info = _trace(base, "step_env", 5, key, first[1], action, params)
    was, now = (_kinds({"observation": obs, "state": state}) for obs, state in (first, after))
    obs, state = _trace(env, "reset", 2, key, params)
    size = made.example.obs.size
    for name, kind, *allowed in (
        ("observation", _kind(obs), f"[{size}]", *["[]"][: size == 1]),
        ("reward", _kind(reward), "[]", "[1]"),
        ("terminated", _kind(terminated), "[]"),
        ("info", _kind(info), "dict", "Dict"),
        *((x, kind, "an array") for x, kind in _kinds({"info": info}).items() if "[" not in kind),
        *(
            (x, f"{now.get(x)} after step_env", f"{was.get(x)} as after reset_env")
            for x in was | now
            if was.get(x) != now.get(x)
        ),
    ):
        if not kind.endswith(tuple(allowed)):
            raise InputError(
                f"{name} of {base.name} is {kind}, but must have the shape or type {allowed[0]}: "
                + _REMEDY,
                name.partition(".")[0],
            )
    _trace(env, "step", 6, key, state, made.bounds[0], params)  # fails for a state without `time`


def _trace(env: Environment, method: str, count: int, *given: Any) -> Any:
    """Trace a method and return its results. Raise InputError unless there are `count` results."""
    found: list[Any] = []
    with _errors(env.name):
        jax.eval_shape(lambda *given: found.append(getattr(env, method)(*given)), *given)
    number = len(found[0]) if isinstance(found[0], tuple | list) else 1
    if number != count:
        message = f"{method} of {env.name} must return {count} values, but returns {number}"
        raise InputError(f"{message}: {_REMEDY}", method)
    return found[0]


def _check_time(env: Environment, params: EnvParams, action: Array) -> None:
    """Warn if a step does not change `state.time`, or if it terminates at the time limit."""
    with _errors(env.name), jax.ensure_compile_time_eval():
        times = (params.max_steps_in_episode - left for left in (2, 1))
        steps = [_step_at(env, time, params, action) for time in times]
    (before, at_limit), counted = zip(*steps, strict=True)
    if not any(counted):
        _LOG.warning(
            "step_env of %s does not change state.time, so there is no time limit and an "
            "evaluation may take eval_max_steps steps: add 1 to state.time in every step",
            env.name,
        )
    if at_limit and not before:
        _LOG.warning(
            "step_env of %s terminates at the time limit, so the target does not bootstrap there: "
            "leave the limit to max_steps_in_episode. If the task itself ends there, set "
            "max_steps_in_episode above it",
            env.name,
        )


@partial(jax.jit, static_argnums=0)
def _step_at(env: Any, time: Any, params: EnvParams, action: Array) -> tuple[Any, Any]:
    """Set the time of a first state to `time`, and step.

    Return two values: `terminated`, and whether the step changed the time.
    """

    def replace_time(path: Any, x: Any) -> Any:
        is_time = jax.tree_util.keystr(path) == ".time"
        return jnp.asarray(time, jnp.result_type(x)) if is_time else x

    key = jax.random.key(0)
    state = jax.tree_util.tree_map_with_path(replace_time, env.reset_env(key, params)[1])
    _, after, _, terminated, _ = env.step_env(key, state, action, params)
    return terminated, after.time != state.time


def _kinds(tree: Any) -> dict[str, str]:
    """Return a dictionary that maps the name of each leaf of a tree to the leaf's kind."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): _kind(x) for path, x in leaves}


def _kind(x: Any) -> str:
    """Return the dtype and shape of numbers, such as "float32[2]", or the type of an object."""
    if isinstance(x, bool | int | float | np.ndarray | np.generic | jax.Array):
        return f"{jnp.result_type(x)}{list(jnp.shape(x))}"
    return type(x).__name__


def known() -> list[str]:
    """Return a sorted list of the gymnax environments that have continuous action spaces."""
    return sorted(continuous_envs())


def _make(name: str, base: Environment, convert_keys: Callable[[Key], Key] = lean) -> MakeEnv:
    """Return a function that makes copies of the environment `base`.

    `convert_keys` converts the PRNG keys that `base` receives, as `sacjax.prng` explains.
    """
    with jax.ensure_compile_time_eval():  # computes the bounds even if `make_env` runs under jit
        with _errors(name):
            default_params = base.default_params
            given = base.action_space(default_params), base.observation_space(default_params)
        spaces = check_spaces(name, *given, Box, gspc.Box)
        bounds = _bounds(given[0], spaces.low.shape)

    def bounds_of(params: EnvParams) -> tuple[Array, Array]:
        return _bounds(base.action_space(params), spaces.low.shape)

    try:
        jax.eval_shape(bounds_of, default_params)
    except (TypeError, ValueError):
        _LOG.warning(
            "action_space of %s cannot be traced, so all members use its bounds at default_params: "
            "write it with jax.numpy if they depend on params",
            name,
        )
        bounds_of = partial(lambda *found: found[:2], *bounds)

    def make(num_envs: int) -> Env:
        def reset(key: Key, params: EnvParams) -> tuple[Any, Array]:
            keys = convert_keys(jax.random.split(key, num_envs))
            obs, state = jax.vmap(base.reset, (0, None))(keys, params)
            return drop_weak_types(state), flatten(obs)

        def step(state: Any, action: Array, key: Key, params: EnvParams) -> tuple[Any, TimeStep]:
            keys = convert_keys(jax.random.split(key, num_envs))
            raw_action = rescale(action, *bounds_of(params))
            obs, new_state, reward, terminated, truncated, info = jax.vmap(
                base.step, (0, 0, 0, None)
            )(keys, state, raw_action, params)
            timestep = make_timestep(obs, info["final_observation"], reward, terminated, truncated)
            own = {name: x for name, x in info.items() if name not in _ADDED}
            return keep_dtypes(new_state, state), timestep._replace(info=own)

        sizes = num_envs, spaces.obs_size, spaces.low.size
        return make_record(name, *sizes, reset, step, default_params, bounds)

    return make


def base_env(env: str | Environment) -> Environment:
    """Return the gymnax environment itself, without wrappers.

    Args:
      env: the name of a gymnax environment, or an `Environment` object.

    Returns:
      The `Environment` object. Calls with equal names return the same object.

    Raises:
      InputError: the name is unknown, or `env` is neither a name nor an `Environment`.
    """
    base = _find(env) if isinstance(env, str) else env
    while isinstance(base, GymnaxWrapper) and not isinstance(base, GymnaxToDmEnvWrapper):
        base = base._env
    if not isinstance(base, Environment):
        raise InputError(
            f"env ({env!r}) must be a name or a gymnax Environment object, such as MyEnv() or "
            "LogWrapper(MyEnv()): `sacjax envs` lists the names",
            "env",
        )
    return base


def _find(name: str) -> Environment:
    """Return the gymnax environment with the full name `name`."""
    id = names.parse(name).id
    return _build(import_own(id, "env"), name) if ":" in id else _load(id)


@cache  # equal names share one object, as in `_load`
def _build(own: Any, name: str) -> Any:
    """Return the user's object, or call the user's class or function with the options."""
    options = names.parse(name).options
    if not callable(own):
        names.resolve_options(name, options)
        return own
    with names.creation_errors(name, "", partial(names.parameters, own)):
        return own(**options)


def continuous_envs() -> dict[str, tuple[Any, Any, Any]]:
    """Return the environments of gymnax that have a continuous action space.

    Returns:
      A dictionary that maps each name to (environment, default parameters, action space).
    """
    found = {}
    for name in gymnax.registered_envs:
        if name not in _DOWNLOADS:
            env = _load(name)
            space = env.action_space(env.default_params)
            if isinstance(space, Box):
                found[name] = (env, env.default_params, space)
    return found


@cache  # JAX compiles for each object, so equal names must share one object
def _load(name: str) -> Environment:
    """Return the gymnax environment `name`, or raise InputError if the name is unknown."""
    names.check_known(name, name, gymnax.registered_envs)
    return gymnax.make(name)[0]


def _bounds(space: Any, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the lower and upper bounds of a Box as arrays with the shape of an action."""
    low, high = (jnp.asarray(bound, float) for bound in (space.low, space.high))
    return jnp.broadcast_to(low, shape), jnp.broadcast_to(high, shape)
