"""MuJoCo Playground: playground/<name>[?reset=cached|fresh][&limit=1000][&impl=jax|warp].

Its dm_control suite comes with the package; the other suites fetch their robots on first use. A
reset settles the physics for up to hundreds of steps, so `reset=fresh`, which computes one in every
step, is for rare cases. On a CPU some environments take a minute and more to compile.
"""

import contextlib
import io
from functools import cache, partial
from typing import Any

from sacjax.envs import names
from sacjax.envs.autoreset import RESETS, camera, make_stepped
from sacjax.envs.names import Name
from sacjax.types import Episode, MakeEnv

_playground = partial(names.imported, "mujoco_playground", extra="playground")


def known() -> list[str]:
    """Playground's environments, the dm_control suite first. InputError if not installed."""
    registry = _playground("playground").registry
    suites = registry.dm_control_suite, registry.locomotion, registry.manipulation
    return [name for suite in suites for name in suite.ALL_ENVS]


def make_env(name: str, parsed: Name) -> MakeEnv:
    """InputError where Playground is not installed, has no such environment or cannot fetch it."""
    names.check_known(name, parsed.id, known())
    length = int(_playground(name).registry.get_default_config(parsed.id).episode_length)
    rules = {"impl": ("jax", "warp"), "reset": RESETS, "limit": length}
    chosen = names.choose(name, parsed.options, **rules)
    return make_stepped(name, raw(name, parsed), chosen["reset"], chosen["limit"])


def raw(name: str, parsed: Name) -> Any:
    """Playground's own environment."""
    fetched = "all but the dm_control suite fetch their robots from the network on first use"
    with names.made(name, fetched):
        return _raw(parsed.id, parsed.options.get("impl", "jax"))


def pictures(name: str, parsed: Name, episode: Episode) -> Any:
    """Of an episode, pixels [H, W, 3]."""
    env = raw(name, parsed)
    with contextlib.redirect_stderr(io.StringIO()):  # it draws a bar of its own
        return env.render([state.inner for state in episode.states], camera=camera(env.mj_model))


@cache  # they hash by identity: made once, a name compiles once
def _raw(id: str, impl: str) -> Any:
    return _playground(f"playground/{id}").registry.load(id, config_overrides={"impl": impl})
