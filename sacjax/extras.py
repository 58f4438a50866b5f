"""What the paper's algorithm is given for harder tasks: functions that are handed to it.

Another step down the gradients (clipped, with a learning rate that falls), a policy that is
improved less often, observations in units of their deviation, returns over n steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from sacjax.config import Config
from sacjax.types import Algorithm, Array, Env, Key, Metrics, Params, Scalar, Transition

# (lr, grads, opt_state, params, step) -> (params, opt_state); `step` [] counts gradient steps
Descend = Callable[[Scalar, Params, optax.OptState, Params, Array], tuple[Params, optax.OptState]]


def adam(
    lr: Scalar, grads: Params, opt_state: optax.OptState, params: Params, step: Array
) -> tuple[Params, optax.OptState]:
    """One step of Adam at a traced learning rate, so that `lr` can be swept."""
    del step
    updates, opt_state = optax.adam(lr).update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state


def descent(config: Config) -> Descend:
    """Adam, with the gradients' norm bounded and the learning rate falling where `config` says so.

    The norm is the global L2 norm over all parameters of the actor, of all critics together, or of
    the temperature; Pascanu et al. 2013 (arXiv:1211.5063).
    """
    if config.max_grad_norm is None and config.lr_schedule == "constant":
        return adam

    def descend(lr, grads, opt_state, params, step):
        if config.max_grad_norm is not None:
            clip = optax.clip_by_global_norm(config.max_grad_norm)
            grads, _ = clip.update(grads, optax.EmptyState())
        if config.lr_schedule == "linear":
            lr = lr * jnp.maximum(1 - step / config.gradient_steps, 0)
        return adam(lr, grads, opt_state, params, step)

    return descend


def delayed(
    improve: Callable[..., tuple[Any, Metrics]], delay: int, epoch: int
) -> Callable[..., Any]:
    """`improve` in every `delay`-th gradient step only, the first one among them (TD3 section 5.2).

    Metrics are 0 in the other steps and larger in these, so that a mean over an epoch's `epoch`
    gradient steps is that over the improvements in it. Under `vmap` all steps are computed, and
    most dropped.
    """

    def sometimes(state: Any, batch: Transition, key: Key, hp: Any, **parts: Any) -> Any:
        def now(state):
            first = state.step // epoch * epoch
            improvements = (first + epoch - 1) // delay - (first - 1) // delay  # in this epoch
            state, metrics = improve(state, batch, key, hp, **parts)
            return state, jax.tree.map(lambda x: x * epoch / improvements.astype(x.dtype), metrics)

        shapes = jax.eval_shape(now, state)[1]

        def later(state):
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        return jax.lax.cond(state.step % delay == 0, now, later, state)

    return sometimes


class Normalized(struct.PyTreeNode):
    """An algorithm's state, and what observations look like."""

    inner: Any
    mean: Array  # [O]
    variance: Array  # [O]
    batches: Array  # [] that they were taken from


def normalized(algorithm: Algorithm, env: Env) -> Algorithm:
    """The same algorithm, which sees (obs - mean) / deviation, within +-10.

    Mean and variance are those of the observations in all minibatches so far, which are added to
    them (Chan, Golub & LeVeque 1979; weights of 1/n, so nothing grows) before each update: replay
    keeps what the environment gave. Acting and evaluating leave them as they are.
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


def n_step_return(steps: Transition, ended: Array, gamma: Scalar) -> Transition:
    """n transitions in a row [..., n], of one environment, as one: its target spans them.

        reward = r_0 + gamma r_1 + ...,  discount = gamma^m d_m,  next_obs = where step m led

    up to the first step m that `ended` [..., n] an episode, by termination or a time limit, or the
    last one. With `soft_target`'s own gamma this is the n-step target (Sutton & Barre 2018, section
    7.1), exact at every end. The actions on the way are the replay's, uncorrected, and their
    entropies do not count, as is usual.
    """
    n = ended.shape[-1]
    going = 1 - ended.astype(steps.reward.dtype)
    reached = jnp.cumprod(going, axis=-1)  # the episode goes on after step k
    reached = jnp.concatenate([jnp.ones_like(reached[..., :1]), reached[..., :-1]], axis=-1)
    powers = (gamma ** jnp.arange(n)).reshape((1,) * (ended.ndim - 1) + (n,))
    last = (reached.sum(-1) - 1).astype(jnp.int32)[..., None]  # m

    def at_last(x: Array) -> Array:
        return jnp.take_along_axis(x, last, axis=-1).squeeze(-1)

    end = last[..., None]
    next_obs = jnp.take_along_axis(steps.next_obs, end, axis=-2).squeeze(-2)
    return Transition(
        obs=steps.obs[..., 0, :],
        action=steps.action[..., 0, :],
        reward=(reached * powers * steps.reward).sum(-1),
        discount=at_last(jnp.broadcast_to(powers, ended.shape) * steps.discount),
        next_obs=next_obs,
    )
