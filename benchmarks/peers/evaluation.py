"""Greedy episodes for --once, the same NumPy code for every driver: only the policy differs."""

from collections.abc import Callable

import numpy as np
from protocol import EPISODES
from workloads import ACTION, LIMIT, MIX, OBS


def returns(env: str, act: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Returns of whole episodes, stepped together.

    `act` maps observations (EPISODES, dimension) to actions in the environment's own range.
    """
    rng = np.random.default_rng(0)
    play = {"pendulum": _pendulum, "synthetic": _synthetic}[env]
    return [float(total) for total in play(rng, act)]


def _pendulum(rng: np.random.Generator, act: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Pendulum-v1 as gymnasium has it."""
    angle, speed = rng.uniform([[-np.pi], [-1]], [[np.pi], [1]], (2, EPISODES))
    total = np.zeros(EPISODES)
    for _ in range(200):
        obs = np.stack([np.cos(angle), np.sin(angle), speed], axis=1).astype(np.float32)
        torque = np.clip(np.asarray(act(obs)).reshape(EPISODES), -2, 2)
        upright = (angle + np.pi) % (2 * np.pi) - np.pi
        total -= upright**2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = np.clip(speed + 0.05 * (15 * np.sin(angle) + 3 * torque), -8, 8)
        angle = angle + 0.05 * speed
    return total


def _synthetic(rng: np.random.Generator, act: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    x = rng.uniform(-1, 1, (EPISODES, OBS)).astype(np.float32)
    total = np.zeros(EPISODES)
    for _ in range(LIMIT):
        x = 0.9 * x + np.asarray(act(x)).reshape(EPISODES, ACTION) @ MIX
        total -= np.mean(x**2, axis=1)
    return total
