"""The loop: warm-up, then epochs of (collect, learn), each with an evaluation at its end.

`make_program` gives the functions `init` and `epoch` that everything is made of. `make_train` scans
`epoch` into one pure function for jit, vmap and notebooks; `sacjax.run` calls the very same `epoch`
from Python. Shapes: E environments, U gradient steps per iteration, see `sacjax.types`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.flatten_util import ravel_pytree

from sacjax.bits import as_arguments, as_arrays, bind, tied_to
from sacjax.config import Config, Hyperparams
from sacjax.envs.names import make_env
from sacjax.evaluate import (
    Episodes,
    add_step,
    evaluate,
    init_episodes,
    start_epoch,
    summarize,
)
from sacjax.prng import lean, standard
from sacjax.replay import Replay, ReplayState, make_replay, n_step_return
from sacjax.sac import make_sac
from sacjax.types import (
    Algorithm,
    Array,
    Env,
    EnvParams,
    Key,
    Metrics,
    Step,
    Transition,
)
from sacjax.validation import (
    check_key,
    check_one,
    check_settings_of_jax,
    check_target_entropy,
    must_be,
)

MakeAlgorithm = Callable[[Config, Env], Algorithm]


class LoopState(struct.PyTreeNode):
    """Everything that a run is at the end of an epoch: arrays only, enough to go on from."""

    agent: Any  # the algorithm's state: sac.TrainState
    env_state: Any
    obs: Array  # [E, O]
    replay: ReplayState
    episodes: Episodes
    key: Key
    epoch: Array  # [] epochs done


class Program(NamedTuple):
    """A run in two pure functions, and an evaluation on its own.

    `init(key, hp, env_params) -> LoopState`: networks, environments, replay, warm-up done.
    `epoch(loop, hp, env_params) -> (LoopState, Metrics)`: `eval_every` steps, then an evaluation.
    `evaluate(agent, key, env_params) -> (returns, lengths)`, [eval_episodes] each: that evaluation.
    `mode(agent, obs [B, O]) -> action [B, A]`: the greedy policy, actions in [-1, 1].
    """

    init: Callable[[Key, Hyperparams, EnvParams], LoopState]
    epoch: Callable[[LoopState, Hyperparams, EnvParams], tuple[LoopState, Metrics]]
    evaluate: Callable[[Any, Key, EnvParams], tuple[Array, Array]]
    mode: Callable[[Any, Array], Array]
    default_params: EnvParams
    example: Transition
    bounds: tuple[Any, Any]  # `Env.bounds`
    host: Any = None  # `Env.host` of the environments that are trained on


class TrainResult(NamedTuple):
    """What a run leaves."""

    agent: Any  # the trained algorithm state: sac.TrainState
    metrics: Metrics  # each with leading axis [epochs]; see `make_program`


class Parts(NamedTuple):
    """What the loop is made of: everything static, bound to its functions by `make_program`."""

    config: Config
    env: Env
    eval_env: Env
    agent: Algorithm
    replay: Replay


def make_program(config: Config, algorithm: MakeAlgorithm = make_sac) -> Program:
    """The loop for `config`. Raises InputError on an environment that is not to be had.

    Metrics of an epoch: the algorithm's own (see `sac.update_step`), averaged over its gradient
    steps, and
      eval_return, eval_length    [eval_episodes]  undiscounted return and steps of greedy episodes
      train_return, train_length  []  means over the training episodes that ended in this epoch;
                                      NaN where none did
      train_episodes              []  how many did
      replay_size, env_steps, gradient_steps  []  counts since the start
    """
    must_be(Config, config, "config", "Config('Pendulum-v1')")
    check_settings_of_jax()
    make_copies = make_env(config.env)
    env = make_copies(config.num_envs)
    parts = Parts(
        config=config,
        env=env,
        eval_env=make_copies(config.eval_episodes),
        agent=algorithm(config, env),
        replay=make_replay(config, _item(config, env.example, env.example.reward)),
    )
    return Program(
        init=bind(_init, parts),
        epoch=bind(_epoch, parts),
        evaluate=bind(_evaluate, parts),
        mode=parts.agent.mode,
        default_params=env.default_params,
        example=env.example,
        bounds=env.bounds,
        host=env.host,
    )


def make_train(config: Config, algorithm: MakeAlgorithm = make_sac) -> Callable[..., TrainResult]:
    """`train(key, hp=Hyperparams(), env_params=None) -> TrainResult`: a whole run, pure.

    jit it; vmap it over keys, over grids of `hp` and over `env_params` (None: the environment's
    defaults). Raises InputError, before tracing, on what `Config` and the environment refuse;
    `train` does, of `hp` that are no numbers.
    """
    program = make_program(config, algorithm)

    def train(
        key: Key, hp: Hyperparams = Hyperparams(), env_params: EnvParams = None
    ) -> TrainResult:
        check_key(key)
        must_be(Hyperparams, hp, "hp", "Hyperparams(tau=0.005)")
        if env_params is None:
            env_params = program.default_params
        must_be(type(program.default_params), env_params, "env_params", "none, for the defaults")
        check_one(hp, Hyperparams(), "hp", "jax.vmap(train, (None, 0))(key, hp)")
        mapped = "jax.vmap(train, (None, None, 0))(key, hp, env_params)"
        check_one(env_params, program.default_params, "env_params", mapped)
        if algorithm is make_sac:
            check_target_entropy(config, hp)
        hp, env_params = as_arrays(hp, env_params)
        hp, env_params = as_arguments(hp, env_params)  # the bits are those of `sacjax.run`
        loop = program.init(key, hp, env_params)
        loop, metrics = jax.lax.scan(
            lambda loop, _: program.epoch(loop, hp, env_params), loop, length=config.num_epochs
        )
        return TrainResult(loop.agent, metrics)

    return train


def epoch_keys(key: Key, epoch: Array | int) -> tuple[Key, Key]:
    """The keys of one epoch, for its steps and for its evaluation."""
    key_steps, key_eval = jax.random.split(jax.random.fold_in(lean(key), epoch))
    return key_steps, key_eval


def _init(parts: Parts, key: Key, hp: Hyperparams, env_params: EnvParams) -> LoopState:
    """Networks, environments and replay, and the warm-up: random actions, no learning."""
    config, env = parts.config, parts.env
    key_agent, key_reset, key_warmup, key_loop = jax.random.split(lean(key), 4)
    env_state, obs = env.reset(key_reset, env_params)
    loop = LoopState(
        agent=parts.agent.init(key_agent, hp),
        env_state=env_state,
        obs=obs,
        replay=parts.replay.init(),
        episodes=init_episodes(config.num_envs, obs.dtype),
        key=standard(key_loop),
        epoch=jnp.zeros((), jnp.int32),
    )

    def warm_up(carry, inputs):
        loop, held = carry
        step, (key_action, key_env) = inputs
        action = jnp.where(step % config.warmup_hold == 0, env.random_action(key_action), held)
        return (_interact(parts, loop, action, key_env, env_params), action), None

    steps = config.warmup_steps // config.num_envs
    inputs = jnp.arange(steps), jax.random.split(key_warmup, (steps, 2))
    held = jnp.zeros((config.num_envs, env.action_size), obs.dtype)
    (loop, _), _ = jax.lax.scan(warm_up, (loop, held), inputs)
    return tied_to(key, loop)


def _epoch(
    parts: Parts, loop: LoopState, hp: Hyperparams, env_params: EnvParams
) -> tuple[LoopState, Metrics]:
    """`eval_every` environment steps with their gradient steps, then an evaluation."""
    config = parts.config
    iterations = config.eval_every // config.steps_per_iteration
    key_steps, key_eval = epoch_keys(loop.key, loop.epoch)
    # All keys of the epoch in one draw: small draws inside the loop cost more than what they seed.
    keys = jax.random.split(key_steps, (iterations, _keys_per_iteration(config)))
    loop = loop.replace(episodes=start_epoch(loop.episodes))
    iteration = partial(_iteration, parts, hp, env_params)
    loop, metrics = _scan_mean(iteration, loop, keys)
    eval_return, eval_length = _evaluate(parts, loop.agent, key_eval, env_params)
    loop = loop.replace(epoch=loop.epoch + 1)
    return loop, metrics | summarize(loop.episodes) | {
        "eval_return": eval_return,
        "eval_length": eval_length,
        "replay_size": loop.replay.size,
        "env_steps": config.warmup_steps + loop.epoch * config.eval_every,
        "gradient_steps": loop.epoch * iterations * config.updates_per_iteration,
    }


def _iteration(
    parts: Parts, hp: Hyperparams, env_params: EnvParams, loop: LoopState, keys: Key
) -> tuple[LoopState, Metrics]:
    """The practical algorithm: k steps of the environments, then U gradient steps."""

    def collect(loop: LoopState, keys: Key) -> tuple[LoopState, None]:
        key_action, key_env = keys
        action = jnp.clip(parts.agent.act(loop.agent, loop.obs, key_action), -1, 1)
        return _interact(parts, loop, action, key_env, env_params), None

    def learn(state: Any, inputs: tuple[Transition, Key]) -> tuple[Any, Metrics]:
        batch, key = inputs
        return parts.agent.update(state, batch, key, hp)

    key_replay, keys_collect, keys_learn = _deal(parts.config, keys)
    loop, _ = jax.lax.scan(collect, loop, keys_collect)
    batches = parts.replay.sample(loop.replay, key_replay)  # [U, B, ...]
    if parts.config.n_step > 1:  # [U, B, n, ...]
        batches = n_step_return(batches.transition, batches.ended, hp.gamma)
    state, metrics = jax.lax.scan(learn, loop.agent, (batches, keys_learn))
    return loop.replace(agent=state), jax.tree.map(lambda x: x.mean(0), metrics)


def _keys_per_iteration(config: Config) -> int:
    return 1 + 2 * config.rollout + config.updates_per_iteration


def _deal(config: Config, keys: Key) -> tuple[Key, Key, Key]:
    """An iteration's keys: one for the replay, [k, 2] for collecting and [U] for learning."""
    collect = 2 * config.rollout
    pairs = keys[1 : 1 + collect].reshape(config.rollout, 2, *keys.shape[1:])  # legacy keys: [2]
    return keys[0], pairs, keys[1 + collect :]


def _interact(
    parts: Parts, loop: LoopState, action: Array, key: Key, env_params: EnvParams
) -> LoopState:
    """One step of every environment, into replay."""
    env_state, timestep = parts.env.step(loop.env_state, action, key, env_params)
    ended = timestep.terminated | timestep.truncated
    transition = Transition(
        obs=loop.obs,
        action=action,
        reward=timestep.reward,
        discount=1 - timestep.terminated.astype(timestep.reward.dtype),
        next_obs=timestep.final_obs,
    )
    return loop.replace(
        env_state=env_state,
        obs=timestep.obs,
        replay=parts.replay.add(loop.replay, _item(parts.config, transition, ended)),
        episodes=add_step(loop.episodes, timestep),
    )


def _item(config: Config, transition: Transition, ended: Array) -> Any:
    """What replay stores."""
    if config.n_step == 1:
        return transition
    return Step(transition, ended.astype(transition.reward.dtype))


def _evaluate(parts: Parts, state: Any, key: Key, env_params: EnvParams) -> tuple[Array, Array]:
    policy = partial(parts.agent.mode, state)
    limit = parts.config.eval_max_steps
    return evaluate(parts.eval_env, policy, lean(key), env_params, limit)


def _scan_mean(
    step: Callable[[LoopState, Key], tuple[LoopState, Metrics]], loop: LoopState, keys: Key
) -> tuple[LoopState, Metrics]:
    """`lax.scan` that returns the mean of the outputs, without ever holding them all.

    A running mean, because a sum of a million float32 is off in the third digit; of one vector,
    because a mean of each scalar would be as many kernels in every step.
    """
    step = jax.jit(step, inline=True)  # traced once, for the shapes and for the loop
    shapes = jax.eval_shape(step, loop, keys[0])[1]
    mean, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, float), shapes))

    def add(carry, inputs):
        (loop, mean), (key, weight) = carry, inputs
        loop, metrics = step(loop, key)
        values, _ = ravel_pytree(jax.tree.map(lambda x: x.astype(float), metrics))
        return (loop, mean + weight * (values - mean)), None

    weights = 1 / jnp.arange(1, len(keys) + 1, dtype=float)
    (loop, mean), _ = jax.lax.scan(add, (loop, mean), (keys, weights))
    return loop, unravel(mean)
