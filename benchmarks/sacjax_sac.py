"""Time sacjax with the protocol of peers/protocol.py, for comparisons with peers.

A piece is `Program.epoch` without its evaluation. --once calls `sacjax.run`, as users do. Its
`train_seconds` include the evaluation at the end, but no compilation. The returns are those of the
first seed.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sacjax.devices import keep_compiled_programs, use_all_cores

use_all_cores()  # must run before gymnax makes arrays
keep_compiled_programs()

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams, EnvState

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from evaluation import returns  # pyright: ignore[reportMissingImports]
from protocol import GAMMA, TAU, Session  # pyright: ignore[reportMissingImports]
from workloads import ACTION, LIMIT, MIX, OBS, Workload

from sacjax import Config, Hyperparams, make_program, over_members, run
from sacjax.bits import as_arrays

PACKAGES = ["sacjax", "gymnax", "jax", "jaxlib", "flax", "optax", "distrax"]


@struct.dataclass
class State(EnvState):
    x: jax.Array


@struct.dataclass
class Params(EnvParams):
    max_steps_in_episode: int = LIMIT


class Synthetic(Environment):
    """The synthetic environment of workloads.py."""

    @property
    def default_params(self) -> Params:
        return Params()

    def step_env(self, key, state, action, params):
        x = 0.9 * state.x + action @ MIX
        state = State(x=x, time=state.time + 1)
        return x, state, -jnp.mean(x**2), jnp.array(False), {}

    def reset_env(self, key, params):
        x = jax.random.uniform(key, (OBS,), minval=-1, maxval=1)
        return x, State(x=x, time=0)

    def get_obs(self, state, params=None, key=None):
        return state.x

    def action_space(self, params=None):
        return spaces.Box(-1, 1, (ACTION,))

    def observation_space(self, params):
        return spaces.Box(-np.inf, np.inf, (OBS,))

    @property
    def name(self) -> str:
        return "synthetic"


def up_to_multiple(value: int, of: int) -> int:
    """Return the least multiple of `of` that is at least `value`."""
    return -(-value // of) * of


def make_config(workload: Workload) -> Config:
    """Make a long config. One of its epochs is a piece."""
    envs = workload.num_envs
    warmup, piece = up_to_multiple(workload.warmup_steps, envs), workload.iterations * envs
    return Config(
        "Pendulum-v1" if workload.env == "pendulum" else Synthetic(),
        total_steps=warmup + up_to_multiple(workload.replay_size, piece),
        num_envs=envs,
        warmup_steps=warmup,
        utd=workload.updates / envs,
        rollout_length=1,
        batch_size=workload.batch_size,
        replay_size=up_to_multiple(workload.replay_size, envs),
        eval_every=piece,
        eval_episodes=1,
        hidden=workload.hidden,
        hidden_precision=workload.hidden_precision,  # pyright: ignore[reportArgumentType]
    )


class Piece(NamedTuple):
    """A compiled program of `iterations` iterations."""

    run: Callable[[Any], Any]  # loop -> loop, with donated memory
    compile_seconds: float
    bytes_per_seed: int  # according to XLA: arguments and temporary memory


def compiled(workload: Workload, hp: Hyperparams, **how: Any) -> tuple[Any, Piece]:
    """Return the loop state after the warm-up, and a compiled piece.

    `how` has the strategy and devices of several seeds.
    """
    program = make_program(make_config(workload))
    hp, env_params = as_arrays(hp, program.default_params)

    def epoch(loop, hp, env_params):
        loop, metrics = program.epoch(loop, hp, env_params)
        return loop, metrics["critic_loss"]  # XLA drops the unused evaluation

    start = time.perf_counter()
    if workload.seeds == 1:
        keys, init = jax.random.key(0), jax.jit(program.init)
        step = jax.jit(epoch, donate_argnums=0)
    else:
        keys, axes = jax.random.split(jax.random.key(0), workload.seeds), (0, None, None)
        init = jax.jit(over_members(program.init, axes, **how))
        step = jax.jit(over_members(epoch, axes, donated=True, **how), donate_argnums=0)
    loop = jax.block_until_ready(init(keys, hp, env_params))
    executable = step.lower(loop, hp, env_params).compile()
    seconds = time.perf_counter() - start
    memory = executable.memory_analysis()
    assert memory is not None
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    used = (used - memory.alias_size_in_bytes) * len(loop.epoch.sharding.device_set)

    def run(loop: Any) -> Any:
        return executable(loop, hp, env_params)[0]

    return loop, Piece(run, seconds, used // workload.seeds)


def train_once(session: Session, workload: Workload, hp: Hyperparams) -> None:
    """Train once and report the seconds and returns."""
    config = make_config(workload)
    total = config.warmup_steps + config.eval_every
    config = replace(config, total_steps=total, replay_size=total)
    seconds = []
    done = run(
        config,
        hp,
        seeds=workload.seeds,
        on_epoch=[lambda _, metrics: seconds.append(metrics["seconds"][0])],
    )
    mode = done.program.mode
    bound = 2 if workload.env == "pendulum" else 1

    @jax.jit
    def act(agents, obs):
        return bound * mode(jax.tree.map(lambda x: x[0], agents), obs)

    session.trained(seconds[0], returns(workload.env, lambda obs: act(done.agents, obs)))


if __name__ == "__main__":
    session = Session()
    workload = Workload.from_json(session.workload)
    rate = session.learning_rate
    hp = Hyperparams(gamma=GAMMA, tau=TAU, actor_lr=rate, critic_lr=rate, alpha_lr=rate)
    if session.once:
        train_once(session, workload, hp)
    else:
        loop, piece = compiled(workload, hp)
        loop = jax.block_until_ready(piece.run(loop))
        session.ready(PACKAGES, [], piece.compile_seconds, bytes_per_seed=piece.bytes_per_seed)
        while session.go():
            start = time.perf_counter()
            loop = jax.block_until_ready(piece.run(loop))
            taken = time.perf_counter() - start
            session.ran(taken, workload.gradient_steps, workload.env_steps)
