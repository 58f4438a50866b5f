"""Test that the actor's gradient equals alpha times the gradient of KL(pi || exp(Q / alpha) / Z).

The source is SAC, equations 4 and 7.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sacjax.networks import Networks, SquashedGaussian
from sacjax.sac import CLIPPED_DOUBLE_Q, actor_loss

ALPHA = 0.3


def q(action):  # [B, 1] -> [1, B]; two peaks, so exp(Q) is not Gaussian
    return (jnp.sin(4 * action) - (action - 0.2) ** 2).squeeze(-1)[None]


class Given(NamedTuple):
    apply: object


ACTOR = Given(
    lambda params, obs: SquashedGaussian(
        jnp.broadcast_to(params[0], (len(obs), 1)), jnp.broadcast_to(params[1], (len(obs), 1))
    )
)
CRITIC = Given(lambda params, obs, action: q(action))


def divergence(params):
    """Return the KL divergence, including Z. Integrate numerically over u = atanh(a)."""
    u = jnp.linspace(-8, 8, 20_001)
    action, du = jnp.tanh(u), u[1] - u[0]
    log_gaussian = -0.5 * ((u - params[0]) / jnp.exp(params[1])) ** 2 - params[1]
    log_gaussian -= 0.5 * jnp.log(2 * jnp.pi)
    log_jacobian = 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))
    value = q(action[:, None])[0]
    log_z = jnp.log(jnp.sum(jnp.exp(value / ALPHA + log_jacobian)) * du)
    log_ratio = log_gaussian - log_jacobian - (value / ALPHA - log_z)
    return jnp.sum(jnp.exp(log_gaussian) * log_ratio) * du


def test_actor_gradient_equals_alpha_times_the_kl_gradient():
    params = jnp.array([0.4, -0.7])
    grad = jax.jit(
        jax.grad(
            lambda p: actor_loss(
                p, Networks(ACTOR, CRITIC), CLIPPED_DOUBLE_Q, None, jnp.float32(ALPHA),
                jnp.zeros((1_000_000, 1)), jax.random.key(0),
            )[0]
        )
    )(params)  # fmt: skip
    exact = ALPHA * jax.grad(divergence)(params)
    assert np.abs(exact).min() > 0.02
    # A million samples have a standard error of about 2e-3.
    np.testing.assert_allclose(grad, exact, atol=6e-3)
