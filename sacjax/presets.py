"""Settings known to work, with where they come from."""

import dataclasses
import difflib
from typing import Any

from sacjax.config import Config, Hyperparams
from sacjax.types import InputError


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
