"""The checks of `sacjax.config`: of each field by itself, and of how they fit together.

Every error names its remedy.
"""

import math
from fractions import Fraction
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sacjax.types import InputError, is_key, is_whole

Precision = Literal["float32", "bfloat16"]
Schedule = Literal["constant", "linear"]
_COUNTED = 2**31 - 1  # counters are int32


def ratio(x: float) -> Fraction:
    """A float that stands for a ratio of small whole numbers: 0.1 is 1/10."""
    return Fraction(x).limit_denominator(10_000)


def multiple(value: int, of: int) -> int:
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
    "n_step": 1,
    "policy_delay": 1,
}


def checked_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Each field by itself: of its type, NumPy's numbers as Python's, and in its range."""
    fields = dict(fields)
    for name, low in _LEAST.items():
        value = fields[name]
        if not is_whole(value) or value < low:
            meant = isinstance(value, float) and value.is_integer() and value >= low
            use = int(value) if meant else f"{low} or more"
            raise InputError(f"{name} ({value!r}) must be a whole number: use {use}")
        fields[name] = int(value)
    length = fields["rollout_length"]
    if length is not None:
        if not is_whole(length) or length < 1:
            raise InputError(
                f"rollout_length ({length!r}) must be None or a whole number from 1 up"
            )
        fields["rollout_length"] = int(length)
    hidden = fields["hidden"]
    if not isinstance(hidden, tuple | list) or not hidden:
        raise InputError(f"hidden ({hidden!r}) must be the sizes of layers: use (256, 256)")
    if not all(is_whole(units) and units > 0 for units in hidden):
        raise InputError(f"hidden ({hidden!r}) must be whole numbers from 1: use (256, 256)")
    fields["hidden"] = tuple(int(units) for units in hidden)
    for name in ("utd", "log_std_min", "log_std_max"):
        if not _is_real(fields[name]):
            raise InputError(f"{name} ({fields[name]!r}) must be a number")
        fields[name] = float(fields[name])
    for name in ("layer_norm", "normalize_obs"):
        if not isinstance(fields[name], bool):
            raise InputError(f"{name} ({fields[name]!r}) must be True or False")
    for name, choices in {"hidden_precision": Precision, "lr_schedule": Schedule}.items():
        if fields[name] not in get_args(choices):
            known = " or ".join(map(repr, get_args(choices)))
            raise InputError(f"{name} ({fields[name]!r}) must be {known}")
    norm = fields["max_grad_norm"]
    if norm is not None:
        if not _is_real(norm) or not (math.isfinite(norm) and norm > 0):
            raise InputError(f"max_grad_norm ({norm!r}) must be None or a number above 0: use 10")
        fields["max_grad_norm"] = float(norm)
    utd, low, high = fields["utd"], fields["log_std_min"], fields["log_std_max"]
    if not (math.isfinite(utd) and utd > 0):
        raise InputError(f"utd ({utd}) must be above 0: use 1 as the paper does")
    if abs(ratio(utd) - utd) > 1e-9 or ratio(utd) == 0:
        near = float(max(ratio(utd), Fraction(1, 10_000)))
        raise InputError(f"utd ({utd}) must be a ratio of whole numbers up to 10,000: use {near!r}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"log_std_min ({low}) must be below log_std_max ({high}): use -20 and 2, the defaults"
        )
    return fields


def check_sizes(config: Any) -> None:
    """How the fields fit together, in the order in which one has to be put right."""
    _check_ratio(config)
    _check_storage(config)
    _check_start(config)
    _check_epochs(config)


def _fitting(config: Any) -> tuple[int, int]:
    """`warmup_steps` and `eval_every` as they would fit, neither made smaller."""
    warmup = config.warmup_steps and multiple(config.warmup_steps, config.num_envs)
    return warmup, multiple(config.eval_every, config.steps_per_iteration)


def _check_ratio(config: Any) -> None:
    """Gradient steps per environment step."""
    steps, envs = config.steps_per_iteration, config.num_envs
    if (ratio(config.utd) * steps).denominator != 1:
        fits = ratio(config.utd * envs).denominator
        raise InputError(
            f"utd ({config.utd:g}) x num_envs ({envs}) x rollout_length ({config.rollout_length}) "
            f"must be a whole number of gradient steps: use rollout_length={fits}"
        )
    if config.rollout_length is None and config.rollout > 100:
        near = ratio(config.utd).limit_denominator(16)
        _, _, decimals = repr(config.utd).partition(".")
        if near and abs(near - ratio(config.utd)) < Fraction(1, 10 ** len(decimals)):  # rounded
            raise InputError(
                f"utd ({config.utd:g}) is {ratio(config.utd)}, its gradient steps after every "
                f"{steps:,} steps: use {float(near)!r} for {near}, or rollout_length="
                f"{config.rollout} if that is meant"
            )


def _check_storage(config: Any) -> None:
    """The replay, and the counters."""
    envs = config.num_envs
    if config.total_steps < envs:
        raise InputError(
            f"total_steps ({config.total_steps}) must hold a step of all num_envs ({envs}): use "
            f"total_steps={sum(_fitting(config))} or fewer environments"
        )
    if config.replay_size < envs:
        raise InputError(
            f"replay_size ({config.replay_size}) must hold a step of all num_envs ({envs}): use "
            f"replay_size={multiple(config.batch_size, envs)} or more"
        )
    if config.capacity > _COUNTED:
        raise InputError(
            f"replay_size ({config.replay_size}) must be below 2^31, what its index can count: use "
            f"replay_size={_COUNTED // envs * envs} at most"
        )
    for name in ("total_steps", "gradient_steps", "warmup_hold"):
        if getattr(config, name) > _COUNTED:
            how = ", which utd and total_steps make," if name == "gradient_steps" else ""
            raise InputError(
                f"{name} ({getattr(config, name)}){how} must be below 2^31, what its counter can "
                "count: use fewer"
            )
    if config.capacity < config.batch_size:
        least = "total_steps" if config.total_steps <= config.replay_size else "replay_size"
        raise InputError(
            f"the replay ({config.capacity} transitions: replay_size, capped by total_steps) must "
            f"hold a batch: use batch_size={config.capacity} or a larger {least}"
        )


def _check_start(config: Any) -> None:
    """What there has to be before the first gradient step."""
    steps, envs = config.steps_per_iteration, config.num_envs
    least = config.n_step * envs
    if config.n_step > 1 and min(config.warmup_steps + steps, config.capacity) < least:
        warm = max(config.warmup_steps, least)
        total = warm + _fitting(config)[1]
        wanted = {"warmup_steps": warm, "replay_size": least, "total_steps": total}
        more = [f"{name}={x}" for name, x in wanted.items() if x > getattr(config, name)]
        raise InputError(
            f"n_step ({config.n_step}) needs that many steps of each environment before learning "
            f"starts, and a replay that holds them: use {' and '.join(more)} or more"
        )
    if config.warmup_steps >= config.total_steps:
        raise InputError(
            f"warmup_steps ({config.warmup_steps}) must be below total_steps "
            f"({config.total_steps}): use warmup_steps={config.total_steps // 10 // envs * envs}"
        )


def _check_epochs(config: Any) -> None:
    """Whole iterations in an epoch, and whole epochs."""
    if config.policy_delay > config.updates_per_epoch >= 1:
        raise InputError(
            f"policy_delay ({config.policy_delay}) must not be above an epoch's gradient steps: "
            f"use policy_delay={config.updates_per_epoch} or a larger eval_every"
        )
    left = config.total_steps - config.warmup_steps
    rules = [
        ("warmup_steps", config.warmup_steps, "num_envs", config.num_envs),
        ("eval_every", config.eval_every, "the steps of an iteration", config.steps_per_iteration),
        ("total_steps - warmup_steps", left, "eval_every", config.eval_every),
    ]
    unfit = [
        f"{name} ({value}) must be a multiple of {of} ({divisor})"
        for name, value, of, divisor in rules
        if value % divisor
    ]
    if unfit:
        warmup, every = _fitting(config)
        total = warmup + multiple(config.total_steps - warmup, every)
        raise InputError(
            f"{', '.join(unfit)}: use warmup_steps={warmup}, eval_every={every}, "
            f"total_steps={total}"
        )


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def number(name: str, value: Any) -> Any:
    """A number as a float, an array as it is."""
    if _is_real(value):
        return float(str(value)) if isinstance(value, np.floating) else float(value)
    if isinstance(value, np.ndarray | jax.Array) and value.dtype.kind in "iuf" and value.size:
        return value
    raise InputError(f"{name} ({value!r}) must be a number, or an array of some numbers")


def is_concrete(value: Any) -> bool:
    if isinstance(value, jax.Array):
        return not isinstance(value, Tracer) and value.is_fully_addressable
    return isinstance(value, int | float | np.ndarray)


def check_hyperparams(hp: dict[str, np.ndarray], defaults: dict[str, float]) -> None:
    for name, value in hp.items():
        low, high = {"gamma": (0, 1), "tau": (0, 1)}.get(name, (0, math.inf))
        if name in ("target_entropy_per_dim", "reward_scale"):
            low = -math.inf
        finite = np.isfinite(value) | (name == "max_alpha" and value == math.inf)
        positive = value > 0 if name in ("tau", "max_alpha") else True
        if not np.all(finite & (value >= low) & (value <= high) & positive):
            bracket = "(" if name in ("tau", "max_alpha") else "["
            raise InputError(
                f"{name} ({value}) must be a finite number in {bracket}{low}, {high}]: "
                f"the default is {defaults[name]:g}"
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


def must_be(kind: type, value: Any, name: str, use: str) -> None:
    """InputError where an argument is of another kind, by name: a module that was loaded again, as
    notebooks do, has classes of its own."""
    if kind.__name__ not in {base.__name__ for base in type(value).__mro__}:
        raise InputError(f"{name} ({value!r}) must be of type {kind.__name__}: use {use}")


def check_key(key: Any) -> None:
    """InputError where `train` is given no PRNG key, or more than one."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    if dtype == jnp.uint32:
        shape = shape[:-1]  # of legacy ones
    elif not is_key(key):
        raise InputError(f"key ({key!r}) must be a PRNG key: use jax.random.key(0)")
    if shape:
        raise InputError(
            f"key must be one PRNG key, but is of shape {list(shape)}: map over these, "
            "jax.vmap(train)(keys)"
        )


def check_one(given: Any, like: Any, name: str, use: str) -> None:
    """InputError where `train` is given an array for what is a number of one run."""
    leaves = zip(jax.tree.leaves(given), jax.tree.leaves(like), strict=False)
    if any(jnp.ndim(x) and not jnp.ndim(y) for x, y in leaves):
        raise InputError(
            f"{name} must be the numbers of one run, but holds arrays: map over these, {use}"
        )
