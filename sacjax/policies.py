"""A trained agent as a function that acts."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from sacjax.config import Config
from sacjax.envs.base import rescale
from sacjax.sac import make_sac
from sacjax.train import MakeAlgorithm, Program, make_program
from sacjax.types import Array, InputError

Units = Literal["environment", "unit"]


def policy(
    config: Config,
    agent: Any,
    *,
    algorithm: MakeAlgorithm = make_sac,
    units: Units = "environment",
) -> Callable[[Any], Array]:
    """The greedy policy of one agent, compiled.

    Where the run normalises observations, the policy does too.

    Args:
      config: what the agent was trained with.
      agent: the algorithm's state of one member: `make_train(config)(key).agent`.
      algorithm: the `algorithm` of the run, if it was not `make_sac`.
      units: "environment" for actions within the bounds of the environment, "unit" for actions in
        [-1, 1], of which -1 and 1 are those bounds.

    Returns:
      A function of obs [..., O], flattened as the environment gives it, to actions [..., A]. It
      raises InputError for observations of another size.

    Raises:
      InputError: the environment is not to be had, or `units` is unknown.
    """
    return of_program(make_program(config, algorithm), config.env_name, agent, units)


def of_program(
    program: Program, env_name: str, agent: Any, units: str = "environment"
) -> Callable[[Any], Array]:
    """`policy` of a program that is at hand."""
    if units not in get_args(Units):
        raise InputError(f"units ({units!r}) must be one of {', '.join(get_args(Units))}")
    example, mode = program.example.obs, jax.jit(program.mode)
    size = program.example.action.shape
    low, high = (jnp.broadcast_to(jnp.ravel(jnp.asarray(x)), size) for x in program.bounds)

    def act(obs: Any) -> Array:
        obs = jnp.asarray(obs, example.dtype)
        if obs.shape[-1:] != example.shape:
            raise InputError(
                f"obs of shape {obs.shape} must be [..., {example.size}], as {env_name} gives "
                "them, flattened"
            )
        action = mode(agent, obs.reshape(-1, example.size))  # [B, A] in [-1, 1]
        if units == "environment":
            action = rescale(action, low, high)
        return action.reshape(*obs.shape[:-1], action.shape[-1])

    return act
