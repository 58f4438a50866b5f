"""Copies of a simulator that are made, stepped and reset one by one.

An episode is its seed and its actions: that is what a checkpoint keeps of it, and a resumed run
plays it again up to there. Nothing of a simulator's insides is looked at.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from sacjax.envs.host import HostEnvs, Spaces


class Simulator(Protocol):
    """One copy, as Gymnasium has it."""

    def reset(self, *, seed: int) -> tuple[Any, Any]: ...
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Any]: ...
    def close(self) -> None: ...


class Copies(HostEnvs):
    """`make()` makes one."""

    def __init__(self, make: Callable[[], Simulator], spaces: Spaces, copies: int):
        super().__init__(spaces, copies)
        self._make = make
        self._envs: list[Simulator] = []
        self._episode = np.zeros(copies, np.int64)  # of each copy, counted from the reset
        self._actions: list[list[np.ndarray]] = [[] for _ in range(copies)]  # in it, so far

    def reset_all(self) -> np.ndarray:
        if not self._envs:
            self._envs = [self._make() for _ in range(self.copies)]
        self._episode[:] = -1
        return np.stack([self._new_episode(i) for i in range(self.copies)])

    def step_all(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = []
        for i, env in enumerate(self._envs):
            obs, reward, terminated, truncated, _ = env.step(action[i].copy())
            final, reward = _flat(obs), np.float32(np.asarray(reward).item())
            self._actions[i].append(action[i])
            first = self._new_episode(i) if terminated or truncated else final
            rows.append((first, final, reward, bool(terminated), bool(truncated)))
        return tuple(np.stack(field) for field in zip(*rows, strict=True))

    def save(self) -> dict[str, np.ndarray]:
        """Where the copies are."""
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

    def put_back(self, saved: dict[str, np.ndarray]) -> bool:
        """By playing the open episodes again. Where that leads elsewhere, new ones begin."""
        self.seed, self.steps = int(saved["seed"]), int(saved["steps"])
        self.obs = self.reset_all()
        self._episode[:] = saved["episode"] - 1
        for i, env in enumerate(self._envs):
            self.obs[i] = self._new_episode(i)
            for action in saved["actions"][i, : saved["length"][i]]:
                obs, _, terminated, truncated, _ = env.step(action.copy())
                self.obs[i] = _flat(obs)
                self._actions[i].append(action)
                if terminated or truncated:
                    self.obs[i] = self._new_episode(i)
                    break
        if np.array_equal(self.obs, saved["obs"]):
            return True
        self.obs = np.stack([self._new_episode(i) for i in range(self.copies)])
        return False

    def close(self) -> None:
        """What these copies hold."""
        for env in self._envs:
            env.close()
        self._envs = []

    def _new_episode(self, i: int) -> np.ndarray:
        self._episode[i] += 1
        self._actions[i] = []
        seed = episode_seed(self.seed, i, int(self._episode[i]))
        obs, _ = self._envs[i].reset(seed=seed)
        return _flat(obs)


def _flat(obs: Any) -> np.ndarray:
    """One copy's observation as the program has it."""
    return np.array(obs, np.float32).reshape(-1)  # a copy: some write into one array for ever


def episode_seed(seed: int, copy: int, episode: int) -> int:
    """Of a copy's episode, counted from the reset that had this seed."""
    words = np.random.SeedSequence([seed, copy, episode]).generate_state(1)
    return int(words[0]) % 2**31
