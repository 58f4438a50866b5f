"""What a run needs is known before anything is allocated."""

import re

import jax
import pytest

from sacjax import run
from sacjax.bits import as_arrays
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.runs import epochs, memory, population
from sacjax.sac import make_sac
from sacjax.types import InputError

BASE = {"env": "Pendulum-v1", "total_steps": 20_000, "hidden": (64, 64), "batch_size": 64}
ONE_STEP = {  # an epoch is a single one
    "total_steps": 31_000,
    "num_envs": 500,
    "warmup_steps": 1_000,
    "eval_every": 500,
    "utd": 0.01,
    "hidden": (8,),
    "batch_size": 8,
    "eval_episodes": 1,
}


def planned(members, strategy="vmap", devices=1, per_batch=None, **changes):
    config = Config(**(BASE | changes))
    seeds = list(range(members))
    grid = population.make_grid(Hyperparams(), seeds)
    return population.make_population(config, grid, make_sac, strategy, devices, per_batch)


def test_the_state_is_counted_to_the_byte():
    found = planned(1)
    hp, env_params = as_arrays(Hyperparams(), found.program.default_params)
    loop = jax.jit(found.program.init)(jax.random.key(0), hp, env_params)
    parts = memory.of(found).parts
    assert sum(parts.values()) == sum(x.nbytes for x in jax.tree.leaves(loop))
    assert parts["replay"] == loop.replay.rows.nbytes + 8
    assert parts["agent"] == sum(x.nbytes for x in jax.tree.leaves(loop.agent))


@pytest.mark.parametrize(("strategy", "devices"), [("vmap", 1), ("map", 1), ("map", 2)])
def test_what_the_compiled_epoch_adds_is_what_xla_says(strategy, devices):
    found = planned(4, strategy, devices, hidden=(8,))
    compiled = epochs.compile_programs(found, fresh=False).memory
    told = memory.of(found, compiled)
    assert told.needed == devices * compiled
    assert 0 < told.temporary < compiled


def test_an_epoch_that_does_not_fit_is_refused_once_it_is_compiled(monkeypatch, tmp_path):
    """Its state alone would fit."""
    state = memory.of(planned(1)).needed
    monkeypatch.setattr(memory, "available", lambda: state + 1_000)
    with pytest.raises(InputError, match="1 members need"):
        run(Config(**BASE), seeds=1, directory=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("changes", [{}, ONE_STEP], ids=["usual", "one step"])
@pytest.mark.parametrize(("strategy", "devices"), [("vmap", 1), ("map", 1), ("map", 2)])
def test_what_is_said_to_fit_fits_and_one_more_does_not(monkeypatch, strategy, devices, changes):
    monkeypatch.setattr(memory, "available", lambda: 100_000_000)
    with pytest.raises(InputError, match="members_per_batch") as error:
        memory.check(planned(200, strategy, devices, **changes))
    most = int(re.findall(r"at most (\d+) at once", str(error.value))[0])
    assert 10 < most < 200
    memory.check(planned(most, strategy, devices, **changes))
    memory.check(planned(200, strategy, devices, per_batch=most, **changes))
    with pytest.raises(InputError):
        memory.check(planned(most + 1, strategy, devices, **changes))
    places = int(re.findall(r"replay_size=(\d+)", str(error.value) + "replay_size=0")[0])
    if places:
        memory.check(planned(200, strategy, devices, **(changes | {"replay_size": places})))


def test_where_not_every_device_can_have_one_fewer_are_used(monkeypatch):
    """The devices of a CPU share its memory."""
    one = memory.of(planned(1, "map", 1)).needed
    monkeypatch.setattr(memory, "available", lambda: int(1.5 * one))
    with pytest.raises(InputError, match="train at most 1 at once with members_per_batch"):
        memory.check(planned(4, "map", 2))
    memory.check(planned(4, "map", None, per_batch=1))


def test_a_replay_that_is_too_large_is_refused_with_one_that_fits(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    config = Config(**(BASE | {"total_steps": 1_000_000, "hidden": (8,)}))
    with pytest.raises(InputError, match="MiB") as error:
        run(config, seeds=1, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    places = int(re.findall(r"replay_size=(\d+)", str(error.value))[0])
    assert 200_000 < places < 280_000  # of 36 bytes
    assert "at once" not in str(error.value)  # not even one


def test_a_control_group_s_limit_counts(monkeypatch):
    monkeypatch.setattr(memory.Path, "read_text", lambda self: "12345\n")
    assert memory.available() == 12345
    monkeypatch.setattr(memory.Path, "read_text", lambda self: "max\n")
    assert (memory.available() or 0) > 2**30


def test_plan_prints_the_state_and_what_the_compiled_epoch_adds(capsys):
    assert main(["plan", "Pendulum-v1", "--seeds", "3", "--hidden", "8", "--batch-size", "8"]) == 0
    text = capsys.readouterr().out
    for word in ("replay", "agent", "environments", "compiled epoch adds", "needed", "available"):
        assert word in text
    assert int(re.findall(r"about (\d+) members fit at once", text)[0]) > 3


def test_plan_of_what_does_not_fit_prints_it_and_ends_with_2(capsys):
    assert main(["plan", "Pendulum-v1", "--seeds", "500000"]) == 2
    out, error = capsys.readouterr()
    assert "GiB" in out
    assert "members_per_batch" in error
