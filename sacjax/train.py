"""The training loop of a run, as pure functions.

A run is a warm-up and a number of epochs. An epoch alternates between collecting transitions and
learning from the replay buffer. Each epoch ends with an evaluation. `make_program` returns the
functions `init` and `epoch`. `make_train` scans `epoch` into one pure function for jit, vmap and
notebooks. `sacjax.run` calls the function `epoch` from Python. E is the number of environments, and
U is the number of gradient steps per iteration. `sacjax.types` lists all letters for shapes.
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
from sacjax.info import read_info
from sacjax.own import find_algorithm
from sacjax.prng import lean, standard
from sacjax.replay import Replay, ReplayState, make_replay, n_step_return
from sacjax.sac import make_sac
from sacjax.types import (
    PLAIN,
    Algorithm,
    Array,
    Env,
    EnvParams,
    Key,
    Metrics,
    Step,
    Transition,
)
from sacjax.validation import check_arguments, check_jax, check_target_entropy, must_be

MakeAlgorithm = Callable[[Config, Env], Algorithm] | str


class LoopState(struct.PyTreeNode):
    """The state of a run between epochs, with all arrays that the next epoch needs."""

    agent: Any  # the state of the algorithm, such as sac.TrainState
    env_state: Any
    obs: Array  # [E, O]
    replay: ReplayState
    episodes: Episodes
    key: Key
    epoch: Array  # [] number of completed epochs


class Program(NamedTuple):
    """The pure functions of one run.

    `init(key, hp, env_params) -> LoopState` starts a run with the warm-up.
    `epoch(loop, hp, env_params) -> (LoopState, Metrics)` trains for `eval_every` steps, then
    evaluates.
    `evaluate(agent, key, env_params) -> (returns, lengths)` only evaluates the agent.
    `mode(agent, obs [B, O]) -> action [B, A]` is the greedy policy, with actions in [-1, 1].
    """

    init: Callable[[Key, Hyperparams, EnvParams], LoopState]
    epoch: Callable[[LoopState, Hyperparams, EnvParams], tuple[LoopState, Metrics]]
    evaluate: Callable[[Any, Key, EnvParams], tuple[Array, Array]]
    mode: Callable[[Any, Array], Array]
    default_params: EnvParams
    example: Transition
    bounds: tuple[Any, Any]  # `Env.bounds`
    host: Any = None  # `Env.host` of the training environments


class TrainResult(NamedTuple):
    """The result of a whole run."""

    agent: Any  # the state of the trained algorithm, such as sac.TrainState
    metrics: Metrics  # arrays with leading axis [epochs]; `make_program` lists all metrics


class Parts(NamedTuple):
    """The static objects that all functions of the training loop use."""

    config: Config
    env: Env
    eval_env: Env
    agent: Algorithm
    replay: Replay


def make_program(config: Config, algorithm: MakeAlgorithm = make_sac) -> Program:
    """Build the training loop of one run as pure functions.

    An epoch returns the metrics of the algorithm, averaged over the gradient steps of the epoch.
    `update_step` lists the metrics of SAC. An epoch also returns these metrics:
      eval_return, eval_length    [eval_episodes]  undiscounted return and steps of greedy episodes
      train_return, train_length  []  means over training episodes that ended in the epoch, or NaN
      train_episodes              []  number of training episodes that ended in the epoch
      info_NAME                   []  for each entry "NAME:how" of `log_info`, a mean or NaN
      replay_size                 []  transitions in the replay buffer
      env_steps, gradient_steps   []  counts since the start of the run

    Args:
      config: the settings.
      algorithm: a function that maps (config, env) to an Algorithm, such as `make_sac`, or the
        name "module:function" of such a function.

    Returns:
      A Program of pure functions. `init(key, hp, env_params)` starts a run, and
      `epoch(loop, hp, env_params)` trains for one epoch. `evaluate(agent, key, env_params)`
      evaluates an agent, and `mode(agent, obs)` returns greedy actions. The functions are not
      jitted.

    Raises:
      InputError: the environment is unknown or not installed, or its spaces are not supported.

    Example:
      >>> import jax
      >>> from sacjax import Hyperparams, make_program
      >>> program, hp = make_program(config), Hyperparams()
      >>> params = program.default_params
      >>> loop = jax.eval_shape(program.init, jax.random.key(0), hp, params)
      >>> loop, metrics = jax.eval_shape(program.epoch, loop, hp, params)
      >>> metrics["eval_return"].shape
      (2,)
    """
    must_be(Config, config, "config", "Config('Pendulum-v1')")
    check_jax()
    make_copies = make_env(config.env)
    env = make_copies(config.num_envs)
    read_info(env, config.log_info)
    parts = Parts(
        config=config,
        env=env,
        eval_env=make_copies(config.eval_episodes),
        agent=find_algorithm(algorithm, make_sac)(config, env),
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
    """Build a whole run as one pure function, for jit and vmap.

    With `jax.vmap`, you can map the function over several keys, a grid of `hp` or several
    `env_params`. `over_members` spreads the members over the devices of this machine.

    Args:
      config: the settings.
      algorithm: a function that maps (config, env) to an Algorithm, such as `make_sac`, or the
        name "module:function" of such a function.

    Returns:
      A function `train(key, hp=Hyperparams(), env_params=None) -> TrainResult`, which is not
      jitted. `key` is one PRNG key, and `hp` has scalar fields. `env_params=None` means the default
      parameters of the environment. The result is the pair (agent, metrics). `agent` is the trained
      TrainState. `metrics` has all metrics of `make_program`, with a leading axis [epochs]. `train`
      raises InputError if an argument has a wrong type or contains arrays for several runs.

    Raises:
      InputError: the environment is unknown or not installed, or its spaces are not supported.

    Example:
      >>> import jax
      >>> from sacjax import make_train
      >>> train = jax.jit(make_train(config))
      >>> agent, metrics = train(jax.random.key(0))
      >>> int(agent.step), metrics["eval_return"].shape  # [epochs, eval_episodes]
      (200, (2, 2))
    """
    program = make_program(config, algorithm)

    def train(
        key: Key, hp: Hyperparams = Hyperparams(), env_params: EnvParams = None
    ) -> TrainResult:
        if env_params is None:
            env_params = program.default_params
        check_arguments(key, hp, env_params, Hyperparams(), program.default_params)
        if algorithm in (make_sac, PLAIN):
            check_target_entropy(config, hp)
        hp, env_params = as_arguments(*as_arrays(hp, env_params))  # for the same bits as in `run`
        loop = program.init(key, hp, env_params)
        loop, metrics = jax.lax.scan(
            lambda loop, _: program.epoch(loop, hp, env_params), loop, length=config.num_epochs
        )
        return TrainResult(loop.agent, metrics)

    return train


def epoch_keys(key: Key, epoch: Array | int) -> tuple[Key, Key]:
    """Return two PRNG keys for an epoch, one for its steps and one for its evaluation."""
    key_steps, key_eval = jax.random.split(jax.random.fold_in(lean(key), epoch))
    return key_steps, key_eval


def _init(parts: Parts, key: Key, hp: Hyperparams, env_params: EnvParams) -> LoopState:
    """Initialise agent, environments and replay buffer. Take random actions as a warm-up."""
    config, env = parts.config, parts.env
    key_agent, key_reset, key_warmup, key_loop = jax.random.split(lean(key), 4)
    env_state, obs = env.reset(key_reset, env_params)
    loop = LoopState(
        agent=parts.agent.init(key_agent, hp),
        env_state=env_state,
        obs=obs,
        replay=parts.replay.init(),
        episodes=init_episodes(config.num_envs, obs.dtype, config.log_info),
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
    """Train for `eval_every` environment steps, then evaluate."""
    config = parts.config
    iterations = config.eval_every // config.steps_per_iteration
    key_steps, key_eval = epoch_keys(loop.key, loop.epoch)
    # One draw returns all keys of the epoch, because small draws inside the loop are slow.
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
    """Take `rollout` steps of each environment, then U gradient steps."""

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
    """Count the PRNG keys that one iteration uses."""
    return 1 + 2 * config.rollout + config.updates_per_iteration


def _deal(config: Config, keys: Key) -> tuple[Key, Key, Key]:
    """Split keys into one for sampling, [rollout, 2] for environment steps and [U] for updates."""
    collect = 2 * config.rollout
    pairs = keys[1 : 1 + collect].reshape(config.rollout, 2, *keys.shape[1:])  # a legacy key is [2]
    return keys[0], pairs, keys[1 + collect :]


def _interact(
    parts: Parts, loop: LoopState, action: Array, key: Key, env_params: EnvParams
) -> LoopState:
    """Step every environment once and store the transitions in the replay buffer."""
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
    """Return an item for the replay buffer, which is a Transition, or a Step if `n_step` > 1."""
    if config.n_step == 1:
        return transition
    return Step(transition, ended.astype(transition.reward.dtype))


def _evaluate(parts: Parts, state: Any, key: Key, env_params: EnvParams) -> tuple[Array, Array]:
    """Run greedy episodes. Return the undiscounted returns and the lengths [eval_episodes]."""
    policy = partial(parts.agent.mode, state)
    limit = parts.config.eval_max_steps
    return evaluate(parts.eval_env, policy, lean(key), env_params, limit)


def _scan_mean(
    step: Callable[[LoopState, Key], tuple[LoopState, Metrics]], loop: LoopState, keys: Key
) -> tuple[LoopState, Metrics]:
    """Scan `step` and return the mean of its metrics, without storing the metrics of each step.

    A running mean is accurate, but a sum of a million float32 numbers is wrong from the third digit
    on. All metrics form one vector, because each separate mean would need a kernel.
    """
    step = jax.jit(step, inline=True)  # so JAX traces `step` only once for both uses
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
