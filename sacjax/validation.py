"""Check each field of `Config` and `Hyperparams`, and check that the fields are consistent.

Every error message says how to correct the error.
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

from sacjax.info import check_entries
from sacjax.types import InputError, is_key, is_whole

Precision = Literal["float32", "bfloat16"]
Schedule = Literal["constant", "linear"]
_MOST = 2**31 - 1  # counters and indices of the replay buffer are int32
_INTERVALS = {  # allowed values of each field; all other fields allow (-inf, inf)
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
    """Return the ratio of small whole numbers that is nearest to `x`, such as 1/10 for 0.1."""
    return Fraction(x).limit_denominator(10_000)


def multiple(value: int, of: int) -> int:
    """Return the smallest positive multiple of `of` that is at least `value`."""
    return max(1, math.ceil(value / of)) * of


def checked_fields(record: Any, *, arrays: bool = False) -> dict[str, Any]:
    """Check the type and range of each field, and convert NumPy's numbers to Python's.

    If `arrays` is True, a field may also be an array of numbers.
    """
    return {f.name: _checked(f, getattr(record, f.name), arrays) for f in fields(record)}


def _checked(field: Field, value: Any, arrays: bool) -> Any:
    """Return the converted value of one field, or raise InputError."""
    name, kind, use = field.name, field.type, field.default
    if (value is None and use is None) or kind is Any:
        return value
    if name == "log_info":
        return check_entries(value)
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
            return value if is_array else float(str(value))  # np.float32(0.1) becomes 0.1
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
    raise InputError(f"{name} ({value!r}) must be {must}: use {use}", name)


def _is_real(value: Any) -> bool:
    """Return whether `value` is a Python or NumPy number, but not a bool."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _is_concrete(value: Any) -> bool:
    """Return whether this process can read the numbers in `value`."""
    return not isinstance(value, Tracer) and getattr(value, "is_fully_addressable", True)


def _inside(value: Any, interval: str) -> bool:
    """Return True if all numbers are in an interval such as "(0, 1]", or if `value` is a tracer."""
    if not _is_concrete(value):
        return True
    value = np.asarray(value)
    low, high = map(float, interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    return bool(np.all(above & below))


def fitted(config: Any, given: Collection[str] = ()) -> dict[str, int]:
    """Round warmup_steps, eval_every and total_steps to consistent values.

    A field in `given` keeps its value.
    """
    total, warmup, every = config.total_steps, config.warmup_steps, config.eval_every
    envs, iteration = config.num_envs, config.steps_per_iteration
    if "warmup_steps" not in given:
        if "total_steps" in given and warmup > total // 2:
            warmup = total // 10
        warmup = warmup and multiple(warmup, envs)
    left = total - warmup
    if "eval_every" not in given:
        if "total_steps" in given and every > left // 2:
            every = max(1, left // 10)
        every = multiple(every, iteration)
        if {"total_steps", "warmup_steps"} <= {*given}:  # the longest epoch that divides `left`
            every = next((x for x in range(every, 0, -iteration) if left % x == 0), every)
    if "total_steps" in given and "warmup_steps" not in given and total % envs == 0:
        warmup = max(0, total - max(1, left // every) * every)
    if "total_steps" not in given:
        total = warmup + multiple(total - warmup, every)
    return {"warmup_steps": warmup, "eval_every": every, "total_steps": total}


def check_sizes(c: Any) -> None:
    """Check that the fields of a `Config` are consistent.

    The order of the checks is the order in which a user should correct the fields.
    """
    envs, iteration = c.num_envs, c.steps_per_iteration
    exact = max(ratio(c.utd), Fraction(1, 10_000))
    near = exact.limit_denominator(16)
    if c.rollout_length is None and c.rollout > 100 and near and abs(near - exact) < 1e-3:
        exact = near  # otherwise utd=0.333 would mean 333 gradient steps per 1,000 steps
    if abs(exact - c.utd) > 1e-9:
        raise InputError(
            f"utd ({c.utd}) must be a ratio of small whole numbers, unless you set rollout_length: "
            f"use {float(exact)!r}",
            "utd",
        )
    if exact * iteration % 1:
        raise InputError(
            f"utd ({c.utd:g}) x num_envs ({envs}) x rollout_length ({c.rollout_length}) must be a "
            f"whole number of gradient steps: use rollout_length={ratio(c.utd * envs).denominator}",
            "rollout_length",
        )
    warmup = max(c.warmup_steps, c.n_step * envs - iteration)
    least = multiple(max(c.batch_size, c.n_step * envs), envs)
    if c.capacity < least or c.warmup_steps < warmup:
        total = max(c.total_steps, least, warmup + multiple(c.eval_every, iteration))
        fit = {"replay_size": max(c.replay_size, least), "total_steps": total}
        fit["warmup_steps"] = warmup
        raise InputError(
            f"the replay buffer must have room for batch_size ({c.batch_size}) transitions, and "
            f"must contain n_step ({c.n_step}) steps of each environment (num_envs={envs}) when "
            f"learning starts: use {_assignments(fit)}",
            next(name for name, value in fit.items() if value != getattr(c, name)),
        )
    left = c.total_steps - c.warmup_steps
    for name, value, must, divisor in (
        ("total_steps - warmup_steps", left, "a positive multiple of eval_every", c.eval_every),
        ("warmup_steps", c.warmup_steps, "a multiple of num_envs", envs),
        ("eval_every", c.eval_every, "a multiple of the steps per iteration", iteration),
    ):
        if value % divisor or left <= 0:
            remedy = _assignments(fitted(c))
            message = f"{name} ({value}) must be {must} ({divisor}): use {remedy}"
            raise InputError(message, name.split(" ")[0])
    _check_others(c)


def _assignments(fields: dict[str, int]) -> str:
    """Return the fields as arguments of a call, such as "warmup_steps=1000, eval_every=700"."""
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def _check_others(c: Any) -> None:
    """Check the fields that could otherwise cause wrong results without an error."""
    if c.log_std_min >= c.log_std_max:
        raise InputError(
            f"log_std_min ({c.log_std_min}) must be below log_std_max ({c.log_std_max}): use the "
            "defaults, -20 and 2",
            "log_std_min",
        )
    if c.policy_delay > c.updates_per_epoch >= 1:
        raise InputError(
            f"policy_delay ({c.policy_delay}) must not exceed the gradient steps per epoch: use "
            f"policy_delay={c.updates_per_epoch} or a larger eval_every",
            "policy_delay",
        )
    if c.gradient_steps > _MOST:
        raise InputError(
            f"total_steps ({c.total_steps}) with utd={c.utd:g} gives {c.gradient_steps} gradient "
            f"steps, but at most {_MOST} can be counted: use fewer total_steps",
            "total_steps",
        )


def broadcast(values: dict[str, Any]) -> dict[str, Any]:
    """Broadcast hyperparameters to one shape if any of them is an array."""
    try:
        shape = np.broadcast_shapes(*map(np.shape, values.values()))
    except ValueError as error:
        shapes = ", ".join(f"{k} {np.shape(v)}" for k, v in values.items() if np.ndim(v))
        raise InputError(
            f"arrays of hyperparameters must broadcast against each other ({shapes}): use "
            "gamma[:, None] and tau[None, :], for example"
        ) from error
    if not shape:
        return values
    xp = jnp if any(isinstance(v, jax.Array) for v in values.values()) else np
    return {k: xp.broadcast_to(xp.asarray(v, float), shape) for k, v in values.items()}


def check_alphas(hp: Any) -> None:
    """Check that the temperature, its bounds and its learning rate are consistent."""
    values = hp.min_alpha, hp.init_alpha, hp.max_alpha, hp.alpha_lr
    if not all(map(_is_concrete, values)):
        return
    low, start, high, lr = map(np.asarray, values)
    if not np.all((low <= start) & (start <= high) & ((lr == 0) | (start > 0))):
        raise InputError(
            f"init_alpha ({start}) must be between min_alpha ({low}) and max_alpha ({high}), and "
            "above 0 unless alpha_lr is 0: use init_alpha within the bounds, or alpha_lr=0 for a "
            "fixed temperature of 0",
            "init_alpha",
        )


def check_choice(value: Any, choices: Collection[str], name: str) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{name} ({value!r}) must be one of {', '.join(choices)}", name)


def check_target_entropy(config: Any, hp: Any) -> None:
    """Raise InputError if the policy of the built-in networks cannot reach the target entropy.

    If the entropy stays below the target, a learned temperature grows without bound. The function
    does not check tracers.
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
    """Return the largest entropy of tanh(u) in nats, for u ~ N(0, std^2) and log std in the bounds.

    The trapezoid rule computes the entropy H[u] + E[log(1 - tanh(u)^2)]. The maximum of the entropy
    is 0.684 nats, at a log_std between -1 and 0. The entropy is largest if the mean of u is 0.
    """
    z = np.linspace(-10, 10, 4001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    log_std = np.clip(np.linspace(-1, 0, 101), log_std_min, log_std_max)[:, None]
    u = np.abs(np.exp(log_std) * z)
    jacobian = 2 * (np.log(2) - u - np.log1p(np.exp(-2 * u)))  # log(1 - tanh(u)^2)
    entropy = np.log(2 * np.pi * np.e) / 2 + log_std[:, 0] + (density * jacobian).sum(1)
    return float(entropy.max())


def check_jax() -> None:
    """Raise InputError if JAX is set to stop at NaN or inf. sacjax uses NaN and inf as values."""
    settings: Any = jax.config
    for name in ("jax_debug_nans", "jax_debug_infs"):
        if getattr(settings, name):
            raise InputError(
                f"{name} ({name.upper()}) must be off, because sacjax writes NaN if no episode "
                "ended in an epoch, and log(min_alpha) can be -inf: unset it. sacjax itself "
                "reports a member whose losses or parameters are not finite",
                name,
            )


def must_be(kind: type, value: Any, name: str, use: str) -> None:
    """Raise InputError unless `value` has the type `kind`.

    Types are compared by name, because a notebook that reloads a module creates new classes.
    """
    if kind.__name__ not in {base.__name__ for base in type(value).__mro__}:
        raise InputError(f"{name} ({value!r}) must be of type {kind.__name__}: use {use}", name)


def check_arguments(
    key: Any, hp: Any, env_params: Any, default_hp: Any, default_params: Any
) -> None:
    """Raise InputError unless the arguments have the right types and belong to one run."""
    _check_key(key)
    must_be(type(default_hp), hp, "hp", "Hyperparams(tau=0.005)")
    must_be(type(default_params), env_params, "env_params", "None for the defaults")
    _check_one(hp, default_hp, "hp", "jax.vmap(train, (None, 0))(key, hp)")
    mapped = "jax.vmap(train, (None, None, 0))(key, hp, env_params)"
    _check_one(env_params, default_params, "env_params", mapped)


def _check_key(key: Any) -> None:
    """Raise InputError unless `key` is one PRNG key."""
    is_legacy = getattr(key, "dtype", None) == jnp.uint32
    if not (is_key(key) or is_legacy):
        raise InputError(f"key ({key!r}) must be a PRNG key: use jax.random.key(0)", "key")
    if shape := key.shape[:-1] if is_legacy else key.shape:
        raise InputError(
            f"key must be one PRNG key, but has the shape {list(shape)}: for several keys use "
            "jax.vmap(train)(keys)",
            "key",
        )


def _check_one(given: Any, like: Any, name: str, use: str) -> None:
    """Raise InputError if `given` has an array where `like` has a number."""
    leaves = zip(jax.tree.leaves(given), jax.tree.leaves(like), strict=False)
    if any(jnp.ndim(x) and not jnp.ndim(y) for x, y in leaves):
        message = f"{name} must have the numbers of one run, not arrays: for a grid use {use}"
        raise InputError(message, name)
