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
CASES = {
    "tiny": (
        {
            "total_steps": 300,
            "warmup_steps": 100,
            "eval_every": 100,
            "hidden": (8,),
            "batch_size": 8,
        },
        1,
        "vmap",
        1,
    ),
    "one step, alone": (ONE_STEP, 1, "vmap", 1),
    "one step, vmapped": (ONE_STEP, 2, "vmap", 1),
    "one step, mapped": (ONE_STEP, 4, "map", 2),
    "the paper's sizes": ({"hidden": (256, 256), "batch_size": 256}, 1, "vmap", 1),
    "vmapped": ({}, 3, "vmap", 1),
    "mapped over two devices": ({}, 6, "map", 2),
    "a large replay, mapped": ({"total_steps": 201_000}, 3, "map", 1),
    "five critics with LayerNorm": ({"num_critics": 5, "layer_norm": True}, 2, "vmap", 1),
    "many gradient steps": ({"utd": 20, "batch_size": 256, "hidden": (32,)}, 1, "vmap", 1),
    "few gradient steps per key": ({"utd": 100, "hidden": (32,)}, 1, "vmap", 1),
    "another environment": (
        {"env": "MountainCarContinuous-v0", "hidden": (32, 32, 32)},
        2,
        "vmap",
        1,
    ),
    "many episodes": ({"eval_episodes": 4096, "hidden": (32,), "batch_size": 32}, 4, "vmap", 1),
    "many environments": (
        {"num_envs": 500, "utd": 0.002, "hidden": (8,), "replay_size": 5_000},
        1,
        "vmap",
        1,
    ),
    "a large batch": ({"batch_size": 4096, "hidden": (16,), "replay_size": 5_000}, 1, "vmap", 1),
    "a small batch": ({"batch_size": 16, "hidden": (256, 256)}, 1, "vmap", 1),
    "a large batch with LayerNorm": (
        {"batch_size": 2048, "hidden": (32,), "layer_norm": True},
        1,
        "vmap",
        1,
    ),
    "large batches of several steps": (
        {"batch_size": 512, "hidden": (8,), "n_step": 5, "normalize_obs": True},
        2,
        "vmap",
        1,
    ),
    "a delayed policy": ({"batch_size": 512, "policy_delay": 2, "max_grad_norm": 1}, 1, "vmap", 1),
}


def planned(members, strategy="vmap", devices=1, per_batch=None, **changes):
    config = Config(**(BASE | changes))
    seeds = list(range(members))
    return population.make_population(
        config, *population.points(Hyperparams()), seeds, make_sac, strategy, devices, per_batch
    )


USUAL = ("tiny", "one step, alone", "vmapped", "mapped over two devices")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(x, marks=pytest.mark.exact if x in USUAL else pytest.mark.nightly)
        for x in CASES
    ],
)
def test_the_estimate_is_what_xla_allocates_to_a_fifth(case):
    changes, members, strategy, devices = CASES[case]
    found = planned(members, strategy, devices, **changes)
    estimate = found.memory.total(-(-members // devices), strategy)
    compiled = epochs.compile_programs(found, fresh=False).memory
    assert compiled == pytest.approx(estimate, rel=0.2)


def test_the_state_is_counted_to_the_byte():
    found = planned(1)
    hp, env_params = as_arrays(Hyperparams(), found.program.default_params)
    loop = jax.jit(found.program.init)(jax.random.key(0), hp, env_params)
    assert found.memory.state == sum(x.nbytes for x in jax.tree.leaves(loop))
    assert found.memory.replay == loop.replay.rows.nbytes + 8
    moments = jax.tree.leaves((loop.agent.actor_opt, loop.agent.critic_opt, loop.agent.alpha_opt))
    assert found.memory.optimizer == sum(x.nbytes for x in moments)


@pytest.mark.parametrize("changes", [{}, ONE_STEP], ids=["usual", "one step"])
@pytest.mark.parametrize(("strategy", "devices"), [("vmap", 1), ("map", 1), ("map", 2)])
def test_what_is_said_to_fit_fits_and_one_more_does_not(monkeypatch, strategy, devices, changes):
    monkeypatch.setattr(memory, "available", lambda: 100_000_000)
    with pytest.raises(InputError, match="members_per_batch") as error:
        population.check_memory(planned(200, strategy, devices, **changes))
    most = int(re.findall(r"at most (\d+) at once", str(error.value))[0])
    assert 10 < most < 200
    population.check_memory(planned(most, strategy, devices, **changes))
    population.check_memory(planned(200, strategy, devices, per_batch=most, **changes))
    with pytest.raises(InputError):
        population.check_memory(planned(most + 1, strategy, devices, **changes))
    places = int(re.findall(r"replay_size=(\d+)", str(error.value) + "replay_size=0")[0])
    if places:
        population.check_memory(
            planned(200, strategy, devices, **(changes | {"replay_size": places}))
        )


def test_where_not_every_device_can_have_one_fewer_are_used(monkeypatch):
    """The devices of a CPU share its memory."""
    one = planned(1, "map", 1).memory.total(1, "map")
    monkeypatch.setattr(memory, "available", lambda: int(1.5 * one))
    with pytest.raises(InputError, match="train at most 1 at once with members_per_batch"):
        population.check_memory(planned(4, "map", 2))
    population.check_memory(planned(4, "map", None, per_batch=1))


def test_a_replay_that_is_too_large_is_refused_with_one_that_fits(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    config = Config(**(BASE | {"total_steps": 1_000_000, "hidden": (8,)}))
    with pytest.raises(InputError, match="GiB") as error:
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


def test_plan_prints_the_estimate_beside_what_is_compiled(capsys):
    assert main(["plan", "Pendulum-v1", "--seeds", "3", "--hidden", "8", "--batch-size", "8"]) == 0
    text = capsys.readouterr().out
    for word in ("replay", "parameters", "optimizer", "working", "as compiled", "there is"):
        assert word in text
    off = int(re.findall(r"\(([+-]\d+)%\)", text)[0])
    assert abs(off) <= 20


def test_plan_of_what_does_not_fit_prints_it_and_ends_with_2(capsys):
    assert main(["plan", "Pendulum-v1", "--seeds", "500000"]) == 2
    out, error = capsys.readouterr()
    assert "GiB" in out
    assert "as compiled" not in out
    assert "members_per_batch" in error
