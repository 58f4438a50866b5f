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

    If the run normalised observations, the policy normalises observations too.

    Args:
      config: the settings that the agent was trained with.
      agent: the state of one member, such as `make_train(config)(key).agent`.
      algorithm: the algorithm that trained the agent, if it was not `make_sac`.
      units: "environment" for actions within the bounds of the environment, "unit" for actions in
        [-1, 1]. An action of -1 or 1 corresponds to a bound of the environment.

    Returns:
      A function that takes flat observations [..., O] and returns actions [..., A]. The function
      raises InputError if O is not the size of an observation.

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
    """Return the greedy policy of an agent, which uses an existing `Program`."""
    check_choice(units, get_args(Units), "units")
    example, mode = program.example.obs, jax.jit(program.mode)
    size = program.example.action.shape
    low, high = (jnp.broadcast_to(jnp.ravel(jnp.asarray(x)), size) for x in program.bounds)

    def act(obs: Any) -> Array:
        obs = jnp.asarray(obs, example.dtype)
        if obs.shape[-1:] != example.shape:
            raise InputError(
                f"obs has shape {obs.shape}, but {env_name} needs shape [..., {example.size}]: "
                "flatten each observation",
                "obs",
            )
        action = mode(agent, obs.reshape(-1, example.size))  # [B, A] in [-1, 1]
        if units == "environment":
            action = rescale(action, low, high)
        return action.reshape(*obs.shape[:-1], action.shape[-1])

    return act
