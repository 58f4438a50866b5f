"""Test compiled functions by counting operations in XLA's optimized code."""

import dataclasses
import functools
from typing import Any

import hlo
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sacjax.bits import as_arrays
from sacjax.config import Config, Hyperparams
from sacjax.devices import over_members
from sacjax.train import make_program

pytestmark = pytest.mark.exact
ROWS = 499_200  # unique, so the size identifies the replay
SMALL = Config(
    "Pendulum-v1",
    warmup_steps=256,
    eval_every=512,
    total_steps=256 + 512 * 1_000,
    replay_size=ROWS,
    batch_size=4,
    hidden=(8,),
    eval_episodes=1,
)
LAYOUTS = {
    "single": (1, None, None),
    "vmapped": (3, "vmap", 1),
    "one after the other": (3, "map", 1),
    "sharded, vmapped": (4, "vmap", 2),
    "sharded, one after the other": (4, "map", 2),
}


@functools.cache
def compiled_epoch(config: Config, layout: str, make: Any = make_program) -> Any:
    program = make(config)
    hp, params = as_arrays(Hyperparams(), program.default_params)
    members, strategy, devices = LAYOUTS[layout]
    if strategy is None:
        keys, init, epoch = jax.random.key(0), program.init, program.epoch
    else:
        keys, axes = jax.random.split(jax.random.key(0), members), (0, None, None)
        how = {"strategy": strategy, "devices": devices}
        init = over_members(program.init, axes, **how)
        epoch = over_members(program.epoch, axes, donated=True, **how)
    loop = jax.eval_shape(init, keys, hp, params)
    return jax.jit(epoch, donate_argnums=0).lower(loop, hp, params).compile(), loop


def whole_replays(compiled: Any, rows: int = ROWS) -> list[str]:
    """Return the instructions of the training loop whose result is as large as a replay buffer."""
    body = hlo.innermost(hlo.computations(compiled.as_text()), "gather", rows)
    in_place = {
        *("dynamic-update-slice", "scatter", "parameter", "get-tuple-element", "tuple", "fusion"),
        *("bitcast", "while", "call", "opt-barrier", "conditional"),
    }
    return [
        i.text
        for i in body
        if i.opcode not in in_place and any(np.prod(s) >= rows for s in i.shapes)
    ]


@pytest.mark.parametrize(
    "layout",
    [pytest.param(x, marks=pytest.mark.two_cpus if LAYOUTS[x][2] == 2 else ()) for x in LAYOUTS],
)
def test_training_loop_never_copies_the_whole_replay_buffer(layout):
    compiled, loop = compiled_epoch(SMALL, layout)
    assert whole_replays(compiled) == []
    memory, members = compiled.memory_analysis(), LAYOUTS[layout][0]
    replays = loop.replay.rows.size * 4 / (LAYOUTS[layout][2] or 1)  # bytes on each device
    assert memory.alias_size_in_bytes > replays
    one = loop.replay.rows.size * 4 / members
    extra = 2.1 if LAYOUTS[layout][1] == "map" else 0.1  # "map" copies the current member
    assert memory.temp_size_in_bytes < extra * one


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        ("single", {"num_envs": 2}),
        ("vmapped", {"num_envs": 128, "utd": 1 / 32}),
        ("single", {"utd": 4.0}),
        ("vmapped", {"rollout_length": 4}),
    ],
    ids=str,
)
def test_training_with_unusual_sizes_never_copies_the_whole_replay_buffer(layout, changes):
    config = dataclasses.replace(SMALL, **changes)
    assert whole_replays(compiled_epoch(config, layout)[0]) == []


def test_a_check_detects_a_copied_replay_buffer():
    def touching(config: Config) -> Any:
        program = make_program(config)

        def epoch(loop, hp, params):
            def step(loop, _):
                loop, _ = program.epoch(loop, hp, params)
                rows = jnp.roll(loop.replay.rows, 1, axis=0)  # some libraries insert like this
                return loop.replace(replay=loop.replay._replace(rows=rows)), None

            return jax.lax.scan(step, loop, length=3)

        return program._replace(epoch=epoch)

    config = dataclasses.replace(SMALL, eval_every=1)
    compiled, _ = compiled_epoch(config, "single", touching)
    assert whole_replays(compiled)


@pytest.mark.two_cpus
def test_replay_buffer_samples_with_one_gather_and_inserts_with_one_write():
    body = hlo.innermost(
        hlo.computations(compiled_epoch(SMALL, "single")[0].as_text()), "gather", ROWS
    )
    touching = [i for i in body if f"{ROWS}," in i.text.split(" metadata=")[0]]
    assert sum(i.opcode == "gather" for i in body) == 1
    writes = [i for i in touching if i.opcode == "dynamic-update-slice" and ROWS in i.shapes[0]]
    assert len(writes) == 1


def test_a_training_iteration_compiles_to_fewer_than_330_kernels():
    """The bound makes developers notice a change that adds many kernels."""
    program = hlo.computations(compiled_epoch(SMALL, "single")[0].as_text())
    body = hlo.innermost(program, "gather", ROWS)
    assert sum(i.opcode in ("fusion", "dot", "custom-call", "while") for i in body) < 330
