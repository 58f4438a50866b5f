"""What sacjax says about settings, arguments and devices: each message held once.

The last lines run the cases of this file.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import TINY

from sacjax import (
    Config,
    Hyperparams,
    InputError,
    make_program,
    make_sac,
    make_train,
    over_members,
    policy,
    preset,
)
from sacjax.devices import layout
from sacjax.envs.names import make_env

CASES = []
ENV = "Pendulum-v1"


def says(field, message, kind=InputError):
    """Register a case: `do(path)` raises `kind` about `field`, and says `message`."""

    def register(do):
        CASES.append(pytest.param(do, kind, field, message, id=do.__name__))
        return do

    return register


# --- one setting ---------------------------------------------------------------------------------


@says("num_envs", "num_envs (0) must be a whole number from 1 to 2147483647: use 1")
def no_environments(path):
    Config(ENV, num_envs=0)


@says("warmup_steps", "warmup_steps (-1) must be a whole number from 0 to 2147483647: use 1000")
def negative_warmup(path):
    Config(ENV, warmup_steps=-1)


@says("batch_size", "batch_size (128.0) must be a whole number from 1 to 2147483647: use 128")
def float_count(path):
    Config(ENV, batch_size=128.0)  # pyright: ignore[reportArgumentType]


@says(
    "total_steps",
    "total_steps (2147484000) must be a whole number from 1 to 2147483647: use 1000000",
)
def steps_past_int32(path):
    Config(ENV, total_steps=2_147_484_000)


@says("rollout_length", "rollout_length (0) must be a whole number from 1 to 2147483647: use None")
def no_rollout(path):
    Config(ENV, rollout_length=0)


@says("hidden", "hidden ((64, 0)) must be whole numbers from 1, one for each layer: use (256, 256)")
def empty_layer(path):
    Config(ENV, hidden=(64, 0))


@says(
    "log_info",
    "log_info ('success') must be entries name:how, each name once, where how is last, sum, mean "
    "or max: use 'success:last,reward_ctrl:sum'",
)
def malformed_entry_of_info(path):
    Config(ENV, log_info="success")  # pyright: ignore[reportArgumentType]


@says(
    "log_info",
    "log_info (success:last) must name a number in info of Pendulum-v1: use discount",
)
def unknown_entry_of_info(path):
    make_program(Config(ENV, log_info=("success:last",)))


@says("utd", "utd (0.0) must be a number in (0, 10000]: use 1.0")
def no_updates(path):
    Config(ENV, utd=0.0)


@says("max_grad_norm", "max_grad_norm (0.0) must be a number in (0, inf): use None")
def no_gradient(path):
    Config(ENV, max_grad_norm=0.0)


@says("log_std_min", "log_std_min (-inf) must be a number in (-inf, inf): use -20.0")
def infinite_log_std(path):
    Config(ENV, log_std_min=-np.inf)


@says("layer_norm", "layer_norm (3) must be True or False: use False")
def no_bool(path):
    Config(ENV, layer_norm=3)  # pyright: ignore[reportArgumentType]


@says(
    "hidden_precision",
    "hidden_precision ('bf16') must be 'float32' or 'bfloat16': use 'float32'",
)
def unknown_precision(path):
    Config(ENV, hidden_precision="bf16")  # pyright: ignore[reportArgumentType]


@says("gamma", "gamma (1.1) must be a number in [0, 1]: use 0.99")
def large_gamma(path):
    Hyperparams(gamma=1.1)


# --- settings that do not fit together ---------------------------------------------------------


@says(
    "utd",
    "utd (1e-05) must be a ratio of small whole numbers, or have a rollout_length: use 0.0001",
)
def small_utd(path):
    Config(ENV, utd=1e-5)


@says(
    "utd",
    "utd (3.141592653589793) must be a ratio of small whole numbers, or have a rollout_length: use "
    "3.1415929203539825",
)
def irrational_utd(path):
    Config(ENV, utd=np.pi)


@says(
    "utd",
    "utd (0.3333) must be a ratio of small whole numbers, or have a rollout_length: use "
    "0.3333333333333333",
)
def rounded_third(path):
    Config(ENV, utd=0.3333)


@says(
    "utd",
    "utd (0.667) must be a ratio of small whole numbers, or have a rollout_length: use "
    "0.6666666666666666",
)
def rounded_two_thirds(path):
    Config(ENV, utd=0.667)


@says(
    "rollout_length",
    "utd (0.5) x num_envs (1) x rollout_length (3) must be a whole number of gradient steps: use "
    "rollout_length=2",
)
def half_an_update(path):
    Config(ENV, utd=0.5, rollout_length=3)


@says(
    "rollout_length",
    "utd (0.333333) x num_envs (2) x rollout_length (1) must be a whole number of gradient steps: "
    "use rollout_length=3",
)
def two_thirds_of_an_update(path):
    Config(ENV, utd=1 / 3, num_envs=2, rollout_length=1)


@says(
    "replay_size",
    "replay must hold a batch (batch_size=256) and, when learning starts, n_step (1) steps of all "
    "num_envs (1): use replay_size=256, total_steps=1000000, warmup_steps=1000",
)
def small_replay(path):
    Config(ENV, replay_size=255)


@says(
    "total_steps",
    "replay must hold a batch (batch_size=4000) and, when learning starts, n_step (1) steps of all "
    "num_envs (1): use replay_size=1000000, total_steps=4000, warmup_steps=1000",
)
def short_run(path):
    Config(ENV, total_steps=2_000, batch_size=4_000)


@says(
    "replay_size",
    "replay must hold a batch (batch_size=256) and, when learning starts, n_step (1) steps of all "
    "num_envs (1000): use replay_size=1000, total_steps=1000000, warmup_steps=1000",
)
def replay_below_the_environments(path):
    Config(ENV, num_envs=1_000, replay_size=999)


@says(
    "warmup_steps",
    "replay must hold a batch (batch_size=256) and, when learning starts, n_step (5) steps of all "
    "num_envs (2): use replay_size=1000000, total_steps=602, warmup_steps=8",
)
def short_warmup(path):
    Config(ENV, n_step=5, num_envs=2, warmup_steps=2, eval_every=2, total_steps=602)


@says(
    "replay_size",
    "replay must hold a batch (batch_size=4) and, when learning starts, n_step (5) steps of all "
    "num_envs (2): use replay_size=10, total_steps=10, warmup_steps=8",
)
def replay_below_n_steps(path):
    sizes = {"warmup_steps": 2, "eval_every": 2, "total_steps": 4, "replay_size": 4}
    Config(ENV, n_step=5, num_envs=2, batch_size=4, **sizes)


@says(
    "total_steps",
    "total_steps - warmup_steps (0) must be a positive multiple of eval_every (1000): use "
    "warmup_steps=1000000, eval_every=1000, total_steps=1001000",
)
def only_warmup(path):
    Config(ENV, warmup_steps=1_000_000)


@says(
    "total_steps",
    "total_steps - warmup_steps (999000) must be a positive multiple of eval_every (700): use "
    "warmup_steps=1000, eval_every=700, total_steps=1000600",
)
def half_an_epoch(path):
    Config(ENV, eval_every=700)


@says(
    "warmup_steps",
    "warmup_steps (1000) must be a multiple of num_envs (3): use "
    "warmup_steps=1002, eval_every=1002, total_steps=1000998",
)
def warmup_of_some_environments(path):
    Config(ENV, num_envs=3)


@says(
    "eval_every",
    "eval_every (1000) must be a multiple of the steps of an iteration (3): use "
    "warmup_steps=1000, eval_every=1002, total_steps=1000996",
)
def half_an_iteration(path):
    Config(ENV, rollout_length=3)


@says(
    "log_std_min",
    "log_std_min (2.0) must be below log_std_max (2.0): use -20 and 2, the defaults",
)
def log_std_bounds_in_the_wrong_order(path):
    Config(ENV, log_std_min=2.0)


@says(
    "policy_delay",
    "policy_delay (1001) must not exceed the gradient steps of an epoch: use policy_delay=1000 or "
    "a larger eval_every",
)
def policy_delay_past_the_epoch(path):
    Config(ENV, policy_delay=1_001)


@says(
    "total_steps",
    "total_steps (2000001000) must make at most 2147483647 gradient steps, but makes 4000000000 at "
    "utd=2: use fewer total_steps",
)
def gradient_steps_past_int32(path):
    Config(ENV, total_steps=2_000_001_000, utd=2.0)


@says(
    "init_alpha",
    "init_alpha (0.0) must lie between min_alpha (0.0) and max_alpha (inf), and above 0 if it is "
    "learned: use init_alpha within the bounds, or alpha_lr=0 for a fixed temperature of 0",
)
def temperature_of_zero(path):
    Hyperparams(init_alpha=0.0)


@says(
    None,
    "grids must broadcast against each other, but their shapes differ (gamma (2,), tau (3,)): use "
    "gamma[:, None] and tau[None, :], for example",
)
def grids_of_different_lengths(path):
    Hyperparams(gamma=np.full(2, 0.9), tau=np.full(3, 0.1))


# --- names of settings -------------------------------------------------------------------------


@says(
    "learning_rate",
    "Config has no field 'learning_rate': use actor_lr, critic_lr and alpha_lr of Hyperparams",
)
def learning_rate_of_config(path):
    Config(ENV, learning_rate=1)


@says("buffer_size", "Config has no field 'buffer_size': use replay_size of Config")
def name_in_another_library(path):
    Config(ENV, buffer_size=9)


@says("gamma", "Config has no field 'gamma': it is a field of Hyperparams")
def field_of_the_other_record(path):
    Config(ENV, gamma=0.9)


@says("hiden", "Config has no field 'hiden': use hidden, env, hidden_precision")
def misspelt_field(path):
    Config(ENV, hiden=(8,))


@says("lr", "Hyperparams has no field 'lr': use actor_lr, critic_lr and alpha_lr of Hyperparams")
def learning_rate_of_hyperparams(path):
    Hyperparams(lr=1)  # pyright: ignore[reportCallIssue]


@says("hidden", "Hyperparams has no field 'hidden': it is a field of Config")
def config_field_of_hyperparams(path):
    Hyperparams(hidden=(8,))  # pyright: ignore[reportCallIssue]


@says("critic_rl", "no setting 'critic_rl': use critic_lr, num_critics, actor_lr")
def misspelt_setting_of_a_preset(path):
    preset(ENV, critic_rl=1e-3)


@says("discount", "no setting 'discount': use gamma")
def setting_in_another_library(path):
    preset(ENV, discount=0.9)


@says("qqq", "no setting 'qqq': see Config and Hyperparams")
def unknown_setting(path):
    preset(ENV, qqq=1)


@says("algorithm", "algorithm ('sacc') must be one of sac")
def unknown_algorithm(path):
    preset(ENV, "sacc")


# --- arguments of functions --------------------------------------------------------------------


@says("config", "config ('Pendulum-v1') must be of type Config: use Config('Pendulum-v1')")
def environment_instead_of_a_config(path):
    make_program(ENV)  # pyright: ignore[reportArgumentType]


@says("key", "key (0) must be a PRNG key: use jax.random.key(0)")
def seed_instead_of_a_key(path):
    make_train(TINY)(0)


@says(
    "key",
    "key must be one PRNG key, but has the shape [2]: for several keys use jax.vmap(train)(keys)",
)
def several_keys(path):
    make_train(TINY)(jax.random.split(jax.random.key(0)))


@says("hp", "hp (0.005) must be of type Hyperparams: use Hyperparams(tau=0.005)")
def number_instead_of_hyperparameters(path):
    make_train(TINY)(jax.random.key(0), 0.005)


@says(
    "hp",
    "hp must hold the numbers of one run, not arrays: for a grid use "
    "jax.vmap(train, (None, 0))(key, hp)",
)
def grid_instead_of_hyperparameters(path):
    make_train(TINY)(jax.random.key(0), Hyperparams(tau=np.array([0.1, 0.2])))


@says("units", "units ('rad') must be one of environment, unit")
def unknown_units(path):
    policy(TINY, None, units="rad")  # pyright: ignore[reportArgumentType]


@says(
    "obs",
    "obs of shape (2,) must be [..., 3], as Pendulum-v1 returns them: flatten each observation",
)
def observation_of_another_size(path):
    agent = jax.eval_shape(make_sac(TINY, make_env(ENV)(1)).init, jax.random.key(0), Hyperparams())
    policy(TINY, agent)(np.zeros(2))


# --- devices -----------------------------------------------------------------------------------


@says("strategy", "strategy ('vmapped') must be one of auto, vmap, map")
def unknown_strategy(path):
    layout(8, "vmapped")


@says(
    "devices",
    "devices (0) must be from 1 to 2, the number that JAX has here: leave devices (--devices) out, "
    "or make each CPU core a device by calling sacjax.use_all_cores() before JAX's first "
    "computation",
)
def no_devices(path):
    layout(8, "auto", 0)


@says(
    "in_axes",
    "in_axes (1) must be 0 for arguments with a members' axis and None for arguments that all "
    "members share: move the members' axis to the front",
)
def members_on_the_last_axis(path):
    over_members(jnp.add, 1)(jnp.zeros((2, 2)), jnp.zeros((2, 2)))


# --- the harness -------------------------------------------------------------------------------


@pytest.mark.parametrize(("do", "kind", "field", "message"), CASES)
def test_message(do, kind, field, message, tmp_path):
    with pytest.raises(kind) as caught:
        do(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "{path}") == message
    assert caught.value.field == field
