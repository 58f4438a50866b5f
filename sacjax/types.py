"""The records that modules pass to each other, and the letters that name their shapes.

E parallel environments, B batch, C replay capacity, O observation, A action, N critics,
K quantiles, U gradient steps per iteration, M members (seeds times hyperparameters). Only vmap
adds the axis M. The batch is the last axis of every array of values ([B], [N, B], [N, K, B]), so
rewards [B] broadcast to it.
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
EnvParams = Any  # a pytree of an environment's own parameters
Metrics = dict[str, Array]
# (lr, grads, opt_state, params, step) -> (params, opt_state); `step` [] counts gradient steps
Descend = Callable[[Scalar, Params, Any, Params, Array], tuple[Params, Any]]


class EpochMetrics(dict[str, np.ndarray]):
    """The metrics of one epoch by name, NumPy arrays with leading axis [M], the members of a batch.

    Some entries are the same for all members. The swept hyperparameters are entries too, and so is
    any metric that your own algorithm returns.

    Entries about the members:
      member: index of the member in the whole run.
      seed: seed of the member.
      diverged: True if the member is frozen. Its later metrics are NaN, or 0 for counts.

    Entries about the run, the same for all members:
      members: number of members in the whole run.
      total_steps: `Config.total_steps`.
      eval_every: `Config.eval_every`.
      updates_per_epoch: gradient steps in one epoch.
      seconds: wall-clock seconds of the epoch with its evaluation.
      next_checkpoint: estimated seconds until the next checkpoint; NaN if none will follow.

    Entries of the training loop:
      eval_return: [M, eval_episodes], undiscounted returns of the greedy episodes.
      eval_length: [M, eval_episodes], steps of the greedy episodes.
      train_return: mean return of the training episodes that ended in the epoch; NaN if none.
      train_length: mean length of the training episodes that ended in the epoch; NaN if none.
      train_episodes: number of training episodes that ended in the epoch.
      replay_size: transitions in replay.
      env_steps: environment steps since the start.
      gradient_steps: gradient steps since the start.

    Entries of SAC, means over the gradient steps of the epoch:
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
PLAIN = "sac"  # the algorithm's name in config.json, unless the user passed one of their own


def is_key(x: Any) -> bool:
    """Return whether `x` holds typed PRNG keys (`jax.random.key`), not numbers."""
    return jnp.issubdtype(getattr(x, "dtype", float), jax.dtypes.prng_key)


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether `value` is a Python or NumPy integer; a bool is not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def named(member: dict[str, float]) -> str:
    """Describe a member by its seed and swept values: "seed 3, tau 0.01"."""
    return ", ".join(f"{name} {value:.10g}" for name, value in member.items())


class Transition(NamedTuple):
    """A batch of environment steps, as replay stores them.

    All fields have the same leading axes: [B], [E] or none. A minibatch for `update_step` is a
    Transition with leading axis [B].

    Attributes:
      obs: [B, O], observation before the action.
      action: [B, A], in [-1, 1].
      reward: [B], in the environment's units.
      discount: [B], 0 if the episode terminated with this step, else 1. A time limit leaves it 1.
      next_obs: [B, O], observation that the action led to, before any reset.

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
    discount: Array  # [B] 0 only where the episode *terminated*; a time limit leaves 1
    next_obs: Array  # [B, O] before any reset


class Step(NamedTuple):
    """The item that replay stores if `n_step` > 1."""

    transition: Transition
    ended: Array  # [B] 1 if the step ended the episode, by termination or a time limit, else 0


class TimeStep(NamedTuple):
    """The result of one step of E environments. Both flags can be set at once."""

    obs: Array  # [E, O] observation to act on next; the reset's if the episode ended
    final_obs: Array  # [E, O] observation that the action led to, before any reset
    reward: Array  # [E]
    terminated: Array  # [E] bool: the task is over, so the value of `final_obs` is 0
    truncated: Array  # [E] bool: a time limit, so the target bootstraps from `final_obs`


class Episode(NamedTuple):
    """One episode of T steps, recorded for rendering."""

    states: list[Any]  # [T] environment states, each before its step
    actions: Any  # [T, A] in [-1, 1]
    rewards: Any  # [T]
    copy: int  # index of the environment copy
    obs: Any  # [T, O] observations, each before its step


class Env(NamedTuple):
    """E copies of an environment: batched, auto-resetting, actions in [-1, 1]."""

    name: str
    reset: Callable[[Key, EnvParams], tuple[Any, Array]]  # -> state, obs [E, O]
    step: Callable[[Any, Array, Key, EnvParams], tuple[Any, TimeStep]]
    random_action: Callable[[Key], Array]  # -> [E, A], uniform in [-1, 1]
    default_params: EnvParams
    example: Transition  # one transition of zeros, without a leading axis
    action_size: int
    bounds: tuple[Any, Any]  # lowest and highest action in the environment's units, of any shape
    host: Any = None  # `sacjax.envs.host.HostEnvs` if the environment runs outside of JAX


MakeEnv = Callable[[int], Env]  # number of copies -> Env


class Algorithm(NamedTuple):
    """A learner as four pure functions over its own state (a pytree of arrays)."""

    init: Callable[..., Any]  # (key, hp) -> state
    act: Callable[[Any, Array, Key], Array]  # (state, obs [E, O], key) -> action [E, A], sampled
    mode: Callable[[Any, Array], Array]  # (state, obs [E, O]) -> action [E, A], greedy
    update: Callable[..., tuple[Any, Metrics]]  # (state, batch, key, hp) -> state, metrics
