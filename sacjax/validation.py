"""The checks of `sacjax.config`: of each field by itself, and of how they fit together.

Every error names its remedy.
"""

import math
from collections.abc import Collection
from dataclasses import Field, fields
from fractions import Fraction
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from sacjax.types import InputError, is_key, is_whole

Precision = Literal["float32", "bfloat16"]
Schedule = Literal["constant", "linear"]
_MOST = 2**31 - 1  # counters and the replay's index are int32
_INTERVALS = {  # of other numbers: (-inf, inf)
    "utd": "(0, 10000]",
    "max_grad_norm": "(0, inf)",
    "gamma": "[0, 1]",
    "tau": "(0, 1]",
    "actor_lr": "[0, inf)",
    "critic_lr": "[0, inf)",
    "alpha_lr": "[0, inf)",
    "init_alpha": "[0, inf)",
    "min_alpha": "[0, inf)",
    "max_alpha": "(0, inf]",
}


def ratio(x: float) -> Fraction:
    """A float that stands for a ratio of small whole numbers: 0.1 is 1/10."""
    return Fraction(x).limit_denominator(10_000)


def multiple(value: int, of: int) -> int:
    """The least positive multiple of `of` that is not below `value`."""
    return max(1, math.ceil(value / of)) * of


def checked_fields(record: Any, *, arrays: bool = False) -> dict[str, Any]:
    """Each field by itself: of its type and in its range, NumPy's numbers as Python's.

    `arrays`: a number may be an array of numbers too.
    """
    return {f.name: _checked(f, getattr(record, f.name), arrays) for f in fields(record)}


def _checked(field: Field, value: Any, arrays: bool) -> Any:
    name, kind, use = field.name, field.type, field.default
    if (value is None and use is None) or kind is Any:
        return value
    if kind in (int, int | None):
        least = 0 if name == "warmup_steps" else 1
        if is_whole(value) and least <= value <= _MOST:
            return int(value)
        must = f"a whole number from {least} to {_MOST}"
        if isinstance(value, float) and value.is_integer() and least <= value <= _MOST:
            use = int(value)
    elif kind in (float, float | None):
        interval = _INTERVALS.get(name, "(-inf, inf)")
        is_array = arrays and isinstance(value, np.ndarray | jax.Array)
        if (is_array or _is_real(value)) and _inside(value, interval):
            return value if is_array else float(str(value))  # float32's 0.1 is 0.1
        must = f"a number in {interval}"
    elif kind is bool or get_origin(kind) is Literal:
        choices: tuple[Any, ...] = get_args(kind) or (True, False)
        if any(type(value) is type(x) and value == x for x in choices):
            return value
        must, use = " or ".join(map(repr, choices)), repr(use)
    else:  # hidden
        layers = value if isinstance(value, tuple | list) else ()
        if layers and all(is_whole(units) and units > 0 for units in layers):
            return tuple(int(units) for units in layers)
        must = "whole numbers from 1, one for each layer"
    raise InputError(f"{name} ({value!r}) must be {must}: use {use}")


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_concrete(value: Any) -> bool:
    return not isinstance(value, Tracer) and getattr(value, "is_fully_addressable", True)


def _inside(value: Any, interval: str) -> bool:
    """Whether all numbers are in an interval such as "(0, 1]", as far as they are known."""
    if not _is_concrete(value):
        return True
    value = np.asarray(value)
    low, high = map(float, interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    return bool(np.all(above & below))


def fitted(config: Any, given: Collection[str] = ()) -> dict[str, int]:
    """Steps that fit together, near to those of `config`. What is `given` stays."""
    total, warmup, every = config.total_steps, config.warmup_steps, config.eval_every
    envs, iteration = config.num_envs, config.steps_per_iteration
    if "warmup_steps" not in given:
        if "total_steps" in given and warmup >= total:
            warmup = total // 10
        warmup = warmup and multiple(warmup, envs)
        if "total_steps" in given and total % envs == 0:
            warmup += (total - warmup) % iteration  # whole iterations are left
    if "eval_every" not in given:
        every = multiple(every, iteration)
        if "total_steps" in given:  # the longest epoch that divides what is left
            shorter = range(every, 0, -iteration)
            every = next((x for x in shorter if (total - warmup) % x == 0), every)
    if "total_steps" not in given:
        total = warmup + multiple(total - warmup, every)
    return {"warmup_steps": warmup, "eval_every": every, "total_steps": total}


def check_sizes(c: Any) -> None:
    """How the fields of a `Config` fit together, in the order in which one has to be put right."""
    envs, iteration = c.num_envs, c.steps_per_iteration
    exact = max(ratio(c.utd), Fraction(1, 10_000))
    near = exact.limit_denominator(16)
    if c.rollout_length is None and c.rollout > 100 and near and abs(near - exact) < 1e-3:
        exact = near  # 0.333 would make 333 gradient steps after every 1,000 steps
    if abs(exact - c.utd) > 1e-9:
        raise InputError(
            f"utd ({c.utd}) must be a ratio of small whole numbers, or have a rollout_length: use "
            f"{float(exact)!r}"
        )
    if exact * iteration % 1:
        raise InputError(
            f"utd ({c.utd:g}) x num_envs ({envs}) x rollout_length ({c.rollout_length}) must be a "
            f"whole number of gradient steps: use rollout_length={ratio(c.utd * envs).denominator}"
        )
    warmup = max(c.warmup_steps, c.n_step * envs - iteration)
    least = multiple(max(c.batch_size, c.n_step * envs), envs)
    if c.capacity < least or c.warmup_steps < warmup:
        total = max(c.total_steps, least, warmup + multiple(c.eval_every, iteration))
        raise InputError(
            f"replay must hold a batch (batch_size={c.batch_size}) and, when learning starts, "
            f"n_step ({c.n_step}) steps of all num_envs ({envs}): use "
            f"replay_size={max(c.replay_size, least)}, warmup_steps={warmup}, total_steps={total}"
        )
    left = c.total_steps - c.warmup_steps
    for name, value, must, divisor in (
        ("total_steps - warmup_steps", left, "a positive multiple of eval_every", c.eval_every),
        ("warmup_steps", c.warmup_steps, "a multiple of num_envs", envs),
        ("eval_every", c.eval_every, "a multiple of the steps of an iteration", iteration),
    ):
        if value % divisor or left <= 0:
            remedy = ", ".join(f"{field}={steps}" for field, steps in fitted(c).items())
            raise InputError(f"{name} ({value}) must be {must} ({divisor}): use {remedy}")
    _check_others(c)


def _check_others(c: Any) -> None:
    """What would train on without an error, to wrong numbers."""
    if c.log_std_min >= c.log_std_max:
        raise InputError(
            f"log_std_min ({c.log_std_min}) must be below log_std_max ({c.log_std_max}): use -20 "
            "and 2, the defaults"
        )
    if c.policy_delay > c.updates_per_epoch >= 1:
        raise InputError(
            f"policy_delay ({c.policy_delay}) must not be above an epoch's gradient steps: use "
            f"policy_delay={c.updates_per_epoch} or a larger eval_every"
        )
    if c.gradient_steps > _MOST:
        raise InputError(
            f"utd ({c.utd:g}) makes {c.gradient_steps} gradient steps, which must be {_MOST} or "
            "fewer, what their counter can count: use fewer total_steps"
        )


def broadcast(values: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of one shape, if there are arrays among them."""
    try:
        shape = np.broadcast_shapes(*map(np.shape, values.values()))
    except ValueError as error:
        shapes = ", ".join(f"{k} {np.shape(v)}" for k, v in values.items() if np.ndim(v))
        raise InputError(
            f"grids of different shapes ({shapes}): use arrays that broadcast against each other, "
            "as gamma[:, None] and tau[None, :] do"
        ) from error
    if not shape:
        return values
    xp = jnp if any(isinstance(v, jax.Array) for v in values.values()) else np
    return {k: xp.broadcast_to(xp.asarray(v, float), shape) for k, v in values.items()}


def check_alphas(hp: Any) -> None:
    """How the temperature's hyperparameters fit together, where all of them are known."""
    values = hp.min_alpha, hp.init_alpha, hp.max_alpha, hp.alpha_lr
    if not all(map(_is_concrete, values)):
        return
    low, start, high, lr = map(np.asarray, values)
    if not np.all((low <= start) & (start <= high) & ((lr == 0) | (start > 0))):
        raise InputError(
            f"init_alpha ({start}) must lie between min_alpha ({low}) and max_alpha ({high}), and "
            "above 0 where it is learned: use init_alpha within the bounds, or alpha_lr=0 for a "
            "fixed temperature of 0"
        )


def check_target_entropy(config: Any, hp: Any) -> None:
    """Raise InputError where no policy of the built-in networks reaches a learned target.

    The temperature would grow without bound. Traced hyperparameters are not checked.
    """
    if not all(map(_is_concrete, (hp.target_entropy_per_dim, hp.alpha_lr))):
        return
    most = largest_entropy(config.log_std_min, config.log_std_max)
    target, lr = np.broadcast_arrays(hp.target_entropy_per_dim, hp.alpha_lr)
    if np.any((target >= most) & (lr > 0)):
        raise InputError(
            f"target_entropy_per_dim ({target.max():g}) must be below {most:.3f} nats, the largest "
            f"entropy of the policy with log_std_min={config.log_std_min:g} and "
            f"log_std_max={config.log_std_max:g}: use -1, or alpha_lr=0 for a fixed temperature",
            "target_entropy_per_dim",
        )


def largest_entropy(log_std_min: float, log_std_max: float) -> float:
    """Return the largest entropy in nats of tanh(u), u ~ N(0, std^2), within these bounds.

    The sum is the trapezoid rule for H[u] + E[log(1 - tanh(u)^2)]. It has one maximum, which lies
    between log_std -1 and 0: at 0.684 nats. A mean other than 0 has less.
    """
    z = np.linspace(-10, 10, 4001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    log_std = np.clip(np.linspace(-1, 0, 101), log_std_min, log_std_max)[:, None]
    u = np.abs(np.exp(log_std) * z)
    jacobian = 2 * (np.log(2) - u - np.log1p(np.exp(-2 * u)))  # log(1 - tanh(u)^2)
    entropy = np.log(2 * np.pi * np.e) / 2 + log_std[:, 0] + (density * jacobian).sum(1)
    return float(entropy.max())


def must_be(kind: type, value: Any, name: str, use: str) -> None:
    """InputError where an argument is of another kind, by name: a module that was loaded again, as
    notebooks do, has classes of its own."""
    if kind.__name__ not in {base.__name__ for base in type(value).__mro__}:
        raise InputError(f"{name} ({value!r}) must be of type {kind.__name__}: use {use}")


def check_settings_of_jax() -> None:
    """Raise InputError where JAX ends a program on a NaN or inf: those of sacjax have some."""
    settings: Any = jax.config
    for name in ("jax_debug_nans", "jax_debug_infs"):
        if getattr(settings, name):
            raise InputError(
                f"{name} ({name.upper()}) cannot be used: returns are NaN in an epoch in which no "
                "episode ends, and log(min_alpha) is -inf. Unset it: sacjax reports a member whose "
                "losses or parameters are not finite",
                name,
            )


def check_key(key: Any) -> None:
    """InputError where `train` is given no PRNG key, or more than one."""
    is_legacy = getattr(key, "dtype", None) == jnp.uint32
    if not (is_key(key) or is_legacy):
        raise InputError(f"key ({key!r}) must be a PRNG key: use jax.random.key(0)")
    if shape := key.shape[:-1] if is_legacy else key.shape:
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
