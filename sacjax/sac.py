"""One gradient step of Soft Actor-Critic, from arXiv:1812.05905.

    y        = r + gamma d (min_i Q_i'(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')
    J(Q_i)   = E[ 1/2 (Q_i(s, a) - y)^2 ]                                             (eq. 5)
    J(pi)    = E[ alpha log pi(a~|s) - min_i Q_i(s, a~) ],               a~ ~ pi(.|s)  (eq. 9)
    J(alpha) = E[ -alpha (log pi(a~|s) + H) ]                                         (eq. 18)
    Q_i'    <- (1 - tau) Q_i' + tau Q_i

B is the batch size, O the size of an observation, A the size of an action, and N the number of
critics. Arrays of values have shape [N, B], or [N, K, B] if critics return K quantiles. The batch
is the last axis of an array of values, so rewards [B] broadcast to the array. Log-probabilities and
entropies are in nats, for actions after the tanh. The unit of alpha is reward per nat.
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
    """A pytree of all arrays that learning changes, without functions and PRNG keys.

    Attributes:
      actor_params: weights of the actor.
      critic_params: weights of the critics, with leaves [N, ...].
      target_params: weights of the target critics, with leaves [N, ...].
      log_alpha: logarithm of the temperature, [].
      actor_opt: Adam's state for the actor.
      critic_opt: Adam's state for the critics.
      alpha_opt: Adam's state for the temperature.
      step: number of gradient steps, [].
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
    """Three functions that combine an ensemble of critics. Variants of SAC replace them."""

    target: Callable[[Array, Key], Array]  # next_q [N, .., B] -> values [.., B] for the target y
    loss: Callable[[Array, Array], Array]  # q [N, .., B], y [.., B] -> loss [] of q for targets y
    value: Callable[[Array, Key], Array]  # q [N, .., B] -> values [B] that the actor maximises


def minimum(q: Array, key: Key) -> Array:
    """Return the minimum of q [N, B] over the critics (clipped double Q-learning, section 6)."""
    del key
    return q.min(axis=0)


def squared_error(q: Array, target: Array) -> Array:
    """Return the sum over critics of half the mean squared error (equation 5)."""
    return optax.l2_loss(q, jnp.broadcast_to(target, q.shape)).mean(axis=-1).sum()


CLIPPED_DOUBLE_Q = CriticRule(target=minimum, loss=squared_error, value=minimum)


def soft_target(
    batch: Transition, next_value: Array, next_log_prob: Array, alpha: Array, gamma: Scalar
) -> Array:
    """Return the soft Bellman target y [.., B], with V = Q - alpha log pi (equations 2 and 3).

    `next_log_prob` is [B]. `next_value` is [.., B], because a rule may bootstrap from several
    values per transition. `batch.discount` is 0 only if the episode terminated.
    """
    terms = [batch.reward, batch.discount, next_log_prob]
    chex.assert_equal_shape(terms)
    chex.assert_equal_shape_suffix([*terms, next_value], 1)
    reward, discount, log_prob = (jnp.broadcast_to(x, next_value.shape) for x in terms)
    return reward + gamma * discount * (next_value - alpha * log_prob)


def critic_loss(
    critic_params: Params, nets: Networks, rule: CriticRule, batch: Transition, target: Array
) -> tuple[Array, Metrics]:
    """Return the loss J(Q) of all N critics, for the constant targets [.., B] (equation 5)."""
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
    """Return the loss J(pi) with reparameterised actions, and log pi(a~|s) [B] (equation 9)."""
    key_action, key_value = jax.random.split(key)
    action, log_prob = nets.actor.apply(actor_params, obs).sample_and_log_prob(seed=key_action)
    value = rule.value(nets.critic.apply(critic_params, obs, action), key_value)  # [B]
    chex.assert_equal_shape([log_prob, value])
    return (alpha * log_prob - value).mean(), log_prob


def temperature_loss(log_alpha: Array, log_prob: Array, target_entropy: Array) -> Array:
    """Return J(alpha) (equation 18). Descent raises alpha if the entropy is below the target."""
    return (-jnp.exp(log_alpha) * (log_prob + target_entropy)).mean()


def adam(
    lr: Scalar, grads: Params, opt_state: optax.OptState, params: Params, step: Array
) -> tuple[Params, optax.OptState]:
    """Take one step of Adam (Kingma & Ba 2015). `lr` may be traced, as in a sweep."""
    del step
    with jax.numpy_dtype_promotion("standard"):  # optax fails under strict promotion
        updates, opt_state = optax.adam(lr).update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state


class Learner(NamedTuple):
    """The networks and the functions that an update uses."""

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
    """Take one gradient step of the actor on J(pi) and of the temperature on J(alpha)."""
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
    """Take one gradient step of SAC for critics, actor, temperature and targets (algorithm 1).

    Args:
      state: the agent before the step.
      batch: a minibatch of transitions, with leading axis [B].
      key: PRNG key for the sampled actions.
      hp: hyperparameters as scalars.
      nets: the actor and the critics, such as the result of `mlp`.
      rule: functions that combine the critics into targets, losses and values.
      descend: a function that takes one step of the optimiser.
      actor_step: a function that updates the actor and the temperature.

    Returns:
      The agent after the step, and a dictionary of scalar metrics. `critic_loss`, `actor_loss` and
      `alpha_loss` are J(Q), J(pi) and J(alpha). `q` is the mean of Q_i(s, a). `alpha` is the
      temperature before the step. `entropy` is -E log pi(a~|s) in nats. `critic_grad_norm` and
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
    chex.assert_rank(batch.reward, 1)  # other shapes would give wrong losses
    key_next, key_target, key_actor = jax.random.split(key, 3)
    batch = batch._replace(reward=hp.reward_scale * batch.reward)
    learner = Learner(nets, rule, descend)
    state, critic_metrics = update_critics(state, batch, (key_next, key_target), hp, learner)
    state, actor_metrics = actor_step(state, batch, key_actor, hp, learner)
    target_params = optax.incremental_update(state.critic_params, state.target_params, hp.tau)
    state = state.replace(target_params=target_params, step=state.step + 1)
    return state, critic_metrics | actor_metrics


def init(key: Key, hp: Hyperparams, *, nets: Networks, example: Transition) -> TrainState:
    """Initialise an agent for transitions like `example`. Targets are copies of the critics."""
    key_actor, key_critic = jax.random.split(key)
    actor_params = nets.actor.init(key_actor, example.obs)
    critic_params = nets.critic.init(key_critic, example.obs, example.action)
    log_alpha = jnp.log(jnp.asarray(hp.init_alpha, float))
    start = optax.adam(0.0).init  # Adam's state does not depend on the learning rate
    return TrainState(
        actor_params=actor_params,
        critic_params=critic_params,
        target_params=jax.tree.map(jnp.copy, critic_params),  # JAX cannot donate one array twice
        log_alpha=log_alpha,
        actor_opt=start(actor_params),
        critic_opt=start(critic_params),
        alpha_opt=start(log_alpha),
        step=jnp.zeros((), jnp.int32),
    )


def make_sac(
    config: Config, env: Env, nets: Networks | None = None, rule: CriticRule = CLIPPED_DOUBLE_Q
) -> Algorithm:
    """Build SAC as the four pure functions `init`, `act`, `mode` and `update`.

    For a variant of SAC, pass other networks or another `rule`. `sacjax.extensions` adds the
    options of `config` that the SAC paper does not have.

    Args:
      config: the settings of the run.
      env: the environment, from `sacjax.envs.names.make_env`.
      nets: an actor and an ensemble of critics. None means `mlp(config, env.action_size)`.
      rule: functions that combine the critics into targets, losses and values. By default, targets
        and values are the minimum of the critics.

    Returns:
      An Algorithm with these four functions:
        init(key, hp) -> state: a new agent. The state is a TrainState. With `normalize_obs`, the
          field `inner` of the state is the TrainState.
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
