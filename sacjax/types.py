"""Types that several modules use, and letters for the shapes of arrays.

E is the number of parallel environments, B the batch size, and C the capacity of the replay buffer.
O is the size of an observation, and A the size of an action. N is the number of critics, and K the
number of quantiles. U is the number of gradient steps per iteration. M is the number of members
(seeds times settings), and only vmap adds the axis [M]. The batch is the last axis of every
array of values ([B], [N, B] or [N, K, B]), so rewards [B] broadcast to the array.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.errors import InputError as InputError
from sacjax.errors import RunError as RunError
from sacjax.errors import one_line as one_line

Array = jax.Array
Key = jax.Array  # one PRNG key, typed (`jax.random.key`) or legacy (`jax.random.PRNGKey`)
Scalar = jax.Array | float
Params = Any  # a pytree of network weights
EnvParams = Any  # a pytree of the parameters of an environment
Metrics = dict[str, Array]
# (lr, grads, opt_state, params, step) -> (params, opt_state); `step` [] counts gradient steps
Descend = Callable[[Scalar, Params, Any, Params, Array], tuple[Params, Any]]


class EpochMetrics(dict[str, np.ndarray]):
    """The metrics of one epoch, as a dictionary of NumPy arrays with leading axis [M].

    M is the number of members in the batch. The dictionary also contains the swept
    hyperparameters, and the metrics of a user-defined algorithm.

    Entries about the members:
      member: index of the member in the whole run.
      seed: seed of the member.
      diverged: True if the member diverged and is frozen. Later metrics of a frozen member are NaN,
        and later counts are 0.

    Entries about the run, with the same value for all members:
      members: number of members in the whole run.
      total_steps: `Config.total_steps`.
      eval_every: `Config.eval_every`.
      updates_per_epoch: gradient steps in one epoch.
      seconds: wall-clock seconds of the epoch, including the evaluation.
      next_checkpoint: estimated seconds until the next checkpoint, or NaN if no checkpoint follows.

    Entries of the training loop:
      eval_return: undiscounted returns of the greedy episodes, [M, eval_episodes].
      eval_length: steps of the greedy episodes, [M, eval_episodes].
      train_return: mean return of the training episodes that ended in the epoch, or NaN.
      train_length: mean length of the training episodes that ended in the epoch, or NaN.
      train_episodes: number of training episodes that ended in the epoch.
      info_NAME: for each entry "NAME:how" of `Config.log_info`, the mean over the training episodes
        that ended in the epoch and had a value, or NaN.
      replay_size: transitions in the replay buffer.
      env_steps: environment steps since the start.
      gradient_steps: gradient steps since the start.

    Entries of SAC, averaged over the gradient steps of the epoch:
      critic_loss: J(Q), summed over the critics.
      q: mean of Q_i(s, a) over minibatch and critics.
      critic_grad_norm: global L2 norm of the critics' gradients.
      actor_loss: J(pi).
      actor_grad_norm: global L2 norm of the actor's gradients.
      alpha_loss: J(alpha).
      alpha: temperature, in reward per nat.
      entropy: entropy of the policy in nats, -E log pi(a|s).
    """


# on_epoch(step, metrics): `step` counts the environment steps of each member so far
OnEpoch = Callable[[int, EpochMetrics], None]
OnNan = Literal["freeze", "stop"]  # freeze the diverged member, or stop the run
PLAIN = "sac"  # name of the built-in algorithm in config.json


def is_key(x: Any) -> bool:
    """Return whether `x` is an array of typed PRNG keys (`jax.random.key`)."""
    return jnp.issubdtype(getattr(x, "dtype", float), jax.dtypes.prng_key)


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether `value` is a Python or NumPy integer, but not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def named(member: dict[str, float]) -> str:
    """Describe a member by its seed and swept hyperparameters, such as "seed 3, tau 0.01"."""
    return ", ".join(f"{name} {value:.10g}" for name, value in member.items())


class Transition(NamedTuple):
    """A batch of environment steps, as the replay buffer stores them.

    All fields have the same leading axis [B] or [E], or no leading axis. A minibatch for
    `update_step` is a Transition with leading axis [B].

    Attributes:
      obs: observation before the action, [B, O].
      action: action in [-1, 1], [B, A].
      reward: reward in the environment's units, [B].
      discount: 0 if this step terminated the episode, else 1, [B]. A time limit does not change the
        discount.
      next_obs: observation after the action and before any reset, [B, O].

    Example:
      >>> import jax.numpy as jnp
      >>> from sacjax import Transition
      >>> batch = Transition(
      ...   obs=jnp.zeros((8, 3)), action=jnp.zeros((8, 1)), reward=jnp.zeros(8),
      ...   discount=jnp.ones(8), next_obs=jnp.zeros((8, 3)),
      ... )
      >>> batch.next_obs.shape
      (8, 3)
    """

    obs: Array  # [B, O]
    action: Array  # [B, A] in [-1, 1]
    reward: Array  # [B]
    discount: Array  # [B] 0 if the episode terminated, 1 otherwise, even after a time limit
    next_obs: Array  # [B, O] before any reset


class Step(NamedTuple):
    """The item that the replay buffer stores if `n_step` > 1."""

    transition: Transition
    ended: Array  # [B] 1 if the step ended the episode, by termination or a time limit, else 0


class TimeStep(NamedTuple):
    """The result of one step of E environments. An episode can be both terminated and truncated."""

    obs: Array  # [E, O] observation for the next action, after the reset if the episode ended
    final_obs: Array  # [E, O] observation after the action, before any reset
    reward: Array  # [E]
    terminated: Array  # [E] bool: the task is over, so the value of `final_obs` is 0
    truncated: Array  # [E] bool: time is up, so the target bootstraps from `final_obs`
    info: Any = None  # arrays [E, ...] by their names in the environment's info, NaN if missing


class Episode(NamedTuple):
    """One episode of T steps, recorded for rendering."""

    states: list[Any]  # [T] the environment state before each step
    actions: Any  # [T, A] in [-1, 1]
    rewards: Any  # [T]
    copy: int  # index of the environment copy
    obs: Any  # [T, O] the observation before each step


class Env(NamedTuple):
    """E copies of an environment, with automatic resets and actions in [-1, 1]."""

    name: str
    reset: Callable[[Key, EnvParams], tuple[Any, Array]]  # -> state, obs [E, O]
    step: Callable[[Any, Array, Key, EnvParams], tuple[Any, TimeStep]]
    random_action: Callable[[Key], Array]  # -> [E, A], uniform in [-1, 1]
    default_params: EnvParams
    example: Transition  # one transition of zeros, without a leading axis
    action_size: int
    bounds: tuple[Any, Any]  # lowest and highest action in the environment's units, of any shape
    host: Any = None  # `sacjax.envs.host.HostEnvs` if the environment runs outside of JAX


MakeEnv = Callable[[int], Env]  # maps the number of copies to an Env


class Algorithm(NamedTuple):
    """A learning algorithm as four pure functions, whose state is a pytree of arrays."""

    init: Callable[..., Any]  # (key, hp) -> state
    act: Callable[[Any, Array, Key], Array]  # (state, obs [E, O], key) -> action [E, A], sampled
    mode: Callable[[Any, Array], Array]  # (state, obs [E, O]) -> action [E, A], greedy
    update: Callable[..., tuple[Any, Metrics]]  # (state, batch, key, hp) -> state, metrics
