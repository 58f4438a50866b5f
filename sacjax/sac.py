"""Soft Actor-Critic (Haarnoja et al. 2018, arXiv:1812.05905), one gradient step.

    y        = r + gamma d (min_i Q_i'(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')
    J(Q_i)   = E[ 1/2 (Q_i(s, a) - y)^2 ]                                             (eq. 5)
    J(pi)    = E[ alpha log pi(a~|s) - min_i Q_i(s, a~) ],               a~ ~ pi(.|s)  (eq. 9)
    J(alpha) = E[ -alpha (log pi(a~|s) + H) ]                                         (eq. 18)
    Q_i'    <- (1 - tau) Q_i' + tau Q_i

Shapes: B batch, O observation, A action, N critics. The batch is the last axis of every array of
values, so rewards [B] broadcast to it. Values are [N, B], or [N, K, B] if critics return K
quantiles. Log-probabilities and entropies are in nats and in tanh space. Alpha is in reward per
nat.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from sacjax import extensions
from sacjax.config import Config, Hyperparams
from sacjax.networks import Networks, mlp
from sacjax.types import Algorithm, Array, Descend, Env, Key, Metrics, Params, Scalar, Transition


class TrainState(struct.PyTreeNode):
    """Everything that learning changes, as a pytree of arrays: no functions and no PRNG key.

    Attributes:
      actor_params: weights of the actor.
      critic_params: weights of the critics, leaves [N, ...].
      target_params: weights of the target critics, leaves [N, ...].
      log_alpha: [], logarithm of the temperature.
      actor_opt: Adam's state for the actor.
      critic_opt: Adam's state for the critics.
      alpha_opt: Adam's state for the temperature.
      step: [], gradient steps taken.
    """

    actor_params: Params
    critic_params: Params  # leaves [N, ...]
    target_params: Params  # leaves [N, ...]
    log_alpha: Array  # []
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    alpha_opt: optax.OptState
    step: Array  # [] gradient steps taken


class CriticRule(NamedTuple):
    """Three functions that combine an ensemble of critics. SAC's relatives pass their own."""

    target: Callable[[Array, Key], Array]  # next_q [N, .., B] -> [.., B]  y bootstraps from this
    loss: Callable[[Array, Array], Array]  # q [N, .., B], y [.., B] -> []  regression to y
    value: Callable[[Array, Key], Array]  # q [N, .., B] -> [B]  the actor maximises this


def minimum(q: Array, key: Key) -> Array:
    """Clipped double Q-learning: the minimum over the N critics, [N, B] -> [B] (section 6)."""
    del key
    return q.min(axis=0)


def squared_error(q: Array, target: Array) -> Array:
    """Squared error of each critic (eq. 5): the mean over the batch, summed over critics."""
    return optax.l2_loss(q, jnp.broadcast_to(target, q.shape)).mean(axis=-1).sum()


CLIPPED_DOUBLE_Q = CriticRule(target=minimum, loss=squared_error, value=minimum)


def soft_target(
    batch: Transition, next_value: Array, next_log_prob: Array, alpha: Array, gamma: Scalar
) -> Array:
    """Soft Bellman backup y [.., B] (eq. 2) through the soft value V = Q - alpha log pi (eq. 3).

    `next_log_prob` is [B] and `next_value` [.., B], because a rule may bootstrap from several
    numbers per transition. `discount` is 0 only if the episode terminated.
    """
    terms = [batch.reward, batch.discount, next_log_prob]
    chex.assert_equal_shape(terms)
    chex.assert_equal_shape_suffix([*terms, next_value], 1)
    reward, discount, log_prob = (jnp.broadcast_to(x, next_value.shape) for x in terms)
    return reward + gamma * discount * (next_value - alpha * log_prob)


def critic_loss(
    critic_params: Params, nets: Networks, rule: CriticRule, batch: Transition, target: Array
) -> tuple[Array, Metrics]:
    """J(Q) (eq. 5) of all N critics at once; `target` [.., B] is a constant."""
    q = nets.critic.apply(critic_params, batch.obs, batch.action)  # [N, .., B]
    loss = rule.loss(q, target)
    return loss, {"critic_loss": loss, "q": q.mean()}


def actor_loss(
    actor_params: Params,
    nets: Networks,
    rule: CriticRule,
    critic_params: Params,
    alpha: Array,
    obs: Array,
    key: Key,
) -> tuple[Array, Array]:
    """J(pi) (eq. 9), reparameterised, and log pi(a~|s) [B] for the temperature's loss."""
    key_action, key_value = jax.random.split(key)
    action, log_prob = nets.actor.apply(actor_params, obs).sample_and_log_prob(seed=key_action)
    value = rule.value(nets.critic.apply(critic_params, obs, action), key_value)  # [B]
    chex.assert_equal_shape([log_prob, value])
    return (alpha * log_prob - value).mean(), log_prob


def temperature_loss(log_alpha: Array, log_prob: Array, target_entropy: Array) -> Array:
    """J(alpha) (eq. 18): alpha rises if the policy's entropy is below its target."""
    return (-jnp.exp(log_alpha) * (log_prob + target_entropy)).mean()


def adam(
    lr: Scalar, grads: Params, opt_state: optax.OptState, params: Params, step: Array
) -> tuple[Params, optax.OptState]:
    """One step of Adam (Kingma & Ba 2015); `lr` is traced, so that it can be swept."""
    del step
    with jax.numpy_dtype_promotion("standard"):  # optax needs it, whatever the program asks for
        updates, opt_state = optax.adam(lr).update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state


class Learner(NamedTuple):
    """The networks and functions of an update."""

    nets: Networks
    rule: CriticRule = CLIPPED_DOUBLE_Q
    descend: Descend = adam


def update_critics(
    state: TrainState, batch: Transition, keys: tuple[Key, Key], hp: Hyperparams, learner: Learner
) -> tuple[TrainState, Metrics]:
    """Move the critics one step towards the soft target (section 4.2, policy evaluation)."""
    nets, rule, descend = learner
    key_next, key_target = keys
    next_policy = nets.actor.apply(state.actor_params, batch.next_obs)
    next_action, next_log_prob = next_policy.sample_and_log_prob(seed=key_next)
    next_q = nets.critic.apply(state.target_params, batch.next_obs, next_action)  # [N, .., B]
    alpha = jnp.exp(state.log_alpha)
    target = soft_target(batch, rule.target(next_q, key_target), next_log_prob, alpha, hp.gamma)

    grads, metrics = jax.grad(critic_loss, has_aux=True)(
        state.critic_params, nets, rule, batch, target
    )
    params, opt = descend(hp.critic_lr, grads, state.critic_opt, state.critic_params, state.step)
    norm = optax.tree.norm(grads)
    return state.replace(critic_params=params, critic_opt=opt), metrics | {"critic_grad_norm": norm}


def update_actor(
    state: TrainState, batch: Transition, key: Key, hp: Hyperparams, learner: Learner
) -> tuple[TrainState, Metrics]:
    """Move the actor one step down J(pi), and the temperature towards the target entropy."""
    nets, rule, descend = learner
    alpha = jnp.exp(state.log_alpha)
    (loss_pi, log_prob), actor_grads = jax.value_and_grad(actor_loss, has_aux=True)(
        state.actor_params, nets, rule, state.critic_params, alpha, batch.obs, key
    )
    actor_params, actor_opt = descend(
        hp.actor_lr, actor_grads, state.actor_opt, state.actor_params, state.step
    )

    loss_alpha, alpha_grad = jax.value_and_grad(temperature_loss)(
        state.log_alpha, log_prob, hp.target_entropy_per_dim * batch.action.shape[-1]
    )
    log_alpha, alpha_opt = descend(
        hp.alpha_lr, alpha_grad, state.alpha_opt, state.log_alpha, state.step
    )
    log_alpha = jnp.clip(log_alpha, jnp.log(hp.min_alpha), jnp.log(hp.max_alpha))

    state = state.replace(
        actor_params=actor_params,
        log_alpha=log_alpha,
        actor_opt=actor_opt,
        alpha_opt=alpha_opt,
    )
    return state, {
        "actor_loss": loss_pi,
        "alpha_loss": loss_alpha,
        "alpha": alpha,
        "entropy": -log_prob.mean(),
        "actor_grad_norm": optax.tree.norm(actor_grads),
    }


UpdateActor = Callable[
    [TrainState, Transition, Key, Hyperparams, Learner], tuple[TrainState, Metrics]
]


def update_step(
    state: TrainState,
    batch: Transition,
    key: Key,
    hp: Hyperparams,
    *,
    nets: Networks,
    rule: CriticRule = CLIPPED_DOUBLE_Q,
    descend: Descend = adam,
    actor_step: UpdateActor = update_actor,
) -> tuple[TrainState, Metrics]:
    """Take one gradient step of SAC (algorithm 1): critics, actor, temperature, targets.

    Args:
      state: the agent before the step.
      batch: a minibatch of transitions, arrays with leading axis [B].
      key: PRNG key for the sampled actions.
      hp: hyperparameters, scalars.
      nets: the actor and the critics, from `mlp` or your own.
      rule: how targets, losses and values combine the critics.
      descend: one step of the optimiser.
      actor_step: the update of actor and temperature.

    Returns:
      The agent after the step, and its metrics, all []: `critic_loss`, `actor_loss` and
      `alpha_loss` are J(Q), J(pi) and J(alpha), `q` is the mean of Q_i(s, a), `alpha` the
      temperature before the step, `entropy` is -E log pi(a~|s) in nats, and `critic_grad_norm` and
      `actor_grad_norm` are global L2 norms.

    Raises:
      AssertionError: `batch` has no leading axis, or more than one.

    Example:
      >>> import jax
      >>> from sacjax import Hyperparams, Transition, make_sac, mlp, update_step
      >>> from sacjax.envs.names import make_env
      >>> hp, nets, key = Hyperparams(), mlp(config, 1), jax.random.key(0)
      >>> env = make_env(config.env)(1)
      >>> state = jax.eval_shape(make_sac(config, env, nets).init, key, hp)
      >>> batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((8, *x.shape), x.dtype), env.example)
      >>> def step(state, batch, key):
      ...   return update_step(state, batch, key, hp, nets=nets)
      >>> _, metrics = jax.eval_shape(step, state, batch, key)
      >>> metrics["critic_loss"].shape
      ()
    """
    chex.assert_rank(batch.reward, 1)  # without [B], the means would be over the critics
    key_next, key_target, key_actor = jax.random.split(key, 3)
    batch = batch._replace(reward=hp.reward_scale * batch.reward)
    learner = Learner(nets, rule, descend)
    state, critic_metrics = update_critics(state, batch, (key_next, key_target), hp, learner)
    state, actor_metrics = actor_step(state, batch, key_actor, hp, learner)
    target_params = optax.incremental_update(state.critic_params, state.target_params, hp.tau)
    state = state.replace(target_params=target_params, step=state.step + 1)
    return state, critic_metrics | actor_metrics


def init(key: Key, hp: Hyperparams, *, nets: Networks, example: Transition) -> TrainState:
    """Initialise an agent for transitions like `example`; the targets are copies of the critics."""
    key_actor, key_critic = jax.random.split(key)
    actor_params = nets.actor.init(key_actor, example.obs)
    critic_params = nets.critic.init(key_critic, example.obs, example.action)
    log_alpha = jnp.log(jnp.asarray(hp.init_alpha, float))
    start = optax.adam(0.0).init  # Adam's state does not depend on the learning rate
    return TrainState(
        actor_params=actor_params,
        critic_params=critic_params,
        target_params=jax.tree.map(jnp.copy, critic_params),  # not shared, so JAX can donate it
        log_alpha=log_alpha,
        actor_opt=start(actor_params),
        critic_opt=start(critic_params),
        alpha_opt=start(log_alpha),
        step=jnp.zeros((), jnp.int32),
    )


def make_sac(
    config: Config, env: Env, nets: Networks | None = None, rule: CriticRule = CLIPPED_DOUBLE_Q
) -> Algorithm:
    """Build SAC as four pure functions: init, act, mode and update.

    Other networks or another `rule` make a relative of SAC. `sacjax.extensions` adds the options of
    `config` that go beyond the paper.

    Args:
      config: the settings of the run.
      env: the environment, from `sacjax.envs.names.make_env`.
      nets: an actor and an ensemble of critics; None: `mlp(config, env.action_size)`.
      rule: how targets, losses and values combine the critics; by default their minimum.

    Returns:
      An Algorithm, which `make_program` and `make_train` accept:
        init(key, hp) -> state: a new agent. The state is a TrainState, or holds one as `inner` with
          `normalize_obs`.
        act(state, obs [E, O], key) -> action [E, A]: sampled actions in [-1, 1].
        mode(state, obs [E, O]) -> action [E, A]: greedy actions in [-1, 1].
        update(state, batch, key, hp) -> (state, metrics): one gradient step (`update_step`).

    Example:
      >>> import jax
      >>> from sacjax import Hyperparams, make_sac
      >>> from sacjax.envs.names import make_env
      >>> sac = make_sac(config, make_env(config.env)(1))
      >>> state = jax.eval_shape(sac.init, jax.random.key(0), Hyperparams())
      >>> state.critic_params["params"]["Dense_0"]["kernel"].shape  # two critics, eight units
      (2, 8, 1)
    """
    nets = nets or mlp(config, env.action_size)
    descend, actor_step = adam, update_actor
    if config.max_grad_norm is not None:
        descend = extensions.clipped(descend, config.max_grad_norm)
    if config.lr_schedule == "linear":
        descend = extensions.linear(descend, config.gradient_steps)
    if config.policy_delay > 1:
        actor_step = extensions.delayed(actor_step, config.policy_delay, config.updates_per_epoch)

    def act(state: TrainState, obs: Array, key: Key) -> Array:
        return nets.actor.apply(state.actor_params, obs).sample(seed=key)

    def mode(state: TrainState, obs: Array) -> Array:
        return nets.actor.apply(state.actor_params, obs).mode()

    sac = Algorithm(
        init=partial(init, nets=nets, example=env.example),
        act=act,
        mode=mode,
        update=partial(update_step, nets=nets, rule=rule, descend=descend, actor_step=actor_step),
    )
    return extensions.normalized(sac, env) if config.normalize_obs else sac
