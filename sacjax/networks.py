"""The function approximators: a squashed-Gaussian actor and an ensemble of critics.

The only module that knows distrax. Other architectures: hand a `Networks` of your own to
`make_sac`; the actor's `apply(params, obs)` must return something with `sample`,
`sample_and_log_prob` and `mode`, the critic's `apply(params, obs, action)` values [N, B].
"""

from functools import partial
from typing import Any, NamedTuple

import distrax
import flax.linen as nn
import jax.numpy as jnp

from sacjax.config import Config
from sacjax.types import Array


class Networks(NamedTuple):
    """An actor and a critic, each with flax's `init` and `apply`."""

    actor: Any
    critic: Any


class SquashedGaussian(distrax.Transformed):
    """a = tanh(u), u ~ N(mean, std^2): the policy's distribution over [-1, 1]^A.

    log pi(a|s) = log N(u; mean, std) - sum_j log(1 - tanh(u_j)^2)   (SAC appendix C, eq. 26)

    Shapes: mean and log_std [..., A]; samples [..., A]; log-probabilities [...], in nats and in
    tanh space. `sample_and_log_prob` keeps u, so it is exact where tanh rounds to 1.
    """

    def __init__(self, mean: Array, log_std: Array):
        gaussian = distrax.Independent(distrax.Normal(mean, jnp.exp(log_std)), 1)
        super().__init__(gaussian, distrax.Block(distrax.Tanh(), 1))

    def mode(self) -> Array:
        """tanh(mean) [..., A]: the greedy action (distrax leaves tanh's mode undefined)."""
        return jnp.tanh(self.distribution.mean())


# Glorot-uniform as the SAC authors' Keras layers; parameters in float64 where x64 is on.
Dense = partial(nn.Dense, kernel_init=nn.initializers.glorot_uniform(), param_dtype=float)


class MLP(nn.Module):
    """Dense layers with ReLU between them; `layer_norm` normalises before each activation."""

    hidden: tuple[int, ...]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:  # [..., I] -> [..., H]
        for units in self.hidden:
            x = Dense(units)(x)
            x = nn.LayerNorm(param_dtype=float)(x) if self.layer_norm else x
            x = nn.relu(x)
        return x


class Actor(nn.Module):
    """pi(.|s): obs [..., O] -> SquashedGaussian over [..., A]."""

    action_size: int
    hidden: tuple[int, ...]
    log_std_min: float
    log_std_max: float

    @nn.compact
    def __call__(self, obs: Array) -> SquashedGaussian:
        x = MLP(self.hidden)(obs)
        mean = Dense(self.action_size, name="mean")(x)
        log_std = Dense(self.action_size, name="log_std")(x)
        return SquashedGaussian(mean, jnp.clip(log_std, self.log_std_min, self.log_std_max))


class Critic(nn.Module):
    """Q(s, a): obs [B, O], action [B, A] -> [B]."""

    hidden: tuple[int, ...]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        x = MLP(self.hidden, self.layer_norm)(jnp.concatenate([obs, action], axis=-1))
        return Dense(1)(x).squeeze(-1)


def mlp(config: Config, action_size: int) -> Networks:
    """The paper's networks: two hidden layers of 256 for actor and critics (table 1)."""
    return Networks(
        actor=Actor(action_size, config.hidden, config.log_std_min, config.log_std_max),
        critic=nn.vmap(  # N critics with weights of their own: [B, O], [B, A] -> [N, B]
            Critic,
            in_axes=None,  # pyright: ignore[reportArgumentType] flax means to take it
            out_axes=0,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            axis_size=config.num_critics,
        )(config.hidden, config.layer_norm),
    )
