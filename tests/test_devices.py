"""Members laid out over strategies and devices are, to rounding, what they were alone."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import KEYS, TINY
from checks import assert_close as close
from flax import struct
from gymnax.environments.classic_control.pendulum import Pendulum
from probes import member, quick_jit, stack

from sacjax import run
from sacjax.bits import as_arrays
from sacjax.config import Hyperparams
from sacjax.devices import fill_up, layout, over_members
from sacjax.runs.arrays import flatten
from sacjax.train import make_program, make_train
from sacjax.types import InputError

MEMBERS = 3  # no multiple of two devices


@pytest.mark.two_cpus
def test_here_are_two_devices():
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
def test_one_after_the_other_is_alone_to_rounding_on_any_number_of_devices():
    train, keys = make_train(TINY), jax.random.split(KEYS[0], MEMBERS)
    alone = trained_alone(keys)
    one, two = (
        quick_jit(over_members(train, strategy="map", devices=devices))(keys) for devices in (1, 2)
    )
    assert_close(alone, one.agent)
    assert_close(alone, two.agent)


@pytest.mark.exact
@pytest.mark.two_cpus
def test_states_stepped_in_place_are_those_stepped_alone():
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
    """One of the members below, trained alone."""
    return run(TINY, Hyperparams(tau=0.02), seeds=[1], strategy="map")


@pytest.mark.exact
@pytest.mark.two_cpus
@pytest.mark.parametrize("devices", [1, 2])
def test_run_gives_the_same_members_on_any_number_of_devices(devices, other):
    hp = Hyperparams(tau=np.array([0.005, 0.02]))
    one = run(TINY, hp, seeds=[0, 1, 2], strategy="map", devices=devices)
    i = one.members.index({"tau": 0.02, "seed": 1})
    kind = np.ndarray if devices > 1 else jax.Array  # one device could not hold them all, say
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
    """As MuJoCo's states have them: an array of no elements."""

    def reset_env(self, key, params):
        obs, inner = super().reset_env(key, params)
        return obs, Swing(inner, jnp.zeros((0, 3)))

    def step_env(self, key, state, action, params):
        obs, inner, *rest = super().step_env(key, state.inner, action, params)
        return obs, Swing(inner, state.nothing), *rest


def test_states_with_arrays_of_no_elements_are_laid_out_too():
    found = run(dataclasses.replace(TINY, env=WithNothing()), seeds=3)
    assert found.metrics["eval_return"].shape[0] == 3


def test_constants_of_no_elements_are_laid_out_too():
    """As MuJoCo's models have them: jaxlib 0.11.2 crashed where Brax's were read."""
    nothing, something = jnp.zeros((0, 3)), jnp.ones(2)
    many = over_members(lambda x: {"sum": x + nothing.sum() + something.sum()})
    np.testing.assert_array_equal(quick_jit(many)(jnp.arange(3.0))["sum"], [2, 3, 4])


@pytest.mark.exact
@pytest.mark.two_cpus
@pytest.mark.parametrize("strategy", ["vmap", "map"])
def test_a_devices_only_member_is_compiled_as_one(strategy):
    program = make_program(TINY)
    hp, params = as_arrays(Hyperparams(), program.default_params)

    def kernels(f, keys):
        text = quick_jit(f).lower(keys, hp, params).compile().as_text()
        return sum(" fusion(" in line or " dot(" in line for line in text.splitlines())

    many = over_members(program.init, (0, None, None), strategy=strategy)
    alone = kernels(program.init, KEYS[0])
    assert alone <= kernels(many, KEYS[:1]) <= 1.05 * alone
    assert alone <= kernels(many, KEYS[:2]) <= 1.05 * alone + 10  # slices of the hyperparameters
    train = make_train(TINY)
    two = quick_jit(over_members(train, strategy=strategy))(KEYS[:2])
    assert_close(trained_alone(KEYS[:2]), two.agent)


@pytest.mark.exact
@pytest.mark.two_cpus
def test_vmap_over_two_devices_is_vmap_to_rounding():
    train = make_train(TINY)
    keys = jax.random.split(KEYS[0], 4)
    one = quick_jit(jax.vmap(train))(keys)
    two = quick_jit(over_members(train, strategy="vmap", devices=2))(keys)
    assert_close(one.agent, two.agent)


@pytest.mark.two_cpus
def test_auto_is_map_on_several_cpu_devices_and_vmap_on_one():
    assert layout(8) == ("map", 2)
    assert layout(8, devices=1) == ("vmap", 1)
    assert layout(1) == ("vmap", 1)
    assert layout(8, "vmap") == ("vmap", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, "vmapped"), "must be one of auto, vmap, map"),
        pytest.param(
            (8, "auto", 3),
            r"devices \(3\) must be from 1 to 2.*leave devices \(--devices\) out.*use_all_cores",
            marks=pytest.mark.two_cpus,
        ),
        ((8, "auto", 0), r"devices \(0\)"),
    ],
)
def test_what_there_is_not_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        layout(*arguments)


@pytest.mark.parametrize("axes", [1, (0, 1), [None, None], (0, {"a": 0})])
def test_an_axis_that_is_not_in_front_is_refused(axes):
    with pytest.raises(InputError, match="must be 0 for what each member has"):
        over_members(jnp.add, axes)(jnp.zeros((2, 2)), jnp.zeros((2, 2)))


def test_axes_may_be_a_list():
    assert over_members(jnp.add, [0, None])(jnp.arange(2), 1).tolist() == [1, 2]


def test_filling_up_repeats_the_last_member():
    assert fill_up(jnp.arange(3), 2).tolist() == [0, 1, 2, 2]
    assert fill_up(jnp.arange(4), 2).tolist() == [0, 1, 2, 3]
