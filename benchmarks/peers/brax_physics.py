"""Train Brax's own SAC on an environment of Brax or Playground. ../physics.py starts this.

python brax_physics.py '{"env": ..., "seed": 0, ...}'
prints a line [env_steps, seconds, return, length] per evaluation, except the one before training
"""

import functools
import json
import sys
import time
from contextlib import redirect_stdout

import jax
import jax.numpy as jnp

if not hasattr(jax, "device_put_replicated"):  # Brax 0.14.2 calls it, JAX 0.10 removed it

    def device_put_replicated(tree, devices):
        """Replicate a tree over one device: add a leading axis of 1."""
        (device,) = devices
        return jax.tree.map(lambda x: jax.device_put(jnp.asarray(x)[None], device), tree)

    jax.device_put_replicated = device_put_replicated  # pyright: ignore[reportAttributeAccessIssue]

with redirect_stdout(sys.stderr):
    from brax import envs
    from brax.training.agents.sac import train as sac
    from brax.training.agents.sac.networks import make_sac_networks

from sacjax.envs.names import parse


def main() -> None:
    asked = json.loads(sys.argv[1])
    suite, name, options = parse(asked["env"])
    wrap = None
    with redirect_stdout(sys.stderr):
        if suite == "playground":
            from mujoco_playground import registry, wrapper

            env = registry.load(name, config_overrides={"impl": "jax"} | options)
            limit = registry.get_default_config(name).episode_length
            wrap = wrapper.wrap_for_brax_training
        else:
            env, limit = envs.get_environment(name, **options), 1_000
    epochs = (asked["total_steps"] - asked["warmup_steps"]) // asked["eval_every"]
    begin = time.perf_counter()

    def show(steps: int, metrics: dict) -> None:
        if "training/walltime" in metrics:
            seconds = round(time.perf_counter() - begin, 2)
            score, length = metrics["eval/episode_reward"], metrics["eval/avg_episode_length"]
            print(json.dumps([int(steps), seconds, float(score), float(length)]), flush=True)

    sac.train(
        environment=env,
        wrap_env_fn=wrap,
        num_timesteps=asked["warmup_steps"] + epochs * asked["eval_every"],
        num_evals=epochs + 1,
        num_eval_envs=asked["eval_episodes"],
        deterministic_eval=True,
        episode_length=limit,
        num_envs=asked["num_envs"],
        learning_rate=asked["learning_rate"],
        discounting=asked["gamma"],
        tau=asked["tau"],
        seed=asked["seed"],
        batch_size=asked["batch_size"],
        grad_updates_per_step=asked["updates"],
        min_replay_size=asked["warmup_steps"],
        max_replay_size=asked["replay_size"],
        normalize_observations=asked["normalize_obs"],
        reward_scaling=asked["reward_scale"],
        max_devices_per_host=1,
        network_factory=functools.partial(
            make_sac_networks,
            hidden_layer_sizes=tuple(asked["hidden"]),
            q_network_layer_norm=asked["layer_norm"],
        ),
        progress_fn=show,
    )


if __name__ == "__main__":
    main()
