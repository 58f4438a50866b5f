"""Play the greedy episodes of --once. All drivers use this NumPy code with their own policies."""

from collections.abc import Callable

import numpy as np
from protocol import EPISODES
from workloads import ACTION, LIMIT, MIX, OBS, pendulum_obs, pendulum_step


def returns(env: str, act: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Play whole episodes in parallel, and return their returns.

    `act` maps observations [EPISODES, O] to actions in the environment's own range.
    """
    rng = np.random.default_rng(0)
    play = {"pendulum": _pendulum, "synthetic": _synthetic}[env]
    return [float(total) for total in play(rng, act)]


def _pendulum(rng: np.random.Generator, act: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    angle, speed = rng.uniform([[-np.pi], [-1]], [[np.pi], [1]], (2, EPISODES))
    total = np.zeros(EPISODES)
    for _ in range(200):
        torque = act(pendulum_obs(np, angle, speed).astype(np.float32))
        torque = np.asarray(torque).reshape(EPISODES)
        angle, speed, reward = pendulum_step(np, angle, speed, torque)
        total += reward
    return total


def _synthetic(rng: np.random.Generator, act: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    x = rng.uniform(-1, 1, (EPISODES, OBS)).astype(np.float32)
    total = np.zeros(EPISODES)
    for _ in range(LIMIT):
        x = 0.9 * x + np.asarray(act(x)).reshape(EPISODES, ACTION) @ MIX
        total -= np.mean(x**2, axis=1)
    return total
