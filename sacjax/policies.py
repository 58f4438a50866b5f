"""Turn a trained agent into a function from observations to actions."""

from collections.abc import Callable
from functools import partial
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
      algorithm: the algorithm that trained the agent, by default `make_sac`.
      units: "environment" for actions within the bounds of the environment, or "unit" for actions
        in [-1, 1]. An action of -1 or 1 corresponds to a bound of the environment.

    Returns:
      A function that maps flat observations [..., O] to actions [..., A]. The function
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
    return Policy(config, agent, algorithm, units, make_program(config, algorithm))


class Policy:
    """The greedy policy of one agent, which maps obs [..., O] to actions [..., A].

    A policy can be pickled. The pickle contains the settings, the agent's arrays and the name of
    the algorithm. The environment is stored as a name or as an object.
    """

    def __init__(
        self, config: Config, agent: Any, algorithm: MakeAlgorithm, units: Units, program: Program
    ):
        check_choice(units, get_args(Units), "units")
        self._parts = config, agent, algorithm, units
        self._example, self._mode = program.example, jax.jit(program.mode)
        ends = program.bounds if units == "environment" else (-1.0, 1.0)
        size = program.example.action.shape
        self._bounds = [jnp.broadcast_to(jnp.ravel(jnp.asarray(x)), size) for x in ends]

    def __call__(self, obs: Any) -> Array:
        config, agent, _, units = self._parts
        example = self._example.obs
        obs = jnp.asarray(obs, example.dtype)
        if obs.shape[-1:] != example.shape:
            raise InputError(
                f"obs has shape {obs.shape}, but {config.env_name} needs shape "
                f"[..., {example.size}]: flatten each observation",
                "obs",
            )
        action = self._mode(agent, obs.reshape(-1, example.size))  # [B, A] in [-1, 1]
        if units == "environment":
            action = rescale(action, *self._bounds)
        return action.reshape(*obs.shape[:-1], action.shape[-1])

    def __repr__(self) -> str:
        sizes = f"[..., {self._example.obs.size}] to actions [..., {self._example.action.size}]"
        low, high = min(self._bounds[0].tolist()), max(self._bounds[1].tolist())
        name = self._parts[0].env_name
        return f"<greedy policy for {name}: observations {sizes} from {low:g} to {high:g}>"

    def __reduce__(self) -> Any:
        config, agent, algorithm, units = self._parts
        return partial(policy, algorithm=algorithm, units=units), (config, agent)
