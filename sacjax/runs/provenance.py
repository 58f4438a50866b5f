"""Describe the settings, package versions and device of a run or a figure."""

import importlib.metadata
import logging
import math
import os
import platform
import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from sacjax.config import Hyperparams
from sacjax.envs.names import parse
from sacjax.own import OWN
from sacjax.types import PLAIN, InputError

FORMAT = 4  # sacjax reads only this format of config.json and agents/
_LOG = logging.getLogger("sacjax")
_PRECISION = "jax_default_matmul_precision"
# If sys.argv[0] ends with one of these names, the command line started the run.
_COMMANDS = ("sacjax", os.path.join("sacjax", "__main__.py"))
SUITES = {  # suite -> the packages that implement its environments
    "brax": ["brax", "mujoco-mjx"],
    "playground": ["playground", "mujoco-mjx"],
    "gymnasium": ["gymnasium", "mujoco"],
    "envpool": ["envpool"],
}
PACKAGES = ["sacjax", "jax", "jaxlib", "flax", "optax", "chex", "gymnax", "distrax"]
Description = dict[str, Any]
"""The keys of config.json and of the note in a checkpoint.

- format: `FORMAT`.
- command: the command line, or None if a script called `sacjax.run`.
- config: the fields of Config. The field `env` is None if the environment was an object.
- env_object: the name of the environment object, if any.
- hyperparams: the points of the grid.
- swept: the names of the swept fields.
- seeds: the seeds of the run.
- part: the index of the first member in the run, and the index after the last member.
- per_batch: the largest number of members that train at once, or None.
- layout: the strategy and the number of devices.
- algorithm: the result of `algorithm_name`.
- options: the fields of `recorder.Options`. Only config.json has this key.
- versions, device, jax: the result of `surroundings`.
- resumed: the command, versions, device, jax and layout of each later session.
- diverged: the diverged members. Only checkpoints have this key.
"""


def description(
    fields: dict[str, Any],
    env_name: str,
    settings: list[Hyperparams],
    swept: list[str],
    seeds: list[int],
) -> Description:
    """Return the description of a run.

    Args:
      fields: the fields of the run's Config.
      env_name: the name of the environment.
      settings: the points of the grid, each with scalar fields.
      swept: the names of the fields that differ between points.
      seeds: the seeds.
    """
    around = surroundings()
    if isinstance(fields["env"], str):
        around["versions"] |= versions(SUITES.get(parse(env_name).suite, []))
    else:
        fields = fields | {"env": None}  # JSON cannot store a Python object: pass it to `load`
        around["env_object"] = env_name
    return {
        "format": FORMAT,
        "command": sys.argv if sys.argv[0].endswith(_COMMANDS) else None,
        "config": fields,
        "hyperparams": [{k: _to_json(v) for k, v in vars(hp).items()} for hp in settings],
        "swept": swept,
        "seeds": seeds,
    } | around


def algorithm_name(make: Any) -> str:
    """Return the name and the arguments of an algorithm. All processes return the same name."""
    if isinstance(make, str) and (make == PLAIN or OWN.fullmatch(make)):
        return make
    if isinstance(make, partial):
        bound = [algorithm_name(x) for x in make.args]
        bound += [f"{name}={algorithm_name(x)}" for name, x in make.keywords.items()]
        return f"{algorithm_name(make.func)}({', '.join(bound)})"
    if isinstance(make, tuple) and (fields := getattr(make, "_fields", None)):  # a NamedTuple
        return algorithm_name(partial(type(make), **dict(zip(fields, make, strict=True))))
    text = getattr(make, "__qualname__", None) or " ".join(repr(make).split())
    if text == "make_sac" and make.__module__ == "sacjax.sac":
        return PLAIN
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def describe_resumed(before: Description, now: Description) -> Description:
    """Return the description of a resumed run.

    The settings are updated, and the list "resumed" has one more session. All other keys keep the
    values from the start of the run.
    """
    session = {name: now[name] for name in ("command", "versions", "device", "jax", "layout")}
    changed = {name: now[name] for name in ("config", "layout", "options")}
    return before | changed | {"resumed": [*before.get("resumed", []), session]}


def check_jax_settings(run: str, then: dict[str, Any], exact: bool = True) -> None:
    """Raise InputError if the run used a different precision or kind of PRNG keys.

    Args:
      run: the name of the run, for the message.
      then: the value of "jax" in the run's description. Missing settings are not checked.
      exact: If True, a different precision raises InputError. If False, sacjax only warns.
    """
    now = surroundings()["jax"]
    x64, prng = (then.get(name, now[name]) for name in ("x64", "prng"))
    if x64 != now["x64"]:
        text = f"{run} was trained with jax_enable_x64={x64}"
        if exact:
            raise InputError(f"{text}: set JAX_ENABLE_X64={int(x64)}", "jax_enable_x64")
        _LOG.warning("%s and is loaded with %s: its numbers are converted", text, now["x64"])
    if prng != now["prng"]:
        raise InputError(
            f"{run} uses {prng} keys: set JAX_DEFAULT_PRNG_IMPL={prng}", "jax_default_prng_impl"
        )


def surroundings() -> dict[str, Any]:
    """Return the versions, the device and the JAX settings that can change the results."""
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version()} | versions(PACKAGES),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "jax": {
            "x64": jax.config.read("jax_enable_x64"),
            "prng": str(jax.random.key_impl(jax.random.key(0))),
            # None is JAX's default: TF32 on a GPU
            "matmul_precision": getattr(jax.config, _PRECISION),
        },
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each package, or None for a package that is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _to_json(value: Any) -> float | str:
    """Return a value as a float, or as text if JSON cannot store the float, such as inf."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
