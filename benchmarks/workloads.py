"""Define the settings that sacjax and its peers share, and a synthetic environment.

The drivers of peers import this module in their own virtual environments, so it needs only NumPy.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

OBS, ACTION, LIMIT = 17, 6, 1_000  # sizes of HalfCheetah, time limit of an episode
# The synthetic environment: x' = 0.9 x + a MIX, reward = -mean(x'^2), a in [-1, 1], x_0 ~ U(-1, 1),
# no termination. It costs almost nothing, so the figures are those of the learner.
MIX = np.sin(np.arange(ACTION * OBS, dtype=np.float32)).reshape(ACTION, OBS)


def pendulum_obs(xp: Any, angle: Any, speed: Any) -> Any:
    """Return the observation of Pendulum-v1, [..., 3]. `xp` is NumPy or jax.numpy."""
    return xp.stack([xp.cos(angle), xp.sin(angle), speed], axis=-1)


def pendulum_step(xp: Any, angle: Any, speed: Any, torque: Any) -> tuple[Any, Any, Any]:
    """Step gymnasium's Pendulum-v1. Return the next angle, the next speed and the reward."""
    torque = xp.clip(torque, -2, 2)
    upright = (angle + xp.pi) % (2 * xp.pi) - xp.pi
    reward = -(upright**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = xp.clip(speed + 0.05 * (15 * xp.sin(angle) + 3 * torque), -8, 8)
    return angle + 0.05 * speed, speed, reward


@dataclass(frozen=True)
class Workload:
    """The training loop that all contenders run. The timed part has no evaluation or compilation.

    An iteration is one step of every environment, followed by `updates` gradient steps.
    """

    env: str = "pendulum"  # "pendulum" (Pendulum-v1, 3 / 1 dimensions) or "synthetic" (17 / 6)
    hidden: tuple[int, ...] = (256, 256)  # for the actor and both critics
    batch_size: int = 256
    num_envs: int = 1
    updates: int = 1
    replay_size: int = 1_000_000
    warmup_steps: int = 1_000  # environment steps of all copies before learning
    iterations: int = 1_000  # in one piece
    seeds: int = 1
    hidden_precision: str = "float32"  # read by sacjax only

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of one piece, all seeds together."""
        return self.seeds * self.iterations * self.updates

    @property
    def env_steps(self) -> int:
        """Environment steps of one piece, all seeds together, without the warm-up."""
        return self.seeds * self.iterations * self.num_envs

    def to_json(self) -> str:
        """Encode the workload for a driver's command line."""
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Workload":
        """Decode the output of `to_json`."""
        fields = json.loads(text)
        return Workload(**{**fields, "hidden": tuple(fields["hidden"])})
