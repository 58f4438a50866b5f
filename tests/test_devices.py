"""Test that members equal single runs up to rounding, on any number of devices."""

import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import KEYS, TINY, refused
from checks import assert_close as close
from flax import struct
from gymnax.environments.classic_control.pendulum import Pendulum
from probes import member, quick_jit, stack

from sacjax import run
from sacjax.bits import as_arrays
from sacjax.config import Hyperparams
from sacjax.devices import fill_up, layout, over_grid, over_members
from sacjax.runs.arrays import flatten
from sacjax.train import make_program, make_train

MEMBERS = 3  # not a multiple of two devices


@pytest.mark.two_cpus
def test_two_devices_are_available_to_these_tests():
    assert jax.local_device_count() == 2


def assert_close(one, other):
    close(flatten(one), flatten(other), rtol=1e-4, atol=1e-5)


@cache
def compiled_alone():
    return quick_jit(make_train(TINY))


def trained_alone(keys):
    return stack([compiled_alone()(key).agent for key in keys])


@pytest.mark.exact
@pytest.mark.two_cpus
def test_members_trained_with_map_equal_single_runs_on_one_and_two_devices():
    train, keys = make_train(TINY), jax.random.split(KEYS[0], MEMBERS)
    alone = trained_alone(keys)
    one, two = (
        quick_jit(over_members(train, strategy="map", devices=devices))(keys) for devices in (1, 2)
    )
    assert_close(alone, one.agent)
    assert_close(alone, two.agent)


@pytest.mark.exact
@pytest.mark.two_cpus
def test_members_with_donated_states_equal_single_runs():
    program = make_program(TINY)
    hp, params = as_arrays(Hyperparams(), program.default_params)
    hps = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x, 0.8 * x]), hp)
    keys, axes = jax.random.split(KEYS[0], MEMBERS), (0, 0, None)
    init, epoch = quick_jit(program.init), quick_jit(program.epoch)
    each = [(keys[i], member(hps, i)) for i in range(MEMBERS)]
    alone = stack(epoch(init(key, hp, params), hp, params) for key, hp in each)
    how = {"strategy": "map", "devices": 2}
    loop = quick_jit(over_members(program.init, axes, **how))(keys, hps, params)
    step = quick_jit(over_members(program.epoch, axes, donated=True, **how), donate_argnums=0)
    assert_close(alone, step(loop, hps, params))


@pytest.fixture(scope="module")
def other():
    """Train one member of the next test in a single run."""
    return run(TINY, Hyperparams(tau=0.02), seeds=[1], strategy="map")


@pytest.mark.exact
@pytest.mark.two_cpus
@pytest.mark.parametrize("devices", [1, 2])
def test_run_trains_each_member_like_a_single_run_on_one_and_two_devices(devices, other):
    hp = Hyperparams(tau=np.array([0.005, 0.02]))
    one = run(TINY, hp, seeds=[0, 1, 2], strategy="map", devices=devices)
    i = one.members.index({"tau": 0.02, "seed": 1})
    kind = np.ndarray if devices > 1 else jax.Array  # one device might not hold all of them
    assert all(isinstance(x, kind) and len(x) == 6 for x in jax.tree.leaves(one.agents))
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(one.agent(i)))
    assert_close(member(one.agents, i), member(other.agents, 0))
    for name, values in one.metrics.items():
        assert len(values) == 6
        np.testing.assert_allclose(values[i], other.metrics[name][0], rtol=1e-4, atol=1e-4)


@struct.dataclass
class Swing:
    inner: Any
    nothing: jax.Array

    @property
    def time(self):
        return self.inner.time


class WithNothing(Pendulum):
    """A pendulum whose state contains an empty array, like the states of MuJoCo."""

    def reset_env(self, key, params):
        obs, inner = super().reset_env(key, params)
        return obs, Swing(inner, jnp.zeros((0, 3)))

    def step_env(self, key, state, action, params):
        obs, inner, *rest = super().step_env(key, state.inner, action, params)
        return obs, Swing(inner, state.nothing), *rest


def test_environment_states_may_contain_empty_arrays():
    found = run(dataclasses.replace(TINY, env=WithNothing()), seeds=3)
    assert found.metrics["eval_return"].shape[0] == 3


def test_compiled_functions_may_have_empty_arrays_as_constants():
    """MuJoCo's models contain empty arrays. jaxlib 0.11.2 crashed on the empty arrays of Brax."""
    nothing, something = jnp.zeros((0, 3)), jnp.ones(2)
    many = over_members(lambda x: {"sum": x + nothing.sum() + something.sum()})
    np.testing.assert_array_equal(quick_jit(many)(jnp.arange(3.0))["sum"], [2, 3, 4])


@pytest.mark.exact
@pytest.mark.two_cpus
@pytest.mark.parametrize("strategy", ["vmap", "map"])
def test_one_member_on_a_device_compiles_like_a_single_run(strategy):
    program = make_program(TINY)
    hp, params = as_arrays(Hyperparams(), program.default_params)

    def kernels(f, keys):
        text = quick_jit(f).lower(keys, hp, params).compile().as_text()
        return sum(" fusion(" in line or " dot(" in line for line in text.splitlines())

    many = over_members(program.init, (0, None, None), strategy=strategy)
    alone = kernels(program.init, KEYS[0])
    assert alone <= kernels(many, KEYS[:1]) <= 1.05 * alone
    assert alone <= kernels(many, KEYS[:2]) <= 1.05 * alone + 10  # for slices of hyperparameters
    train = make_train(TINY)
    two = quick_jit(over_members(train, strategy=strategy))(KEYS[:2])
    assert_close(trained_alone(KEYS[:2]), two.agent)


@pytest.mark.exact
@pytest.mark.two_cpus
def test_vmap_on_two_devices_equals_vmap_on_one_device_up_to_rounding():
    train = make_train(TINY)
    keys = jax.random.split(KEYS[0], 4)
    one = quick_jit(jax.vmap(train))(keys)
    two = quick_jit(over_members(train, strategy="vmap", devices=2))(keys)
    assert_close(one.agent, two.agent)


@pytest.mark.two_cpus
def test_auto_selects_map_on_several_cpu_devices_and_vmap_on_one():
    assert layout(8) == ("map", 2)
    assert layout(8, devices=1) == ("vmap", 1)
    assert layout(1) == ("vmap", 1)
    assert layout(8, "vmap") == ("vmap", 2)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((8, "vmapped"), "strategy"),
        pytest.param((8, "auto", 3), "devices", marks=pytest.mark.two_cpus),
        ((8, "auto", 0), "devices"),
    ],
)
def test_strategy_and_number_of_devices_must_be_available(arguments, field):
    with refused(field):
        layout(*arguments)


@pytest.mark.parametrize("axes", [1, (0, 1), [None, None], (0, {"a": 0})])
def test_the_axis_of_members_must_be_the_first_axis(axes):
    with refused("in_axes"):
        over_members(jnp.add, axes)(jnp.zeros((2, 2)), jnp.zeros((2, 2)))


def test_in_axes_may_be_a_list():
    assert over_members(jnp.add, [0, None])(jnp.arange(2), 1).tolist() == [1, 2]


def draw(key, hp):
    return {"scaled": hp.tau * jax.random.normal(key), "three": jax.random.normal(key, (3,))}


@pytest.mark.parametrize("strategy", ["auto", "vmap", "map"])
def test_a_grid_equals_nested_vmaps(strategy):
    keys = jax.random.split(KEYS[0], 3)
    two, six = Hyperparams(tau=jnp.array([0.1, 0.2])), jnp.linspace(0.1, 0.6, 6).reshape(2, 3)
    nested = jax.vmap(jax.vmap(draw, (0, None)), (None, 0))(keys, two)
    close(over_grid(draw, keys, two, strategy=strategy), nested)
    close(jax.jit(partial(over_grid, draw))(keys, two), nested)
    assert over_grid(draw, keys, Hyperparams(tau=six))["three"].shape == (2, 3, 3, 3)
    legacy = jax.random.split(jax.random.PRNGKey(0), 2)
    assert over_grid(draw, legacy, two)["scaled"].shape == (2, 2)


@pytest.mark.exact
@pytest.mark.two_cpus
def test_a_grid_trains_every_setting_with_every_key():
    train, grid = make_train(TINY), Hyperparams(tau=jnp.array([0.005, 0.02]))
    result = over_grid(train, KEYS, grid)
    alone = quick_jit(train)(KEYS[1], Hyperparams(tau=0.02))
    assert result.metrics["eval_return"].shape[:2] == (2, 2)
    assert_close(alone.agent, jax.tree.map(lambda x: x[1, 1], result.agent))


@pytest.mark.two_cpus
def test_the_error_for_a_nested_grid_names_the_argument():
    inner = over_members(jnp.multiply, (0, None))
    with refused("over_members") as caught:
        over_members(inner, (None, 0))(jnp.arange(3.0), jnp.arange(4.0))
    assert "over_grid" in str(caught.value)
    one = over_members(jnp.multiply, (0, None), devices=1)
    assert over_members(one, (None, 0))(jnp.arange(3.0), jnp.arange(4.0)).shape == (4, 3)
    assert jax.vmap(inner, (None, 0))(jnp.arange(3.0), jnp.arange(4.0)).shape == (4, 3)


GRID = Hyperparams(tau=jnp.array([0.1, 0.2]))
UNEQUAL = jax.tree_util.tree_map_with_path(lambda p, x: x[:1] if "gamma" in str(p) else x, GRID)
PARTLY = jax.tree_util.tree_map_with_path(lambda p, x: 0.5 if "critic" in str(p) else x, GRID)


@pytest.mark.parametrize(
    ("keys", "hp", "field"),
    [
        (KEYS, Hyperparams(), "gamma"),
        (KEYS, UNEQUAL, "gamma"),
        (KEYS, PARTLY, "critic_lr"),
        (KEYS[0], GRID, "keys"),
    ],
)
def test_the_error_for_scalars_or_unequal_lengths_names_the_field(keys, hp, field):
    with refused(field):
        over_grid(draw, keys, hp)
    with refused("argument 0" if field == "keys" else field):
        over_members(draw)(keys, hp)


def test_the_number_of_settings_must_equal_the_number_of_keys():
    with refused("argument 0"):
        over_members(draw)(jax.random.split(KEYS[0], 3), GRID)
    with refused("argument 1"):
        over_members(jnp.add)(jnp.arange(3), 1)


def test_members_are_padded_with_copies_of_the_last_member():
    assert fill_up(jnp.arange(3), 2).tolist() == [0, 1, 2, 2]
    assert fill_up(jnp.arange(4), 2).tolist() == [0, 1, 2, 3]
