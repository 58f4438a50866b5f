"""Merge the tuned settings of presets.toml with the settings that the user gives."""

import dataclasses
import logging
import tomllib
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sacjax.config import Config, Hyperparams
from sacjax.envs.names import parse
from sacjax.field_names import right_name
from sacjax.types import InputError
from sacjax.validation import check_choice, checked_fields, fitted, multiple

ALGORITHMS = ("sac",)
# PRESETS[suite][name] contains the fields of one preset.
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
      A Config and a Hyperparams. The sizes of the preset, such as warmup_steps, eval_every or
      num_envs, may be inconsistent with `fields`. sacjax then rounds the sizes and logs a warning.

    Raises:
      InputError: a field is unknown, or the fields are inconsistent.

    Example:
      >>> from sacjax import preset
      >>> config, hp = preset("Pendulum-v1", total_steps=30_000)
      >>> config.total_steps, config.hidden
      (30000, (64, 64))
    """
    check_choice(algorithm, ALGORITHMS, "algorithm")
    return settle(env, preset_of(env), fields)


def settle(env: Any, defaults: dict[str, Any], given: dict[str, Any]) -> tuple[Config, Hyperparams]:
    """Build a Config and a Hyperparams from `defaults` and `given`; `given` has priority.

    Sizes that are not in `given` are rounded, so that all settings are consistent.
    """
    static, traced = ({f.name for f in dataclasses.fields(x)} for x in (Config, Hyperparams))
    known = (static | traced) - {"env"}
    for name in given.keys() - known:
        raise InputError(f"no setting {name!r}: {right_name(name, known)}", name)
    values: dict[str, Any] = defaults | given
    hp = Hyperparams(**{name: values[name] for name in values.keys() & traced})
    values = {name: values[name] for name in values.keys() & static}
    wanted, errors = _Unfitted(env, **values), []
    for sizes in _near(wanted, given):
        sizes = values | {name: value for name, value in sizes.items() if name not in given}
        sizes |= fitted(_Unfitted(env, **sizes), given)
        try:
            config = Config(env, **sizes)
        except InputError as error:
            errors.append(error)
            continue
        new = vars(config)
        changes = [
            f"{x} from {was} to {new[x]}" for x, was in vars(wanted).items() if new[x] != was
        ]
        if changes:
            _LOG.warning("changed to fit the given settings: %s", ", ".join(changes))
        return config, hp
    raise errors[0]  # the error about the unchanged sizes


def _near(wanted: Config, given: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield sizes that may be consistent. The first sizes are nearest to `wanted`.

    The last results are for a single environment. If necessary, the batch is smaller and the replay
    buffer is larger than in `wanted`. Every other result has a different `utd`, so that
    each step of all environments is followed by a whole number of gradient steps.
    """
    names = "total_steps", "replay_size"
    batch = min([wanted.batch_size, *(getattr(wanted, name) for name in names if name in given)])
    for envs in range(wanted.num_envs, 0, -1):
        least = multiple(max(batch, wanted.n_step * envs), envs)
        sizes = {name: max(getattr(wanted, name), least) for name in names}
        sizes |= {"num_envs": envs, "batch_size": batch}
        yield sizes
        yield sizes | {"utd": max(1, round(wanted.utd * envs)) / envs}


class _Unfitted(Config):
    """A Config whose fields are valid, but may be inconsistent with each other."""

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
