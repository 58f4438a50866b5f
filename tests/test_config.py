"""Test which values Config, Hyperparams and presets reject, and which values errors suggest."""

import copy
import dataclasses
import math
import pickle
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import refused

from sacjax.config import Config, Hyperparams
from sacjax.presets import PRESETS, preset
from sacjax.runs.population import extended
from sacjax.types import InputError

NAN, INF = math.nan, math.inf
COUNTS = [
    "total_steps",
    "num_envs",
    "warmup_steps",
    "warmup_hold",
    "batch_size",
    "replay_size",
    "eval_every",
    "eval_episodes",
    "num_critics",
]


# Config


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [-1, 1.5, -1e6, "8", None, True, NAN])
def test_count_fields_reject_fractions_and_negative_numbers(name, value):
    with refused(name):
        Config("Pendulum-v1", **{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_error_for_a_float_with_an_integer_value_suggests_the_integer(name):
    with refused(name) as caught:
        Config("Pendulum-v1", **{name: 1e6})
    assert remedy(str(caught.value)) == {name: 1_000_000}


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "warmup_steps"])
def test_count_fields_reject_zero(name):
    with refused(name):
        Config("Pendulum-v1", **{name: 0})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rollout_length": 0}, "rollout_length"),
        ({"rollout_length": 1.5}, "rollout_length"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (64, 0)}, "hidden"),
        ({"hidden": (64, 1.5)}, "hidden"),
        ({"utd": 0.0}, "utd"),
        ({"utd": -1.0}, "utd"),
        ({"utd": NAN}, "utd"),
        ({"utd": INF}, "utd"),
        ({"utd": 1e-5}, "utd"),
        ({"utd": math.pi}, "utd"),
        ({"utd": 0.3333}, "utd"),
        ({"utd": 0.667}, "utd"),
        ({"log_std_min": 2.0}, "log_std_min"),
        ({"log_std_max": -20.0}, "log_std_min"),
        ({"total_steps": 2_000_001_000, "utd": 2.0}, "total_steps"),
        ({"log_std_min": -INF}, "log_std_min"),
        ({"log_std_max": NAN}, "log_std_max"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"hidden_precision": "bf16"}, "hidden_precision"),
        ({"hidden_precision": None}, "hidden_precision"),
        ({"utd": 0.5, "rollout_length": 3}, "rollout_length"),
        ({"utd": 1 / 3, "num_envs": 2, "rollout_length": 1}, "rollout_length"),
        ({"replay_size": 255}, "replay_size"),
        ({"total_steps": 2_000, "batch_size": 4_000}, "total_steps"),
        ({"warmup_steps": 1_000_000}, "total_steps"),
        ({"num_envs": 1_000, "replay_size": 999}, "replay_size"),
        ({"total_steps": 2**31 + 1_000 - 648}, "total_steps"),
        ({"warmup_hold": 2**40}, "warmup_hold"),
        ({"num_envs": 3}, "warmup_steps"),
        ({"eval_every": 700}, "total_steps"),
        ({"policy_delay": 1_001}, "policy_delay"),
    ],
)
def test_the_error_for_an_invalid_config_names_the_invalid_field(changes, field):
    with refused(field):
        Config("Pendulum-v1", **changes)


def remedy(message):
    """Parse the fields and values that an error suggests after its last "use"."""
    tail = message[message.rindex("use ") :]
    values = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", tail)}
    if not values:  # "replay_size (...) ...: use 1024"
        values = {message.split(" ")[0]: float(tail.removeprefix("use "))}
    return {name: value if name == "utd" else int(value) for name, value in values.items()}


def random_sizes(rng):
    return {
        "num_envs": rng.choice([1, 2, 3, 4, 7, 8, 16]),
        "utd": rng.choice([0.1, 0.25, 1 / 3, 0.5, 2 / 3, 1.0, 1.5, 2.0]),
        "warmup_steps": rng.randint(0, 60),
        "eval_every": rng.randint(1, 60),
        "total_steps": rng.randint(61, 400),
        "batch_size": 1,
    }


def test_suggested_sizes_are_valid_and_close_to_the_requested_sizes():
    rng, failed = random.Random(0), 0
    for _ in range(2_000):
        sizes = random_sizes(rng)
        try:
            Config("Pendulum-v1", **sizes)
        except InputError as error:
            failed += 1
            fixed = remedy(str(error))
            config = Config("Pendulum-v1", **sizes | fixed)
            envs, iteration = config.num_envs, config.steps_per_iteration
            assert 0 <= fixed["warmup_steps"] - sizes["warmup_steps"] < envs
            assert 0 <= fixed["eval_every"] - sizes["eval_every"] < iteration
            assert fixed["total_steps"] - sizes["total_steps"] < fixed["eval_every"] + envs
    assert 1_000 < failed < 2_000


def test_following_all_suggestions_always_leads_to_a_valid_config():
    rng, most = random.Random(1), 0
    for _ in range(2_000):
        sizes = random_sizes(rng) | {
            "warmup_steps": rng.randint(0, 500),
            "replay_size": rng.randint(1, 500),
            "rollout_length": rng.choice([None, 1, 2, 3, 5]),
            "batch_size": rng.randint(1, 100),
            "n_step": rng.choice([1, 1, 2, 5, 50]),
            "policy_delay": rng.choice([1, 1, 2, 100]),
        }
        sizes["num_envs"] = rng.choice([sizes["num_envs"], 1_000])
        for attempt in range(6):
            try:
                Config("Pendulum-v1", **sizes)
            except InputError as error:
                sizes |= remedy(str(error))
            else:
                most = max(most, attempt)
                break
        else:
            pytest.fail(f"no remedy helps: {sizes}")
    assert most > 1


def test_suggested_sizes_are_valid_for_a_small_replay_buffer():
    sizes = {"num_envs": 3, "warmup_steps": 21, "eval_every": 30, "batch_size": 1}
    sizes |= {"total_steps": 50, "replay_size": 50}
    with refused("total_steps") as caught:
        Config("Pendulum-v1", **sizes)
    fixed = remedy(str(caught.value))
    assert (fixed["warmup_steps"], fixed["eval_every"]) == (21, 30)
    Config("Pendulum-v1", **sizes | fixed)


@pytest.mark.parametrize(
    "utd",
    [
        1e-5,
        0.3333,
        0.33333,
        math.pi,
    ],
)
def test_the_suggested_utd_is_valid(utd):
    fields = {"utd": utd}
    for first in ("utd", "eval_every"):  # after utd, the sizes have to fit the new ratio
        with refused(first) as caught:
            Config("Pendulum-v1", **fields)
        fields |= remedy(str(caught.value))
    Config("Pendulum-v1", **fields)


@pytest.mark.parametrize(
    ("utd", "num_envs", "rollout", "updates"),
    [
        (1.0, 1, 1, 1),
        (1.0, 8, 1, 8),
        (0.5, 1, 2, 1),
        (0.5, 4, 1, 2),
        (0.5, 3, 2, 3),
        (1 / 3, 4, 3, 4),
        (0.1, 1, 10, 1),
        (0.1, 4, 5, 2),
        (0.1 + 0.2, 1, 10, 3),  # 0.30000000000000004
        (20.0, 1, 1, 20),
    ],
)
def test_iterations_have_the_shortest_length_that_keeps_utd_exact(utd, num_envs, rollout, updates):
    sizes = {"warmup_steps": 120, "eval_every": 120, "total_steps": 1_200}
    config = Config("Pendulum-v1", utd=utd, num_envs=num_envs, **sizes)
    assert (config.rollout, config.updates_per_iteration) == (rollout, updates)
    assert config.steps_per_iteration == rollout * num_envs
    assert config.num_epochs == 9


def test_replay_capacity_is_at_most_total_steps():
    assert Config("Pendulum-v1", total_steps=5_000).capacity == 5_000
    assert Config("Pendulum-v1", replay_size=3_000).capacity == 3_000


def test_replay_capacity_of_an_extended_run_is_a_multiple_of_num_envs():
    sizes = {"num_envs": 128, "warmup_steps": 1_024, "eval_every": 1_024}
    config = Config("Pendulum-v1", total_steps=512_000, **sizes)
    assert config.capacity == 512_000
    assert extended(config, 2_048_000).capacity == 1_000_000 // 128 * 128


def test_configs_are_immutable_hashable_and_compared_by_value():
    config = Config("Pendulum-v1", hidden=[32, 32])  # a list, as from a file
    assert config == Config("Pendulum-v1", hidden=(32, 32))
    assert hash(config) == hash(Config("Pendulum-v1", hidden=(32, 32)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.utd = 2.0


def test_config_accepts_numpy_integers():
    assert Config("Pendulum-v1", num_envs=np.int64(2)).num_envs == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"utd": "1"},
        {"utd": None},
        {"utd": np.float32(0.5)},
        {"utd": np.int64(2)},
        {"hidden": 256},
        {"hidden": (np.int64(64),), "rollout_length": np.int64(2)},
        {"hidden": (True,)},
        {"rollout_length": True},
        {"log_std_min": "-20"},
    ],
    ids=str,
)
def test_config_rejects_wrong_types_and_accepts_numpy_numbers(changes):
    is_numpy = "np." in str(changes)
    if is_numpy:
        Config("Pendulum-v1", **changes)
    else:
        with refused(*changes):
            Config("Pendulum-v1", **changes)


# Hyperparams

NAMES = [field.name for field in dataclasses.fields(Hyperparams)]
BAD = [(name, value) for name in NAMES for value in (NAN, -INF)]
BAD += [(name, INF) for name in NAMES if name != "max_alpha"]
BAD += [(name, -0.1) for name in NAMES if name not in ("target_entropy_per_dim", "reward_scale")]
BAD += [("gamma", 1.1), ("tau", 0.0), ("tau", 1.1), ("max_alpha", 0.0)]


@pytest.mark.parametrize(("name", "value"), BAD)
@pytest.mark.parametrize(
    "kind",
    [float, np.array, jnp.array, lambda x: np.array([0.5, x]), lambda x: jnp.array([0.5, x])],
)
def test_hyperparams_rejects_values_out_of_range(name, value, kind):
    with refused(name):
        Hyperparams(**{name: kind(value)})


@pytest.mark.parametrize("value", [np.float32(NAN), [0.5, NAN], "0.5", None])
@pytest.mark.parametrize("name", NAMES)
def test_a_hyperparameter_must_be_a_number_or_an_array(name, value):
    with refused(name):
        Hyperparams(**{name: value})


@pytest.mark.parametrize(
    "values",
    [
        {"min_alpha": 2.0},
        {"max_alpha": 0.5},
        {"init_alpha": 0.0},
        {"max_alpha": np.array([2.0, 0.5])},
        {"init_alpha": jnp.array([1.0, 0.0])},
    ],
)
def test_the_initial_temperature_must_be_within_its_bounds(values):
    with refused("init_alpha"):
        Hyperparams(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"gamma": 0.0},
        {"gamma": 1.0, "tau": 1.0},
        {"alpha_lr": 0.0, "init_alpha": 0.0},
        {"min_alpha": 1.0, "max_alpha": 1.0},
        {"max_alpha": INF},
        {"target_entropy_per_dim": 0.5, "reward_scale": -2.0},
        {"actor_lr": 0.0, "critic_lr": 0.0},
        {"gamma": np.array([0, 1])},
    ],
)
def test_hyperparams_accepts_values_at_the_limits_of_their_range(values):
    hp = Hyperparams(**values)
    for name, value in values.items():
        np.testing.assert_array_equal(getattr(hp, name), value)


@pytest.mark.parametrize("name", NAMES)
def test_one_array_in_hyperparams_makes_all_fields_arrays(name):
    grid = [2.0, 3.0, 2.0] if name == "max_alpha" else [0.5, 1.0, 0.5]
    hp, default = Hyperparams(**{name: jnp.array(grid)}), Hyperparams()
    for other in NAMES:
        expected = grid if other == name else [getattr(default, other)] * 3
        np.testing.assert_array_equal(getattr(hp, other), np.array(expected, np.float32))
    assert jax.vmap(lambda hp: hp.tau)(hp).shape == (3,)


def test_arrays_of_hyperparameters_broadcast_against_each_other():
    hp = Hyperparams(tau=np.array([[0.1], [0.2]]), gamma=np.array([0.7, 0.8, 0.9]))
    assert hp.tau.shape == hp.gamma.shape == hp.actor_lr.shape == (2, 3)
    np.testing.assert_allclose(hp.tau, [[0.1] * 3, [0.2] * 3])
    np.testing.assert_allclose(hp.gamma, [[0.7, 0.8, 0.9]] * 2)


@pytest.mark.parametrize(("one", "other"), [("gamma", "tau"), ("init_alpha", "max_alpha")])
def test_arrays_of_hyperparameters_must_have_compatible_shapes(one, other):
    with refused(None):
        Hyperparams(**{one: jnp.ones(2), other: jnp.ones(3)})


def test_each_hyperparameter_can_have_its_own_vmap_axis():
    hp = dataclasses.replace(Hyperparams(), gamma=jnp.array([0.8, 0.9]))
    axes = jax.tree.map(lambda _: 0, hp)  # JAX rebuilds the record from axes, without checks
    assert axes.tau == 0
    assert jax.vmap(lambda hp: hp.gamma, in_axes=(axes,))(hp).shape == (2,)


def test_hyperparams_without_arrays_are_hashable():
    assert hash(Hyperparams()) == hash(Hyperparams())
    assert Hyperparams(gamma=0.9).gamma == 0.9


def test_hyperparams_does_not_check_the_range_of_traced_values():
    gamma = jax.jit(lambda x: Hyperparams(gamma=x).gamma)(7.0)
    assert gamma == 7.0
    both = jax.vmap(lambda x: Hyperparams(gamma=x, max_alpha=x).max_alpha)(jnp.array([-1.0, 2.0]))
    assert both.tolist() == [-1.0, 2.0]


def test_hyperparams_accepts_shape_dtype_structs():
    shapes = jax.eval_shape(lambda hp: hp, Hyperparams())
    assert {x.shape for x in jax.tree.leaves(shapes)} == {()}
    assert jax.tree.structure(shapes) == jax.tree.structure(Hyperparams())


def test_jax_can_differentiate_with_respect_to_hyperparameters():
    grads = jax.grad(lambda hp: -3.0 * hp.tau)(Hyperparams())
    assert grads.tau == -3.0


# Presets


EVERY_PRESET = [
    *PRESETS["gymnax"],
    "gymnax/Pendulum-v1",
    *(f"gymnasium/{id}".replace("[45]", v) for id in PRESETS["gymnasium"] for v in "45"),
    *(f"brax/{id}?backend=spring" for id in ("hopper", "walker2d", "ant")),
    *(f"playground/{id}" for id in ("CheetahRun", "WalkerWalk")),
]


@pytest.mark.parametrize("env", EVERY_PRESET)
def test_a_preset_returns_a_config_for_its_environment(env):
    config, hp = preset(env)
    assert config.env == env
    assert isinstance(hp, Hyperparams)
    assert config.num_epochs > 1
    assert (config, hp) != (Config(env), Hyperparams())


def test_an_environment_object_gets_the_default_settings():
    env = object()
    assert preset(env) == (Config(env), Hyperparams())


def test_an_environment_without_a_preset_gets_the_default_settings():
    assert preset("Unheard-of") == (Config("Unheard-of"), Hyperparams())


def test_keyword_arguments_replace_fields_of_the_preset():
    config, hp = preset("Pendulum-v1", batch_size=32, gamma=0.5)
    plain_config, plain_hp = preset("Pendulum-v1")
    assert config == dataclasses.replace(plain_config, batch_size=32)
    assert hp == dataclasses.replace(plain_hp, gamma=0.5)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: preset("Pendulum-v1", batch_size=0), "batch_size"),
        (lambda: preset("Pendulum-v1", layer_norm=3), "layer_norm"),
        (lambda: preset("Pendulum-v1", critic_rl=1e-3), "critic_rl"),
        (lambda: preset("Pendulum-v1", discount=0.9), "discount"),
        (lambda: preset("Pendulum-v1", "sacc"), "algorithm"),
        (lambda: Config("Pendulum-v1", learning_rate=1), "learning_rate"),
        (lambda: Config("Pendulum-v1", gamma=0.9), "gamma"),
        (lambda: Config("Pendulum-v1", buffer_size=9), "buffer_size"),
        (lambda: Config("Pendulum-v1", hiden=(8,)), "hiden"),
        (lambda: Hyperparams(lr=1), "lr"),
        (lambda: Hyperparams(hidden=(8,)), "hidden"),
    ],
)
def test_the_error_for_a_wrong_name_or_value_names_the_field(make, field):
    with refused(field):
        make()


def test_config_and_hyperparams_can_be_copied_and_pickled():
    for record in Config("Pendulum-v1"), Hyperparams(tau=0.1):
        assert copy.deepcopy(record) == record
        assert pickle.loads(pickle.dumps(record)) == record
        assert dataclasses.replace(record) == record


@pytest.mark.parametrize("env", [*EVERY_PRESET[:4:3], *EVERY_PRESET[6:8], *EVERY_PRESET[-5:]])
def test_a_preset_adapts_its_sizes_to_small_settings(env):
    """Sizes that were not given are rounded, and the preset's accelerator-sized counts too."""
    counts = [{"total_steps": x} for x in (100, 300, 1_000, 1_234, 5_000, 10_000, 10_007, 12_345)]
    counts += [{"num_envs": x} for x in (1, 3, 8, 10, 100, 256)]
    counts += [{"warmup_steps": x} for x in (0, 100, 1_000)]
    counts += [{"eval_every": x} for x in (10, 1_000, 2_500)]
    counts += [{"replay_size": x} for x in (1, 100, 10_000)]
    counts += [{"batch_size": x} for x in (1, 100, 50_000)]
    counts += [
        {"total_steps": 10_000, "num_envs": 8},
        {"total_steps": 10_000, "eval_every": 1_000},
        {"total_steps": 10_000, "eval_every": 10_000},
        {"total_steps": 10_000, "warmup_steps": 100},
        {"total_steps": 2_000, "num_envs": 4, "warmup_steps": 100},
        {"total_steps": 500, "eval_every": 50, "warmup_steps": 50},
        {"total_steps": 1_000, "utd": 0.5, "n_step": 3},
        {"total_steps": 4_000, "rollout_length": 4},
        {"eval_every": 100, "num_envs": 10},
    ]
    for fields in counts:
        config, hp = preset(env, **fields)
        assert {name: getattr(config, name) for name in fields} == fields
        assert hp == preset(env)[1]


def test_a_short_run_has_a_short_warmup_and_about_ten_evaluations():
    for env in ("Pendulum-v1", "brax/ant", "gymnasium/Hopper-v5"):
        config, _ = preset(env, total_steps=10_000)
        assert config.warmup_steps <= 5_000
        assert 5 <= config.num_epochs <= 20


def test_one_warning_lists_all_rounded_sizes(caplog):
    preset("brax/ant", total_steps=10_000)
    (record,) = caplog.records
    assert record.getMessage() == (
        "changed to fit the given settings: num_envs from 128 to 125, warmup_steps from 8192 to "
        "1000, eval_every from 327680 to 1000"
    )


def test_a_preset_rejects_sizes_of_the_user_that_do_not_fit():
    for fields in ({"total_steps": 1_000, "num_envs": 7}, {"total_steps": 300, "batch_size": 400}):
        with pytest.raises(InputError):
            preset("brax/ant", **fields)


@pytest.mark.parametrize(
    ("env", "fields"),
    [
        ("brax/ant", {"num_envs": 3}),
        ("brax/hopper", {"total_steps": 20_000, "num_envs": 8}),
        ("playground/CheetahRun", {"num_envs": 7}),
        ("Pendulum-v1", {"total_steps": 301}),
        ("Pendulum-v1", {"num_envs": 6, "utd": 0.25, "warmup_steps": 12}),
        ("Pendulum-v1", {"total_steps": 997, "warmup_steps": 0}),
    ],
)
def test_a_preset_never_rounds_numbers_of_steps_that_the_user_set(env, fields, caplog):
    config, _ = preset(env, **fields)
    assert {name: getattr(config, name) for name in fields} == fields
    assert "to fit the given settings" in caplog.text
    caplog.clear()
    preset(env)
    assert not caplog.text
