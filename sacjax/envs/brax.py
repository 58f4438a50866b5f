"""Brax: brax/<name>[?backend=generalized|positional|spring|mjx][&reset=cached|fresh][&limit=1000].

The raw environments, without Brax's own wrappers; actions are Brax's, in [-1, 1].
"""

import warnings
from functools import cache, partial
from typing import Any

from sacjax.envs import names
from sacjax.envs.autoreset import RESETS, camera, make_stepped
from sacjax.envs.names import Name
from sacjax.types import Episode, InputError, MakeEnv

BACKENDS = ("generalized", "positional", "spring", "mjx")
_brax = partial(names.imported, "brax.envs", extra="brax")


def known() -> list[str]:
    """Brax's environments. InputError where it is not installed."""
    return sorted(vars(_brax("brax"))["_envs"])


def make_env(name: str, parsed: Name) -> MakeEnv:
    """InputError where Brax is not installed, or has no such environment."""
    names.check_known(name, parsed.id, known())
    rules = {"backend": (None, *BACKENDS), "reset": RESETS, "limit": 1000}
    chosen = names.choose(name, parsed.options, **rules)
    return make_stepped(name, raw(name, parsed), chosen["reset"], chosen["limit"])


def raw(name: str, parsed: Name) -> Any:
    """Brax's own environment."""
    with names.made(name, f"try another backend of {', '.join(BACKENDS)}"):  # some have not all
        return _raw(parsed.id, parsed.options.get("backend"))


def pictures(name: str, parsed: Name, episode: Episode) -> Any:
    """Of an episode, pixels [H, W, 3]."""
    env = raw(name, parsed)
    if not hasattr(env, "sys"):
        raise InputError(f"{name} has no bodies to draw")
    from brax.io import image

    states = [state.inner.pipeline_state for state in episode.states]
    return image.render_array(env.sys, states, camera=camera(env.sys.mj_model))


@cache  # they hash by identity: made once, a name compiles once
def _raw(id: str, backend: str | None) -> Any:
    how = {} if backend is None else {"backend": backend}
    with warnings.catch_warnings():  # that Playground is better maintained
        warnings.filterwarnings("ignore", "Brax System, piplines and environments", UserWarning)
        return _brax(f"brax/{id}").get_environment(id, **how)
