"""Test that a run checks the available memory before it allocates anything."""

import re

import jax
import pytest
from checks import refused

from sacjax import run
from sacjax.bits import as_arrays
from sacjax.cli.main import main
from sacjax.config import Config, Hyperparams
from sacjax.runs import epochs, memory, population
from sacjax.sac import make_sac

BASE = {"env": "Pendulum-v1", "total_steps": 20_000, "hidden": (64, 64), "batch_size": 64}
ONE_STEP = {  # an epoch has a single step
    "total_steps": 31_000,
    "num_envs": 500,
    "warmup_steps": 1_000,
    "eval_every": 500,
    "utd": 0.01,
    "hidden": (8,),
    "batch_size": 8,
    "eval_episodes": 1,
}


def plan(members, strategy="vmap", devices=1, per_batch=None, **changes):
    config = Config(**(BASE | changes))
    seeds = list(range(members))
    grid = population.make_grid(Hyperparams(), seeds)
    return population.make_population(config, grid, make_sac, strategy, devices, per_batch)


def test_the_memory_estimate_of_the_state_is_exact_to_the_byte():
    found = plan(1)
    hp, env_params = as_arrays(Hyperparams(), found.program.default_params)
    loop = jax.jit(found.program.init)(jax.random.key(0), hp, env_params)
    parts = memory.estimate(found).parts
    assert sum(parts.values()) == sum(x.nbytes for x in jax.tree.leaves(loop))
    assert parts["replay"] == loop.replay.rows.nbytes + 8
    assert parts["agent"] == sum(x.nbytes for x in jax.tree.leaves(loop.agent))


@pytest.mark.parametrize(("strategy", "devices"), [("vmap", 1), ("map", 1), ("map", 2)])
def test_the_memory_estimate_includes_the_memory_reported_by_xla(strategy, devices):
    found = plan(4, strategy, devices, hidden=(8,))
    compiled = epochs.compile_programs(found, fresh=False).memory
    estimate = memory.estimate(found, compiled)
    assert estimate.needed == devices * compiled
    assert 0 < estimate.temporary < compiled


def test_run_fails_if_the_compiled_epoch_does_not_fit_in_memory(monkeypatch, tmp_path):
    """The state without the compiled epoch fits in memory."""
    state = memory.estimate(plan(1)).needed
    monkeypatch.setattr(memory, "available", lambda: state + 1_000)
    with refused("hidden"):
        run(Config(**BASE), seeds=1, directory=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("changes", [{}, ONE_STEP], ids=["usual", "one step"])
@pytest.mark.parametrize(("strategy", "devices"), [("vmap", 1), ("map", 1), ("map", 2)])
def test_the_suggested_number_of_members_fits_in_memory(monkeypatch, strategy, devices, changes):
    monkeypatch.setattr(memory, "available", lambda: 100_000_000)
    with refused("members_per_batch") as error:
        memory.check(plan(200, strategy, devices, **changes))
    most = int(re.findall(r"at most (\d+) members at once", str(error.value))[0])
    assert 10 < most < 200
    memory.check(plan(most, strategy, devices, **changes))
    memory.check(plan(200, strategy, devices, per_batch=most, **changes))
    with refused("members_per_batch"):
        memory.check(plan(most + 1, strategy, devices, **changes))
    places = int(re.findall(r"replay_size=(\d+)", str(error.value) + "replay_size=0")[0])
    if places:
        memory.check(plan(200, strategy, devices, **(changes | {"replay_size": places})))


def test_run_uses_fewer_devices_if_the_memory_is_too_small(monkeypatch):
    """All devices of a CPU use the same memory."""
    one = memory.estimate(plan(1, "map", 1)).needed
    monkeypatch.setattr(memory, "available", lambda: int(1.5 * one))
    with refused("members_per_batch") as error:
        memory.check(plan(4, "map", 2))
    assert "train at most 1 members at once" in str(error.value)
    memory.check(plan(4, "map", None, per_batch=1))


def test_the_suggested_replay_size_fits_in_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    config = Config(**(BASE | {"total_steps": 1_000_000, "hidden": (8,)}))
    with refused("replay_size") as error:
        run(config, seeds=1, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    places = int(re.findall(r"replay_size=(\d+)", str(error.value))[0])
    assert 200_000 < places < 280_000  # transitions of 36 bytes
    assert "at most" not in str(error.value)  # not even one member fits


def test_available_memory_respects_the_limit_of_the_control_group(monkeypatch):
    monkeypatch.setattr(memory.Path, "read_text", lambda self: "12345\n")
    assert memory.available() == 12345
    monkeypatch.setattr(memory.Path, "read_text", lambda self: "max\n")
    assert (memory.available() or 0) > 2**30


def test_plan_prints_the_memory_of_the_state_and_the_compiled_epoch(capsys):
    assert main(["plan", "Pendulum-v1", "--seeds", "3", "--hidden", "8", "--batch-size", "8"]) == 0
    text = capsys.readouterr().out
    for word in ("replay", "agent", "environments", "compiled epoch adds", "needed", "available"):
        assert word in text
    assert int(re.findall(r"about (\d+) members fit at once", text)[0]) > 3


def test_plan_exits_with_2_if_the_memory_is_too_small(capsys):
    assert main(["plan", "Pendulum-v1", "--seeds", "500000"]) == 2
    out, error = capsys.readouterr()
    assert "GiB" in out
    assert "members_per_batch" in error
