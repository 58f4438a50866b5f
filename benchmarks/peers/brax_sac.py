"""Time Brax's own SAC on two small environments for Brax, with the protocol of protocol.py.

Brax trains in one call. The call evaluates between epochs, and every call compiles. So this driver
makes one call, and a piece is one of its epochs. The seconds of a piece come from Brax's own clock
'training/walltime', which runs during epochs and stops during evaluations. The driver answers and
waits in Brax's callback after each evaluation.

--once trains in about ten epochs. The first epoch also compiles, so `train_seconds` count it as the
mean of the other epochs. They exclude the warm-up.
"""

import functools
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

with redirect_stdout(sys.stderr):  # the import can print a warning
    from brax.envs.base import Env, State
    from brax.training.agents.sac import train as sac
    from brax.training.agents.sac.networks import make_sac_networks

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import returns
from protocol import GAMMA, TAU, Session, single_seed
from workloads import ACTION, LIMIT, MIX, OBS, Workload, pendulum_obs, pendulum_step

PACKAGES = ["brax", "jax", "jaxlib", "flax", "optax"]
MAX_PIECES = 10_000  # Brax needs a limit in advance: this is never reached
ONCE_EPOCHS = 10


class Pendulum(Env):
    """Gymnasium's Pendulum-v1. Actions in [-1, 1] are multiplied by the torque's limit."""

    observation_size = 3
    action_size = 1
    backend = "none"

    def reset(self, rng: jax.Array) -> State:
        high = jnp.array([jnp.pi, 1.0])
        angle, speed = jax.random.uniform(rng, (2,), minval=-high, maxval=high)
        return State((angle, speed), pendulum_obs(jnp, angle, speed), jnp.zeros(()), jnp.zeros(()))

    def step(self, state: State, action: jax.Array) -> State:
        angle, speed, reward = pendulum_step(jnp, *state.pipeline_state, 2 * action[0])
        obs = pendulum_obs(jnp, angle, speed)
        return state.replace(pipeline_state=(angle, speed), obs=obs, reward=reward)


class Synthetic(Env):
    """The synthetic environment of workloads.py."""

    observation_size = OBS
    action_size = ACTION
    backend = "none"

    def reset(self, rng: jax.Array) -> State:
        x = jax.random.uniform(rng, (OBS,), minval=-1, maxval=1)
        return State(x, x, jnp.zeros(()), jnp.zeros(()))

    def step(self, state: State, action: jax.Array) -> State:
        x = 0.9 * state.pipeline_state + action @ MIX
        return state.replace(pipeline_state=x, obs=x, reward=-jnp.mean(x**2))


ENVS = {"pendulum": (Pendulum, 200, 2.0), "synthetic": (Synthetic, LIMIT, 1.0)}  # limit, scale


class Finished(Exception):
    """An exception that ends Brax's training."""


def train(
    workload: Workload,
    learning_rate: float,
    epochs: int,
    iterations: int,
    after_epoch: Callable[[int, dict[str, Any]], None],
) -> tuple[Any, Any]:
    """Train with Brax. Return its policy factory and the parameters."""
    env, limit, _ = ENVS[workload.env]
    fill = -(-workload.warmup_steps // workload.num_envs) * workload.num_envs
    make_policy, params, _ = sac.train(
        environment=env(),
        num_timesteps=fill + epochs * iterations * workload.num_envs,
        num_evals=epochs + 1,
        num_eval_envs=1,
        episode_length=limit,
        num_envs=workload.num_envs,
        learning_rate=learning_rate,
        discounting=GAMMA,
        tau=TAU,
        batch_size=workload.batch_size,
        grad_updates_per_step=workload.updates,
        min_replay_size=workload.warmup_steps,
        max_replay_size=workload.replay_size,
        normalize_observations=False,
        max_devices_per_host=1,
        network_factory=functools.partial(make_sac_networks, hidden_layer_sizes=workload.hidden),
        progress_fn=after_epoch,
    )
    return make_policy, params


def unequal(workload: Workload) -> list[str]:
    """Return the differences between Brax and the workload."""
    found = [
        "the target entropy is minus half the number of action dimensions",
        "the temperature's learning rate is always 3e-4 (this matters for --once)",
        "the warm-up acts with the untrained policy, not uniformly at random",
        "every episode of a copy of the environment starts in the copy's first start state",
        "transitions cut off by the time limit do not train the critics",
        "every step updates statistics of the observations, although nothing is normalised",
        "once the replay is full, every insertion moves the whole replay",
    ]
    if workload.updates > 1:
        found.append("the batches of all `updates` gradient steps are drawn at once")
    return found


def serve(session: Session, workload: Workload) -> None:
    """Run pieces until the input ends."""
    clock, env_steps = 0.0, 0

    def after_epoch(steps: int, metrics: dict[str, Any]) -> None:
        nonlocal clock, env_steps
        if "training/walltime" not in metrics:  # the evaluation before the training
            return
        seconds, done = metrics["training/walltime"] - clock, steps - env_steps
        clock, env_steps = metrics["training/walltime"], steps
        if seconds == clock:  # the first epoch has warm-up, compilation and an untimed piece
            session.ready(PACKAGES, unequal(workload))
        else:
            session.ran(seconds, done // workload.num_envs * workload.updates, done)
        if not session.go():
            raise Finished

    try:
        train(workload, session.learning_rate, MAX_PIECES, workload.iterations, after_epoch)
    except Finished:
        return


def once(session: Session, workload: Workload) -> None:
    """Train once and play ten episodes."""
    clock = []

    def after_epoch(steps: int, metrics: dict[str, Any]) -> None:
        if "training/walltime" in metrics:
            clock.append(metrics["training/walltime"])

    iterations = max(workload.iterations // ONCE_EPOCHS, 1)
    epochs = -(-workload.iterations // iterations)
    make_policy, params = train(workload, session.learning_rate, epochs, iterations, after_epoch)
    seconds = (clock[-1] - clock[0]) * epochs / (epochs - 1)
    policy = jax.jit(make_policy(params, deterministic=True))
    scale = ENVS[workload.env][2]
    key = jax.random.key(0)  # a deterministic policy ignores it
    session.trained(seconds, returns(workload.env, lambda obs: scale * policy(obs, key)[0]))


def main() -> None:
    """Serve the protocol."""
    session = Session()
    workload = Workload.from_json(session.workload)
    single_seed("brax", workload.seeds)
    (once if session.once else serve)(session, workload)


if __name__ == "__main__":
    main()
