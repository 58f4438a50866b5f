"""Gymnasium: gymnasium/<id>[?option=value], options being the environment's own arguments.

Copies are made, stepped and reset one by one (`sacjax.envs.host`): `gymnasium.vector` resets one
step late by default, and could not be put back to where a checkpoint was.
"""

import logging
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from sacjax.envs import names
from sacjax.envs.base import rescale
from sacjax.envs.host import Copies, episode_seed, make_host_env, spaces_of
from sacjax.envs.names import Name
from sacjax.types import Episode, MakeEnv

_EXTRA = "for MuJoCo's, pip install 'sacjax[gymnasium]'"
_LOG = logging.getLogger("sacjax")
_gymnasium = partial(names.imported, "gymnasium", extra="gymnasium")


def known() -> list[str]:
    """Gymnasium's ids, those with other actions too. InputError where it is not installed."""
    return sorted(name for name in _gymnasium("gymnasium").registry if "/" not in name)


def make_env(name: str, parsed: Name) -> MakeEnv:
    """InputError where the id is unknown, cannot be made, or has spaces that SAC cannot use."""
    gymnasium = _gymnasium(name)
    if ":" not in parsed.id:  # "module:id" imports the module that registers it
        names.check_known(name, parsed.id, gymnasium.registry)
    make = partial(_make, name, parsed)
    with closing(make()) as env:
        spaces = spaces_of(name, env.action_space, env.observation_space)
        limit = env.spec and env.spec.max_episode_steps
    if not limit or limit < 0:
        _LOG.warning(
            "%s has no time limit: where a greedy episode never ends, an evaluation never does. "
            "Give it one by its option max_episode_steps=1000",
            name,
        )
    return make_host_env(name, partial(Copies, make, spaces), spaces)


def pictures(name: str, parsed: Name, episode: Episode) -> Iterator[np.ndarray]:
    """Of an episode that began when a run's copies were reset, played again: pixels [H, W, 3]."""
    env = _make(name, parsed, render_mode="rgb_array")
    spaces = spaces_of(name, env.action_space, env.observation_space)
    env.reset(seed=episode_seed(int(episode.states[0].seed), episode.copy, 0))
    for action in rescale(np.asarray(episode.actions), *spaces[1:]):
        yield env.render()
        env.step(action)
    env.close()


def _make(name: str, parsed: Name, **more: Any) -> Any:
    options = "its options are the arguments of gymnasium.make"
    module = parsed.id.rpartition(":")[0]
    origin = f"install {module}, or put its folder into PYTHONPATH" if module else _EXTRA
    with names.made(name, f"{origin}; {options}"):
        return _gymnasium(name).make(parsed.id, **parsed.options, **more)
