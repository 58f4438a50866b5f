"""Gymnasium: gymnasium/<id>[?option=value], options being the environment's own arguments.

Copies are made, stepped and reset one by one (`sacjax.envs.host`): `gymnasium.vector` resets one
step late by default, and could not be put back to where a checkpoint was.
"""

import logging
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np

from sacjax.envs import names
from sacjax.envs.base import rescale
from sacjax.envs.host import Copies, episode_seed, make_host_env, spaces_of
from sacjax.envs.names import Name
from sacjax.types import Episode, MakeEnv

_LOG = logging.getLogger("sacjax")


def known() -> list[str]:
    """Gymnasium's ids, those with other actions too. InputError where it is not installed."""
    return sorted(name for name in _gymnasium("gymnasium").registry if "/" not in name)


def make_env(name: str, parsed: Name) -> MakeEnv:
    """InputError where the id is unknown, cannot be made, or has spaces that SAC cannot use."""
    gymnasium = _gymnasium(name)
    if ":" not in parsed.id:  # "module:id" imports the module that registers it
        names.check_known(name, parsed.id, gymnasium.registry)
    make = maker(name, parsed)
    env = make()
    try:
        spaces = spaces_of(name, env.action_space, env.observation_space)
        limit = env.spec and env.spec.max_episode_steps
    finally:
        env.close()
    if not limit or limit < 0:
        _say_endless(name)
    return make_host_env(name, partial(Copies, make, spaces), spaces)


@cache
def _say_endless(name: str) -> None:
    _LOG.warning(
        "%s has no time limit: where a greedy episode never ends, an evaluation never does. Give "
        "it one by its option max_episode_steps=1000",
        name,
    )


def pictures(name: str, parsed: Name, episode: Episode) -> Iterator[np.ndarray]:
    """Of an episode that began when a run's copies were reset, played again: pixels [H, W, 3]."""
    env = maker(name, parsed, render_mode="rgb_array")()
    spaces = spaces_of(name, env.action_space, env.observation_space)
    env.reset(seed=episode_seed(int(episode.states[0].seed), episode.copy, 0))
    for action in rescale(np.asarray(episode.actions), *spaces[1:]):
        yield env.render()
        env.step(action)
    env.close()


def maker(name: str, parsed: Name, **more: Any) -> Callable[[], Any]:
    """What makes one copy. InputError, when called, where it cannot be made."""
    module = parsed.id.rpartition(":")[0]
    remedy = (
        f"install {module}, or put its folder into PYTHONPATH"
        if module
        else ("for MuJoCo's, pip install 'sacjax[gymnasium]'")
    )
    remedy += "; its options are the arguments of gymnasium.make"
    make = _gymnasium(name).make
    return partial(names.made, name, remedy, make, parsed.id, **parsed.options, **more)


def _gymnasium(name: str) -> Any:
    return names.imported("gymnasium", name, "gymnasium")
