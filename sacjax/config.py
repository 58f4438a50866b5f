"""What a run is made of: `Config` (static), `Hyperparams` (traced), and the presets.

Everything here is checked when it is constructed, before anything is traced, and every error names
its remedy.
"""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sacjax.types import InputError

if TYPE_CHECKING:
    from sacjax.types import Scalar
else:
    Scalar = float  # what the command line parses

Precision = Literal["float32", "bfloat16"]
_COUNTED = 2**31 - 1  # counters are int32

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
    """Transitions that replay holds (table 1: 1e6); never more than total_steps are allocated."""
    eval_every: int = 1_000
    """Environment steps per epoch: one evaluation and one row of metrics each."""
    eval_episodes: int = 16
    """Greedy episodes per evaluation."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of the hidden layers of actor and critics (table 1)."""
    num_critics: int = 2
    """Critics; the target and the actor use their minimum (SAC section 6: 2)."""
    layer_norm: bool = False
    """LayerNorm before each activation of the critics (SAC: none)."""
    hidden_precision: Precision = "float32"
    """Of products between hidden layers; bfloat16 rounds factors, not sums: docs/performance.md."""
    log_std_min: float = -20.0
    """Lower clip of the policy's log standard deviation (the SAC authors' code)."""
    log_std_max: float = 2.0
    """Upper clip of the policy's log standard deviation (the SAC authors' code)."""

    def __post_init__(self) -> None:
        for name, value in _checked_fields(vars(self)).items():
            object.__setattr__(self, name, value)
        _check_sizes(self)

    @property
    def rollout(self) -> int:
        """Steps of each environment per iteration: `rollout_length`, or the fewest that fit."""
        return self.rollout_length or _ratio(self.utd * self.num_envs).denominator

    @property
    def steps_per_iteration(self) -> int:
        """Transitions collected between updates: the notes' k, times the environments."""
        return self.num_envs * self.rollout

    @property
    def updates_per_iteration(self) -> int:
        """U, the gradient steps that follow them."""
        return int(_ratio(self.utd) * self.steps_per_iteration)

    @property
    def updates_per_epoch(self) -> int:
        """Gradient steps between two evaluations."""
        return self.eval_every // self.steps_per_iteration * self.updates_per_iteration

    @property
    def num_epochs(self) -> int:
        """Evaluations in the run."""
        return (self.total_steps - self.warmup_steps) // self.eval_every

    @property
    def capacity(self) -> int:
        """C, the transitions that replay holds: `replay_size`, capped by `total_steps`."""
        return min(self.replay_size, self.total_steps)


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

    def __post_init__(self) -> None:
        values = {name: _number(name, value) for name, value in vars(self).items()}
        grids = {k: v for k, v in values.items() if np.ndim(v) > 0}
        try:
            shape = np.broadcast_shapes(*(v.shape for v in grids.values()))
        except ValueError as error:
            shapes = ", ".join(f"{k} {v.shape}" for k, v in grids.items())
            raise InputError(
                f"grids of different shapes ({shapes}): use arrays that broadcast against each "
                "other, as gamma[:, None] and tau[None, :] do"
            ) from error
        _check_hyperparams({k: np.asarray(v) for k, v in values.items() if _is_concrete(v)})
        xp = jnp if any(isinstance(v, jax.Array) for v in values.values()) else np
        for name, value in values.items():
            if shape:
                value = xp.broadcast_to(xp.asarray(value, float), shape)
            object.__setattr__(self, name, value)


def _rebuild(_: None, values: Any) -> Hyperparams:
    """From leaves that JAX puts there (tracers, gradients, axes), which no check concerns."""
    hp = object.__new__(Hyperparams)
    for field, value in zip(dataclasses.fields(Hyperparams), values, strict=True):
        object.__setattr__(hp, field.name, value)
    return hp


jax.tree_util.register_pytree_with_keys(
    Hyperparams,
    lambda hp: ([(jax.tree_util.GetAttrKey(k), v) for k, v in vars(hp).items()], None),
    _rebuild,
    lambda hp: (tuple(vars(hp).values()), None),
)


def preset(env: str, **changes: Any) -> tuple[Config, Hyperparams]:
    """Settings known to work for `env`, or the paper's defaults for an environment without any.

    `changes` are fields of `Config` or `Hyperparams` that replace the preset's. Each preset's
    result is in the README; the scripts that made it, and the provenance, in benchmarks/.
    """
    values: dict[str, Any] = PRESETS.get(env, {}) | changes
    static = {field.name for field in dataclasses.fields(Config)} - {"env"}
    for name in values.keys() - static - {f.name for f in dataclasses.fields(Hyperparams)}:
        known = [*static, *(f.name for f in dataclasses.fields(Hyperparams))]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"use {', '.join(close)}" if close else "see Config and Hyperparams"
        raise InputError(f"no setting {name!r}: {hint}")
    config = {k: v for k, v in values.items() if k in static}
    traced = {k: v for k, v in values.items() if k not in static}
    return Config(env, **config), Hyperparams(**traced)


# 64x64 networks and batches of 128 suffice here, at a fraction of the paper's cost.
# Learning rates, gamma and tau come from small searches on other seeds than the README's.
_SMALL: dict[str, Any] = {
    "hidden": (64, 64),
    "batch_size": 128,
    "actor_lr": 1e-3,
    "critic_lr": 3e-3,
    "alpha_lr": 1e-3,
    "tau": 0.01,
}
_LONG = {"total_steps": 40_000, "warmup_steps": 2_000, "eval_every": 2_000}
PRESETS: dict[str, dict[str, Any]] = {
    "Pendulum-v1": _SMALL | {"total_steps": 15_000, "eval_every": 500},
    # Uncorrelated noise does not find the goal; strokes of 30 steps, half a swing of the car, do.
    "MountainCarContinuous-v0": _SMALL
    | {"total_steps": 30_000, "warmup_steps": 5_000, "warmup_hold": 30},
    "Reacher-misc": _SMALL | _LONG | {"gamma": 0.95},
    "Swimmer-misc": _SMALL | _LONG | {"gamma": 0.95, "critic_lr": 1e-3},
    # The goal is hidden and its reward sparse: long strokes meet it more often in the warm-up.
    "PointRobot-misc": _SMALL
    | _LONG
    | {"gamma": 0.9, "critic_lr": 1e-3, "warmup_steps": 10_000, "warmup_hold": 10},
}


def _ratio(x: float) -> Fraction:
    """A float that stands for a ratio of small whole numbers: 0.1 is 1/10."""
    return Fraction(x).limit_denominator(10_000)


def _multiple(value: int, of: int) -> int:
    """The least positive multiple of `of` that is not below `value`."""
    return max(1, math.ceil(value / of)) * of


_LEAST = {
    "total_steps": 1,
    "num_envs": 1,
    "warmup_steps": 0,
    "warmup_hold": 1,
    "batch_size": 1,
    "replay_size": 1,
    "eval_every": 1,
    "eval_episodes": 1,
    "num_critics": 1,
}


def _checked_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Each field by itself: of its type, NumPy's numbers as Python's, and in its range."""
    fields = dict(fields)
    for name, low in _LEAST.items():
        if not _is_whole(fields[name]) or fields[name] < low:
            raise InputError(f"{name} ({fields[name]!r}) must be a whole number: use {low} or more")
        fields[name] = int(fields[name])
    length = fields["rollout_length"]
    if length is not None:
        if not _is_whole(length) or length < 1:
            raise InputError(
                f"rollout_length ({length!r}) must be None or a whole number from 1 up"
            )
        fields["rollout_length"] = int(length)
    hidden = fields["hidden"]
    if not isinstance(hidden, tuple | list) or not hidden:
        raise InputError(f"hidden ({hidden!r}) must be the sizes of layers: use (256, 256)")
    if not all(_is_whole(units) and units > 0 for units in hidden):
        raise InputError(f"hidden ({hidden!r}) must be whole numbers from 1: use (256, 256)")
    fields["hidden"] = tuple(int(units) for units in hidden)
    for name in ("utd", "log_std_min", "log_std_max"):
        if not _is_real(fields[name]):
            raise InputError(f"{name} ({fields[name]!r}) must be a number")
        fields[name] = float(fields[name])
    if not isinstance(fields["layer_norm"], bool):
        raise InputError(f"layer_norm ({fields['layer_norm']!r}) must be True or False")
    if fields["hidden_precision"] not in get_args(Precision):
        raise InputError(
            f"hidden_precision ({fields['hidden_precision']!r}) must be "
            f"{' or '.join(map(repr, get_args(Precision)))}"
        )
    utd, low, high = fields["utd"], fields["log_std_min"], fields["log_std_max"]
    if not (math.isfinite(utd) and utd > 0):
        raise InputError(f"utd ({utd}) must be above 0: use 1 as the paper does")
    if abs(_ratio(utd) - utd) > 1e-9 or _ratio(utd) == 0:
        near = float(max(_ratio(utd), Fraction(1, 10_000)))
        raise InputError(f"utd ({utd}) must be a ratio of whole numbers up to 10,000: use {near!r}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"log_std_min ({low}) must be below log_std_max ({high}): use -20 and 2, the defaults"
        )
    return fields


def _check_sizes(config: Config) -> None:
    steps, envs = config.steps_per_iteration, config.num_envs
    if (_ratio(config.utd) * steps).denominator != 1:
        fits = _ratio(config.utd * envs).denominator
        raise InputError(
            f"utd ({config.utd:g}) x num_envs ({envs}) x rollout_length ({config.rollout_length}) "
            f"must be a whole number of gradient steps: use rollout_length={fits}"
        )
    if config.capacity > _COUNTED:
        raise InputError(
            f"replay_size ({config.replay_size}) must be below 2^31, what its index can count: use "
            f"replay_size={_COUNTED // envs * envs} at most"
        )
    if config.total_steps > _COUNTED:
        raise InputError(
            f"total_steps ({config.total_steps}) must be below 2^31, what its counter can count: "
            "use fewer"
        )
    if config.capacity < config.batch_size:
        raise InputError(
            f"the replay ({config.capacity} transitions: replay_size, capped by total_steps) must "
            f"hold a batch: use batch_size={config.capacity} or a larger replay_size"
        )
    if config.warmup_steps >= config.total_steps:
        raise InputError(
            f"warmup_steps ({config.warmup_steps}) must be below total_steps "
            f"({config.total_steps}): use warmup_steps={config.total_steps // 10 // envs * envs}"
        )
    warmup = config.warmup_steps and _multiple(config.warmup_steps, envs)
    every = _multiple(config.eval_every, steps)
    total = warmup + _multiple(config.total_steps - warmup, every)
    replay = config.replay_size
    if replay < total:
        replay = _multiple(replay, envs)
    bigger = f"replay_size={replay}" if replay != config.replay_size else ""
    if (warmup, every, total) != (config.warmup_steps, config.eval_every, config.total_steps):
        raise InputError(
            f"warmup_steps ({config.warmup_steps}) must be a multiple of num_envs ({envs}), "
            f"eval_every ({config.eval_every}) of the {steps} steps of an iteration, and "
            f"total_steps - warmup_steps ({config.total_steps - config.warmup_steps}) of "
            f"eval_every: use warmup_steps={warmup}, eval_every={every}, total_steps={total}"
            + (f", {bigger}" if bigger else "")
        )
    if bigger:
        raise InputError(
            f"replay_size ({config.replay_size}) must be a multiple of num_envs ({envs}): "
            f"use {bigger}"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _number(name: str, value: Any) -> Any:
    """A number as a float, an array as it is."""
    if _is_real(value):
        return float(str(value)) if isinstance(value, np.floating) else float(value)
    if isinstance(value, np.ndarray | jax.Array) and value.dtype.kind in "iuf":
        return value
    raise InputError(f"{name} ({value!r}) must be a number, or an array of numbers")


def _is_concrete(value: Any) -> bool:
    if isinstance(value, jax.Array):
        return not isinstance(value, Tracer) and value.is_fully_addressable
    return isinstance(value, int | float | np.ndarray)


def _check_hyperparams(hp: dict[str, np.ndarray]) -> None:
    for name, value in hp.items():
        low, high = {"gamma": (0, 1), "tau": (0, 1)}.get(name, (0, math.inf))
        if name in ("target_entropy_per_dim", "reward_scale"):
            low = -math.inf
        finite = np.isfinite(value) | (name == "max_alpha" and value == math.inf)
        positive = value > 0 if name in ("tau", "max_alpha") else True
        if not np.all(finite & (value >= low) & (value <= high) & positive):
            default = Hyperparams.__dataclass_fields__[name].default
            bracket = "(" if name in ("tau", "max_alpha") else "["
            raise InputError(
                f"{name} ({value}) must be a finite number in {bracket}{low}, {high}]: "
                f"the default is {default:g}"
            )
    if hp.keys() >= {"min_alpha", "init_alpha", "max_alpha"}:
        low, start, high = hp["min_alpha"], hp["init_alpha"], hp["max_alpha"]
        if not np.all((low <= start) & (start <= high)):
            raise InputError(
                f"init_alpha ({start}) must lie between min_alpha ({low}) and max_alpha ({high}): "
                "set init_alpha within the bounds"
            )
    learned_from_zero = hp.keys() >= {"alpha_lr", "init_alpha"} and np.any(
        (hp["alpha_lr"] > 0) & (hp["init_alpha"] == 0)
    )
    if learned_from_zero:
        raise InputError(
            "init_alpha (0) cannot be learned from, its logarithm is infinite: "
            "use alpha_lr=0 for a fixed temperature of 0, or init_alpha above 0"
        )
