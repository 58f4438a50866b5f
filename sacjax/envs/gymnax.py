"""gymnax environments as `sacjax.types.Env`: E copies, actions in [-1, 1], true last observations.

gymnax (>= 1.0) resets by itself and keeps the observation before the reset in `info`; it gives
`terminated` and `truncated` apart. Added here: the rescaling of actions, the copies, dtypes that
stay put in a scan's carry, and errors that name their remedy.
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
    as_before,
    as_timestep,
    check_spaces,
    flat,
    make_record,
    rescale,
    strong,
)
from sacjax.envs.names import Name
from sacjax.prng import lean, standard
from sacjax.types import Array, Env, EnvParams, InputError, Key, MakeEnv, TimeStep


class _Later(ModuleType):
    """A module that is imported when one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system itself
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _imported_on_first_use(*names: str) -> Iterator[None]:
    """Put stand-ins for these modules while gymnax is imported, if they are not loaded yet.

    Some of its modules import pyplot and seaborn (with pandas and scipy.stats) at their top, for
    drawing alone: 1.3 of the 1.8 seconds that it takes. A stand-in imports them on first use.
    """
    stand_ins = {name: _Later(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    yield
    for name in stand_ins:
        del sys.modules[name]


with _imported_on_first_use("matplotlib.pyplot", "seaborn"):
    import gymnax
    from gymnax.environments.environment import Environment
    from gymnax.environments.spaces import Box

_LOG = logging.getLogger("sacjax")
_DOWNLOADS = ("MNISTBandit-bsuite",)  # its data, when it is made; its actions are discrete


def make_env(name: str, parsed: Name) -> MakeEnv:
    """InputError if the name is unknown or the spaces are not ones that SAC can act in."""
    names.choose(name, parsed.options)
    return _make(name, _by_name(parsed.id))


def make_object(env: Environment) -> MakeEnv:
    """Of a gymnax `Environment` object. InputError if it is none, or as above."""
    make = _make(base_env(env).name, env, given=standard)
    params = env.default_params
    declared = env.observation_space(params).shape
    obs, state = jax.eval_shape(lambda key: env.reset(key, params), jax.random.key(0))
    if obs.shape != declared:
        raise InputError(
            f"{env.name} returns observations of shape {list(obs.shape)}, but its "
            f"observation_space says {list(declared)}: make them the same"
        )
    if not _counts_time(env, state, params):
        _LOG.warning(
            "step_env of %s leaves state.time as it is, so there is no time limit: where a greedy "
            "episode never ends, an evaluation never does. Add 1 to it in every step",
            env.name,
        )
    return make


def _counts_time(env: Environment, state: Any, params: EnvParams) -> bool:
    """Whether anything happens to what gymnax holds to the time limit; nothing is computed."""
    own = type(env).is_truncated is not Environment.is_truncated
    after: list[bool] = []

    def step(key: Key, state: Any) -> None:
        new = env.step_env(key, state, env.action_space(params).sample(key), params)[1]
        after.append(own or not hasattr(state, "time") or new.time is not state.time)

    jax.eval_shape(step, jax.random.key(0), state)
    return after[0]


def known() -> list[str]:
    """gymnax's environments with a continuous action space."""
    return sorted(continuous_envs())


def _make(name: str, base: Environment, given: Callable[[Key], Key] = lean) -> MakeEnv:
    """`given`: the kind of keys that the environment is given (`sacjax.prng`)."""
    with jax.ensure_compile_time_eval():  # bounds are arrays, and `make_env` may run under jit
        default_params = base.default_params
        action_space = base.action_space(default_params)
        obs_space = base.observation_space(default_params)
        check_spaces(name, action_space, obs_space, Box)
    obs_size, action_size = int(np.prod(obs_space.shape)), int(np.prod(action_space.shape))

    def make(num_envs: int) -> Env:
        def reset(key: Key, params: EnvParams) -> tuple[Any, Array]:
            keys = given(jax.random.split(key, num_envs))
            obs, state = jax.vmap(base.reset, (0, None))(keys, params)
            return strong(state), flat(obs)

        def step(state: Any, action: Array, key: Key, params: EnvParams) -> tuple[Any, TimeStep]:
            keys = given(jax.random.split(key, num_envs))
            low, high = _bounds(base.action_space(params), action.dtype)
            raw_action = rescale(action, low, high)
            obs, new_state, reward, terminated, truncated, info = jax.vmap(
                base.step, (0, 0, 0, None)
            )(keys, state, raw_action, params)
            timestep = as_timestep(obs, info["final_observation"], reward, terminated, truncated)
            return as_before(new_state, state), timestep

        bounds = action_space.low, action_space.high
        sizes = num_envs, obs_size, action_size
        return make_record(name, *sizes, reset, step, default_params, bounds)

    return make


def base_env(env: str | Environment) -> Environment:
    """The gymnax environment itself. Raises InputError if `env` is neither a name nor one."""
    base = _by_name(names.parse(env).id) if isinstance(env, str) else env
    if not isinstance(base, Environment):
        raise InputError(
            f"env ({env!r}) must be a name or a gymnax Environment, which its wrappers are not: "
            "`sacjax envs` lists the names"
        )
    return base


def continuous_envs() -> dict[str, tuple[Any, Any, Any]]:
    """Name -> (environment, default params, Box action space) of all that SAC can train."""
    found = {}
    for name in gymnax.registered_envs:
        if name not in _DOWNLOADS:
            env = _by_name(name)
            space = env.action_space(env.default_params)
            if isinstance(space, Box):
                found[name] = (env, env.default_params, space)
    return found


@cache  # gymnax environments hash by identity: made once, a name compiles once
def _by_name(name: str) -> Environment:
    names.check_known(name, name, gymnax.registered_envs)
    return gymnax.make(name)[0]


def _bounds(space: Any, dtype: Any) -> tuple[Array, Array]:
    """Low and high, which may be scalars or arrays, in the shape of an action."""
    low, high = (jnp.asarray(bound, dtype) for bound in (space.low, space.high))
    return jnp.broadcast_to(low, space.shape), jnp.broadcast_to(high, space.shape)
