"""Test messages about arguments of the wrong type, as in test_messages.py."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from checks import TINY

from sacjax import Hyperparams, InputError, evaluate_run, make_program, make_train, run
from sacjax.runs.population import extended

CASES = []


def says(field, message, kind=InputError):
    """Register a case: `do(path)` raises `kind` about `field`, and says `message`."""

    def register(do):
        CASES.append(pytest.param(do, kind, field, message, id=do.__name__))
        return do

    return register


# --- arguments -----------------------------------------------------------------------------------


@says("env_params", "env_params (3) must be of type EnvParams: use None for the defaults")
def number_instead_of_env_params(path):
    make_train(TINY)(jax.random.key(0), Hyperparams(), 3)


@says(
    "env_params",
    "env_params must hold the numbers of one run, not arrays: for a grid use "
    "jax.vmap(train, (None, None, 0))(key, hp, env_params)",
)
def env_params_of_several_runs(path):
    params = make_program(TINY).default_params.replace(max_speed=jnp.array([1.0, 2.0]))
    make_train(TINY)(jax.random.key(0), Hyperparams(), params)


@dataclasses.dataclass(frozen=True)
class WithBeta(Hyperparams):
    beta: float = 0.1


@says(
    "hp",
    "hp has beta beside the fields of Hyperparams, which a run does not keep: give that to "
    "algorithm=partial(f, ...), or sweep it by make_train",
)
def hyperparameter_of_another_algorithm(path):
    run(TINY, WithBeta())


@says("run", "run ('runs/a') must be of type Run: use load('runs/Pendulum-v1')")
def path_instead_of_a_run(path):
    evaluate_run("runs/a")


@says("extend_to", "extend_to ('600') must be a whole number of steps: use 1000000")
def text_instead_of_steps(path):
    extended(TINY, "600")


@pytest.mark.parametrize(("do", "kind", "field", "message"), CASES)
def test_message(do, kind, field, message, tmp_path):
    with pytest.raises(kind) as caught:
        do(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "{path}") == message
    assert caught.value.field == field
