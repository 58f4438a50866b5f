"""envpool: envpool/<id>[?option=value]: Gymnasium's tasks, stepped by C++ threads.

It seeds its copies once, when they are made, so they cannot be put back to where a checkpoint was:
a resumed run begins new episodes, and says so.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sacjax.envs import names
from sacjax.envs.host import HostEnvs, Spaces, make_host_env, spaces_of
from sacjax.envs.names import Name
from sacjax.types import MakeEnv

_envpool = partial(names.imported, "envpool", extra="envpool")


class PooledEnvs(HostEnvs):
    """E copies in one pool, which `make(E, seed)` makes without a time limit; `limit` is ours.

    Its own would hide an end that falls together with it.
    """

    def __init__(self, make: Callable[[int, int], Any], limit: int, spaces: Spaces, copies: int):
        super().__init__(spaces, copies)
        self._make_pool, self._pool, self._limit = make, None, limit
        self._lengths = np.zeros(copies, np.int64)

    def reset_all(self) -> np.ndarray:
        self.close()
        words = np.random.SeedSequence([self.seed, self.steps])
        self._pool = self._make_pool(self.copies, int(words.generate_state(1)[0]) % 2**31)
        self._lengths[:] = 0
        return self._pool.reset()[0].astype(np.float32)

    def step_all(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        pool: Any = self._pool
        final, reward, terminated, _, _ = pool.step(action)
        final = final.astype(np.float32)
        self._lengths += 1
        truncated = self._lengths >= self._limit
        first, ended = final.copy(), np.flatnonzero(terminated | truncated)
        if len(ended):  # else it would reset itself in the next step, whatever the action is
            first[ended] = pool.reset(ended)[0]
            self._lengths[ended] = 0
        return first, final, reward.astype(np.float32), terminated, truncated

    def close(self) -> None:
        """What it holds is given back."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def known() -> list[str]:
    """envpool's ids that Gymnasium has too. InputError where it is not installed."""
    return sorted(name for name in _envpool("envpool").list_all_envs() if "/" not in name)


def make_env(name: str, parsed: Name) -> MakeEnv:
    """InputError where the id is unknown, cannot be made, or has spaces that SAC cannot use."""
    names.check_known(name, parsed.id, _envpool(name).list_all_envs())
    pool = _make(name, parsed.id, parsed.options, 1, 0)
    spaces = spaces_of(name, pool.action_space, pool.observation_space)
    limit = int(pool.config["max_episode_steps"])
    pool.close()
    make = partial(_make, name, parsed.id, parsed.options | {"max_episode_steps": limit + 1})
    return make_host_env(name, partial(PooledEnvs, make, limit, spaces), spaces)


def _make(name: str, id: str, options: dict[str, Any], copies: int, seed: int) -> Any:
    with names.made(name, "its options are the arguments of envpool.make"):
        return _envpool(name).make_gymnasium(id, num_envs=copies, seed=seed, **options)
