"""The adapter for gymnax, by name or as an `Environment` object.

A name is the id alone, such as "Pendulum-v1", or gymnax/<id>. There are no options.

gymnax (1.0 or later) resets episodes automatically. It keeps the observation before a reset in
`info`, and separates `terminated` from `truncated`. The adapter makes the copies, rescales the
actions, fixes the dtypes of a scan's carry, and checks the spaces.
"""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
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
from sacjax.prng import lean, standard
from sacjax.types import Array, Env, EnvParams, InputError, Key, MakeEnv, TimeStep


class _LazyModule(ModuleType):
    """A module that is imported when one of its attributes is first used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system reads these
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _import_lazily(*names: str) -> Iterator[None]:
    """Within the context, delay the import of these modules until their first use.

    Some modules of gymnax import pyplot and seaborn for drawing. These two, with pandas and
    scipy.stats, take 1.3 of the 1.8 seconds that importing gymnax takes.
    """
    stand_ins = {name: _LazyModule(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    yield
    for name in stand_ins:
        del sys.modules[name]


with _import_lazily("matplotlib.pyplot", "seaborn"):
    import gymnax
    from gymnax.environments.environment import Environment
    from gymnax.environments.spaces import Box

_LOG = logging.getLogger("sacjax")
_ADDED = ("terminated", "truncated", "final_observation")  # gymnax adds these to info
_DOWNLOADS = ("MNISTBandit-bsuite",)  # downloads data when it is made, and has discrete actions


def make_env(name: str, parsed: Name) -> MakeEnv:
    """Return a function that makes copies of one of gymnax's environments.

    Args:
      name: the full name of the environment, which error messages show.
      parsed: the parts of the name.

    Returns:
      A function from the number of copies E to an `Env`.

    Raises:
      InputError: the id is unknown, the name has options, or SAC cannot use the spaces.
    """
    names.resolve_options(name, parsed.options)
    return _make(name, _load(parsed.id))


def make_object(env: Environment) -> MakeEnv:
    """Return a function that makes copies of a user's own environment.

    The environment must add 1 to `state.time` in every step, or its time limit never applies. If it
    does not change `state.time`, a warning is logged.

    Args:
      env: a gymnax `Environment` object.

    Returns:
      A function from the number of copies E to an `Env`.

    Raises:
      InputError: `env` is not an `Environment`, SAC cannot use its spaces, or its observations do
        not have the shape of its observation space.
    """
    make = _make(base_env(env).name, env, convert_keys=standard)
    params = env.default_params
    declared = env.observation_space(params).shape
    obs, state = jax.eval_shape(lambda key: env.reset(key, params), jax.random.key(0))
    if obs.shape != declared:
        raise InputError(
            f"observation_space of {env.name} has shape {list(declared)}, but its observations "
            f"have shape {list(obs.shape)}: make them the same",
            "observation_space",
        )
    if not _changes_time(env, state, params):
        _LOG.warning(
            "step_env of %s does not change state.time, so there is no time limit and an "
            "evaluation may never end: add 1 to state.time in every step",
            env.name,
        )
    return make


def _changes_time(env: Environment, state: Any, params: EnvParams) -> bool:
    """Return False if the time limit depends on `state.time` and a step does not change it."""
    own = type(env).is_truncated is not Environment.is_truncated
    after: list[bool] = []

    def step(key: Key, state: Any) -> None:
        new = env.step_env(key, state, env.action_space(params).sample(key), params)[1]
        after.append(own or not hasattr(state, "time") or new.time is not state.time)

    jax.eval_shape(step, jax.random.key(0), state)
    return after[0]


def known() -> list[str]:
    """Return the ids of gymnax's environments with a continuous action space, sorted."""
    return sorted(continuous_envs())


def _make(name: str, base: Environment, convert_keys: Callable[[Key], Key] = lean) -> MakeEnv:
    """Return a function that makes E copies of `base`.

    `convert_keys` chooses the implementation of the keys that `base` receives (`sacjax.prng`).
    """
    with jax.ensure_compile_time_eval():  # bounds are arrays, and `make_env` can run under jit
        default_params = base.default_params
        action_space = base.action_space(default_params)
        obs_space = base.observation_space(default_params)
        check_spaces(name, action_space, obs_space, Box)
    obs_size, action_size = int(np.prod(obs_space.shape)), int(np.prod(action_space.shape))

    def make(num_envs: int) -> Env:
        def reset(key: Key, params: EnvParams) -> tuple[Any, Array]:
            keys = convert_keys(jax.random.split(key, num_envs))
            obs, state = jax.vmap(base.reset, (0, None))(keys, params)
            return drop_weak_types(state), flatten(obs)

        def step(state: Any, action: Array, key: Key, params: EnvParams) -> tuple[Any, TimeStep]:
            keys = convert_keys(jax.random.split(key, num_envs))
            low, high = _bounds(base.action_space(params), action.dtype)
            raw_action = rescale(action, low, high)
            obs, new_state, reward, terminated, truncated, info = jax.vmap(
                base.step, (0, 0, 0, None)
            )(keys, state, raw_action, params)
            timestep = make_timestep(obs, info["final_observation"], reward, terminated, truncated)
            own = {name: x for name, x in info.items() if name not in _ADDED}
            return keep_dtypes(new_state, state), timestep._replace(info=own)

        bounds = action_space.low, action_space.high
        sizes = num_envs, obs_size, action_size
        return make_record(name, *sizes, reset, step, default_params, bounds)

    return make


def base_env(env: str | Environment) -> Environment:
    """Return the gymnax environment itself.

    Args:
      env: the name of an environment of gymnax, or an `Environment` object.

    Returns:
      The `Environment` object. The same name always returns the same object.

    Raises:
      InputError: `env` is neither, or the name is unknown.
    """
    base = _load(names.parse(env).id) if isinstance(env, str) else env
    if not isinstance(base, Environment):
        raise InputError(
            f"env ({env!r}) must be a name or a gymnax Environment object, not a class or a "
            "wrapper: `sacjax envs` lists the names",
            "env",
        )
    return base


def continuous_envs() -> dict[str, tuple[Any, Any, Any]]:
    """Return gymnax's environments with a continuous action space.

    Returns:
      A dictionary from the name to the environment, its default parameters and its action space.
    """
    found = {}
    for name in gymnax.registered_envs:
        if name not in _DOWNLOADS:
            env = _load(name)
            space = env.action_space(env.default_params)
            if isinstance(space, Box):
                found[name] = (env, env.default_params, space)
    return found


@cache  # gymnax's environments hash by identity: with one object per name, each compiles once
def _load(name: str) -> Environment:
    """Return the environment with this name, or raise InputError."""
    names.check_known(name, name, gymnax.registered_envs)
    return gymnax.make(name)[0]


def _bounds(space: Any, dtype: Any) -> tuple[Array, Array]:
    """Return the lower and upper bounds of a Box, broadcast to the shape of an action."""
    low, high = (jnp.asarray(bound, dtype) for bound in (space.low, space.high))
    return jnp.broadcast_to(low, space.shape), jnp.broadcast_to(high, space.shape)
