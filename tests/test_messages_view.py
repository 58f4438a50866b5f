"""Test the messages of `sacjax render` and of JAX's start, as in test_messages.py."""

import os

import numpy as np
import pytest
from probes import Aim

from sacjax import InputError
from sacjax.cli.console import explain_jax_errors
from sacjax.envs import drawings
from sacjax.types import Episode

CASES = []


def says(field, message, kind=InputError):
    """Register a case: `do(path)` raises `kind` about `field`, and says `message`."""

    def register(do):
        CASES.append(pytest.param(do, kind, field, message, id=do.__name__))
        return do

    return register


# --- pictures ------------------------------------------------------------------------------------


@says(
    "render",
    "render(state) of Painter returned ndarray of float64 [4, 4, 3]: return pixels [H, W, 3] of "
    "uint8, or a Matplotlib figure",
)
def pixels_that_are_not_bytes(path):
    class Painter(Aim):
        name = "Painter"

        def render(self, state):
            return np.zeros((4, 4, 3))

    episode = Episode([None], np.zeros((1, 2)), np.zeros(1), 0, np.zeros((1, 1)))
    next(drawings.pictures(Painter(), None, episode))


# --- JAX -----------------------------------------------------------------------------------------


def start(error, **variables):
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("JAX_", "XLA_"))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        with explain_jax_errors():
            raise error


@says(
    "JAX_PLATFORMS",
    "JAX cannot start (AssertionError): check JAX_PLATFORMS, XLA_PYTHON_CLIENT_PREALLOCATE",
)
def platform_that_is_not_installed(path):
    start(AssertionError(), JAX_PLATFORMS="cuda", XLA_PYTHON_CLIENT_PREALLOCATE="false")


@says(
    None,
    "JAX cannot start (RuntimeError: jaxlib is too old): check the installed versions of jax and "
    "jaxlib",
)
def jaxlib_that_is_too_old(path):
    start(RuntimeError("jaxlib is too old\nmore lines"))


@pytest.mark.parametrize(("do", "kind", "field", "message"), CASES)
def test_message(do, kind, field, message, tmp_path):
    with pytest.raises(kind) as caught:
        do(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "{path}") == message
    assert caught.value.field == field
