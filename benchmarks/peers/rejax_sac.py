"""Time rejax's SAC on gymnax environments, with the protocol of protocol.py.

A piece continues rejax's own training state with `jit(vmap(train))`, or without vmap for one seed.
A call of `train` that ends before the first gradient step fills the replay. Nothing is evaluated.
--once makes a single call of `train`, as users do. Its `train_seconds` include the warm-up, but not
the compilation. The returns are those of the first seed.
"""

import sys
import time
from pathlib import Path
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from rejax import SAC

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation import returns
from protocol import GAMMA, TAU, Session
from workloads import ACTION, LIMIT, MIX, OBS, Workload

PACKAGES = ["rejax", "gymnax", "jax", "jaxlib", "flax", "optax", "distrax"]


@struct.dataclass
class State(environment.EnvState):
    x: jax.Array
    time: int


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = LIMIT


class Synthetic(environment.Environment):
    """The synthetic environment of workloads.py."""

    @property
    def default_params(self) -> Params:
        return Params()

    def step_env(self, key, state, action, params):
        x = 0.9 * state.x + action @ MIX
        state = State(x=x, time=state.time + 1)
        done = self.is_terminal(state, params)
        return x, state, -jnp.mean(x**2), done, {}

    def reset_env(self, key, params):
        x = jax.random.uniform(key, (OBS,), minval=-1, maxval=1)
        return x, State(x=x, time=0)

    def is_terminal(self, state, params):
        return jnp.array(state.time >= params.max_steps_in_episode)

    def action_space(self, params):
        return spaces.Box(-1, 1, (ACTION,))

    def observation_space(self, params):
        return spaces.Box(-jnp.inf, jnp.inf, (OBS,))


def make_algorithm(workload: Workload, learning_rate: float) -> SAC:
    """Make rejax's SAC without evaluations. `lasting` sets its number of steps."""
    if workload.env == "pendulum":
        env, env_params = gymnax.make("Pendulum-v1")
    else:
        env, env_params = Synthetic(), Params()
    algorithm = SAC.create(
        env=env,
        env_params=env_params,
        hidden_layer_sizes=workload.hidden,
        agent_kwargs={"activation": "relu"},
        num_critics=2,
        num_envs=workload.num_envs,
        num_epochs=workload.updates,
        batch_size=workload.batch_size,
        buffer_size=workload.replay_size,
        fill_buffer=workload.warmup_steps,
        learning_rate=learning_rate,
        gamma=GAMMA,
        polyak=1 - TAU,
        target_update_freq=1,
        skip_initial_evaluation=True,
    )
    return algorithm.replace(eval_callback=lambda algorithm, state, rng: ())


def lasting(algorithm: SAC, env_steps: int) -> SAC:
    """Return the algorithm with this number of training steps."""
    return algorithm.replace(total_timesteps=env_steps, eval_freq=env_steps)


def trainer(algorithm: SAC, axes: Any) -> Any:
    """Return a jitted `train` from state to state. It is vmapped unless `axes` is None."""

    def train(state):
        return algorithm.train(train_state=state)[0]

    if axes is not None:
        train = jax.vmap(train, in_axes=(axes,), out_axes=axes)
    return jax.jit(train, donate_argnums=0)


def initial(algorithm: SAC, seeds: int) -> tuple[Any, Any]:
    """Return training states and their axes for vmap.

    Steps, the replay's index and `done` after a fixed number of steps are equal for all seeds. They
    get no axis, as in a single jit(vmap(train)). With an axis, a `cond` would become a `select`,
    and every seed would write to its own index of the replay. JAX checks that they are equal.
    """
    keys = jax.random.split(jax.random.key(0), seeds)
    if seeds == 1:
        return jax.jit(algorithm.init_state)(keys[0]), None
    states = jax.jit(jax.vmap(algorithm.init_state))(keys)
    leaves, structure = jax.tree.flatten(states)
    alike = [leaf.dtype in (jnp.int32, jnp.bool_) for leaf in leaves]
    states = structure.unflatten([x[0] if a else x for x, a in zip(leaves, alike, strict=True)])
    return states, structure.unflatten([None if a else 0 for a in alike])


def greedy(algorithm: SAC, params: Any) -> Any:
    """Return a function from observations to the greedy actions of the trained policy."""

    @jax.jit
    def act(obs):
        actor = algorithm.actor
        mean = actor.apply(params, obs, method="_action_dist").mode()
        return actor.action_loc + actor.action_scale * jnp.tanh(mean)

    return act


def unequal(workload: Workload) -> list[str]:
    """Return the differences between rejax and the workload."""
    found = [
        "a batch is drawn without replacement, with a random key for each place of the replay: "
        "its cost grows with replay_size",
        "the warm-up acts with the untrained policy, not uniformly at random",
        "an episode that ends by its time limit counts as terminated, and the next observation "
        "stored is the first of the next episode",
    ]
    if workload.updates > 1:
        found.append("the target networks move once per iteration, not at every gradient step")
    return found


def main() -> None:
    """Serve the protocol."""
    session = Session()
    workload = Workload.from_json(session.workload)
    algorithm = make_algorithm(workload, session.learning_rate)
    env_steps = workload.iterations * workload.num_envs

    if session.once:
        whole = lasting(algorithm, workload.warmup_steps + env_steps)
        keys = jax.random.split(jax.random.key(0), workload.seeds)
        train = jax.jit(jax.vmap(whole.train)).lower(keys).compile()
        start = time.perf_counter()
        states, _ = jax.block_until_ready(train(keys))
        seconds = time.perf_counter() - start
        params = jax.tree.map(lambda x: x[0], states.actor_ts.params)
        session.trained(seconds, returns(workload.env, greedy(algorithm, params)))
        return

    states, axes = initial(algorithm, workload.seeds)
    states = trainer(lasting(algorithm, workload.warmup_steps), axes)(states)
    start = time.perf_counter()
    train = trainer(lasting(algorithm, env_steps), axes).lower(states).compile()
    compile_seconds = time.perf_counter() - start

    def counts(states: Any) -> tuple[int, int]:
        """Return gradient steps and environment steps of one seed since the start."""
        return int(states.actor_ts.step), int(states.global_step)

    states = jax.block_until_ready(train(states))
    session.ready(PACKAGES, unequal(workload), compile_seconds)
    while session.go():
        before = counts(states)
        start = time.perf_counter()
        states = jax.block_until_ready(train(states))
        seconds = time.perf_counter() - start
        updates, steps = (b - a for a, b in zip(before, counts(states), strict=True))
        session.ran(seconds, workload.seeds * updates, workload.seeds * steps)


if __name__ == "__main__":
    main()
