"""Define environments, settings and the driver that SBX and Stable-Baselines3 share."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import returns
from protocol import GAMMA, TAU, Session, single_seed
from workloads import ACTION, LIMIT, MIX, OBS, Workload


class Synthetic(gymnasium.Env):
    """The synthetic environment of workloads.py."""

    observation_space = Box(-np.inf, np.inf, (OBS,), np.float32)
    action_space = Box(-1, 1, (ACTION,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, OBS).astype(np.float32)
        return self.x, {}

    def step(self, action: np.ndarray):
        self.x = 0.9 * self.x + action @ MIX
        return self.x, -float(np.mean(self.x**2)), False, False, {}


def make_env(name: str) -> gymnasium.Env:
    """Make one copy of a workload's environment."""
    if name == "pendulum":
        return gymnasium.make("Pendulum-v1")
    return TimeLimit(Synthetic(), LIMIT)


def drive(
    algorithm: Any,
    packages: list[str],
    unequal: list[str],
    settings: dict[str, Any],
    finish: Callable[[Any], object] = lambda model: None,
) -> None:
    """Serve the protocol with one of the two SACs. `finish` waits for pending computations."""
    session = Session()
    workload = Workload.from_json(session.workload)
    single_seed(packages[0], workload.seeds)
    model = algorithm(
        "MlpPolicy",
        DummyVecEnv([lambda: make_env(workload.env)] * workload.num_envs),
        learning_rate=session.learning_rate,
        buffer_size=workload.replay_size,
        learning_starts=workload.warmup_steps,
        batch_size=workload.batch_size,
        tau=TAU,
        gamma=GAMMA,
        train_freq=(1, "step"),  # one step of all environments
        gradient_steps=workload.updates,
        ent_coef="auto_1.0",
        target_entropy="auto",  # minus the number of action dimensions
        policy_kwargs={"net_arch": list(workload.hidden), "n_critics": 2} | settings,
        seed=0,
        device="cpu",
    )

    def learn(env_steps: int) -> tuple[float, int, int]:
        """Run `learn`. Return its seconds, gradient steps and environment steps."""
        before = model._n_updates, model.num_timesteps
        start = time.perf_counter()
        model.learn(env_steps, log_interval=None, reset_num_timesteps=False)
        finish(model)
        seconds = time.perf_counter() - start
        return seconds, model._n_updates - before[0], model.num_timesteps - before[1]

    learn(workload.warmup_steps)
    piece = workload.iterations * workload.num_envs
    if session.once:
        learn(workload.num_envs)  # the first iteration, in which SBX compiles
        seconds, _, _ = learn(piece - workload.num_envs)
        session.trained(
            seconds, returns(workload.env, lambda obs: model.predict(obs, deterministic=True)[0])
        )
        return
    learn(piece)
    session.ready([*packages, "gymnasium", "torch"], unequal)
    while session.go():
        session.ran(*learn(piece))
