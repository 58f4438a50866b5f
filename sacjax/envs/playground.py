"""The adapter for MuJoCo Playground.

A name has the form playground/<id>[?option=value&...], such as "playground/CheetahRun?limit=500".
The options are reset (cached or fresh), limit (a number of steps) and impl (jax or warp). The
default limit is the environment's own limit.

The package contains the dm_control suite. Other suites download their robots when they are first
used. With reset=fresh, every step also computes a reset, which is slow, because a reset can
simulate hundreds of physics steps. Some environments take more than a minute to compile on a CPU.
"""

import contextlib
import io
from functools import cache, partial
from typing import Any

from sacjax.envs import names
from sacjax.envs.autoreset import RESETS, first_camera, make_autoreset_env
from sacjax.envs.names import Name
from sacjax.types import Episode, MakeEnv

_import_playground = partial(names.import_suite, "mujoco_playground", extra="playground")


def known() -> list[str]:
    """Return the ids of Playground's environments.

    Returns:
      A list that starts with the dm_control suite, such as ["AcrobotSwingup", ...].

    Raises:
      InputError: Playground is not installed.
    """
    registry = _import_playground("playground").registry
    suites = registry.dm_control_suite, registry.locomotion, registry.manipulation
    return [name for suite in suites for name in suite.ALL_ENVS]


def make_env(name: str, parsed: Name) -> MakeEnv:
    """Return a function that makes copies of one of Playground's environments.

    Args:
      name: the full name of the environment, which error messages show.
      parsed: the parts of the name.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: Playground is not installed, the id or an option is unknown, a download fails, or
        observations are not one flat array.
    """
    names.check_known(name, parsed.id, known())
    config = _import_playground(name).registry.get_default_config(parsed.id)
    rules = {"impl": ("jax", "warp"), "reset": RESETS, "limit": int(config.episode_length)}
    chosen = names.resolve_options(name, parsed.options, **rules)
    return make_autoreset_env(name, raw(name, parsed), chosen["reset"], chosen["limit"])


def raw(name: str, parsed: Name) -> Any:
    """Return Playground's own environment, without its wrappers.

    Args:
      name: the full name of the environment, which error messages show.
      parsed: the parts of the name.

    Returns:
      A `mujoco_playground` environment. Each name is built once and cached.

    Raises:
      InputError: Playground cannot make the environment, for example because there is no network.
    """
    with names.creation_errors(name, "suites other than dm_control need a network on first use"):
        return _load(parsed.id, parsed.options.get("impl", "jax"))


def pictures(name: str, parsed: Name, episode: Episode) -> Any:
    """Draw each state of an episode.

    Args:
      name: the full name of the environment, which error messages show.
      parsed: the parts of the name.
      episode: the episode to draw, of T steps.

    Returns:
      A list of T images, each an array of pixels [H, W, 3].
    """
    env = raw(name, parsed)
    with contextlib.redirect_stderr(io.StringIO()):  # hides Playground's own progress bar
        states = [state.inner for state in episode.states]
        return env.render(states, camera=first_camera(env.mj_model))


@cache  # JAX compiles once per object, so the same name must give the same object
def _load(id: str, impl: str) -> Any:
    """Load an environment of Playground with one implementation of its physics."""
    return _import_playground(f"playground/{id}").registry.load(id, config_overrides={"impl": impl})
