"""Merge the tuned settings of presets.toml with the settings that the user gives."""

import dataclasses
import logging
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sacjax.config import Config, Hyperparams
from sacjax.envs.names import parse
from sacjax.field_names import right_name
from sacjax.types import InputError
from sacjax.validation import check_choice, checked_fields, fitted

ALGORITHMS = ("sac",)
# PRESETS[suite][name] has the fields of one preset.
PRESETS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
_LOG = logging.getLogger("sacjax")


def preset(env: Any, algorithm: str = "sac", **fields: Any) -> tuple[Config, Hyperparams]:
    """Return tuned settings for `env`, or the paper's defaults if `env` has no preset.

    `sacjax/presets.toml` contains the presets and their sources. The README and docs/results.md
    list the returns that the presets reach.

    Args:
      env: the name of an environment, or an environment object.
      algorithm: the name of the algorithm.
      **fields: fields of `Config` or `Hyperparams` that replace fields of the preset.

    Returns:
      A Config and a Hyperparams. If warmup_steps, eval_every or total_steps of the preset do not
      fit the given `fields`, sacjax rounds these three settings and logs a warning.

    Raises:
      InputError: a field is unknown, or the fields do not fit together.

    Example:
      >>> from sacjax import preset
      >>> config, hp = preset("Pendulum-v1", total_steps=30_000)
      >>> config.total_steps, config.hidden
      (30000, (64, 64))
    """
    check_choice(algorithm, ALGORITHMS, "algorithm")
    return settle(env, preset_of(env), fields)


def settle(env: Any, defaults: dict[str, Any], given: dict[str, Any]) -> tuple[Config, Hyperparams]:
    """Build a Config and a Hyperparams from `defaults` and `given`, where `given` has priority.

    Numbers of steps that the user did not give are rounded, so that all settings fit together.
    """
    static, traced = ({f.name for f in dataclasses.fields(x)} for x in (Config, Hyperparams))
    known = (static | traced) - {"env"}
    for name in given.keys() - known:
        raise InputError(f"no setting {name!r}: {right_name(name, known)}", name)
    values: dict[str, Any] = defaults | given
    hp = Hyperparams(**{name: values[name] for name in values.keys() & traced})
    values = {name: values[name] for name in values.keys() & static}
    unfitted = _Unfitted(env, **values)
    steps: dict[str, Any] = fitted(unfitted, given)
    config = Config(env, **values | steps)  # raises if the given fields do not fit together
    for name, value in steps.items():
        if value != (was := getattr(unfitted, name)):
            _LOG.warning("%s changed from %d to %d to fit the given settings", name, was, value)
    return config, hp


class _Unfitted(Config):
    """A Config whose fields are valid by themselves, but may not fit together."""

    def __post_init__(self) -> None:
        vars(self).update(checked_fields(self))


def preset_of(env: Any) -> dict[str, Any]:
    """Return the fields that the preset of `env` sets, or {} if `env` has no preset."""
    if not isinstance(env, str):
        return {}
    suite, id, _ = parse(env)
    tables = PRESETS["gymnasium" if suite == "envpool" else suite]
    fitting = (table for pattern, table in tables.items() if fnmatchcase(id, pattern))
    return _with_base(next(fitting, {}))


def _with_base(table: dict[str, Any]) -> dict[str, Any]:
    """Add the fields that a preset inherits from its `base`, directly or indirectly."""
    base = _with_base(PRESETS["bases"][table["base"]]) if "base" in table else {}
    return base | {name: value for name, value in table.items() if name != "base"}
