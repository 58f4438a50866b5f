"""Config, Hyperparams and presets: what is refused, with which remedy, and that remedies work."""

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
def test_count_that_is_no_whole_number_is_refused(name, value):
    with pytest.raises(
        InputError, match=rf"{name} \(.*must be a whole number from [01] to .*: use \d"
    ):
        Config("Pendulum-v1", **{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_what_a_float_stands_for_is_said(name):
    said = rf"{name} \(1000000\.0\) must be a whole number from .*: use 1000000$"
    with pytest.raises(InputError, match=said):
        Config("Pendulum-v1", **{name: 1e6})


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "warmup_steps"])
def test_count_of_zero_is_refused(name):
    with pytest.raises(InputError, match="must be a whole number from 1 to"):
        Config("Pendulum-v1", **{name: 0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout_length": 0}, "must be a whole number from 1 to .*: use None"),
        ({"rollout_length": 1.5}, "must be a whole number from 1 to .*: use None"),
        ({"hidden": ()}, r"use \(256, 256\)"),
        ({"hidden": (64, 0)}, r"use \(256, 256\)"),
        ({"hidden": (64, 1.5)}, r"use \(256, 256\)"),
        ({"utd": 0.0}, r"must be a number in \(0, 10000\]: use 1"),
        ({"utd": -1.0}, r"must be a number in \(0, 10000\]: use 1"),
        ({"utd": NAN}, r"must be a number in \(0, 10000\]: use 1"),
        ({"utd": INF}, r"must be a number in \(0, 10000\]: use 1"),
        ({"utd": 1e-5}, "ratio of small whole numbers.*: use 0.0001"),
        ({"utd": math.pi}, "ratio of small whole numbers.*: use 3.14159"),
        ({"utd": 0.3333}, "or have a rollout_length: use 0.3333333333333333$"),
        ({"utd": 0.667}, "or have a rollout_length: use 0.6666666666666666$"),
        ({"log_std_min": 2.0}, "must be below log_std_max"),
        ({"log_std_max": -20.0}, "must be below log_std_max"),
        ({"total_steps": 2_000_001_000, "utd": 2.0}, "utd .* gradient steps, .* use fewer total"),
        ({"log_std_min": -INF}, r"must be a number in \(-inf, inf\): use -20"),
        ({"log_std_max": NAN}, r"must be a number in \(-inf, inf\): use 2"),
        ({"max_grad_norm": 0.0}, r"must be a number in \(0, inf\): use None"),
        ({"hidden_precision": "bf16"}, "must be 'float32' or 'bfloat16'"),
        ({"hidden_precision": None}, "must be 'float32' or 'bfloat16'"),
        ({"utd": 0.5, "rollout_length": 3}, "whole number of gradient steps: use rollout_length=2"),
        ({"utd": 1 / 3, "num_envs": 2, "rollout_length": 1}, "use rollout_length=3"),
        ({"replay_size": 255}, r"must hold a batch \(batch_size=256\).*use replay_size=256"),
        ({"total_steps": 2_000, "batch_size": 4_000}, "must hold a batch.*total_steps=4000"),
        ({"warmup_steps": 1_000_000}, r"total_steps - warmup_steps \(0\) must be a positive multi"),
        (
            {"num_envs": 1_000, "replay_size": 999},
            r"steps of all num_envs \(1000\): use replay_size=1000, warmup_steps=1000",
        ),
        ({"total_steps": 2**31 + 1_000 - 648}, "total_steps .* to 2147483647: use 1000000"),
        ({"warmup_hold": 2**40}, "warmup_hold .* to 2147483647: use 1"),
        (
            {"num_envs": 3},
            "use warmup_steps=1002, eval_every=1002, total_steps=1000998",
        ),
        ({"eval_every": 700}, "use warmup_steps=1000, eval_every=700, total_steps=1000600"),
    ],
)
def test_unfit_config_is_refused_with_a_remedy(changes, message):
    with pytest.raises(InputError, match=message):
        Config("Pendulum-v1", **changes)


def remedy(message):
    """The fields and values that an error suggests after its last 'use'."""
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


def test_remedy_for_sizes_is_always_accepted_and_changes_as_little_as_it_can():
    rng, refused = random.Random(0), 0
    for _ in range(2_000):
        sizes = random_sizes(rng)
        try:
            Config("Pendulum-v1", **sizes)
        except InputError as error:
            refused += 1
            fixed = remedy(str(error))
            config = Config("Pendulum-v1", **sizes | fixed)
            envs, iteration = config.num_envs, config.steps_per_iteration
            assert 0 <= fixed["warmup_steps"] - sizes["warmup_steps"] < envs
            assert 0 <= fixed["eval_every"] - sizes["eval_every"] < iteration
            assert fixed["total_steps"] - sizes["total_steps"] < fixed["eval_every"] + envs
    assert 1_000 < refused < 2_000


def test_following_remedies_leads_to_a_config_whatever_is_wrong_at_the_start():
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


def test_remedy_for_sizes_is_accepted_beside_a_small_replay():
    sizes = {"num_envs": 3, "warmup_steps": 21, "eval_every": 30, "batch_size": 1}
    sizes |= {"total_steps": 50, "replay_size": 50}
    with pytest.raises(InputError, match="use warmup_steps=21, eval_every=30") as caught:
        Config("Pendulum-v1", **sizes)
    Config("Pendulum-v1", **sizes | remedy(str(caught.value)))


@pytest.mark.parametrize(
    "utd",
    [
        1e-5,
        0.3333,
        0.33333,
        math.pi,
    ],
)
def test_remedy_for_utd_is_accepted(utd):
    fields = {"utd": utd}
    for first in ("utd", "eval_every"):  # then the sizes have to fit the new ratio
        with pytest.raises(InputError, match=f"^{first}") as caught:
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
def test_iteration_is_the_shortest_that_makes_utd_exact(utd, num_envs, rollout, updates):
    sizes = {"warmup_steps": 120, "eval_every": 120, "total_steps": 1_200}
    config = Config("Pendulum-v1", utd=utd, num_envs=num_envs, **sizes)
    assert (config.rollout, config.updates_per_iteration) == (rollout, updates)
    assert config.steps_per_iteration == rollout * num_envs
    assert config.num_epochs == 9


def test_replay_that_is_larger_than_the_run_is_capped():
    assert Config("Pendulum-v1", total_steps=5_000).capacity == 5_000
    assert Config("Pendulum-v1", replay_size=3_000).capacity == 3_000


def test_replay_holds_whole_steps_of_all_environments_in_a_longer_run_too():
    sizes = {"num_envs": 128, "warmup_steps": 1_024, "eval_every": 1_024}
    config = Config("Pendulum-v1", total_steps=512_000, **sizes)
    assert config.capacity == 512_000
    assert extended(config, 2_048_000).capacity == 1_000_000 // 128 * 128


def test_config_is_frozen_hashable_and_equal_by_value():
    config = Config("Pendulum-v1", hidden=[32, 32])  # a list, as from a file
    assert config == Config("Pendulum-v1", hidden=(32, 32))
    assert hash(config) == hash(Config("Pendulum-v1", hidden=(32, 32)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.utd = 2.0


def test_numpy_integers_are_counts_too():
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
def test_value_of_a_wrong_type_is_refused_and_numpys_numbers_are_taken(changes):
    is_numpy = "np." in str(changes)
    if is_numpy:
        Config("Pendulum-v1", **changes)
    else:
        with pytest.raises(InputError, match=r"use|must"):
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
def test_hyperparameter_out_of_range_is_refused(name, value, kind):
    with pytest.raises(InputError, match=rf"(?s){name} \(.*must be a number in .*: use "):
        Hyperparams(**{name: kind(value)})


@pytest.mark.parametrize("value", [np.float32(NAN), [0.5, NAN], "0.5", None])
@pytest.mark.parametrize("name", NAMES)
def test_hyperparameter_of_another_type_is_refused(name, value):
    with pytest.raises(InputError):
        Hyperparams(**{name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_alpha": 2.0}, "init_alpha .* must lie between min_alpha"),
        ({"max_alpha": 0.5}, "init_alpha .* must lie between min_alpha"),
        ({"init_alpha": 0.0}, "above 0 where it is learned: .* or alpha_lr=0 for a fixed temp"),
        ({"max_alpha": np.array([2.0, 0.5])}, "use init_alpha within the bounds"),
        ({"init_alpha": jnp.array([1.0, 0.0])}, "or alpha_lr=0"),
    ],
)
def test_hyperparameters_that_contradict_each_other_are_refused(values, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
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
def test_values_at_the_edge_of_their_range_are_taken(values):
    hp = Hyperparams(**values)
    for name, value in values.items():
        np.testing.assert_array_equal(getattr(hp, name), value)


@pytest.mark.parametrize("name", NAMES)
def test_grid_of_one_field_makes_every_field_a_grid(name):
    grid = [2.0, 3.0, 2.0] if name == "max_alpha" else [0.5, 1.0, 0.5]
    hp, default = Hyperparams(**{name: jnp.array(grid)}), Hyperparams()
    for other in NAMES:
        expected = grid if other == name else [getattr(default, other)] * 3
        np.testing.assert_array_equal(getattr(hp, other), np.array(expected, np.float32))
    assert jax.vmap(lambda hp: hp.tau)(hp).shape == (3,)


def test_grids_broadcast_against_each_other():
    hp = Hyperparams(tau=np.array([[0.1], [0.2]]), gamma=np.array([0.7, 0.8, 0.9]))
    assert hp.tau.shape == hp.gamma.shape == hp.actor_lr.shape == (2, 3)
    np.testing.assert_allclose(hp.tau, [[0.1] * 3, [0.2] * 3])
    np.testing.assert_allclose(hp.gamma, [[0.7, 0.8, 0.9]] * 2)


def test_grids_of_different_lengths_are_refused_with_a_remedy():
    with pytest.raises(InputError, match=r"gamma.*tau"):
        Hyperparams(gamma=jnp.full(2, 0.9), tau=jnp.full(3, 0.1))


def test_grids_of_alphas_of_different_lengths_are_refused_with_a_remedy():
    with pytest.raises(InputError, match="use arrays that broadcast"):
        Hyperparams(init_alpha=jnp.ones(2), max_alpha=jnp.ones(3))


def test_axes_of_vmap_can_be_given_by_field():
    hp = dataclasses.replace(Hyperparams(), gamma=jnp.array([0.8, 0.9]))
    axes = jax.tree.map(lambda _: 0, hp)  # rebuilt by JAX: no hyperparameters, and not checked
    assert axes.tau == 0
    assert jax.vmap(lambda hp: hp.gamma, in_axes=(axes,))(hp).shape == (2,)


def test_unknown_setting_of_a_preset_names_close_ones():
    with pytest.raises(InputError, match=r"no setting 'critic_rl': use .*critic_lr"):
        preset("Pendulum-v1", critic_rl=1e-3)
    with pytest.raises(InputError, match="True or False"):
        preset("Pendulum-v1", layer_norm=3)


def test_numbers_stay_numbers_and_can_be_hashed():
    assert hash(Hyperparams()) == hash(Hyperparams())
    assert Hyperparams(gamma=0.9).gamma == 0.9


def test_tracers_pass_unchecked():
    gamma = jax.jit(lambda x: Hyperparams(gamma=x).gamma)(7.0)
    assert gamma == 7.0
    both = jax.vmap(lambda x: Hyperparams(gamma=x, max_alpha=x).max_alpha)(jnp.array([-1.0, 2.0]))
    assert both.tolist() == [-1.0, 2.0]


def test_structs_and_placeholders_pass():
    shapes = jax.eval_shape(lambda hp: hp, Hyperparams())
    assert {x.shape for x in jax.tree.leaves(shapes)} == {()}
    assert jax.tree.structure(shapes) == jax.tree.structure(Hyperparams())


def test_gradients_in_hyperparameters_can_be_taken():
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
def test_preset_is_a_config_of_that_environment(env):
    config, hp = preset(env)
    assert config.env == env
    assert isinstance(hp, Hyperparams)
    assert config.num_epochs > 1
    assert (config, hp) != (Config(env), Hyperparams())


def test_environment_object_has_the_defaults():
    env = object()
    assert preset(env) == (Config(env), Hyperparams())


def test_environment_without_a_preset_has_the_defaults():
    assert preset("Unheard-of") == (Config("Unheard-of"), Hyperparams())


def test_changes_replace_the_presets_values_of_either_record():
    config, hp = preset("Pendulum-v1", batch_size=32, gamma=0.5)
    plain_config, plain_hp = preset("Pendulum-v1")
    assert config == dataclasses.replace(plain_config, batch_size=32)
    assert hp == dataclasses.replace(plain_hp, gamma=0.5)


def test_changes_are_checked_like_any_config():
    with pytest.raises(InputError, match="batch_size"):
        preset("Pendulum-v1", batch_size=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config("Pendulum-v1", learning_rate=1), "actor_lr, .* of Hyperparams"),
        (lambda: Config("Pendulum-v1", gamma=0.9), "'gamma': it is one of Hyperparams"),
        (lambda: Config("Pendulum-v1", buffer_size=9), "use replay_size of Config"),
        (lambda: Config("Pendulum-v1", hiden=(8,)), "no field 'hiden': use hidden"),
        (lambda: Hyperparams(lr=1), "use actor_lr, critic_lr and alpha_lr of Hyperparams"),
        (lambda: Hyperparams(hidden=(8,)), "'hidden': it is one of Config"),
        (lambda: preset("Pendulum-v1", discount=0.9), "no setting 'discount': use gamma"),
        (lambda: preset("Pendulum-v1", "sacc"), r"algorithm \('sacc'\) must be one of sac"),
    ],
)
def test_a_field_of_another_name_is_refused_with_the_right_one(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_records_can_be_copied_and_pickled():
    for record in Config("Pendulum-v1"), Hyperparams(tau=0.1):
        assert copy.deepcopy(record) == record
        assert pickle.loads(pickle.dumps(record)) == record
        assert dataclasses.replace(record) == record


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
def test_steps_that_were_not_given_are_rounded_and_what_was_given_stays(env, fields, caplog):
    config, _ = preset(env, **fields)
    assert {name: getattr(config, name) for name in fields} == fields
    assert "fits what was given" in caplog.text
    caplog.clear()
    preset(env)
    assert not caplog.text
