"""What a run is made of: `Config` (static) and `Hyperparams` (traced).

Everything here is checked when it is constructed (`sacjax.validation`), before anything is traced.
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
    Scalar = float  # what the command line parses

# "SAC" below is Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"
# (arXiv:1812.05905); "table 1" is the table of hyperparameters in its appendix D.


@dataclass(frozen=True)
class Config:
    """What is fixed when the program is compiled: sizes, counts and the environment.

    Steps are environment transitions, summed over the `num_envs` copies. The run is a warm-up of
    `warmup_steps` random transitions, then `(total_steps - warmup_steps) / eval_every` epochs; an
    epoch ends with an evaluation. Raises InputError where the numbers do not fit together.
    """

    env: Any
    """Name of an environment (sacjax envs lists them) or a gymnax Environment object."""
    total_steps: int = 1_000_000
    """Environment steps of the whole run, warm-up included (SAC, figure 1: 1e6 to 1e7)."""
    num_envs: int = 1
    """Environments stepped in parallel by each agent (SAC: 1)."""
    warmup_steps: int = 1_000
    """Steps with uniformly random actions before learning starts (the SAC authors' code: 1e3)."""
    warmup_hold: int = 1
    """Steps that each random warm-up action is held for; long strokes explore further (SAC: 1)."""
    utd: float = 1.0
    """Gradient steps per environment step after warm-up, exact for any num_envs (table 1: 1)."""
    rollout_length: int | None = None
    """Steps of each environment between updates. None: the fewest that make utd exact (SAC: 1)."""
    batch_size: int = 256
    """Transitions per gradient step (table 1)."""
    replay_size: int = 1_000_000
    """Transitions that replay holds (table 1: 1e6), in whole steps of all environments; never more
    than total_steps are allocated."""
    eval_every: int = 1_000
    """Environment steps per epoch: one evaluation and one row of metrics each."""
    eval_episodes: int = 16
    """Greedy episodes per evaluation."""
    eval_max_steps: int = 100_000
    """Steps after which an evaluation episode is cut, so that every evaluation ends."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers of actor and critics (table 1)."""
    num_critics: int = 2
    """Critics; the target and the actor use their minimum (SAC section 6: 2)."""
    layer_norm: bool = False
    """LayerNorm before each activation of the critics (SAC: none)."""
    hidden_precision: Precision = "float32"
    """Of the factors of products between hidden layers; sums stay float32. A GPU's "float32" is
    TF32 unless jax_default_matmul_precision says otherwise: docs/performance.md."""
    normalize_obs: bool = False
    """Networks see observations less their running mean, over their running deviation (SAC: no)."""
    n_step: int = 1
    """Rewards summed before a target bootstraps (SAC: 1)."""
    max_grad_norm: float | None = None
    """Gradients of more than this global L2 norm are scaled down to it (SAC: never)."""
    lr_schedule: Schedule = "constant"
    """Learning rates over the run; linear falls to 0 at its end (SAC: constant)."""
    policy_delay: int = 1
    """Gradient steps of the critics per one of the policy and the temperature (SAC: 1)."""
    log_std_min: float = -20.0
    """Lower clip of the policy's log standard deviation (the SAC authors' code)."""
    log_std_max: float = 2.0
    """Upper clip of the policy's log standard deviation (the SAC authors' code)."""

    def __new__(cls, *_: Any, **fields: Any) -> "Config":
        check_names(cls, fields, Hyperparams)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        vars(self).update(validation.checked_fields(self))
        validation.check_sizes(self)

    @property
    def env_name(self) -> str:
        """What to call the environment, which may be an object."""
        named = isinstance(self.env, str)
        return self.env if named else str(getattr(self.env, "name", type(self.env).__name__))

    @property
    def rollout(self) -> int:
        """Steps of each environment per iteration: `rollout_length`, or the fewest that fit."""
        return self.rollout_length or ratio(self.utd * self.num_envs).denominator

    @property
    def steps_per_iteration(self) -> int:
        """Transitions collected between updates: the notes' k, times the environments."""
        return self.num_envs * self.rollout

    @property
    def updates_per_iteration(self) -> int:
        """U, the gradient steps that follow them."""
        return int(ratio(self.utd) * self.steps_per_iteration)

    @property
    def updates_per_epoch(self) -> int:
        """Gradient steps between two evaluations."""
        return self.eval_every // self.steps_per_iteration * self.updates_per_iteration

    @property
    def gradient_steps(self) -> int:
        """Of the whole run."""
        return self.num_epochs * self.updates_per_epoch

    @property
    def num_epochs(self) -> int:
        """Evaluations in the run."""
        return (self.total_steps - self.warmup_steps) // self.eval_every

    @property
    def capacity(self) -> int:
        """C, the transitions that replay holds: `replay_size`, capped by `total_steps`, in whole
        steps of all environments."""
        return min(self.replay_size, self.total_steps) // self.num_envs * self.num_envs


@dataclass(frozen=True)
class Hyperparams:
    """What can be swept inside one compiled program: a pytree of scalars, or of grids.

    Fields given as arrays broadcast against each other and against the rest, so
    `Hyperparams(tau=jnp.array([0.005, 0.02]))` is a grid of two complete settings, ready for
    `jax.vmap(..., in_axes=0)`; axes field by field come from `jax.tree.map`. Numbers and concrete
    arrays are checked when given: InputError.
    """

    gamma: Scalar = 0.99
    """Discount per step, in [0, 1] (table 1)."""
    tau: Scalar = 0.005
    """Polyak step of the target critics, in (0, 1] (table 1)."""
    actor_lr: Scalar = 3e-4
    """Adam's learning rate for the policy (table 1)."""
    critic_lr: Scalar = 3e-4
    """Adam's learning rate for the critics (table 1)."""
    alpha_lr: Scalar = 3e-4
    """Adam's learning rate for log alpha (the authors' code); 0 keeps the temperature fixed."""
    init_alpha: Scalar = 1.0
    """Temperature at the start, reward per nat (the authors' code: log alpha = 0)."""
    min_alpha: Scalar = 0.0
    """Lower bound on the temperature; 0 is none."""
    max_alpha: Scalar = math.inf
    """Upper bound on the temperature; infinity is none."""
    target_entropy_per_dim: Scalar = -1.0
    """Target entropy per action dimension, nats: -|A| in all (table 1; Brax and jaxrl use -0.5)."""
    reward_scale: Scalar = 1.0
    """Factor on rewards inside the update (SAC with a learned temperature needs none)."""

    def __new__(cls, *_: Any, **fields: Any) -> "Hyperparams":
        check_names(cls, fields, Config)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        values = validation.broadcast(validation.checked_fields(self, arrays=True))
        vars(self).update(values)
        validation.check_alphas(self)


def _rebuild(_: None, values: Any) -> Hyperparams:
    """From leaves that JAX puts there (tracers, gradients, axes), which no check concerns."""
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
