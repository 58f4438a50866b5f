"""Compare the replay buffer with a Python list of the last C transitions."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import scalar_transition
from probes import Chain, quick_jit
from scipy import stats

from sacjax.config import Config
from sacjax.envs.names import make_env
from sacjax.replay import make_replay


def replay_of(capacity, **changes):
    config = Config(Chain(), replay_size=capacity, **{"batch_size": 1} | changes)
    return make_replay(config, scalar_transition(0.0))


def filled(memory, sizes, capacity):
    """Add 0, 1, 2, ... in batches of `sizes`. Return the state and a list of the last numbers."""
    state, twin, start = memory.init(), [], 0
    add = quick_jit(memory.add)
    for size in sizes:
        state = add(state, scalar_transition(jnp.arange(start, start + size, dtype=float)))
        twin = [*twin, *range(start, start + size)][-capacity:]
        start += size
    return state, twin


@pytest.mark.parametrize(
    ("capacity", "sizes"),
    [
        (8, [1]),
        (8, [4] * 2),  # exactly full
        (8, [4] * 5),  # the write index wraps between two batches
        (9, [3] * 5),
        (5, [5] * 3),
    ],
)
def test_replay_buffer_stores_the_last_transitions(capacity, sizes):
    memory = replay_of(capacity)
    state, twin = filled(memory, sizes, capacity)
    size = int(state.size)
    assert size == len(twin)
    stored = jax.tree.map(np.asarray, memory.unpack(state.rows))
    assert sorted(stored.reward[:size]) == twin
    for field in ("discount", "next_obs", "obs"):  # all fields of a transition share a row
        np.testing.assert_array_equal(getattr(stored, field)[:size].ravel(), stored.reward[:size])
    np.testing.assert_array_equal(stored.action[:size, 0], -stored.reward[:size])


@pytest.mark.parametrize("sizes", [[3], [3] * 3, [3] * 4, [3] * 9])
def test_replay_samples_uniformly_from_the_stored_transitions(sizes):
    capacity, draws = 12, 6000
    # U = 6000 minibatches of one
    memory = replay_of(capacity, utd=draws, eval_every=1, warmup_steps=12, total_steps=24)
    state, twin = filled(memory, sizes, capacity)
    batches = quick_jit(memory.sample)(state, jax.random.key(0))
    assert batches.reward.shape == (draws, 1)
    values, counts = np.unique(batches.reward, return_counts=True)
    assert values.tolist() == twin  # all stored transitions occur, and no others
    assert stats.chisquare(counts).pvalue > 1e-3


def test_one_call_of_sample_returns_different_minibatches():
    checks.minibatches_differ(make_replay)


def test_the_first_two_axes_of_samples_are_updates_and_batch():
    env = make_env("PointRobot-misc")(2)
    config = Config("PointRobot-misc", num_envs=2, utd=1.5, replay_size=64, batch_size=5)
    memory = make_replay(config, env.example)
    state = jax.eval_shape(memory.init)
    batch = jax.eval_shape(memory.sample, state, jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, batch) == (
        (3, 5, 6),
        (3, 5, 2),
        (3, 5),
        (3, 5),
        (3, 5, 6),
    )
    assert {x.dtype for x in jax.tree.leaves(batch)} == {np.dtype("float32")}


def test_equal_keys_draw_the_same_samples_from_replay():
    memory = replay_of(64, batch_size=16)
    state, _ = filled(memory, [64], 64)
    sample = quick_jit(memory.sample)
    one, same, other = (sample(state, jax.random.key(k)).reward for k in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_replay_buffer_is_not_larger_than_total_steps():
    config = Config(Chain(), total_steps=3_000, warmup_steps=1_000, replay_size=1_000_000)
    state = jax.eval_shape(make_replay(config, scalar_transition(0.0)).init)
    assert state.rows.shape == (3_000, 5)
