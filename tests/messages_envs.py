"""The messages about environments, for test_messages.py."""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from probes import Chain

import sacjax.envs.brax
from sacjax import InputError, RunError
from sacjax.envs import names
from sacjax.envs.autoreset import make_autoreset_env
from sacjax.envs.host import errors_named
from sacjax.envs.names import make_env

CASES = []


def says(field, message, kind=InputError):
    """Register a case: `do(path)` raises `kind` about `field`, and says `message`."""

    def register(do):
        CASES.append(pytest.param(do, kind, field, message, id=do.__name__))
        return do

    return register


# --- names of environments -----------------------------------------------------------------------


@says("env", "unknown environment 'Pendulum-v0': did you mean Pendulum-v1?")
def misspelled_environment(path):
    make_env("Pendulum-v0")


@says("env", "unknown environment 'HalfCheetah-v2': did you mean gymnasium/HalfCheetah-v5?")
def name_without_its_suite(path):
    make_env("HalfCheetah-v2")


@says("env", "unknown environment 'brax/hoper': did you mean brax/hopper or brax/hopper2?")
def misspelled_environment_of_a_suite(path):
    names.check_known("brax/hoper", "hoper", ["ant", "hopper2", "hopper"])


@says("env", "unknown environment 'zzz': see `sacjax envs`")
def environment_like_no_other(path):
    make_env("zzz")


@says(
    "env",
    "unknown environment 'gymnasium/Qwertz': see `sacjax envs gymnasium`. If your own module "
    "registers it, write gymnasium/my_module:Qwertz",
)
def environment_of_a_suite_like_no_other(path):
    make_env("gymnasium/Qwertz")


@says("env", "unknown suite 'brux' in 'brux/ant': did you mean brax/ant?")
def misspelled_suite(path):
    make_env("brux/ant")


@says(
    "env",
    "unknown suite 'zzz' in 'zzz/zzz': use one of gymnax, brax, playground, gymnasium, envpool",
)
def suite_like_no_other(path):
    make_env("zzz/zzz")


@says("env", "unknown suite 'gym' in 'gym/Hopper-v5': did you mean gymnasium/Hopper-v5?")
def suite_of_old_names(path):
    make_env("gym/Hopper-v5")


@says(
    "env",
    "cannot import json:Nothing (AttributeError: module 'json' has no attribute 'Nothing'): fix "
    "json, or name something that it defines, as in my_module:MyName",
)
def name_that_a_module_lacks(path):
    make_env("json:Nothing")


@says(
    "env",
    "env (7) must be a name or a gymnax Environment object, such as MyEnv() or "
    "LogWrapper(MyEnv()): `sacjax envs` lists the names",
)
def environment_of_another_type(path):
    make_env(7)


# --- options of an environment -------------------------------------------------------------------


@says(
    "env",
    "malformed option 'backend' in 'brax/ant?backend': write each once, with & between them: "
    "brax/ant?backend=spring&reset=fresh",
)
def option_without_a_value(path):
    make_env("brax/ant?backend")


@says(
    "range",
    "range ((0.8,inf) is no tuple, list or dictionary (SyntaxError: '(' was never closed "
    "(<unknown>, line 1)): write range=(0.8,inf)",
)
def tuple_without_its_end(path):
    names.parse("gymnasium/Hopper-v5?range=(0.8,inf")


@says("a", "unknown option 'a' in 'gymnax/Pendulum-v1?a=1': this suite has no options")
def option_for_gymnax(path):
    make_env("gymnax/Pendulum-v1?a=1")


@says("speed", "unknown option 'speed' in 'brax/ant?speed=2': use reset, limit")
def unknown_option(path):
    names.resolve_options("brax/ant?speed=2", {"speed": 2}, reset=("cached",), limit=1000)


@says("backend", "backend ('bullet') of 'brax/ant?backend=bullet' must be one of spring, mjx")
def option_that_is_not_a_choice(path):
    options = {"backend": "bullet"}
    names.resolve_options("brax/ant?backend=bullet", options, backend=(None, "spring", "mjx"))


@says("limit", "limit (0) of 'brax/ant?limit=0' must be a whole number from 1")
def option_that_is_not_a_count(path):
    names.resolve_options("brax/ant?limit=0", {"limit": 0}, limit=1000)


# --- suites --------------------------------------------------------------------------------------


@says(
    "env",
    "brax/ant cannot import no_such_package (No module named 'no_such_package'): "
    "pip install 'sacjax[brax]'",
)
def suite_that_is_not_installed(path):
    names.import_suite("no_such_package", "brax/ant", "brax")


@says(
    "env",
    "cannot make brax/swimmer?backend=spring (ValueError: Unsupported backend: spring.): try "
    "another backend of generalized, positional, spring, mjx",
)
def environment_that_brax_cannot_make(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sacjax.envs.brax, "_load", unsupported)
        name = "brax/swimmer?backend=spring"
        sacjax.envs.brax.raw(name, names.parse(name))


@says(
    "env",
    "cannot import no_such_module (ModuleNotFoundError: No module named 'no_such_module'): "
    "install no_such_module, or add its folder to PYTHONPATH",
)
def module_that_is_not_installed(path):
    make_env("gymnasium/no_such_module:Mine-v0")


@says("env", "brax/fast cannot be drawn: it has no bodies")
def drawing_of_an_environment_without_bodies(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sacjax.envs.brax, "_load", lambda *_: object())
        sacjax.envs.brax.pictures("brax/fast", names.parse("brax/fast"), None)


# --- spaces --------------------------------------------------------------------------------------


@says(
    "action_space",
    "action_space (Discrete(2)) of gymnasium/CartPole-v1 must be a Box of floats with finite "
    "bounds: wrap the environment, or use one that `sacjax envs` lists",
)
def discrete_actions(path):
    make_env("gymnasium/CartPole-v1")


@says(
    "observation_space",
    "observation_space (Box of shape [8, 8, 3]) of ShowsImages must be a Box with one axis: wrap "
    "the environment so that it returns one flat array (images are not supported)",
)
def images(path):
    make_env(ShowsImages())


@says(
    "observation_space",
    "observation_space (float32[8, 8, 3]) of brax/Image must be one flat array: wrap the "
    "environment so that it returns one",
)
def images_of_brax(path):
    raw = SimpleNamespace(reset=lambda key: HasObs(jnp.zeros((8, 8, 3))))
    make_autoreset_env("brax/Image", raw, "cached", 1000)


@says(
    "observation_space",
    "observation_space of SaysThree has shape [3], but its observations have shape [2]: make them "
    "the same",
)
def observations_of_another_shape(path):
    make_env(SaysThree())


# --- environments outside of JAX -----------------------------------------------------------------


@says(
    "env",
    "gymnasium/Pendulum-v1 runs outside of JAX and cannot be vmapped: use `sacjax train` or "
    "sacjax.run, which train the seeds one after another",
)
def vmap_over_gymnasium(path):
    env = make_env("gymnasium/Pendulum-v1")(1)
    jax.vmap(lambda key: env.reset(key, None))(jax.random.split(jax.random.key(0)))


@says(
    "env",
    "gymnasium/Mine-v0 failed (FloatingPointError: the physics blew up): fix the environment, then "
    "continue the run from its last checkpoint with `sacjax resume`",
    RunError,
)
def environment_that_fails(path):
    error = FloatingPointError("the physics blew up")
    with errors_named(SimpleNamespace(errors=[error]), "gymnasium/Mine-v0"):
        raise RuntimeError("as JAX reports it")


class HasObs(NamedTuple):
    obs: jax.Array


class ShowsImages(Chain):
    def observation_space(self, params):
        return spaces.Box(0.0, 255.0, (8, 8, 3), np.float32)


class SaysThree(Chain):
    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (3,), np.float32)


def unsupported(id, backend):
    """Fail as Brax does."""
    raise ValueError(f"Unsupported backend: {backend}.")


@pytest.mark.parametrize(("do", "kind", "field", "message"), CASES)
def test_message(do, kind, field, message, tmp_path):
    with pytest.raises(kind) as caught:
        do(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "{path}") == message
    assert caught.value.field == field
