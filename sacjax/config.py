"""Define `Config`, the static settings of a run, and `Hyperparams`, the traced settings.

The constructors of `Config` and `Hyperparams` check all values before JAX traces a function.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax

from sacjax import validation
from sacjax.field_names import check_names
from sacjax.validation import Precision, Schedule, ratio

if TYPE_CHECKING:
    from sacjax.types import Scalar
else:
    Scalar = float  # the command line parses floats

# "SAC" below refers to the paper "Soft Actor-Critic Algorithms and Applications"
# (Haarnoja et al. 2018, arXiv:1812.05905).
# "Table 1" is the table of hyperparameters in appendix D of the SAC paper.


@dataclass(frozen=True)
class Config:
    """The static settings of a run. Changing a static setting requires a new compilation.

    A step is one transition of one environment, so all `num_envs` environments together take
    `total_steps` steps. A run starts with a warm-up of `warmup_steps` random transitions. Then the
    run trains for `(total_steps - warmup_steps) / eval_every` epochs, and each epoch ends with an
    evaluation. A Config is hashable and immutable. `dataclasses.replace` returns a copy of
    a Config with new values.

    Raises:
      InputError: a field is unknown or out of range, or the fields are inconsistent. The message
        suggests consistent values.

    Example:
      >>> from sacjax import Config
      >>> config = Config("Pendulum-v1", total_steps=20_000, num_envs=4, utd=0.5)
      >>> config.num_epochs, config.gradient_steps
      (19, 9500)
    """

    env: Any
    """Name of an environment (`sacjax envs` lists them) or a gymnax Environment object."""
    total_steps: int = 1_000_000
    """Environment steps of the whole run, including the warm-up (SAC, figure 1: 1e6 to 1e7)."""
    num_envs: int = 1
    """Number of environments that each agent steps in parallel (SAC: 1)."""
    warmup_steps: int = 1_000
    """Steps with uniformly random actions before learning starts (the SAC authors' code: 1e3)."""
    warmup_hold: int = 1
    """Successive warm-up steps that share an action; a larger number explores further (SAC: 1)."""
    utd: float = 1.0
    """Gradient steps per environment step after the warm-up, for any num_envs (table 1: 1)."""
    rollout_length: int | None = None
    """Steps of each environment between updates; by default the fewest for exact utd (SAC: 1)."""
    batch_size: int = 256
    """Transitions per gradient step (table 1)."""
    replay_size: int = 1_000_000
    """Capacity of the replay buffer in transitions, at most total_steps (table 1: 1e6)."""
    eval_every: int = 1_000
    """Environment steps per epoch; each epoch ends with an evaluation and a row of metrics."""
    eval_episodes: int = 16
    """Greedy episodes per evaluation."""
    eval_max_steps: int = 100_000
    """Largest number of steps of an evaluation episode; longer episodes are cut off."""
    log_info: tuple[str, ...] = ()
    """Numbers in info to log, such as success:last,speed:mean; also :sum and :max (SAC: none)."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers of actor and critics (table 1)."""
    num_critics: int = 2
    """Number of critics; targets and actor use the minimum of the critics (SAC section 6: 2)."""
    layer_norm: bool = False
    """Add a LayerNorm before each activation of the critics (SAC: no)."""
    # On a GPU, "float32" means TF32 unless jax_default_matmul_precision is set. Sums stay float32.
    hidden_precision: Precision = "float32"
    """Precision of the inputs of matrix products between hidden layers (docs/performance.md)."""
    normalize_obs: bool = False
    """Normalise observations by the past mean and standard deviation (SAC: no)."""
    n_step: int = 1
    """Number n of rewards in an n-step target of the critics (SAC: 1)."""
    max_grad_norm: float | None = None
    """Largest global L2 norm of gradients; larger gradients are scaled down (SAC: no limit)."""
    lr_schedule: Schedule = "constant"
    """Schedule of the learning rates; "linear" lowers them to 0 over the run (SAC: constant)."""
    policy_delay: int = 1
    """Number of critic updates per update of the policy and the temperature (SAC: 1)."""
    log_std_min: float = -20.0
    """Lower bound of the policy's log standard deviation (the SAC authors' code)."""
    log_std_max: float = 2.0
    """Upper bound of the policy's log standard deviation (the SAC authors' code)."""

    def __new__(cls, *_: Any, **fields: Any) -> "Config":
        check_names(cls, fields, Hyperparams)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        vars(self).update(validation.checked_fields(self))
        validation.check_sizes(self)

    @property
    def env_name(self) -> str:
        """Name of the environment, or the class name of an object without a name."""
        named = isinstance(self.env, str)
        return self.env if named else str(getattr(self.env, "name", type(self.env).__name__))

    @property
    def rollout(self) -> int:
        """Steps of each environment per iteration.

        If `rollout_length` is None, `rollout` is the smallest number that makes `utd` exact.
        """
        return self.rollout_length or ratio(self.utd * self.num_envs).denominator

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps per iteration, which are `rollout` times `num_envs`."""
        return self.num_envs * self.rollout

    @property
    def updates_per_iteration(self) -> int:
        """Gradient steps per iteration (U)."""
        return int(ratio(self.utd) * self.steps_per_iteration)

    @property
    def updates_per_epoch(self) -> int:
        """Gradient steps between two evaluations."""
        return self.eval_every // self.steps_per_iteration * self.updates_per_iteration

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of the whole run."""
        return self.num_epochs * self.updates_per_epoch

    @property
    def num_epochs(self) -> int:
        """Epochs of the run. Each epoch ends with an evaluation."""
        return (self.total_steps - self.warmup_steps) // self.eval_every

    @property
    def capacity(self) -> int:
        """Capacity of the replay buffer in transitions (C).

        C is the smaller of `replay_size` and `total_steps`, rounded down to a multiple of
        `num_envs`.
        """
        return min(self.replay_size, self.total_steps) // self.num_envs * self.num_envs


@dataclass(frozen=True)
class Hyperparams:
    """The hyperparameters of a run, which can be swept without a new compilation.

    Hyperparams is a pytree of scalars, or of arrays that form a grid. All fields broadcast to one
    shape. For example, `Hyperparams(tau=jnp.array([0.005, 0.02]))` is a grid of two settings, and
    `jax.vmap` with `in_axes=0` maps over this grid. To map only some
    fields, build `in_axes` from a Hyperparams with `jax.tree.map`. The constructor does not check
    the values of JAX tracers.

    Raises:
      InputError: a field is unknown or out of range, or arrays do not broadcast.

    Example:
      >>> import numpy as np
      >>> from sacjax import Hyperparams
      >>> grid = Hyperparams(tau=np.array([[0.005], [0.02]]), gamma=np.array([0.9, 0.95, 0.99]))
      >>> grid.tau.shape, grid.actor_lr.shape
      ((2, 3), (2, 3))
    """

    gamma: Scalar = 0.99
    """Discount factor per step, in [0, 1] (table 1)."""
    tau: Scalar = 0.005
    """Step size of the Polyak average in the target critics, in (0, 1] (table 1)."""
    actor_lr: Scalar = 3e-4
    """Adam's learning rate for the policy (table 1)."""
    critic_lr: Scalar = 3e-4
    """Adam's learning rate for the critics (table 1)."""
    alpha_lr: Scalar = 3e-4
    """Adam's learning rate for log alpha; 0 means a fixed alpha (the SAC authors' code: 3e-4)."""
    init_alpha: Scalar = 1.0
    """Initial temperature in reward per nat (the SAC authors' code: 1)."""
    min_alpha: Scalar = 0.0
    """Lower bound of the temperature; 0 means no bound."""
    max_alpha: Scalar = math.inf
    """Upper bound of the temperature; inf means no bound."""
    target_entropy_per_dim: Scalar = -1.0
    """Target entropy in nats per action dimension (table 1: -1; Brax and jaxrl: -0.5)."""
    reward_scale: Scalar = 1.0
    """Factor that multiplies rewards in the update (SAC with a learned temperature: 1)."""

    def __new__(cls, *_: Any, **fields: Any) -> "Hyperparams":
        check_names(cls, fields, Config)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        values = validation.broadcast(validation.checked_fields(self, arrays=True))
        vars(self).update(values)
        validation.check_alphas(self)


def _rebuild(_: None, values: Any) -> Hyperparams:
    """Rebuild a Hyperparams without checks, because `values` may be tracers, gradients or axes."""
    hp = object.__new__(Hyperparams)
    names = (field.name for field in dataclasses.fields(Hyperparams))
    vars(hp).update(zip(names, values, strict=True))
    return hp


jax.tree_util.register_pytree_with_keys(
    Hyperparams,
    lambda hp: ([(jax.tree_util.GetAttrKey(k), v) for k, v in vars(hp).items()], None),
    _rebuild,
    lambda hp: (tuple(vars(hp).values()), None),
)
