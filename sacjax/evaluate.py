"""Greedy returns over full episodes, in one loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sacjax.types import Array, Env, EnvParams, Key


def evaluate(
    env: Env, policy: Callable[[Array], Array], key: Key, env_params: EnvParams
) -> tuple[Array, Array]:
    """Undiscounted return and length of one whole episode in each of the E copies, [E] and [E].

    `policy` maps obs [E, O] to action [E, A]; `agent.mode` makes it greedy. The first episode of
    each copy counts, from its reset to its end. The loop runs until the last copy has ended, so it
    needs no bound on the length and honours a time limit given in `env_params`.
    """
    key_reset, key_steps = jax.random.split(key)
    env_state, obs = env.reset(key_reset, env_params)
    copies = obs.shape[0]
    running = jnp.ones(copies, bool)
    returns, lengths = jnp.zeros(copies, obs.dtype), jnp.zeros(copies, jnp.int32)

    def step(carry):
        env_state, obs, key, running, returns, lengths = carry
        key, key_step = jax.random.split(key)
        env_state, timestep = env.step(env_state, policy(obs), key_step, env_params)
        returns += jnp.where(running, timestep.reward, 0)
        lengths += running
        running &= ~(timestep.terminated | timestep.truncated)
        return env_state, timestep.obs, key, running, returns, lengths

    carry = (env_state, obs, key_steps, running, returns, lengths)
    *_, returns, lengths = jax.lax.while_loop(lambda carry: carry[3].any(), step, carry)
    return returns, lengths
