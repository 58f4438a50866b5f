"""Make, step and reset the copies of an environment outside of JAX one by one."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from sacjax.envs.base import Spaces
from sacjax.envs.host import HostEnvs, derive_seed


class Simulator(Protocol):
    """A single environment with the methods of `gymnasium.Env`."""

    def reset(self, *, seed: int) -> tuple[Any, Any]: ...
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]: ...
    def close(self) -> None: ...


class Copies(HostEnvs):
    """E simulators that are made, stepped and reset one by one.

    A checkpoint stores the seed and the actions of each unfinished episode. A resumed run repeats
    the stored actions. sacjax never reads the internal state of a simulator.

    Args:
      make: a function that makes one simulator.
      spaces: the sizes and bounds of the environment's spaces.
      copies: the number of copies E.
    """

    def __init__(self, make: Callable[[], Simulator], spaces: Spaces, copies: int):
        super().__init__(spaces, copies)
        self._make = make
        self._envs: list[Simulator] = []
        self._episode = np.zeros(copies, np.int64)  # [E] index of the episode since the reset
        self._actions: list[list[np.ndarray]] = [[] for _ in range(copies)]  # in current episodes

    def reset_all(self) -> np.ndarray:
        if not self._envs:
            self._envs = [self._make() for _ in range(self.copies)]
        self._episode[:] = -1
        return self._new_episodes()

    def step_all(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = [self._step_copy(i, action[i]) for i in range(self.copies)]
        *fields, infos = zip(*rows, strict=True)
        names = set().union(*infos) if self.logged is None else self.logged
        self.info = {name: np.array([_number(x.get(name)) for x in infos]) for name in names}
        return tuple(map(np.stack, fields))

    def save(self) -> dict[str, np.ndarray]:
        longest = max(1, *map(len, self._actions))
        low = self.spaces.low
        actions = np.zeros((self.copies, longest, *low.shape), low.dtype)
        for i, taken in enumerate(self._actions):
            if taken:
                actions[i, : len(taken)] = taken
        return super().save() | {
            "episode": self._episode.copy(),
            "length": np.array([len(taken) for taken in self._actions]),
            "actions": actions,
            "obs": self.obs.copy(),
        }

    def replay(self, saved: dict[str, np.ndarray]) -> bool:
        """Repeat the unfinished episodes.

        If the observations differ from the saved observations, begin new episodes instead.
        """
        self._episode[:] = saved["episode"] - 1
        self.obs = self._new_episodes()
        for i in range(self.copies):
            for action in saved["actions"][i, : saved["length"][i]]:
                self.obs[i] = self._step_copy(i, action)[0]
        same_episodes = np.array_equal(self._episode, saved["episode"])
        if same_episodes and np.array_equal(self.obs, saved["obs"]):
            return True
        self.obs = self._new_episodes()
        return False

    def close(self) -> None:
        for env in self._envs:
            env.close()
        self._envs = []

    def _step_copy(self, i: int, action: np.ndarray) -> tuple[Any, ...]:
        """Step copy `i`, and return the fields of `TimeStep` for copy `i`."""
        obs, reward, terminated, truncated, info = self._call(i, "step", 5, action.copy())
        self._actions[i].append(action)
        final = self.read("observation", obs, self.spaces.obs_size, copy=i)
        reward = self.read("reward", reward, copy=i)
        terminated = bool(self.read("terminated", terminated, copy=i))
        truncated = bool(self.read("truncated", truncated, copy=i))
        first = self._new_episode(i) if terminated or truncated else final
        return first, final, reward, terminated, truncated, info

    def _new_episodes(self) -> np.ndarray:
        """Begin an episode in each copy, and return observations [E, O]."""
        return np.stack([self._new_episode(i) for i in range(self.copies)])

    def _new_episode(self, i: int) -> np.ndarray:
        """Begin an episode in copy `i`, and return the first observation [O]."""
        self._episode[i] += 1
        self._actions[i] = []
        seed = derive_seed(self.seed, i, int(self._episode[i]))
        obs, _ = self._call(i, "reset", 2, seed=seed)
        return self.read("observation", obs, self.spaces.obs_size, copy=i)

    def _call(self, i: int, method: str, count: int, *args: Any, **kwargs: Any) -> Any:
        """Call a method of copy `i`. Raise RunError if it does not return `count` values."""
        try:
            values = getattr(self._envs[i], method)(*args, **kwargs)
        except ValueError as error:
            if "to unpack" not in str(error):  # raised by Gymnasium's wrappers
                raise
            values = error
        if not isinstance(values, tuple) or len(values) != count:
            problem = f"must return {count} values in a tuple, not {values!r}"
            raise self.fault(method, problem, i)
        return values


def _number(x: Any) -> np.float32:
    """Convert a number, bool or array without axes to float32. Return NaN for other values."""
    array = np.asarray(x if np.isscalar(x) or isinstance(x, np.ndarray) else np.nan)
    return np.float32(array if array.ndim == 0 and array.dtype.kind in "biuf" else np.nan)
