"""The adapter for MuJoCo Playground.

The name of a Playground environment has the form playground/<id>[?option=value&...], such as
"playground/CheetahRun?limit=500". The options are reset (cached or fresh), limit (a number of
steps) and impl (jax or warp). By default, limit is Playground's own time limit
for the environment.

The Playground package contains the models of the dm_control suite. Playground downloads the models
of other suites when they are first used. With reset=fresh, every step also computes a reset. Fresh
resets are slow, because a reset can simulate hundreds of physics steps. Some environments
take more than a minute to compile on a CPU.
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
      A list of ids, such as ["AcrobotSwingup", ...]. The ids of the dm_control suite come first.

    Raises:
      InputError: Playground is not installed.
    """
    registry = _import_playground("playground").registry
    suites = registry.dm_control_suite, registry.locomotion, registry.manipulation
    return [name for suite in suites for name in suite.ALL_ENVS]


def make_env(name: str, parsed: Name) -> MakeEnv:
    """Return a function that makes copies of a Playground environment.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: Playground is not installed, the id or an option is unknown, a download fails, or
        the observations of the environment are not flat arrays.
    """
    names.check_known(name, parsed.id, known())
    config = _import_playground(name).registry.get_default_config(parsed.id)
    rules = {"impl": ("jax", "warp"), "reset": RESETS, "limit": int(config.episode_length)}
    chosen = names.resolve_options(name, parsed.options, **rules)
    return make_autoreset_env(name, raw(name, parsed), chosen["reset"], chosen["limit"])


def raw(name: str, parsed: Name) -> Any:
    """Return a Playground environment without Playground's wrappers.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.

    Returns:
      A `mujoco_playground` environment. Each environment is built once and cached.

    Raises:
      InputError: Playground cannot make the environment, for example because there is no network.
    """
    is_local = parsed.id in _import_playground(name).registry.dm_control_suite.ALL_ENVS
    download = "" if is_local else "suites other than dm_control need a network on first use"
    with names.creation_errors(name, "playground", otherwise=download):
        return _load(parsed.id, parsed.options.get("impl", "jax"))


def pictures(name: str, parsed: Name, episode: Episode) -> Any:
    """Draw a picture of each state of an episode.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.
      episode: the episode to draw, which has T steps.

    Returns:
      A list of T pictures, each an array of pixels [H, W, 3].
    """
    env = raw(name, parsed)
    with contextlib.redirect_stderr(io.StringIO()):  # hides Playground's progress bar
        states = [state.inner for state in episode.states]
        return env.render(states, camera=first_camera(env.mj_model))


@cache  # JAX compiles for each object, so equal names must share one object
def _load(id: str, impl: str) -> Any:
    """Load an environment of Playground. `impl` is the implementation of the physics."""
    return _import_playground(f"playground/{id}").registry.load(id, config_overrides={"impl": impl})
