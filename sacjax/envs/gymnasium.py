"""The adapter for Gymnasium.

A name has the form gymnasium/<id>[?option=value&...], such as "gymnasium/HalfCheetah-v5". The
options are the arguments of `gymnasium.make`. For the id "module:id", Gymnasium first imports
`module`.

`sacjax.envs.host` makes, steps and resets the copies one by one. sacjax does not use
`gymnasium.vector`, which resets one step late by default and cannot restore unfinished episodes.
"""

import logging
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from sacjax.envs import names
from sacjax.envs.base import rescale
from sacjax.envs.host import Copies, derive_seed, make_host_env, read_spaces
from sacjax.envs.names import Name
from sacjax.types import Episode, MakeEnv

_LOG = logging.getLogger("sacjax")
_import_gymnasium = partial(names.import_suite, "gymnasium", extra="gymnasium")


def known() -> list[str]:
    """Return the ids of Gymnasium's environments.

    Returns:
      A sorted list, which includes environments whose action space SAC cannot use.

    Raises:
      InputError: Gymnasium is not installed.
    """
    return sorted(name for name in _import_gymnasium("gymnasium").registry if "/" not in name)


def make_env(name: str, parsed: Name) -> MakeEnv:
    """Return a function that makes copies of one of Gymnasium's environments.

    Args:
      name: the full name of the environment, which error messages show.
      parsed: the parts of the name.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: Gymnasium is not installed, the id is unknown, Gymnasium cannot make the
        environment, or SAC cannot use its spaces.
    """
    gymnasium = _import_gymnasium(name)
    if ":" not in parsed.id:  # "module:id" is registered when its module is imported
        names.check_known(name, parsed.id, gymnasium.registry)
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
    """Run an episode again and draw each state of the episode.

    Args:
      name: the full name of the environment, which error messages show.
      parsed: the parts of the name.
      episode: an episode of T steps, which must be the first episode after a reset of all copies.

    Yields:
      T images, each an array of pixels [H, W, 3].
    """
    with closing(_make(name, parsed, render_mode="rgb_array")) as env:
        spaces = read_spaces(name, env.action_space, env.observation_space)
        env.reset(seed=derive_seed(int(episode.states[0].seed), episode.copy, 0))
        for action in rescale(np.asarray(episode.actions), spaces.low, spaces.high):
            yield env.render()
            env.step(action)


def _make(name: str, parsed: Name, **more: Any) -> Any:
    """Make one environment, or raise InputError."""
    module = parsed.id.rpartition(":")[0]
    mujoco = "pip install 'sacjax[gymnasium]' if MuJoCo is missing"
    origin = f"install {module}, or add its folder to PYTHONPATH" if module else mujoco
    with names.creation_errors(name, f"{origin}; options must be arguments of gymnasium.make"):
        return _import_gymnasium(name).make(parsed.id, **parsed.options, **more)
