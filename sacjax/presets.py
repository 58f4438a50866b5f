"""Settings, with where they come from; docs/results.md says what was reached with which."""

import dataclasses
import logging
from collections.abc import Collection
from typing import Any

from sacjax.config import Config, Hyperparams
from sacjax.envs.names import parse
from sacjax.field_names import right_name
from sacjax.types import InputError
from sacjax.validation import checked_fields, multiple

ALGORITHMS = ("sac",)
_LOG = logging.getLogger("sacjax")


def preset(env: Any, algorithm: str = "sac", **fields: Any) -> tuple[Config, Hyperparams]:
    """Settings for `env`, or the paper's defaults for an environment without any.

    `sacjax/presets.py` says where they come from, README and docs/results.md what they reached.

    Args:
      env: the name of an environment, or an environment object.
      algorithm: the name of the algorithm.
      **fields: fields of `Config` or `Hyperparams` that replace the preset's.

    Returns:
      The two records. If `fields` do not fit the preset's warm-up, eval_every or total_steps, these
      are rounded, and a warning says so.

    Raises:
      InputError: a field is unknown, or the fields do not fit together.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"algorithm ({algorithm!r}) must be one of {', '.join(ALGORITHMS)}")
    return settle(env, preset_of(env), fields)


def settle(env: Any, defaults: dict[str, Any], given: dict[str, Any]) -> tuple[Config, Hyperparams]:
    """The records of `given` fields over `defaults`, of which the steps are rounded to fit."""
    static = {field.name for field in dataclasses.fields(Config)} - {"env"}
    traced = {field.name for field in dataclasses.fields(Hyperparams)}
    for name in given.keys() - static - traced:
        raise InputError(f"no setting {name!r}: {right_name(name, static | traced)}")
    values: dict[str, Any] = defaults | given
    hp = Hyperparams(**{k: v for k, v in values.items() if k in traced})
    values = {k: v for k, v in values.items() if k in static}
    if not given:
        return Config(env, **values), hp
    sizes = object.__new__(Config)  # as far as each field is right by itself
    plain = {f.name: f.default for f in dataclasses.fields(Config)} | values
    vars(sizes).update(checked_fields(plain | {"env": env}))
    rounded: dict[str, Any] = {
        k: v for k, v in _fitted(sizes, given).items() if v != getattr(sizes, k)
    }
    config = Config(env, **values | rounded)  # raises if what was given does not fit
    for name, value in rounded.items():
        _LOG.warning("%s: %d, not %d, fits what was given", name, value, getattr(sizes, name))
    return config, hp


def _fitted(sizes: Any, given: Collection[str]) -> dict[str, int]:
    """Steps that fit together, near to those of `sizes` (a Config's fields and properties).

    Only fields that are not `given` change.
    """
    envs, iteration = sizes.num_envs, sizes.steps_per_iteration
    total, warmup, every = sizes.total_steps, sizes.warmup_steps, sizes.eval_every
    if "warmup_steps" not in given:
        if warmup >= total and "total_steps" in given:
            warmup = total // 10
        warmup = warmup and multiple(warmup, envs)
        if "total_steps" in given:  # whole iterations are left, if any warm-up gives these
            more = (warmup + i * envs for i in range(sizes.rollout))
            warmup = next((x for x in more if (total - x) % iteration == 0), warmup)
    left = total - warmup
    if "eval_every" not in given:
        every = multiple(every, iteration)
        if "total_steps" in given and left > 0 and left % iteration == 0 and left % every:
            iterations = left // iteration
            most = min(every // iteration, iterations)
            every = iteration * max(n for n in range(1, most + 1) if iterations % n == 0)
    if "total_steps" not in given:
        total = warmup + multiple(left, every)
    return {"total_steps": total, "warmup_steps": warmup, "eval_every": every}


def preset_of(env: Any) -> dict[str, Any]:
    """Fields of `Config` and `Hyperparams`; none where the paper's defaults are as good a guess."""
    if not isinstance(env, str):
        return {}
    suite, id, _ = parse(env)
    if suite in ("gymnasium", "envpool"):
        return GYMNASIUM.get(id, {})
    if suite == "brax":
        return BRAX.get(id, _BRAX_OTHERS)
    if suite == "playground":
        return _PLAYGROUND | (_LONGER if id.startswith(PLAYGROUND_LONGER) else {})
    return PRESETS.get(id, {})


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

# MuJoCo's tasks: the paper's table 1 throughout, the defaults of `Config`. 10,000 random steps
# first, as in Spinning Up's SAC (start_steps) and the SAC authors' code for these tasks; 1e6 steps
# are the x axis of most published curves. v5 is Gymnasium's present version of the tasks, v4 is
# that of most published figures. Ant-v4 learns faster by other settings: docs/results.md.
_MUJOCO: dict[str, Any] = {"warmup_steps": 10_000, "eval_every": 10_000, "eval_episodes": 10}
_EASY = {"total_steps": 100_000, "warmup_steps": 1_000, "eval_every": 3_000, "eval_episodes": 10}
_BY_TASK: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("HalfCheetah", "Hopper", "Walker2d", "Ant", "Swimmer"), _MUJOCO),
    "Humanoid": _MUJOCO | {"total_steps": 3_000_000},
    "HumanoidStandup": _MUJOCO,
    **dict.fromkeys(("InvertedPendulum", "InvertedDoublePendulum", "Reacher", "Pusher"), _EASY),
}
GYMNASIUM: dict[str, dict[str, Any]] = {
    f"{task}-{version}": values for task, values in _BY_TASK.items() for version in ("v4", "v5")
}

# What Brax's own SAC adds to table 1, for the two suites that were made with it.
_BRAX_SAC: dict[str, Any] = {
    "num_envs": 128,
    "normalize_obs": True,
    "warmup_steps": 8_192,
    "target_entropy_per_dim": -0.5,
}
# The settings of Brax's notebooks/training.ipynb (github.com/google/brax) for its SAC, which has
# hopper and walker2d only; the others have walker2d's with rewards as they are: nobody's tuning.
# What they gave: docs/results.md.
_BRAX: dict[str, Any] = _BRAX_SAC | {
    "total_steps": 6_561_792,  # 8,192 and 20 epochs
    "eval_every": 327_680,
    "replay_size": 1_048_576,
    "actor_lr": 6e-4,
    "critic_lr": 6e-4,
    "gamma": 0.997,
}
_BRAX_OTHERS = _BRAX | {"batch_size": 128, "utd": 32 / 128}
BRAX: dict[str, dict[str, Any]] = {
    "hopper": _BRAX | {"batch_size": 512, "utd": 64 / 128, "reward_scale": 30.0},
    "walker2d": _BRAX_OTHERS
    | {"total_steps": 7_872_512, "eval_every": 393_216, "reward_scale": 5.0},
}

# mujoco_playground.config.dm_control_suite_params.brax_sac_config; 5e6 steps, 1e7 for the longer.
_PLAYGROUND: dict[str, Any] = _BRAX_SAC | {
    "total_steps": 5_128_192,  # 8,192 and 10 epochs
    "eval_every": 512_000,
    "replay_size": 4_194_304,
    "batch_size": 512,
    "utd": 8 / 128,
    "layer_norm": True,
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
}
_LONGER = {"total_steps": 10_248_192}
PLAYGROUND_LONGER = (
    "Acrobot",
    "Swimmer",
    "Finger",
    "Hopper",
    "CheetahRun",
    "HumanoidWalk",
    "WalkerRun",
)
