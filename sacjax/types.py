"""The records that the modules hand to each other, and the legend of their shapes.

Legend: E parallel environments, B batch, C capacity, O observation, A action, N critics,
K quantiles, U gradient steps per iteration, M members (seeds x hyperparameters; only ever added
from outside, by vmap). The batch is the last axis of every *value* array ([B], [N, B], [N, K, B]),
so rewards [B] broadcast to it.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.errors import InputError as InputError
from sacjax.errors import RunError as RunError

Array = jax.Array
Key = jax.Array  # one PRNG key, typed (`jax.random.key`) or legacy (`jax.random.PRNGKey`)
Scalar = jax.Array | float
Params = Any  # a pytree of network weights
EnvParams = Any  # a pytree of an environment's own parameters
Metrics = dict[str, Array]
# (lr, grads, opt_state, params, step) -> (params, opt_state); `step` [] counts gradient steps
Descend = Callable[[Scalar, Params, Any, Params, Array], tuple[Params, Any]]
# on_epoch(step, metrics): environment steps so far, of each member; the epoch's metrics [M, ...] as
# NumPy arrays (`make_program`). Beside these, [M] each: "member" (its index), "seed", the swept
# hyperparameters, and "diverged" (it is frozen). The same for all: "members" (of the whole run, of
# which a batch tells of its own), Config's "total_steps", "eval_every" and "updates_per_epoch",
# "seconds" (of the epoch with its evaluation), "next_checkpoint" (estimated seconds; NaN: none).
OnEpoch = Callable[[int, dict[str, Any]], None]
OnNan = Literal["freeze", "stop"]  # a member that is no longer finite, or the run
PLAIN = "sac"  # what config.json calls the algorithm, where it is nobody's own


def is_key(x: Any) -> bool:
    """Whether these are typed PRNG keys (`jax.random.key`), which are no numbers."""
    return jnp.issubdtype(getattr(x, "dtype", float), jax.dtypes.prng_key)


def is_whole(value: Any) -> TypeGuard[int]:
    """NumPy's numbers are too; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def named(member: dict[str, float]) -> str:
    """A member in words: its seed and what is swept."""
    return ", ".join(f"{name} {value:.10g}" for name, value in member.items())


def one_line(error: Exception) -> str:
    """Its kind, and the beginning of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class Transition(NamedTuple):
    """What replay stores. Leading axes [B], [E] or none, the same for every field."""

    obs: Array  # [B, O]
    action: Array  # [B, A] in [-1, 1]
    reward: Array  # [B]
    discount: Array  # [B] 0 only where the episode *terminated*; a time limit leaves 1
    next_obs: Array  # [B, O] where the action led, before any reset


class Step(NamedTuple):
    """What replay stores instead, where targets span several steps."""

    transition: Transition
    ended: Array  # [B] 1 where the episode ended with it, by termination or a time limit, else 0


class TimeStep(NamedTuple):
    """What E environments return from one step. Both flags can be set at once."""

    obs: Array  # [E, O] where to act next: after a reset where the episode ended
    final_obs: Array  # [E, O] where the action led, before any reset
    reward: Array  # [E]
    terminated: Array  # [E] bool: the task is over, its value is 0 from here
    truncated: Array  # [E] bool: a time limit, the value goes on


class Episode(NamedTuple):
    """What one copy did, T steps, to be drawn."""

    states: list[Any]  # [T] the environment's, before each step
    actions: Any  # [T, A] in [-1, 1]
    rewards: Any  # [T]
    copy: int  # which one


class Env(NamedTuple):
    """E copies of an environment: batched, auto-resetting, actions in [-1, 1]."""

    name: str
    reset: Callable[[Key, EnvParams], tuple[Any, Array]]  # -> state, obs [E, O]
    step: Callable[[Any, Array, Key, EnvParams], tuple[Any, TimeStep]]
    random_action: Callable[[Key], Array]  # -> [E, A], uniform in [-1, 1]
    default_params: EnvParams
    example: Transition  # one transition of zeros, without a leading axis
    action_size: int
    bounds: tuple[Any, Any]  # low and high of actions in the environment's units, of any shape
    host: Any = None  # what is kept outside of JAX, if anything is (`sacjax.envs.host`)


MakeEnv = Callable[[int], Env]  # number of copies -> Env


class Algorithm(NamedTuple):
    """A learner as four pure functions over its own state (a pytree of arrays)."""

    init: Callable[..., Any]  # (key, hp) -> state
    act: Callable[[Any, Array, Key], Array]  # (state, obs [E, O], key) -> action [E, A], sampled
    mode: Callable[[Any, Array], Array]  # (state, obs [E, O]) -> action [E, A], greedy
    update: Callable[..., tuple[Any, Metrics]]  # (state, batch, key, hp) -> state, metrics
