"""The function approximators: a squashed-Gaussian actor and an ensemble of critics.

The only module that knows distrax. Other architectures: hand a `Networks` of your own to
`make_sac`; the actor's `apply(params, obs)` must return something with `sample`,
`sample_and_log_prob` and `mode`, the critic's `apply(params, obs, action)` values [N, B]
([N, .., B] for a `CriticRule` of your own).
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
    """An actor and a critic, each with flax's `init` and `apply`."""

    actor: Any
    critic: Any


class _Normal(distrax.Normal):
    """distrax's, which relies on promotion of ranks here, whatever the program says of that."""

    def _sample_n(self, key: Key, n: int) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return super()._sample_n(key, n)

    def _sample_n_and_log_prob(self, key: Key, n: int) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return super()._sample_n_and_log_prob(key, n)


class SquashedGaussian(distrax.Transformed):
    """a = tanh(u), u ~ N(mean, std^2): the policy's distribution over [-1, 1]^A.

    log pi(a|s) = log N(u; mean, std) - sum_j log(1 - tanh(u_j)^2)   (SAC appendix C, eq. 26)

    Shapes: mean and log_std [..., A]; samples [..., A]; log-probabilities [...], in nats and in
    tanh space. `sample_and_log_prob` keeps u, so it is exact where tanh rounds to 1.
    """

    def __init__(self, mean: Array, log_std: Array):
        gaussian = distrax.Independent(_Normal(mean, jnp.exp(log_std)), 1)
        super().__init__(gaussian, distrax.Block(distrax.Tanh(), 1))

    def log_prob(self, value: Array) -> Array:
        """Return log pi(value|s) [...] of actions [..., A].

        Actions at -1 and 1, which the environments' bounds and float32 produce, count as the
        nearest number inside. So the result and its gradients are finite.
        """
        edge = 1 - jnp.finfo(value.dtype).epsneg
        return super().log_prob(jnp.clip(value, -edge, edge))

    def mode(self) -> Array:
        """tanh(mean) [..., A]: the greedy action (distrax leaves tanh's mode undefined)."""
        return jnp.tanh(self.distribution.mean())


# Glorot-uniform as the SAC authors' Keras layers; parameters in float64 where x64 is on.
Dense = partial(nn.Dense, kernel_init=nn.initializers.glorot_uniform(), param_dtype=float)


@jax.custom_vjp
def _rounded_product(x: Array, w: Array) -> Array:
    """x @ w, [..., I] @ [I, O]: factors rounded to bfloat16, summed in float32; backwards too."""
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
    """What nn.Dense multiplies with: None is its own, in the dtype of its inputs."""
    if precision == "float32":
        return None
    return lambda x, w, dimensions, precision=None: _rounded_product(x, w)


def _head_product(x: Array, w: Array, dimensions: Any, precision: Any = None) -> Array:
    """x @ w, [..., I] @ [I, A], by the transpose of w.

    So the gradient is made as [A, I], from a transpose of what is small: as [I, A] XLA makes it on
    a CPU ten times as slowly, from a transpose of x (benchmarks/NOTES.md).
    """
    del dimensions
    turned = jax.lax.optimization_barrier(w.T)
    return jax.lax.dot_general(x, turned, (((x.ndim - 1,), (1,)), ((), ())), precision)


class MLP(nn.Module):
    """Dense layers with ReLU between them; `layer_norm` normalises before each activation.

    `precision` "bfloat16" rounds the factors of the products between hidden layers, nearly all of
    the arithmetic; what comes in, the parameters and all sums stay as they are.
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
    """pi(.|s): obs [..., O] -> SquashedGaussian over [..., A]."""

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
    """Q(s, a): obs [B, O], action [B, A] -> [B]."""

    hidden: tuple[int, ...]
    layer_norm: bool = False
    precision: str = "float32"

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        x = jnp.concatenate([obs, action], axis=-1)
        x = MLP(self.hidden, self.layer_norm, self.precision)(x)
        return Dense(1)(x).squeeze(-1)


class Ensemble(NamedTuple):
    """N critics with weights of their own: obs [B, O], action [B, A] -> [N, B]."""

    critics: Any  # one module over inputs [N, B, ...]
    size: int

    def init(self, key: Key, *inputs: Array) -> Params:
        """Parameters, leaves [N, ...]; each critic from a key of its own."""
        return self.critics.init(key, *self._each(inputs))

    def apply(self, params: Params, *inputs: Array) -> Array:
        """The N values of each sample."""
        return self.critics.apply(params, *self._each(inputs))

    def _each(self, inputs: tuple[Array, ...]) -> list[Array]:
        # Copied for each critic: a product of one input with all kernels would come out as
        # [B, N, H], and transposing it costs more (benchmarks/NOTES.md).
        return [jnp.broadcast_to(x, (self.size, *x.shape)) for x in inputs]


def mlp(config: Config, action_size: int) -> Networks:
    """The paper's networks: two hidden layers of 256 for actor and critics (table 1)."""
    precision = config.hidden_precision
    critics = nn.vmap(Critic, variable_axes={"params": 0}, split_rngs={"params": True})
    return Networks(
        actor=Actor(action_size, config.hidden, config.log_std_min, config.log_std_max, precision),
        critic=Ensemble(critics(config.hidden, config.layer_norm, precision), config.num_critics),
    )
