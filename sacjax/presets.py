"""Settings for environments, from presets.toml, put together with what a user gives."""

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
from sacjax.validation import checked_fields, fitted

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
    static, traced = ({f.name for f in dataclasses.fields(x)} for x in (Config, Hyperparams))
    known = (static | traced) - {"env"}
    for name in given.keys() - known:
        raise InputError(f"no setting {name!r}: {right_name(name, known)}")
    values: dict[str, Any] = defaults | given
    hp = Hyperparams(**{name: values[name] for name in values.keys() & traced})
    values = {name: values[name] for name in values.keys() & static}
    unfitted = _Unfitted(env, **values)
    steps: dict[str, Any] = fitted(unfitted, given)
    config = Config(env, **values | steps)  # raises if what was given does not fit
    for name, value in steps.items():
        if value != (was := getattr(unfitted, name)):
            _LOG.warning("%s: %d, not %d, fits what was given", name, value, was)
    return config, hp


class _Unfitted(Config):
    """A Config whose fields are right one by one, and need not fit together."""

    def __post_init__(self) -> None:
        vars(self).update(checked_fields(self))


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
