"""Time EvoRL's SAC on two small environments for EvoRL, with the protocol of protocol.py.

A piece is one jitted call of the workflow's inner loop, a scan over iterations. The workflow's
set-up is the warm-up. The loop does not evaluate or record. `train_seconds` of --once exclude the
warm-up and the compilation.
"""

import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

with redirect_stdout(sys.stderr):  # the import can print a warning
    from evorl.algorithms.sac import SACWorkflow, make_mlp_sac_agent
    from evorl.envs import Box, Env, EnvState
    from evorl.envs.wrappers.training_wrapper import EpisodeWrapper, VmapAutoResetWrapper
    from evorl.replay_buffers import ReplayBuffer
    from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import returns
from protocol import GAMMA, TAU, Session, single_seed
from workloads import ACTION, LIMIT, MIX, OBS, Workload, pendulum_obs, pendulum_step

PACKAGES = ["evorl-jax", "jax", "jaxlib", "flax", "optax"]
UNEQUAL = [
    "only the inner loop of the workflow runs, without its recorders and checkpoints",
    "the copies of the environment are checked for a reset in sequence",
    "the compiled loop copies the replay at every iteration: its cost grows with replay_size",
]


def box(size: int, bound: float) -> Box:
    """Make a space of vectors."""
    return Box(low=jnp.full(size, -bound), high=jnp.full(size, bound))


def start(env_state: Any, obs: jax.Array) -> EnvState:
    """Make the first state of an episode."""
    return EnvState(env_state=env_state, obs=obs, reward=jnp.zeros(()), done=jnp.zeros(()))


class Pendulum(Env):
    """Gymnasium's Pendulum-v1. Actions in [-1, 1] are multiplied by the torque's limit."""

    action_space = box(1, 1.0)
    obs_space = box(3, 10.0)

    def reset(self, key: jax.Array) -> EnvState:
        high = jnp.array([jnp.pi, 1.0])
        angle, speed = jax.random.uniform(key, (2,), minval=-high, maxval=high)
        return start((angle, speed), pendulum_obs(jnp, angle, speed))

    def step(self, state: EnvState, action: jax.Array) -> EnvState:
        angle, speed, reward = pendulum_step(jnp, *state.env_state, 2 * action[0])
        obs = pendulum_obs(jnp, angle, speed)
        done = jnp.zeros(())
        return state.replace(env_state=(angle, speed), obs=obs, reward=reward, done=done)


class Synthetic(Env):
    """The synthetic environment of workloads.py."""

    action_space = box(ACTION, 1.0)
    obs_space = box(OBS, 10.0)

    def reset(self, key: jax.Array) -> EnvState:
        x = jax.random.uniform(key, (OBS,), minval=-1, maxval=1)
        return start(x, x)

    def step(self, state: EnvState, action: jax.Array) -> EnvState:
        x = 0.9 * state.env_state + action @ MIX
        reward = -jnp.mean(x**2)
        return state.replace(env_state=x, obs=x, reward=reward, done=jnp.zeros(()))


ENVS = {"pendulum": (Pendulum, 200, 2.0), "synthetic": (Synthetic, LIMIT, 1.0)}  # limit, scale


def make_workflow(workload: Workload, learning_rate: float) -> SACWorkflow:
    """Make EvoRL's workflow, with the environment wrappers that it uses for SAC."""
    env, limit, _ = ENVS[workload.env]
    wrapped = EpisodeWrapper(env(), limit, record_ori_obs=True, discount=1.0)
    batched = VmapAutoResetWrapper(wrapped, num_envs=workload.num_envs)
    agent = make_mlp_sac_agent(
        batched.action_space,
        num_critics=2,
        critic_hidden_layer_sizes=workload.hidden,
        actor_hidden_layer_sizes=workload.hidden,
        init_alpha=1.0,
        discount=GAMMA,
    )
    replay = ReplayBuffer(
        capacity=workload.replay_size,
        sample_batch_size=workload.batch_size,
        min_sample_timesteps=workload.warmup_steps,
    )
    config = OmegaConf.create(
        {
            "num_envs": workload.num_envs,
            "rollout_length": 1,
            "fold_iters": workload.iterations,  # scanned in one call
            "num_updates_per_iter": workload.updates,
            "actor_update_interval": 1,
            "adaptive_alpha": True,
            "tau": TAU,
            "random_timesteps": workload.warmup_steps,
            "learning_start_timesteps": workload.warmup_steps,
            "checkpoint": {"enable": False},
        }
    )
    optimizer = optax.adam(learning_rate)
    return SACWorkflow(batched, agent, optimizer, None, replay, config)


def main() -> None:
    """Serve the protocol."""
    session = Session()
    workload = Workload.from_json(session.workload)
    single_seed("evorl", workload.seeds)
    workflow = make_workflow(workload, session.learning_rate)
    state = jax.jit(workflow.setup)(jax.random.PRNGKey(0))
    start = time.perf_counter()
    train = jax.jit(workflow._multi_steps, donate_argnums=0).lower(state).compile()
    compile_seconds = time.perf_counter() - start

    def piece(state: Any) -> tuple[Any, float]:
        start = time.perf_counter()
        _, state = jax.block_until_ready(train(state))
        return state, time.perf_counter() - start

    def counts(state: Any) -> tuple[int, int]:
        """Return gradient steps and environment steps since the start."""
        updates = int(state.metrics.iterations) * workload.updates
        return updates, int(state.metrics.sampled_timesteps)

    jax.block_until_ready(state)
    state, seconds = piece(state)
    if session.once:
        params, scale = state.agent_state.params.actor_params, ENVS[workload.env][2]

        @jax.jit
        def act(obs: jax.Array) -> jax.Array:
            output = workflow.agent.actor_network.apply(params, obs)
            return scale * jnp.tanh(jnp.split(output, 2, axis=-1)[0])

        session.trained(seconds, returns(workload.env, act))
        return
    session.ready(PACKAGES, UNEQUAL, compile_seconds)
    while session.go():
        before = counts(state)
        state, seconds = piece(state)
        updates, env_steps = (b - a for a, b in zip(before, counts(state), strict=True))
        session.ran(seconds, updates, env_steps)


if __name__ == "__main__":
    main()
