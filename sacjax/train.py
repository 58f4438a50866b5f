"""The loop: warm-up, then epochs of (collect, learn), each with an evaluation at its end.

`make_program` gives the pair `Program(init, epoch)` that everything is made of. `make_train` scans
`epoch` into one pure function for jit, vmap and notebooks; `sacjax.run` calls the very same `epoch`
from Python. Shapes: E environments, U gradient steps per iteration, see `sacjax.types`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from sacjax.config import Config, Hyperparams
from sacjax.envs import make_env
from sacjax.evaluate import evaluate
from sacjax.replay import ReplayState, make_replay
from sacjax.sac import make_sac
from sacjax.types import Algorithm, Array, Env, EnvParams, Key, Metrics, TimeStep, Transition


class Episodes(struct.PyTreeNode):
    """Running statistics of the training episodes: the open ones, and those ended in this epoch."""

    open_return: Array  # [E]
    open_length: Array  # [E]
    return_sum: Array  # []
    length_sum: Array  # []
    count: Array  # []


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
    """A run in two pure functions.

    `init(key, hp, env_params) -> LoopState`: networks, environments, replay, warm-up done.
    `epoch(loop, hp, env_params) -> (LoopState, Metrics)`: `eval_every` steps, then an evaluation.
    `evaluate(agent, key, env_params) -> (returns, lengths)`, [eval_episodes] each: that evaluation.
    """

    init: Callable[[Key, Hyperparams, EnvParams], LoopState]
    epoch: Callable[[LoopState, Hyperparams, EnvParams], tuple[LoopState, Metrics]]
    evaluate: Callable[[Any, Key, EnvParams], tuple[Array, Array]]
    default_params: EnvParams
    example: Transition


class TrainResult(NamedTuple):
    """What a run leaves."""

    agent: Any  # the trained algorithm state: sac.TrainState
    metrics: Metrics  # each with leading axis [epochs]; see `make_program`


def epoch_keys(key: Key, epoch: Array | int) -> tuple[Key, Key]:
    """The keys of one epoch, for its steps and for its evaluation."""
    key_steps, key_eval = jax.random.split(jax.random.fold_in(key, epoch))
    return key_steps, key_eval


def make_program(
    config: Config, algorithm: Callable[[Config, Env], Algorithm] = make_sac
) -> Program:
    """The compiled loop's two functions for `config`. Raises InputError on an unusable environment.

    Metrics of an epoch, the algorithm's own (see `sac.update_step`) averaged over its gradient
    steps, and:
      eval_return, eval_length    [eval_episodes]  undiscounted return and steps of greedy episodes
      train_return, train_length  []  means over the training episodes that ended in this epoch;
                                      NaN where none did
      train_episodes              []  how many did
      replay_size, env_steps, gradient_steps  []  counts since the start
    """
    make_copies = make_env(config.env)
    env, eval_env = make_copies(config.num_envs), make_copies(config.eval_episodes)
    agent = algorithm(config, env)
    replay = make_replay(config)
    iterations = config.eval_every // config.steps_per_iteration

    def init(key: Key, hp: Hyperparams, env_params: EnvParams) -> LoopState:
        key_agent, key_reset, key_warmup, key_loop = jax.random.split(key, 4)
        env_state, obs = env.reset(key_reset, env_params)
        loop = LoopState(
            agent=agent.init(key_agent, hp),
            env_state=env_state,
            obs=obs,
            replay=replay.init(env.example),
            episodes=_no_episodes(config.num_envs, obs.dtype),
            key=key_loop,
            epoch=jnp.zeros((), jnp.int32),
        )

        def warm_up(carry, inputs):
            loop, held = carry
            step, key = inputs
            key_action, key_env = jax.random.split(key)
            action = jnp.where(step % config.warmup_hold == 0, env.random_action(key_action), held)
            return (interact(loop, action, key_env, env_params), action), None

        steps = config.warmup_steps // config.num_envs
        inputs = jnp.arange(steps), jax.random.split(key_warmup, steps)
        held = jnp.zeros((config.num_envs, env.action_size), obs.dtype)
        (loop, _), _ = jax.lax.scan(warm_up, (loop, held), inputs)
        return _of_member(loop, key)

    def interact(loop: LoopState, action: Array, key: Key, env_params: EnvParams) -> LoopState:
        """One step of every environment, into replay."""
        env_state, timestep = env.step(loop.env_state, action, key, env_params)
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
            replay=replay.add(loop.replay, transition),
            episodes=_count(loop.episodes, timestep),
        )

    def epoch(loop: LoopState, hp: Hyperparams, env_params: EnvParams) -> tuple[LoopState, Metrics]:
        key_steps, key_eval = epoch_keys(loop.key, loop.epoch)

        def collect(loop: LoopState, key: Key) -> tuple[LoopState, None]:
            key_action, key_env = jax.random.split(key)
            action = agent.act(loop.agent, loop.obs, key_action)
            return interact(loop, action, key_env, env_params), None

        def learn(state: Any, inputs: tuple[Transition, Key]) -> tuple[Any, Metrics]:
            batch, key = inputs
            return agent.update(state, batch, key, hp)

        def iteration(loop: LoopState, key: Key) -> tuple[LoopState, Metrics]:
            """The practical algorithm: k steps of the environments, then U gradient steps."""
            key_collect, key_replay, key_learn = jax.random.split(key, 3)
            loop, _ = jax.lax.scan(collect, loop, jax.random.split(key_collect, config.rollout))
            batches = replay.sample(loop.replay, key_replay)  # [U, B, ...]
            keys = jax.random.split(key_learn, config.updates_per_iteration)
            state, metrics = jax.lax.scan(learn, loop.agent, (batches, keys))
            return loop.replace(agent=state), jax.tree.map(lambda x: x.mean(0), metrics)

        loop = loop.replace(episodes=_new_epoch(loop.episodes))
        loop, metrics = _scan_mean(iteration, loop, jax.random.split(key_steps, iterations))
        eval_return, eval_length = evaluate_greedily(loop.agent, key_eval, env_params)
        loop = loop.replace(epoch=loop.epoch + 1)
        ended = loop.episodes
        return loop, metrics | {
            "eval_return": eval_return,
            "eval_length": eval_length,
            "train_return": ended.return_sum / ended.count,
            "train_length": ended.length_sum / ended.count,
            "train_episodes": ended.count,
            "replay_size": replay.size(loop.replay),
            "env_steps": config.warmup_steps + loop.epoch * config.eval_every,
            "gradient_steps": loop.epoch * iterations * config.updates_per_iteration,
        }

    def evaluate_greedily(state: Any, key: Key, env_params: EnvParams) -> tuple[Array, Array]:
        return evaluate(eval_env, lambda obs: agent.mode(state, obs), key, env_params)

    return Program(init, epoch, evaluate_greedily, env.default_params, env.example)


def make_train(
    config: Config, algorithm: Callable[[Config, Env], Algorithm] = make_sac
) -> Callable[..., TrainResult]:
    """`train(key, hp=Hyperparams(), env_params=None) -> TrainResult`: a whole run, pure.

    jit it; vmap it over keys, over grids of `hp` and over `env_params` (None: the environment's
    defaults). Raises InputError, before tracing, on what `Config` and the environment refuse.
    """
    program = make_program(config, algorithm)

    def train(
        key: Key, hp: Hyperparams = Hyperparams(), env_params: EnvParams = None
    ) -> TrainResult:
        hp, env_params = as_arrays(hp, program.default_params if env_params is None else env_params)
        # Constants folded into the loop would round otherwise than the same numbers as arguments,
        # and a run would not be, to the bit, the one that `sacjax.run` makes of the same program.
        hp, env_params = jax.lax.optimization_barrier((hp, env_params))
        loop = program.init(key, hp, env_params)
        loop, metrics = jax.lax.scan(
            lambda loop, _: program.epoch(loop, hp, env_params), loop, length=config.num_epochs
        )
        return TrainResult(loop.agent, metrics)

    return train


def as_arrays(hp: Hyperparams, env_params: EnvParams) -> tuple[Hyperparams, EnvParams]:
    """Numbers as arrays of one dtype, so that they trace alike wherever they come from."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), hp), jax.tree.map(_array, env_params)


def _array(x: Any) -> Array:
    return jax.lax.convert_element_type(x, jnp.asarray(x).dtype)


def _of_member(loop: LoopState, key: Key) -> LoopState:
    """The same arrays, every one depending on `key`: under vmap over keys none is left unbatched.

    A step counter, say, is the same for all members; were it shared inside one compiled run and
    given per member from Python, the two would be different programs, with different rounding.
    """
    always = jax.random.key_data(key).ravel()[0] >= 0  # unsigned; the select costs nothing
    return jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else _tie(always, x),
        loop,
    )


def _tie(always: Array, x: Array) -> Array:
    return jax.lax.select(jnp.broadcast_to(always, x.shape), x, x)


def _scan_mean(
    step: Callable[[LoopState, Key], tuple[LoopState, Metrics]], loop: LoopState, keys: Key
) -> tuple[LoopState, Metrics]:
    """`lax.scan` that returns the mean of the outputs, without ever holding them all."""
    shapes = jax.eval_shape(step, loop, keys[0])[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(carry, key):
        loop, total = carry
        loop, metrics = step(loop, key)
        return (loop, jax.tree.map(jnp.add, total, metrics)), None

    (loop, total), _ = jax.lax.scan(add, (loop, zeros), keys)
    return loop, jax.tree.map(lambda x: x / keys.shape[0], total)


def _no_episodes(num_envs: int, dtype: Any) -> Episodes:
    zeros, zero = jnp.zeros(num_envs, dtype), jnp.zeros((), dtype)
    return Episodes(zeros, zeros, zero, zero, zero)


def _new_epoch(episodes: Episodes) -> Episodes:
    zero = jnp.zeros_like(episodes.count)
    return episodes.replace(return_sum=zero, length_sum=zero, count=zero)


def _count(episodes: Episodes, timestep: TimeStep) -> Episodes:
    returns, lengths = episodes.open_return + timestep.reward, episodes.open_length + 1
    ended = timestep.terminated | timestep.truncated
    return Episodes(
        open_return=jnp.where(ended, 0, returns),
        open_length=jnp.where(ended, 0, lengths),
        return_sum=episodes.return_sum + jnp.where(ended, returns, 0).sum(),
        length_sum=episodes.length_sum + jnp.where(ended, lengths, 0).sum(),
        count=episodes.count + ended.sum(),
    )
