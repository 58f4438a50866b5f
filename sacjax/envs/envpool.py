"""The adapter for envpool, which simulates Gymnasium's tasks in C++ threads.

The name of an envpool environment has the form envpool/<id>[?option=value&...], such as
"envpool/HalfCheetah-v5". The options are the arguments of `envpool.make`.

envpool accepts a seed only when the copies are made, so a checkpoint cannot restore an unfinished
episode. A resumed run begins new episodes and logs a warning.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sacjax.envs import names
from sacjax.envs.host import HostEnvs, Spaces, derive_seed, make_host_env, read_spaces
from sacjax.envs.names import Name
from sacjax.types import MakeEnv

_import_envpool = partial(names.import_suite, "envpool", extra="envpool")


class PooledEnvs(HostEnvs):
    """E copies of an environment in one envpool pool.

    sacjax itself applies the time limit, because envpool does not report a termination in the
    step that reaches envpool's own time limit.

    Args:
      make: a function that takes the number of copies E and a seed, and returns a pool. The time
        limit of the pool must be greater than `limit`.
      limit: the number of steps after which an episode is truncated.
      spaces: the sizes and bounds of the environment's spaces.
      copies: the number of copies E.
    """

    def __init__(self, make: Callable[[int, int], Any], limit: int, spaces: Spaces, copies: int):
        super().__init__(spaces, copies)
        self._make_pool, self._pool, self._limit = make, None, limit
        self._lengths = np.zeros(copies, np.int64)

    def reset_all(self) -> np.ndarray:
        self.close()
        self._pool = self._make_pool(self.copies, derive_seed(self.seed, self.steps))
        self._lengths[:] = 0
        return self._read_obs(self._pool.reset()[0])

    def step_all(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        pool: Any = self._pool
        final, reward, terminated, _, self.info = pool.step(action)
        final, reward = self._read_obs(final), self.read("reward", reward, self.copies)
        self._lengths += 1
        truncated = self._lengths >= self._limit
        first, ended = final.copy(), np.flatnonzero(terminated | truncated)
        if len(ended):  # without this reset, envpool ignores the next action and resets
            first[ended] = pool.reset(ended)[0]
            self._lengths[ended] = 0
        return self._read_obs(first), final, reward, terminated, truncated

    def _read_obs(self, obs: Any) -> np.ndarray:
        return self.read("observation", obs, self.copies, self.spaces.obs_size)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def known() -> list[str]:
    """Return the ids of environments that envpool and Gymnasium have in common.

    Returns:
      A sorted list of ids. SAC does not support the action spaces of some of
      these environments.

    Raises:
      InputError: envpool is not installed.
    """
    return sorted(name for name in _import_envpool("envpool").list_all_envs() if "/" not in name)


def make_env(name: str, parsed: Name) -> MakeEnv:
    """Return a function that makes copies of an envpool environment.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: envpool is not installed, the id is unknown, envpool cannot make the environment,
        or SAC does not support the observation or action space.
    """
    names.check_known(name, parsed.id, _import_envpool(name).list_all_envs())
    pool = _make_pool(name, parsed.id, parsed.options, 1, 0)
    spaces = read_spaces(name, pool.action_space, pool.observation_space)
    limit = int(pool.config["max_episode_steps"])
    pool.close()
    options = parsed.options | {"max_episode_steps": limit + 1}
    make_pool = partial(_make_pool, name, parsed.id, options)
    return make_host_env(name, partial(PooledEnvs, make_pool, limit, spaces), spaces)


def _make_pool(name: str, id: str, options: dict[str, Any], copies: int, seed: int) -> Any:
    """Make a pool of copies of an environment, or raise InputError if envpool fails."""
    envpool = _import_envpool(name)
    with names.creation_errors(name, "envpool", lambda: envpool.make_spec(id).config._fields):
        return envpool.make_gymnasium(id, num_envs=copies, seed=seed, **options)
