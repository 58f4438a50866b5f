"""Options that are not in the SAC paper. All options are off by default.

The options clip gradients, decay learning rates, delay policy updates and normalise observations.
Each option wraps a function of plain SAC. `make_sac` applies the options that `Config` sets.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from sacjax.types import Algorithm, Array, Descend, Env, Key, Metrics, Transition


def clipped(descend: Descend, max_norm: float) -> Descend:
    """Wrap `descend` so that it first clips gradients to a global L2 norm (arXiv:1211.5063).

    The gradients of actor, critics and temperature are clipped separately.
    """

    def clip_and_descend(lr, grads, opt_state, params, step):
        grads, _ = optax.clip_by_global_norm(max_norm).update(grads, optax.EmptyState())
        return descend(lr, grads, opt_state, params, step)

    return clip_and_descend


def linear(descend: Descend, steps: int) -> Descend:
    """Wrap `descend` so that the learning rate falls linearly to 0 over `steps` gradient steps."""

    def descend_slower(lr, grads, opt_state, params, step):
        lr = lr * jnp.maximum(1 - step / steps, 0)
        return descend(lr, grads, opt_state, params, step)

    return descend_slower


def delayed(
    actor_step: Callable[..., tuple[Any, Metrics]], delay: int, epoch: int
) -> Callable[..., Any]:
    """Update the actor only in every `delay`-th gradient step, as in TD3 (section 5.2).

    The first gradient step of a run updates the actor. A gradient step without an actor update
    returns 0 for each metric of the actor. The metrics of actor updates are scaled up. As a
    result, the mean over all gradient steps of an epoch equals the mean over the actor updates.
    Under `vmap`, JAX computes an actor update in every step and discards the unused results.
    """

    def sometimes(state: Any, batch: Transition, key: Key, hp: Any, learner: Any) -> Any:
        def now(state):
            first = state.step // epoch * epoch
            count = (first + epoch - 1) // delay - (first - 1) // delay  # actor steps in this epoch
            state, metrics = actor_step(state, batch, key, hp, learner)
            return state, jax.tree.map(lambda x: x * epoch / count.astype(x.dtype), metrics)

        shapes = jax.eval_shape(now, state)[1]

        def later(state):
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        return jax.lax.cond(state.step % delay == 0, now, later, state)

    return sometimes


class Normalized(struct.PyTreeNode):
    """The state of an algorithm, with the mean and the variance of past observations."""

    inner: Any  # the state of the wrapped algorithm
    mean: Array  # [O]
    variance: Array  # [O]
    batches: Array  # [] number of minibatches so far


def normalized(algorithm: Algorithm, env: Env) -> Algorithm:
    """Normalise observations to (obs - mean) / deviation, and clip the results to [-10, 10].

    The mean and the variance include the observations of all minibatches so far (Chan, Golub &
    LeVeque 1979). Each update first adds the observations of its minibatch. The n-th minibatch has
    the weight 1/n, so all numbers stay bounded. Only updates change the mean and the variance. The
    replay buffer stores raw observations.
    """

    def see(state: Normalized, obs: Array) -> Array:
        deviation = jnp.sqrt(state.variance + 1e-8)
        shape = (1,) * (obs.ndim - 1) + state.mean.shape
        scaled = (obs - state.mean.reshape(shape)) / deviation.reshape(shape)
        return jnp.clip(scaled, -10, 10)

    def init(key: Key, hp: Any) -> Normalized:
        zeros = jnp.zeros_like(env.example.obs)
        return Normalized(algorithm.init(key, hp), zeros, zeros + 1, jnp.zeros((), jnp.int32))

    def update(state: Normalized, batch: Transition, key: Key, hp: Any) -> Any:
        batches = state.batches + 1
        weight = 1 / batches.astype(batch.obs.dtype)
        off = batch.obs.mean(0) - state.mean
        state = state.replace(
            mean=state.mean + weight * off,
            variance=(1 - weight) * (state.variance + weight * off**2) + weight * batch.obs.var(0),
            batches=batches,
        )
        seen = batch._replace(obs=see(state, batch.obs), next_obs=see(state, batch.next_obs))
        inner, metrics = algorithm.update(state.inner, seen, key, hp)
        return state.replace(inner=inner), metrics

    return Algorithm(
        init=init,
        act=lambda state, obs, key: algorithm.act(state.inner, see(state, obs), key),
        mode=lambda state, obs: algorithm.mode(state.inner, see(state, obs)),
        update=update,
    )
