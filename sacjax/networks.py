"""Networks for an actor with a squashed-Gaussian policy and for an ensemble of critics.

Only this module imports distrax. For another architecture, pass your own `Networks` to `make_sac`.
The actor's `apply(params, obs)` must return an object with `sample`, `sample_and_log_prob` and
`mode`. The critic's `apply(params, obs, action)` must return values [N, B]. If you also pass
your own `CriticRule`, the critic may return values [N, .., B].
"""

from functools import partial
from typing import Any, NamedTuple

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from sacjax.config import Config
from sacjax.types import Array, Key, Params


class Networks(NamedTuple):
    """An actor and an ensemble of critics, with the methods `init` and `apply` of flax."""

    actor: Any
    critic: Any


class _Normal(distrax.Normal):
    """A distrax.Normal that works even if the user forbids rank promotion in JAX."""

    def _sample_n(self, key: Key, n: int) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return super()._sample_n(key, n)

    def _sample_n_and_log_prob(self, key: Key, n: int) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return super()._sample_n_and_log_prob(key, n)


class SquashedGaussian(distrax.Transformed):
    """The policy's distribution over actions a = tanh(u) in [-1, 1]^A, where u ~ N(mean, std^2).

    log pi(a|s) = log N(u; mean, std) - sum_j log(1 - tanh(u_j)^2)   (SAC appendix C, eq. 26)

    `mean`, `log_std` and samples have shape [..., A]. Log-probabilities are in nats and have shape
    [...]. `sample_and_log_prob` computes log-probabilities from u, so they are exact even if
    tanh(u) rounds to 1.
    """

    def __init__(self, mean: Array, log_std: Array):
        gaussian = distrax.Independent(_Normal(mean, jnp.exp(log_std)), 1)
        super().__init__(gaussian, distrax.Block(distrax.Tanh(), 1))

    def log_prob(self, value: Array) -> Any:
        """Return the log-probabilities [...] of the actions `value` [..., A].

        Rounding can produce an action of -1 or 1. The function replaces such an action by the
        nearest number between -1 and 1. Therefore log-probabilities and their gradients are finite.
        """
        edge = 1 - jnp.finfo(value.dtype).epsneg
        return super().log_prob(jnp.clip(value, -edge, edge))

    def __repr__(self) -> str:
        gaussian: Any = self.distribution
        mean = gaussian.distribution._loc  # JAX may replace the mean by any object
        return f"<SquashedGaussian over actions {getattr(mean, 'shape', '?')} in [-1, 1]>"

    def mode(self) -> Array:
        """Return the greedy actions tanh(mean) [..., A]. Distrax does not define a mode."""
        return jnp.tanh(self.distribution.mean())


# The SAC authors also initialise layers with Glorot-uniform. `float` is float64 in x64 mode.
Dense = partial(nn.Dense, kernel_init=nn.initializers.glorot_uniform(), param_dtype=float)


@jax.custom_vjp
def _rounded_product(x: Array, w: Array) -> Array:
    """Round x [..., I] and w [I, O] to bfloat16, multiply them, and sum in float32.

    The gradients use the same precision.
    """
    return _product(x, w, ((x.ndim - 1,), (0,))).astype(x.dtype)


def _rounded_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rounded_product(x, w), (x, w)


def _rounded_backward(factors: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = factors
    batch = tuple(range(x.ndim - 1))
    dx, dw = _product(g, w, ((g.ndim - 1,), (1,))), _product(x, g, (batch, batch))
    return dx.astype(x.dtype), dw.astype(w.dtype)


def _product(a: Array, b: Array, contract: tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return jax.lax.dot_general(a, b, (contract, ((), ())), preferred_element_type=jnp.float32)


_rounded_product.defvjp(_rounded_forward, _rounded_backward)


def _dot_general(precision: str) -> Any:
    """Return the matrix product that nn.Dense uses, or None for the default of flax."""
    if precision == "float32":
        return None
    return lambda x, w, dimensions, precision=None: _rounded_product(x, w)


def _head_product(x: Array, w: Array, dimensions: Any, precision: Any = None) -> Array:
    """Multiply x [..., I] by w [I, A]. Transpose w first, because the gradient is then faster.

    With a transposed w, XLA transposes only the small array w. With a plain product, XLA transposes
    the large array x, and the gradient takes ten times as long on a CPU (benchmarks/NOTES.md).
    """
    del dimensions
    turned = jax.lax.optimization_barrier(w.T)
    return jax.lax.dot_general(x, turned, (((x.ndim - 1,), (1,)), ((), ())), precision)


class MLP(nn.Module):
    """Dense layers with a ReLU after each layer, and optionally a LayerNorm before each ReLU.

    With `precision="bfloat16"`, the inputs of the matrix products between hidden layers are rounded
    to bfloat16. These products make up most of the arithmetic. The first layer, the
    parameters and all sums keep their dtype.
    """

    hidden: tuple[int, ...]
    layer_norm: bool = False
    precision: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [..., I] -> [..., H]
        for i, units in enumerate(self.hidden):
            x = Dense(units, dot_general=_dot_general(self.precision) if i else None)(x)
            x = nn.LayerNorm(param_dtype=float)(x) if self.layer_norm else x
            x = nn.relu(x)
        return x


class Actor(nn.Module):
    """The policy pi(.|s), which maps obs [..., O] to a SquashedGaussian over actions [..., A]."""

    action_size: int
    hidden: tuple[int, ...]
    log_std_min: float
    log_std_max: float
    precision: str = "float32"

    @nn.compact
    def __call__(self, obs: Array) -> SquashedGaussian:
        x = MLP(self.hidden, precision=self.precision)(obs)
        mean = Dense(self.action_size, name="mean", dot_general=_head_product)(x)
        log_std = Dense(self.action_size, name="log_std", dot_general=_head_product)(x)
        return SquashedGaussian(mean, jnp.clip(log_std, self.log_std_min, self.log_std_max))


class Critic(nn.Module):
    """One critic Q(s, a), which maps obs [B, O] and action [B, A] to values [B]."""

    hidden: tuple[int, ...]
    layer_norm: bool = False
    precision: str = "float32"

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        x = jnp.concatenate([obs, action], axis=-1)
        x = MLP(self.hidden, self.layer_norm, self.precision)(x)
        return Dense(1)(x).squeeze(-1)


class Ensemble(NamedTuple):
    """N critics with separate weights, which map obs [B, O] and action [B, A] to values [N, B]."""

    critics: Any  # a flax module that applies N critics to inputs [N, B, ...]
    size: int

    def init(self, key: Key, *inputs: Array) -> Params:
        """Initialise the weights of all critics, [N, ...]. Each critic uses another PRNG key."""
        return self.critics.init(key, *self._each(inputs))

    def apply(self, params: Params, *inputs: Array) -> Array:
        """Return the values [N, B] of all critics."""
        return self.critics.apply(params, *self._each(inputs))

    def _each(self, inputs: tuple[Array, ...]) -> list[Array]:
        # Each critic gets a copy of the input. Without copies, one product would return an
        # array [B, N, H], whose transpose takes longer than the copies (benchmarks/NOTES.md).
        return [jnp.broadcast_to(x, (self.size, *x.shape)) for x in inputs]


def mlp(config: Config, action_size: int) -> Networks:
    """Build MLPs for the actor and for the critics, as in the SAC paper (table 1).

    Args:
      config: the settings of the networks. By default, there are two critics, and each network has
        two hidden layers of 256 units.
      action_size: number of action dimensions (A).

    Returns:
      The networks of actor and critics. The actor maps obs [..., O] to a distribution over actions
      [..., A] in [-1, 1]. The critics map obs [B, O] and action [B, A] to values [N, B].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from sacjax import mlp
      >>> nets, obs, action = mlp(config, action_size=1), jnp.zeros((5, 3)), jnp.zeros((5, 1))
      >>> params = jax.eval_shape(nets.critic.init, jax.random.key(0), obs, action)
      >>> jax.eval_shape(nets.critic.apply, params, obs, action).shape
      (2, 5)
    """
    precision = config.hidden_precision
    critics = nn.vmap(Critic, variable_axes={"params": 0}, split_rngs={"params": True})
    return Networks(
        actor=Actor(action_size, config.hidden, config.log_std_min, config.log_std_max, precision),
        critic=Ensemble(critics(config.hidden, config.layer_norm, precision), config.num_critics),
    )
