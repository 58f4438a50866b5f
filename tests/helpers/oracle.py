"""A float64 NumPy implementation of Soft Actor-Critic (the oracle), written from the paper alone.

The docstrings cite these papers:

* SAC: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv:1812.05905.
* Adam: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980.

The oracle uses no automatic differentiation. Every gradient is a hand-written formula. All noise
is an argument, so each function is deterministic. No function changes its arguments. The letters in
shapes mean: B batch size, O observation size, A action size, N number of critics.

Parameters are trees of arrays, i.e. nested lists, tuples and dicts. An MLP is a list of layers
(W [in, out], b [out]). An actor is {"hidden": [(W, b), ...], "mean": (W, b), "log_std": (W, b)}.
The critics are a list of N MLPs. Each MLP maps concatenate([obs, action]) to a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
Tree = Any
Layer = tuple[Array, Array]

LOG_STD_BOUNDS = (-20.0, 2.0)
BATCH_KEYS = ("obs", "action", "reward", "discount", "next_obs")


@dataclass
class AdamState:
    """The moment estimates m_t and v_t and the time step t in algorithm 1 of the Adam paper."""

    m: Tree
    v: Tree
    t: int


@dataclass
class OracleState:
    """The variables that algorithm 1 of SAC keeps from one gradient step to the next."""

    actor: Tree
    critics: Tree
    targets: Tree
    log_alpha: float
    actor_opt: AdamState
    critic_opt: AdamState
    alpha_opt: AdamState
    step: int


# ---------------------------------------------------------------------------------------------
# Trees of arrays
# ---------------------------------------------------------------------------------------------


def tree_map(f: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply f to the corresponding leaves of several trees, which have the same structure."""
    if isinstance(tree, Mapping):
        return {k: tree_map(f, tree[k], *(r[k] for r in rest)) for k in tree}
    if isinstance(tree, (list, tuple)):
        mapped = [tree_map(f, x, *(r[i] for r in rest)) for i, x in enumerate(tree)]
        return tuple(mapped) if isinstance(tree, tuple) else mapped
    return f(tree, *rest)


def tree_leaves(tree: Tree) -> list[Any]:
    """Return the leaves of a tree, in order."""
    if isinstance(tree, Mapping):
        return [leaf for k in tree for leaf in tree_leaves(tree[k])]
    if isinstance(tree, (list, tuple)):
        return [leaf for x in tree for leaf in tree_leaves(x)]
    return [tree]


def float64_copy(tree: Tree) -> Tree:
    """Copy a tree. Each leaf becomes a new float64 array."""
    return tree_map(lambda x: np.array(x, dtype=np.float64), tree)


def global_norm(tree: Tree) -> float:
    """Return the L2 norm of the vector that contains all leaves."""
    return float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in tree_leaves(tree))))


# ---------------------------------------------------------------------------------------------
# Networks: forward, and backward by the chain rule
# ---------------------------------------------------------------------------------------------


def dense_backward(layer: Layer, x: Array, dy: Array) -> tuple[Array, Layer]:
    """Compute the gradients of y = x W + b: dx = dy W^T, dW = x^T dy, db = sum_B dy."""
    return dy @ layer[0].T, (x.T @ dy, dy.sum(axis=0))


def relu_stack(layers: Sequence[Layer], x: Array) -> list[Array]:
    """Return [h_0, ..., h_K], where h_0 = x and h_k = max(0, h_{k-1} W_k + b_k)."""
    hs = [x]
    for w, b in layers:
        hs.append(np.maximum(hs[-1] @ w + b, 0.0))
    return hs


def relu_stack_backward(
    layers: Sequence[Layer], hs: list[Array], dh: Array
) -> tuple[Array, list[Layer]]:
    """Compute dL/dh_0 and the gradients of the layers of `relu_stack` from dL/dh_K.

    The ReLU passes the gradient where its output is positive, so relu'(0) = 0.
    """
    grads: list[Layer] = []
    for k in reversed(range(len(layers))):
        dh, grad = dense_backward(layers[k], hs[k], dh * (hs[k + 1] > 0.0))
        grads.insert(0, grad)
    return dh, grads


def mlp(layers: Sequence[Layer], x: Array) -> tuple[Array, list[Array]]:
    """Apply ReLU layers, then a linear layer. Return (output, inputs of every layer)."""
    hs = relu_stack(layers[:-1], x)
    w, b = layers[-1]
    return hs[-1] @ w + b, hs


def mlp_backward(layers: Sequence[Layer], hs: list[Array], dy: Array) -> tuple[Array, list[Layer]]:
    """Compute the gradients of `mlp` from dL/dy. Return (dL/dx, gradients of the layers)."""
    dh, last = dense_backward(layers[-1], hs[-1], dy)
    dx, grads = relu_stack_backward(layers[:-1], hs, dh)
    return dx, [*grads, last]


# ---------------------------------------------------------------------------------------------
# The policy
# ---------------------------------------------------------------------------------------------


def log_one_minus_tanh_sq(u: Array) -> Array:
    """Return log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), elementwise (SAC, appendix C).

    The formula follows from 1 - tanh(u)^2 = 4 e^{-2u} / (1 + e^{-2u})^2. The result is finite for
    every finite u.
    """
    return 2.0 * (np.log(2.0) - u - np.logaddexp(0.0, -2.0 * u))


def log_density(u: Array, mean: Array, std: Array) -> Array:
    """Return log pi(tanh(u)|s) = sum_j [log N(u_j; mean_j, std_j) - log(1 - tanh(u_j)^2)] as [B].

    The source is the change of variables a = tanh(u) in SAC, appendix C.
    """
    z = (u - mean) / std
    log_normal = -0.5 * np.square(z) - np.log(std) - 0.5 * np.log(2.0 * np.pi)
    return np.sum(log_normal - log_one_minus_tanh_sq(u), axis=-1)


def policy(
    actor: Tree, obs: Array, eps: Array, log_std_bounds: tuple[float, float] = LOG_STD_BOUNDS
) -> tuple[Array, Array, dict[str, Any]]:
    """Sample a = f(eps; s) = tanh(mean(s) + std(s) * eps) (SAC, equation 8 and appendix C).

    Return (action [B, A], log_prob [B], cache for policy_backward). log_prob is log_density at
    u = mean + std * eps. The formula of log_prob contains eps instead of (u - mean) / std, because
    the subtraction loses digits if std is small.
    """
    lo, hi = log_std_bounds
    hs = relu_stack(actor["hidden"], np.asarray(obs, dtype=np.float64))
    eps = np.asarray(eps, dtype=np.float64)
    mean = hs[-1] @ actor["mean"][0] + actor["mean"][1]
    raw_log_std = hs[-1] @ actor["log_std"][0] + actor["log_std"][1]
    log_std = np.clip(raw_log_std, lo, hi)
    std = np.exp(log_std)
    u = mean + std * eps
    action = np.tanh(u)
    log_normal = -0.5 * np.square(eps) - log_std - 0.5 * np.log(2.0 * np.pi)
    log_prob = np.sum(log_normal - log_one_minus_tanh_sq(u), axis=-1)
    cache = {
        "hs": hs,
        "eps": eps,
        "mean": mean,
        "std": std,
        "u": u,
        "action": action,
        "clip_grad": ((raw_log_std > lo) & (raw_log_std < hi)).astype(np.float64),
    }
    return action, log_prob, cache


def policy_backward(
    actor: Tree, cache: dict[str, Any], d_action: Array, d_log_prob: Array
) -> dict[str, Any]:
    """Compute the gradients of the actor from dL/da [B, A] and dL/dlog_prob [B] (SAC, equation 10).

    eps is constant. For each action dimension,
        log_prob = -eps^2 / 2 - log_std - log(2 pi) / 2 - log(1 - tanh(u)^2),
        da/du = 1 - tanh(u)^2,    d(-log(1 - tanh(u)^2))/du = 2 tanh(u),
        du/dmean = 1,             du/dlog_std = std * eps,
    and log_prob contains -log_std, whose derivative is -1. The clip passes the gradient strictly
    inside its bounds.
    """
    u, std, eps, h = cache["u"], cache["std"], cache["eps"], cache["hs"][-1]
    d_lp = d_log_prob[:, None]
    d_u = d_action * np.exp(log_one_minus_tanh_sq(u)) + d_lp * 2.0 * np.tanh(u)
    d_mean = d_u
    d_log_std = (d_u * std * eps - d_lp) * cache["clip_grad"]
    dh_mean, mean_grad = dense_backward(actor["mean"], h, d_mean)
    dh_log_std, log_std_grad = dense_backward(actor["log_std"], h, d_log_std)
    _, hidden_grads = relu_stack_backward(actor["hidden"], cache["hs"], dh_mean + dh_log_std)
    return {"hidden": hidden_grads, "mean": mean_grad, "log_std": log_std_grad}


# ---------------------------------------------------------------------------------------------
# The three objectives
# ---------------------------------------------------------------------------------------------


def q_input(obs: Array, action: Array) -> Array:
    """Return the critics' input, concatenate([obs, action], -1), in float64."""
    return np.concatenate(
        [np.asarray(obs, dtype=np.float64), np.asarray(action, dtype=np.float64)], axis=-1
    )


def q_values(critics: Sequence[Sequence[Layer]], obs: Array, action: Array) -> Array:
    """Return Q_i(s, a) of every critic as [N, B] (SAC, section 6)."""
    x = q_input(obs, action)
    return np.stack([mlp(critic, x)[0][:, 0] for critic in critics])


def soft_target(
    reward: Array,
    discount: Array,
    next_q: Array,
    next_log_prob: Array,
    alpha: float,
    gamma: float,
    reward_scale: float = 1.0,
) -> Array:
    """Return y = reward_scale r + gamma d (min_i Q'_i(s', a') - alpha log pi(a'|s')) as [B].

    The source is SAC, equations 2 and 3, with one sample of a' as in equation 6. next_q [N, B] is
    the output of the target critics. The discount d is 0 only if the episode terminated.
    """
    soft_value = np.min(next_q, axis=0) - alpha * next_log_prob
    return reward_scale * reward + gamma * discount * soft_value


def critic_loss_and_grad(
    critics: Sequence[Sequence[Layer]], obs: Array, action: Array, target: Array
) -> tuple[float, list[list[Layer]], Array]:
    """Compute J(Q) = sum_i mean_B 1/2 (Q_i(s, a) - y)^2 and its gradient (SAC, equations 5 and 6).

    y is a constant, so dJ/dQ_i = (Q_i - y) / B. Return (loss, gradients, Q [N, B]).
    """
    x = q_input(obs, action)
    loss, grads, qs = 0.0, [], []
    for critic in critics:
        out, hs = mlp(critic, x)
        error = out[:, 0] - target
        loss += 0.5 * float(np.mean(np.square(error)))
        grads.append(mlp_backward(critic, hs, error[:, None] / len(error))[1])
        qs.append(out[:, 0])
    return loss, grads, np.stack(qs)


def min_q_and_action_grad(
    critics: Sequence[Sequence[Layer]], obs: Array, action: Array
) -> tuple[Array, Array]:
    """Return min_i Q_i(s, a) [B] and its gradient with respect to the action [B, A].

    SAC, section 6, uses this minimum for the policy gradient. The gradient goes through the critic
    with the lowest value. If several critics have the lowest value, it goes through the first one.
    """
    x = q_input(obs, action)
    argmin = np.argmin(q_values(critics, obs, action), axis=0)
    min_q, dx = np.zeros(len(x)), np.zeros_like(x)
    for i, critic in enumerate(critics):
        chosen = (argmin == i).astype(np.float64)
        out, hs = mlp(critic, x)
        min_q += chosen * out[:, 0]
        dx += mlp_backward(critic, hs, chosen[:, None])[0]
    return min_q, dx[:, np.shape(obs)[-1] :]


def actor_loss_and_grad(
    actor: Tree,
    critics: Sequence[Sequence[Layer]],
    obs: Array,
    eps: Array,
    alpha: float,
    log_std_bounds: tuple[float, float] = LOG_STD_BOUNDS,
) -> tuple[float, dict[str, Any], Array]:
    """Compute J(pi) = mean_B(alpha log pi(a~|s) - min_i Q_i(s, a~)) and its gradient.

    The source is SAC, equations 9 and 10, with a~ = f(eps; s). The critics and alpha are constants.
    Return (loss, gradient, log_prob [B]).
    """
    action, log_prob, cache = policy(actor, obs, eps, log_std_bounds)
    min_q, dq_da = min_q_and_action_grad(critics, obs, action)
    loss = float(np.mean(alpha * log_prob - min_q))
    batch = len(log_prob)
    grad = policy_backward(actor, cache, -dq_da / batch, np.full(batch, alpha / batch))
    return loss, grad, log_prob


def alpha_loss_and_grad(
    log_alpha: float, log_prob: Array, target_entropy: float
) -> tuple[float, float]:
    """Compute J(alpha) = mean_B(-alpha (log pi + H_target)) and its gradient (SAC, equation 18).

    alpha is exp(log_alpha), and log pi is a constant. Since d alpha / d log_alpha = alpha, the
    gradient dJ/dlog_alpha equals J.
    """
    alpha = np.exp(log_alpha)
    loss = float(np.mean(-alpha * (log_prob + target_entropy)))
    d_alpha = -float(np.mean(log_prob + target_entropy))
    return loss, float(d_alpha * alpha)


# ---------------------------------------------------------------------------------------------
# The optimizer and the target update
# ---------------------------------------------------------------------------------------------


def adam_init(params: Tree) -> AdamState:
    """Return the initial state m_0 = 0, v_0 = 0, t = 0 (Adam, algorithm 1)."""
    return AdamState(
        m=tree_map(lambda p: np.zeros(np.shape(p)), params),
        v=tree_map(lambda p: np.zeros(np.shape(p)), params),
        t=0,
    )


def adam(
    params: Tree,
    grads: Tree,
    opt: AdamState,
    lr: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Tree, AdamState]:
    """Do one step of Adam, algorithm 1: theta <- theta - lr m_hat / (sqrt(v_hat) + eps).

    m_hat = m / (1 - b1^t) and v_hat = v / (1 - b2^t). Return (new params, new optimizer state).
    """
    t = opt.t + 1
    m = tree_map(lambda m, g: b1 * m + (1.0 - b1) * g, opt.m, grads)
    v = tree_map(lambda v, g: b2 * v + (1.0 - b2) * np.square(g), opt.v, grads)

    def descend(p: Array, m: Array, v: Array) -> Array:
        m_hat = m / (1.0 - b1**t)
        v_hat = v / (1.0 - b2**t)
        return p - lr * m_hat / (np.sqrt(v_hat) + eps)

    return tree_map(descend, params, m, v), AdamState(m=m, v=v, t=t)


def polyak(targets: Tree, critics: Tree, tau: float) -> Tree:
    """Return (1 - tau) target + tau critic (SAC, algorithm 1, last line of the update)."""
    return tree_map(lambda t, c: (1.0 - tau) * t + tau * c, targets, critics)


def clip_log_alpha(
    log_alpha: float, min_alpha: float | None = None, max_alpha: float | None = None
) -> float:
    """Clip log_alpha to [log min_alpha, log max_alpha]. None means no bound, as in the paper."""
    if min_alpha is not None and min_alpha > 0.0:
        log_alpha = max(log_alpha, float(np.log(min_alpha)))
    if max_alpha is not None:
        log_alpha = min(log_alpha, float(np.log(max_alpha)))
    return log_alpha


# ---------------------------------------------------------------------------------------------
# One gradient step
# ---------------------------------------------------------------------------------------------


def init_state(actor: Tree, critics: Tree, log_alpha: float) -> OracleState:
    """Initialize algorithm 1 of SAC: the targets equal the critics, and the optimizers are zero."""
    return OracleState(
        actor=float64_copy(actor),
        critics=float64_copy(critics),
        targets=float64_copy(critics),
        log_alpha=float(log_alpha),
        actor_opt=adam_init(actor),
        critic_opt=adam_init(critics),
        alpha_opt=adam_init(float(log_alpha)),
        step=0,
    )


def update_step(
    state: OracleState,
    batch: Mapping[str, Array],
    eps_next: Array,
    eps_actor: Array,
    hp: Mapping[str, float],
    log_std_bounds: tuple[float, float] = LOG_STD_BOUNDS,
) -> tuple[OracleState, dict[str, Any]]:
    """Update critics, actor, temperature and targets in this order, once (SAC, algorithm 1).

    batch has obs, action, reward, discount and next_obs. hp has gamma, tau, actor_lr, critic_lr,
    alpha_lr, target_entropy_per_dim, reward_scale, and optionally min_alpha and max_alpha. The
    metric alpha is the value of alpha before this update.
    """
    data = {k: np.asarray(batch[k], dtype=np.float64) for k in BATCH_KEYS}
    alpha = float(np.exp(state.log_alpha))

    # 1. The soft target (equations 2, 3): current actor, target critics.
    next_action, next_log_prob, _ = policy(state.actor, data["next_obs"], eps_next, log_std_bounds)
    next_q = q_values(state.targets, data["next_obs"], next_action)
    target = soft_target(
        data["reward"],
        data["discount"],
        next_q,
        next_log_prob,
        alpha,
        hp["gamma"],
        hp["reward_scale"],
    )

    # 2. The critics (equations 5, 6).
    critic_loss, critic_grads, q = critic_loss_and_grad(
        state.critics, data["obs"], data["action"], target
    )
    critics, critic_opt = adam(state.critics, critic_grads, state.critic_opt, hp["critic_lr"])

    # 3. The actor (equations 9, 10), against the new critics.
    actor_loss, actor_grads, log_prob = actor_loss_and_grad(
        state.actor, critics, data["obs"], eps_actor, alpha, log_std_bounds
    )
    actor, actor_opt = adam(state.actor, actor_grads, state.actor_opt, hp["actor_lr"])

    # 4. The temperature (equation 18), with the log-probabilities of step 3.
    target_entropy = hp["target_entropy_per_dim"] * data["action"].shape[-1]
    alpha_loss, alpha_grad = alpha_loss_and_grad(state.log_alpha, log_prob, target_entropy)
    log_alpha, alpha_opt = adam(state.log_alpha, alpha_grad, state.alpha_opt, hp["alpha_lr"])
    log_alpha = clip_log_alpha(float(log_alpha), hp.get("min_alpha"), hp.get("max_alpha"))

    # 5. The targets follow the new critics.
    targets = polyak(state.targets, critics, hp["tau"])

    new_state = OracleState(
        actor=actor,
        critics=critics,
        targets=targets,
        log_alpha=log_alpha,
        actor_opt=actor_opt,
        critic_opt=critic_opt,
        alpha_opt=alpha_opt,
        step=state.step + 1,
    )
    metrics = {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "alpha_loss": alpha_loss,
        "alpha": alpha,
        "entropy": -float(np.mean(log_prob)),
        "q": float(np.mean(q)),
        "target": target,
        "critic_grad_norm": global_norm(critic_grads),
        "actor_grad_norm": global_norm(actor_grads),
        "alpha_grad": alpha_grad,
    }
    return new_state, metrics
