"""The adapter for Brax.

The name of a Brax environment has the form brax/<id>[?option=value&...], such as
"brax/ant?backend=spring". The options are backend (generalized, positional, spring or mjx), reset
(cached or fresh) and limit (a number of steps, by default 1000). sacjax uses the environments
without Brax's wrappers. The actions of Brax's environments are in [-1, 1].
"""

import warnings
from functools import cache, partial
from typing import Any

from sacjax.envs import names
from sacjax.envs.autoreset import RESETS, first_camera, make_autoreset_env
from sacjax.envs.names import Name
from sacjax.types import Episode, InputError, MakeEnv

BACKENDS = ("generalized", "positional", "spring", "mjx")
_import_brax = partial(names.import_suite, "brax.envs", extra="brax")


def known() -> list[str]:
    """Return the ids of Brax's environments.

    Returns:
      A sorted list, such as ["ant", "fast", "halfcheetah", ...].

    Raises:
      InputError: Brax is not installed.
    """
    return sorted(vars(_import_brax("brax"))["_envs"])


def make_env(name: str, parsed: Name) -> MakeEnv:
    """Return a function that makes copies of a Brax environment.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.

    Returns:
      A function that takes the number of copies E and returns an `Env`.

    Raises:
      InputError: Brax is not installed, the id or an option is unknown, or the observations of
        the environment are not flat arrays.
    """
    names.check_known(name, parsed.id, known())
    rules = {"backend": (None, *BACKENDS), "reset": RESETS, "limit": 1000}
    chosen = names.resolve_options(name, parsed.options, **rules)
    return make_autoreset_env(name, raw(name, parsed), chosen["reset"], chosen["limit"])


def raw(name: str, parsed: Name) -> Any:
    """Return a Brax environment without Brax's wrappers.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.

    Returns:
      A `brax.envs.Env`. Each environment is built once and cached.

    Raises:
      InputError: Brax cannot make the environment, for example because the environment does not
        support the chosen backend.
    """
    another = f"try another backend of {', '.join(BACKENDS)}" if "backend" in parsed.options else ""
    with names.creation_errors(name, "brax", otherwise=another):
        return _load(parsed.id, parsed.options.get("backend"))


def pictures(name: str, parsed: Name, episode: Episode) -> Any:
    """Draw a picture of each state of an episode.

    Args:
      name: the full name of the environment, used in error messages.
      parsed: the parts of the environment's name.
      episode: the episode to draw, which has T steps.

    Returns:
      A list of T pictures, each an array of pixels [H, W, 3].

    Raises:
      InputError: the environment has no bodies to draw.
    """
    env = raw(name, parsed)
    if not hasattr(env, "sys"):
        raise InputError(f"{name} cannot be drawn: it has no bodies", "env")
    from brax.io import image

    states = [state.inner.pipeline_state for state in episode.states]
    return image.render_array(env.sys, states, camera=first_camera(env.sys.mj_model))


@cache  # JAX compiles for each object, so equal names must share one object
def _load(id: str, backend: str | None) -> Any:
    """Load an environment of Brax. If `backend` is None, Brax chooses the backend."""
    options = {} if backend is None else {"backend": backend}
    with warnings.catch_warnings():  # hides Brax's advice to use Playground
        warnings.filterwarnings("ignore", "Brax System, piplines and environments", UserWarning)
        return _import_brax(f"brax/{id}").get_environment(id, **options)
