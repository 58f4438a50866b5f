"""Settings for environments, from presets.toml, put together with what a user gives."""

import dataclasses
import logging
import tomllib
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sacjax.config import Config, Hyperparams
from sacjax.envs.names import parse
from sacjax.field_names import right_name
from sacjax.types import InputError
from sacjax.validation import checked_fields, multiple

ALGORITHMS = ("sac",)
PRESETS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())  # suite -> name -> fields
_LOG = logging.getLogger("sacjax")


def preset(env: Any, algorithm: str = "sac", **fields: Any) -> tuple[Config, Hyperparams]:
    """Settings for `env`, or the paper's defaults for an environment without any.

    `sacjax/presets.toml` says where they come from, README and docs/results.md what they reached.

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
    tables = PRESETS["gymnasium" if suite == "envpool" else suite]
    fitting = (table for pattern, table in tables.items() if fnmatchcase(id, pattern))
    return _with_base(next(fitting, {}))


def _with_base(table: dict[str, Any]) -> dict[str, Any]:
    base = _with_base(PRESETS["bases"][table["base"]]) if "base" in table else {}
    return base | {name: value for name, value in table.items() if name != "base"}
