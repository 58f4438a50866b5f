"""Train Stable-Baselines3's SAC with its defaults on a MuJoCo task. ../locomotion.py starts this.

python sb3_locomotion.py TASK STEPS SEED FIRST EVERY OUT
writes OUT/config.json and OUT/metrics.csv
"""

import csv
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy


class Evaluations(BaseCallback):
    """A callback that plays ten greedy episodes at regular steps and writes a row each time."""

    def __init__(self, task: str, first: int, every: int, seed: int, out: Path):
        super().__init__()
        self.env, self.first, self.every, self.out = gymnasium.make(task), first, every, out
        self.env.reset(seed=10_000 + seed)
        self.rng = np.random.default_rng(seed)

    def _on_step(self) -> bool:
        after = self.num_timesteps - self.first
        if after <= 0 or after % self.every:
            return True
        returns, lengths = evaluate_policy(
            self.model, self.env, 10, deterministic=True, return_episode_rewards=True, warn=False
        )
        row = {
            "env_steps": self.num_timesteps,
            "eval_return": np.mean(returns),
            "eval_return_std": np.std(returns),
            "eval_length": np.mean(lengths),
        }
        values = self.model.logger.name_to_value
        row["alpha"] = values.get("train/ent_coef", "")
        row["critic_loss"] = values.get("train/critic_loss", "")
        row["entropy"], row["q"] = self.entropy_and_q()
        new = not self.out.exists()
        with self.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        return True

    @torch.no_grad()
    def entropy_and_q(self) -> tuple[float, float]:
        """Return mean entropy and Q of 2,560 stored transitions, in sacjax's units."""
        replay = self.model.replay_buffer
        batch = replay._get_samples(self.rng.integers(replay.size(), size=2_560))
        with torch.random.fork_rng():  # keep the random numbers of the run
            _, log_prob = self.model.actor.action_log_prob(batch.observations)
        q = torch.stack(self.model.critic(batch.observations, batch.actions))
        return -float(log_prob.mean()), float(q.mean())


def cpu() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(": ")[1] for line in lines if line.startswith("model name"))


def main() -> None:
    task, steps, seed, first, every, out = sys.argv[1:]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").unlink(missing_ok=True)
    names = ("stable_baselines3", "torch", "gymnasium", "mujoco", "numpy")
    about = {
        "who": "sb3",
        "seeds": [int(seed)],
        "config": {"env": f"gymnasium/{task}"},
        "hyperparams": [{}],
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": {"cpu": cpu(), "cores": os.cpu_count(), "system": platform.platform()},
    }
    (folder / "config.json").write_text(json.dumps(about))
    model = SAC("MlpPolicy", task, seed=int(seed), device="cpu")
    callback = Evaluations(task, int(first), int(every), int(seed), folder / "metrics.csv")
    model.learn(int(steps), callback=callback, log_interval=None)


if __name__ == "__main__":
    main()
