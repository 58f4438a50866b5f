"""Turn a trained agent into a function from observations to actions."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from sacjax.config import Config
from sacjax.envs.base import rescale
from sacjax.sac import make_sac
from sacjax.train import MakeAlgorithm, Program, make_program
from sacjax.types import Array, InputError
from sacjax.validation import check_choice

Units = Literal["environment", "unit"]


def policy(
    config: Config,
    agent: Any,
    *,
    algorithm: MakeAlgorithm = make_sac,
    units: Units = "environment",
) -> Callable[[Any], Array]:
    """Return the greedy policy of one agent as a compiled function.

    If the run normalises observations, the policy does the same.

    Args:
      config: the settings that the agent was trained with.
      agent: the state of one member, such as `make_train(config)(key).agent`.
      algorithm: the `algorithm` of the run, if it was not `make_sac`.
      units: "environment" for actions within the bounds of the environment, "unit" for actions in
        [-1, 1]. The bounds correspond to -1 and 1.

    Returns:
      A function of obs [..., O], flattened like the environment's, that returns actions [..., A].
      It raises InputError if O is wrong.

    Raises:
      InputError: the environment is unknown or not installed, or `units` is unknown.

    Example:
      >>> import jax, numpy as np
      >>> from sacjax import Hyperparams, make_sac, policy
      >>> from sacjax.envs.names import make_env
      >>> sac = make_sac(config, make_env(config.env)(1))
      >>> agent = jax.jit(sac.init)(jax.random.key(0), Hyperparams())
      >>> act = policy(config, agent)
      >>> act(np.zeros(3)).shape, act(np.zeros((5, 3))).shape
      ((1,), (5, 1))
    """
    return of_program(make_program(config, algorithm), config.env_name, agent, units)


def of_program(
    program: Program, env_name: str, agent: Any, units: str = "environment"
) -> Callable[[Any], Array]:
    """Return the greedy policy of an agent for a program that already exists."""
    check_choice(units, get_args(Units), "units")
    example, mode = program.example.obs, jax.jit(program.mode)
    size = program.example.action.shape
    low, high = (jnp.broadcast_to(jnp.ravel(jnp.asarray(x)), size) for x in program.bounds)

    def act(obs: Any) -> Array:
        obs = jnp.asarray(obs, example.dtype)
        if obs.shape[-1:] != example.shape:
            raise InputError(
                f"obs of shape {obs.shape} must be [..., {example.size}], as {env_name} returns "
                "them: flatten each observation",
                "obs",
            )
        action = mode(agent, obs.reshape(-1, example.size))  # [B, A] in [-1, 1]
        if units == "environment":
            action = rescale(action, low, high)
        return action.reshape(*obs.shape[:-1], action.shape[-1])

    return act
