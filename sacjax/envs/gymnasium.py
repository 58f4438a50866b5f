"""The adapter for Gymnasium.

The name of a Gymnasium environment has the form gymnasium/<id>[?option=value&...], such as
"gymnasium/HalfCheetah-v5". The options are the arguments of `gymnasium.make`. If an id has the form
"module:id", sacjax imports `module` before it makes the environment.

`sacjax.envs.simulators` makes, steps and resets the copies one by one. sacjax does not use
`gymnasium.vector` for two reasons. `gymnasium.vector` cannot restore unfinished episodes. By
default, `gymnasium.vector` also resets one step late.
"""

import logging
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from sacjax.envs import names
from sacjax.envs.base import rescale
from sacjax.envs.host import derive_seed, make_host_env, read_spaces
from sacjax.envs.names import Name
from sacjax.envs.simulators import Copies
from sacjax.own import import_own
from sacjax.types import Episode, MakeEnv

_LOG = logging.getLogger("sacjax")
_import_gymnasium = partial(names.import_suite, "gymnasium", extra="gymnasium")


def known() -> list[str]:
    """Return the ids of Gymnasium's environments.

    Returns:
      A sorted list of ids. SAC does not support the action spaces of some of
      these environments.

    Raises:
      InputError: Gymnasium is not installed.
    """
    return sorted(id for id in _registered("gymnasium") if "/" not in id)


def _registered(name: str) -> list[str]:
    """Return the ids of all environments that Gymnasium can make.

    The retired versions v2 and v3 of MuJoCo tasks are excluded.
    """
    specs = _import_gymnasium(name).registry.items()
    return [id for id, spec in specs if "_raise_mujoco_py_error" not in str(spec.entry_point)]


def make_env(name: str, parsed: Name) -> MakeEnv:
    """Return a function that makes copies of a Gymnasium environment.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: Gymnasium is not installed, the id is unknown, Gymnasium cannot make the
        environment, or SAC does not support the observation or action space.
    """
    if ":" in parsed.id:  # importing the module registers the id
        import_own(parsed.id.partition(":")[0] + ":__name__", "env")
    names.check_known(name, parsed.id.rpartition(":")[2], _registered(name))
    make = partial(_make, name, parsed)
    with closing(make()) as env:
        spaces = read_spaces(name, env.action_space, env.observation_space)
        limit = env.spec and env.spec.max_episode_steps
    if not limit or limit < 0:
        _LOG.warning(
            "%s has no time limit, so an evaluation may take eval_max_steps steps: set "
            "max_episode_steps=1000",
            name,
        )
    return make_host_env(name, partial(Copies, make, spaces), spaces)


def pictures(name: str, parsed: Name, episode: Episode) -> Iterator[np.ndarray]:
    """Run an episode again, and draw a picture of each state.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.
      episode: an episode of T steps, which must be the first episode after a reset of all copies.

    Yields:
      T pictures, each an array of pixels [H, W, 3].
    """
    with closing(_make(name, parsed, render_mode="rgb_array")) as env:
        spaces = read_spaces(name, env.action_space, env.observation_space)
        env.reset(seed=derive_seed(int(episode.states[0].seed), episode.copy, 0))
        for action in rescale(np.asarray(episode.actions), spaces.low, spaces.high):
            yield env.render()
            env.step(action)


def _make(name: str, parsed: Name, **more: Any) -> Any:
    """Make one copy of the environment, or raise InputError if Gymnasium fails."""
    gymnasium = _import_gymnasium(name)
    id = parsed.id.rpartition(":")[2]

    def options() -> list[str]:
        make = gymnasium.spec(id).entry_point
        if isinstance(make, str):
            make = gymnasium.envs.registration.load_env_creator(make)
        return [*names.parameters(make), "max_episode_steps"]

    with names.creation_errors(name, "gymnasium", options):
        return gymnasium.make(id, **parsed.options, **more)
