"""What a run, or a figure, was made with: settings, versions, device."""

import importlib.metadata
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
from sacjax.types import PLAIN

FORMAT = 4  # of config.json and agents/; a reader refuses others
_PRECISION = "jax_default_matmul_precision"
_COMMANDS = ("sacjax", os.path.join("sacjax", "__main__.py"))  # in Python it is none
SUITES = {  # what an environment depends on besides
    "brax": ["brax", "mujoco-mjx"],
    "playground": ["playground", "mujoco-mjx"],
    "gymnasium": ["gymnasium", "mujoco"],
    "envpool": ["envpool"],
}
PACKAGES = ["sacjax", "jax", "jaxlib", "flax", "optax", "chex", "gymnax", "distrax"]


def description(
    fields: dict[str, Any],
    env_name: str,
    settings: list[Hyperparams],
    swept: list[str],
    seeds: list[int],
) -> dict[str, Any]:
    """What a run is. `fields`: its Config's; `settings`: the grid's points, each of scalars."""
    around = surroundings()
    if isinstance(fields["env"], str):
        around["versions"] |= versions(SUITES.get(parse(env_name).suite, []))
    else:
        fields = fields | {"env": None}  # an object cannot be written down; `load` asks for it
        around["env_object"] = env_name
    return {
        "format": FORMAT,
        "command": sys.argv if sys.argv[0].endswith(_COMMANDS) else None,
        "config": fields,
        "hyperparams": [{k: _number(v) for k, v in vars(hp).items()} for hp in settings],
        "swept": swept,
        "seeds": seeds,
    } | around


def algorithm_name(make: Any) -> str:
    """What makes an algorithm, in words that are the same in another process: its name, and what is
    bound to it."""
    if isinstance(make, partial):
        bound = [algorithm_name(x) for x in make.args]
        bound += [f"{name}={algorithm_name(x)}" for name, x in make.keywords.items()]
        return f"{algorithm_name(make.func)}({', '.join(bound)})"
    if isinstance(make, tuple) and (fields := getattr(make, "_fields", None)):  # a CriticRule, say
        return algorithm_name(partial(type(make), **dict(zip(fields, make, strict=True))))
    text = getattr(make, "__qualname__", None) or " ".join(repr(make).split())
    if text == "make_sac" and make.__module__ == "sacjax.sac":
        return PLAIN
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def gone_on(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The description of a run that goes on: what it was begun with, its settings now, and under
    "resumed" what it went on with each time."""
    around = ("command", "versions", "device", "jax", "layout")
    again = {name: now[name] for name in around}
    changed = {name: now[name] for name in ("config", "layout", "options")}
    return before | changed | {"resumed": [*before.get("resumed", []), again]}


def surroundings() -> dict[str, Any]:
    """Versions, device and JAX settings: what a figure or a run depends on besides its config."""
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version()} | versions(PACKAGES),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "jax": {
            "x64": jax.config.read("jax_enable_x64"),
            "prng": str(jax.random.key_impl(jax.random.key(0))),
            # None: JAX's default, which on a GPU is TF32
            "matmul_precision": getattr(jax.config, _PRECISION),
        },
    }


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Of each; None where it is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _number(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)
