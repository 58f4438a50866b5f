"""Test the wording of every error message of sacjax.

All other tests check only the class and the `field` of an error. A case is a function that must
fail. Its decorator contains the class, the field and the whole message. `{path}` stands for the
folder of the test.
"""

import fcntl
import json
import os
import pickle
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import CONFIG, TINY
from gymnax.environments import spaces
from gymnax.environments.environment import Environment
from probes import Aim, Chain

import sacjax.envs.brax
from sacjax import (
    Config,
    Hyperparams,
    InputError,
    RunError,
    evaluate_run,
    load,
    make_program,
    make_sac,
    make_train,
    over_grid,
    over_members,
    policy,
    preset,
    resume,
    run,
)
from sacjax.cli import commands
from sacjax.cli.console import explain_jax_errors
from sacjax.cli.flags import parse_train
from sacjax.devices import layout
from sacjax.envs import drawings, names
from sacjax.envs.autoreset import make_autoreset_env
from sacjax.envs.base import Spaces
from sacjax.envs.host import errors_named
from sacjax.envs.names import make_env
from sacjax.envs.simulators import Copies
from sacjax.loggers import TensorBoard
from sacjax.report import compare, comparison, page
from sacjax.runs import arrays, checkpoints, directory, memory, processes, provenance, result
from sacjax.runs.directory import explain_write_errors, locked
from sacjax.runs.metrics_csv import read_metrics
from sacjax.runs.population import extended
from sacjax.runs.provenance import check_jax_settings
from sacjax.types import Episode

CASES = []


def says(field, message, kind=InputError):
    """Register a function `do(path)` that must raise `kind` with this field and this message."""

    def register(do):
        CASES.append(pytest.param(do, kind, field, message, id=do.__name__))
        return do

    return register


ENV = "Pendulum-v1"


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
    "utd (1e-05) must be a ratio of small whole numbers, unless you set rollout_length: use 0.0001",
)
def small_utd(path):
    Config(ENV, utd=1e-5)


@says(
    "utd",
    "utd (3.141592653589793) must be a ratio of small whole numbers, unless you set "
    "rollout_length: use 3.1415929203539825",
)
def irrational_utd(path):
    Config(ENV, utd=np.pi)


@says(
    "utd",
    "utd (0.3333) must be a ratio of small whole numbers, unless you set rollout_length: use "
    "0.3333333333333333",
)
def rounded_third(path):
    Config(ENV, utd=0.3333)


@says(
    "utd",
    "utd (0.667) must be a ratio of small whole numbers, unless you set rollout_length: use "
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
    "the replay buffer must have room for batch_size (256) transitions, and must contain n_step "
    "(1) steps of each environment (num_envs=1) when learning starts: use replay_size=256, "
    "total_steps=1000000, warmup_steps=1000",
)
def small_replay(path):
    Config(ENV, replay_size=255)


@says(
    "total_steps",
    "the replay buffer must have room for batch_size (4000) transitions, and must contain n_step "
    "(1) steps of each environment (num_envs=1) when learning starts: use replay_size=1000000, "
    "total_steps=4000, warmup_steps=1000",
)
def short_run(path):
    Config(ENV, total_steps=2_000, batch_size=4_000)


@says(
    "replay_size",
    "the replay buffer must have room for batch_size (256) transitions, and must contain n_step "
    "(1) steps of each environment (num_envs=1000) when learning starts: use replay_size=1000, "
    "total_steps=1000000, warmup_steps=1000",
)
def replay_below_the_environments(path):
    Config(ENV, num_envs=1_000, replay_size=999)


@says(
    "warmup_steps",
    "the replay buffer must have room for batch_size (256) transitions, and must contain n_step "
    "(5) steps of each environment (num_envs=2) when learning starts: use replay_size=1000000, "
    "total_steps=602, warmup_steps=8",
)
def short_warmup(path):
    Config(ENV, n_step=5, num_envs=2, warmup_steps=2, eval_every=2, total_steps=602)


@says(
    "replay_size",
    "the replay buffer must have room for batch_size (4) transitions, and must contain n_step (5) "
    "steps of each environment (num_envs=2) when learning starts: use replay_size=10, "
    "total_steps=10, warmup_steps=8",
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
    "eval_every (1000) must be a multiple of the steps per iteration (3): use "
    "warmup_steps=1000, eval_every=1002, total_steps=1000996",
)
def half_an_iteration(path):
    Config(ENV, rollout_length=3)


@says(
    "log_std_min",
    "log_std_min (2.0) must be below log_std_max (2.0): use the defaults, -20 and 2",
)
def log_std_bounds_in_the_wrong_order(path):
    Config(ENV, log_std_min=2.0)


@says(
    "policy_delay",
    "policy_delay (1001) must not exceed the gradient steps per epoch: use policy_delay=1000 or "
    "a larger eval_every",
)
def policy_delay_past_the_epoch(path):
    Config(ENV, policy_delay=1_001)


@says(
    "total_steps",
    "total_steps (2000001000) with utd=2 gives 4000000000 gradient steps, but at most 2147483647 "
    "can be counted: use fewer total_steps",
)
def gradient_steps_past_int32(path):
    Config(ENV, total_steps=2_000_001_000, utd=2.0)


@says(
    "init_alpha",
    "init_alpha (0.0) must be between min_alpha (0.0) and max_alpha (inf), and above 0 unless "
    "alpha_lr is 0: use init_alpha within the bounds, or alpha_lr=0 for a fixed temperature of 0",
)
def temperature_of_zero(path):
    Hyperparams(init_alpha=0.0)


@says(
    None,
    "arrays of hyperparameters must broadcast against each other (gamma (2,), tau (3,)): use "
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
    "hp must have the numbers of one run, not arrays: for a grid use "
    "jax.vmap(train, (None, 0))(key, hp)",
)
def grid_instead_of_hyperparameters(path):
    make_train(TINY)(jax.random.key(0), Hyperparams(tau=np.array([0.1, 0.2])))


@says("units", "units ('rad') must be one of environment, unit")
def unknown_units(path):
    policy(TINY, None, units="rad")  # pyright: ignore[reportArgumentType]


@says(
    "obs",
    "obs has shape (2,), but Pendulum-v1 needs shape [..., 3]: flatten each observation",
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
    "devices (0) must be from 1 to 2, the number of JAX devices: omit devices (--devices), or call "
    "sacjax.use_all_cores() before JAX's first computation to make each CPU core a device",
)
def no_devices(path):
    layout(8, "auto", 0)


@says(
    "in_axes",
    "in_axes (1) must be 0 for an argument with an axis of members, and None for an argument that "
    "all members share: move the axis of members to the front",
)
def members_on_the_last_axis(path):
    over_members(jnp.add, 1)(jnp.zeros((2, 2)), jnp.zeros((2, 2)))


@says("env_params", "env_params (3) must be of type EnvParams: use None for the defaults")
def number_instead_of_env_params(path):
    make_train(TINY)(jax.random.key(0), Hyperparams(), 3)


@says(
    "env_params",
    "env_params must have the numbers of one run, not arrays: for a grid use "
    "jax.vmap(train, (None, None, 0))(key, hp, env_params)",
)
def env_params_of_several_runs(path):
    params = make_program(TINY).default_params.replace(max_speed=jnp.array([1.0, 2.0]))
    make_train(TINY)(jax.random.key(0), Hyperparams(), params)


@says("run", "run ('runs/a') must be of type Run: use load('runs/Pendulum-v1')")
def path_instead_of_a_run(path):
    evaluate_run("runs/a")


# --- names of environments -----------------------------------------------------------------------


@says("env", "unknown environment 'Pendulum-v0': did you mean Pendulum-v1?")
def misspelled_environment(path):
    make_env("Pendulum-v0")


@says("env", "unknown environment 'HalfCheetah-v2': did you mean gymnasium/HalfCheetah-v5?")
def name_without_its_suite(path):
    make_env("HalfCheetah-v2")


@says("env", "unknown environment 'brax/hoper': did you mean brax/hopper or brax/hopper2?")
def misspelled_environment_of_a_suite(path):
    names.check_known("brax/hoper", "hoper", ["ant", "hopper2", "hopper"])


@says("env", "unknown environment 'zzz': see `sacjax envs`")
def environment_like_no_other(path):
    make_env("zzz")


@says(
    "env",
    "unknown environment 'gymnasium/Qwertz': see `sacjax envs gymnasium`. If your own module "
    "registers it, write gymnasium/my_module:Qwertz",
)
def environment_of_a_suite_like_no_other(path):
    make_env("gymnasium/Qwertz")


@says("env", "unknown suite 'brux' in 'brux/ant': did you mean brax/ant?")
def misspelled_suite(path):
    make_env("brux/ant")


@says(
    "env",
    "unknown suite 'zzz' in 'zzz/zzz': use one of gymnax, brax, playground, gymnasium, envpool",
)
def suite_like_no_other(path):
    make_env("zzz/zzz")


@says(
    "env",
    "env (7) must be a name or a gymnax Environment object, such as MyEnv() or "
    "LogWrapper(MyEnv()): `sacjax envs` lists the names",
)
def environment_of_another_type(path):
    make_env(7)


# --- options of an environment -------------------------------------------------------------------


@says(
    "env",
    "malformed option 'backend' in 'brax/ant?backend': write each once, with & between them: "
    "brax/ant?backend=spring&reset=fresh",
)
def option_without_a_value(path):
    make_env("brax/ant?backend")


@says("a", "unknown option 'a' in 'gymnax/Pendulum-v1?a=1': this suite has no options")
def option_for_gymnax(path):
    make_env("gymnax/Pendulum-v1?a=1")


@says("speed", "unknown option 'speed' in 'brax/ant?speed=2': use reset, limit")
def unknown_option(path):
    names.resolve_options("brax/ant?speed=2", {"speed": 2}, reset=("cached",), limit=1000)


@says("backend", "backend ('bullet') of 'brax/ant?backend=bullet' must be one of spring, mjx")
def option_that_is_not_a_choice(path):
    options = {"backend": "bullet"}
    names.resolve_options("brax/ant?backend=bullet", options, backend=(None, "spring", "mjx"))


@says("limit", "limit (0) of 'brax/ant?limit=0' must be a whole number of at least 1")
def option_that_is_not_a_count(path):
    names.resolve_options("brax/ant?limit=0", {"limit": 0}, limit=1000)


# --- suites --------------------------------------------------------------------------------------


@says(
    "env",
    "cannot import no_such_package for brax/ant (No module named 'no_such_package'): "
    "pip install 'sacjax[brax]'",
)
def suite_that_is_not_installed(path):
    names.import_suite("no_such_package", "brax/ant", "brax")


@says(
    "env",
    "cannot make brax/swimmer?backend=spring (ValueError: Unsupported backend: spring.): try "
    "another backend of generalized, positional, spring, mjx",
)
def environment_that_brax_cannot_make(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sacjax.envs.brax, "_load", unsupported)
        name = "brax/swimmer?backend=spring"
        sacjax.envs.brax.raw(name, names.parse(name))


@says(
    "env",
    "cannot import no_such_module (ModuleNotFoundError: No module named 'no_such_module'): "
    "install no_such_module, or add its folder to PYTHONPATH",
)
def module_that_is_not_installed(path):
    make_env("gymnasium/no_such_module:Mine-v0")


@says("env", "brax/fast cannot be drawn: it has no bodies")
def drawing_of_an_environment_without_bodies(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sacjax.envs.brax, "_load", lambda *_: object())
        sacjax.envs.brax.pictures("brax/fast", names.parse("brax/fast"), None)


# --- spaces --------------------------------------------------------------------------------------


@says(
    "action_space",
    "action_space (Discrete(2)) of gymnasium/CartPole-v1 must be a Box of floats with finite "
    "bounds, low <= high, and a finite high - low: wrap the environment, or use one that `sacjax "
    "envs` lists",
)
def discrete_actions(path):
    make_env("gymnasium/CartPole-v1")


@says(
    "observation_space",
    "observation_space (Box of shape [8, 8, 3]) of ShowsImages must be a Box with one axis: wrap "
    "the environment so that it returns one flat array that is not empty (images are not "
    "supported)",
)
def images(path):
    make_env(ShowsImages())


@says(
    "observation_space",
    "observation_space (float32[8, 8, 3]) of brax/Image must be one flat array: wrap the "
    "environment so that it returns flat observations",
)
def images_of_brax(path):
    raw = SimpleNamespace(reset=lambda key: HasObs(jnp.zeros((8, 8, 3))))
    make_autoreset_env("brax/Image", raw, "cached", 1000)


@says(
    "observation",
    "observation of SaysThree is float32[2], but must have the shape or type [3]: reset_env, "
    "step_env and the spaces must fit together, as in docs/environments.md",
)
def observations_of_another_shape(path):
    make_env(SaysThree())


# --- environments outside of JAX -----------------------------------------------------------------


@says(
    "env",
    "gymnasium/Pendulum-v1 runs outside of JAX and cannot be vmapped: use `sacjax train` or "
    "sacjax.run, which train the seeds one after another",
)
def vmap_over_gymnasium(path):
    env = make_env("gymnasium/Pendulum-v1")(1)
    jax.vmap(lambda key: env.reset(key, None))(jax.random.split(jax.random.key(0)))


@says(
    "env",
    "gymnasium/Mine-v0 failed (FloatingPointError: the physics blew up): fix the environment, then "
    "continue the run from its last checkpoint with `sacjax resume`",
    RunError,
)
def environment_that_fails(path):
    error = FloatingPointError("the physics blew up")
    with errors_named(SimpleNamespace(errors=[error]), "gymnasium/Mine-v0"):
        raise RuntimeError("as JAX reports it")


@says(
    "reward",
    "Mine failed (reward is nan in float32, in step 0 of copy 1): fix the environment, then "
    "continue the run from its last checkpoint with `sacjax resume`",
    RunError,
)
def reward_outside_of_jax_that_is_not_finite(path):
    envs = host_envs()
    with errors_named(envs, "Mine"), envs._callback():
        envs.read("reward", [1.0, np.nan], 2)


@says(
    "observation",
    "Mine failed (observation must be numbers of shape [3], but is None, in step 0 of copy 1): fix "
    "the environment, then continue the run from its last checkpoint with `sacjax resume`",
    RunError,
)
def observation_outside_of_jax_that_is_missing(path):
    envs = host_envs()
    with errors_named(envs, "Mine"), envs._callback():
        envs.read("observation", None, 3, copy=1)


@says(
    "reset",
    "Mine failed (reset must return 2 values in a tuple, not 0, in step 0 of copy 0): fix the "
    "environment, then continue the run from its last checkpoint with `sacjax resume`",
    RunError,
)
def reset_without_info(path):
    envs = host_envs(lambda seed: 0)
    with errors_named(envs, "Mine"):
        envs.reset(np.uint32(0))


def host_envs(reset=None):
    simulator = SimpleNamespace(reset=reset)
    return Copies(lambda: simulator, Spaces(1, np.zeros(1), np.ones(1)), 1)


class HasObs(NamedTuple):
    obs: jax.Array


class ShowsImages(Chain):
    def observation_space(self, params):
        return spaces.Box(0.0, 255.0, (8, 8, 3), np.float32)


class SaysThree(Chain):
    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (3,), np.float32)


class Counts(Chain):
    def reset_env(self, key, params):
        _, state = super().reset_env(key, params)
        return jnp.zeros(2, int), state


class ReturnsFour(Chain):
    def step_env(self, key, state, action, params):
        return super().step_env(key, state, action, params)[:4]


def unsupported(id, backend):
    """Raise the error that Brax raises."""
    raise ValueError(f"Unsupported backend: {backend}.")


# --- arguments of run and resume -----------------------------------------------------------------

RUN_020 = Path(__file__).parent / "data" / "run-0.2.0"


def old_run(path, **changes):
    """Copy the run of sacjax 0.2.0 to `path`/run and change its config.json."""
    folder = Path(shutil.copytree(RUN_020, path / "run"))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))
    return folder


@says(
    "on_epoch",
    "on_epoch (3) must be a list of callables f(step, metrics): use [f]",
)
def no_list_of_callables(path):
    run(TINY, on_epoch=3)


@says(
    "should_stop",
    "should_stop (False) must be a function f() that returns True or False: use lambda: False",
)
def no_function(path):
    run(TINY, should_stop=False)


@says("members_per_batch", "members_per_batch (0) must be a whole number of at least 1: use 64")
def no_members(path):
    run(TINY, members_per_batch=0)


@says("on_nan", "on_nan ('go') must be one of freeze, stop")
def unknown_choice_for_divergence(path):
    run(TINY, on_nan="go")


@says(
    "checkpoint_every",
    "checkpoint_every (-1) must be None or a whole number of epochs: use 10 or 0",
)
def negative_checkpoint_interval(path):
    run(TINY, checkpoint_every=-1)


@says("checkpoint_every", "checkpoint_every needs a folder: pass directory")
def checkpoints_without_a_folder(path):
    run(TINY, checkpoint_every=3)


@says("keep", "keep (0) must be a whole number of at least 1: use 2")
def no_checkpoints_to_keep(path):
    run(TINY, keep=0)


@says("hp", "a point of the grid occurs twice: give each swept value once")
def repeated_point(path):
    run(TINY, Hyperparams(tau=np.array([0.005, 0.005])))


class WithBeta(Hyperparams):
    """Hyperparameters with the additional field `beta`."""

    def __init__(self):
        super().__init__()
        vars(self)["beta"] = 1.0


@says(
    "hp",
    "hp has beta in addition to the fields of Hyperparams, but a run stores only those fields: "
    "pass the value in algorithm=partial(f, ...), or sweep it with make_train",
)
def own_hyperparameter(path):
    run(TINY, WithBeta())


@says("extend_to", "extend_to ('600') must be a whole number of steps: use 1000000")
def text_as_the_end(path):
    extended(CONFIG, "600")


@says(
    "extend_to",
    "extend_to (400) must be total_steps (500) or more: use 500",
)
def earlier_end(path):
    extended(CONFIG, 400)


@says("extend_to", "extend_to (510) must be the end of an epoch: use extend_to=550")
def end_within_an_epoch(path):
    extended(CONFIG, 510)


@says(
    "extend_to",
    "extend_to needs constant learning rates, because a schedule depends on total_steps: train a "
    "new run",
)
def end_of_a_schedule(path):
    extended(replace(CONFIG, lr_schedule="linear"), 600)


@says(
    "hidden",
    "training 8 members at once needs 0.03 MiB of memory, 0.01 MiB of it for replay buffers, but "
    "only 0.00 MiB are available: use smaller networks",
)
def no_memory(path):
    with patch.object(memory, "available", lambda: 1_000):
        run(TINY)


# --- folders -------------------------------------------------------------------------------------


@says(
    "directory",
    "{path} is not empty and may contain a run: give a new folder with --out, delete this folder, "
    "or resume the run with `sacjax resume {path}`",
)
def folder_in_use(path):
    (path / "notes.txt").write_text("mine")
    run(TINY, directory=path)


@says("directory", "{path}/file is a file: give a new folder with --out")
def file_as_a_folder(path):
    (path / "file").write_text("mine")
    run(TINY, directory=path / "file")


@says(
    "directory",
    "cannot write to {path}/file/run (Not a directory): give a writable folder with --out",
)
def folder_in_a_file(path):
    (path / "file").write_text("mine")
    run(TINY, directory=path / "file" / "run")


@says("directory", "{path} is being written by another process: wait for it, or stop it first")
def locked_folder(path):
    with locked(path), locked(path):
        pass


@says("directory", "{path} cannot be locked (No locks): use a file system with flock")
def file_system_without_locks(path):
    with patch.object(fcntl, "flock", side_effect=OSError(37, "No locks")), locked(path):
        pass


@says(
    "directory",
    "cannot write to {path} (No space left on device): make room, then `sacjax resume {path}`",
    RunError,
)
def full_disk(path):
    with explain_write_errors(path):
        raise OSError(28, "No space left on device")


@says(
    "directory",
    "{path}/run is not the folder of a run (no config.json): give the folder that `sacjax train` "
    "wrote",
)
def no_folder(path):
    resume(path / "run")


@says("directory", "{path}/run/batches/1 is only a batch: give the run's folder {path}/run")
def folder_of_a_batch(path):
    folder = old_run(path)
    load(shutil.copytree(RUN_020, folder / "batches" / "1"))


@says(
    "config.json",
    "{path}/run/config.json has format 3, but this version of sacjax reads format 4: use the git "
    "tag v0.1.0, which wrote the file",
)
def older_format(path):
    load(old_run(path, format=3, versions={"sacjax": "0.1.0"}))


@says(
    "config.json",
    "{path}/run/config.json is damaged (KeyError: 'format'): restore the file, or train again",
)
def damaged_config(path):
    (old_run(path) / "config.json").write_text("{}")
    load(path / "run")


@says(
    "config.json",
    "config.json does not match the checkpoints: restore the file, or train again in a new folder",
)
def edited_seeds(path):
    resume(old_run(path, seeds=[0, 2]))


@says(
    "config.json",
    "{path}/run/config.json describes a run without batches, but {path}/run/batches exists: "
    "restore config.json, or train again in a new folder",
)
def edited_batches(path):
    folder = old_run(path)
    (folder / "batches").mkdir()
    resume(folder)


def with_env(env):
    return json.loads((RUN_020 / "config.json").read_text())["config"] | {"env": env}


@says(
    "env",
    "{path}/run was trained on an environment object: in Python, pass the object as `env` to "
    "sacjax.load or sacjax.resume",
)
def missing_environment_object(path):
    load(old_run(path, config=with_env(None), env_object="Noise"))


@says("env", "{path}/run was trained on Noise, not Chain: pass a Noise object as `env`")
def another_environment_object(path):
    load(old_run(path, config=with_env(None), env_object="Noise"), env=Chain())


@says(
    "jax_enable_x64",
    "the run was trained with jax_enable_x64=False: set JAX_ENABLE_X64=0",
)
def another_precision(path):
    with jax.enable_x64():
        check_jax_settings("the run", {"x64": False})


@says(
    "jax_default_prng_impl",
    "{path}/run uses threefry2x32 keys: set JAX_DEFAULT_PRNG_IMPL=threefry2x32",
)
def another_kind_of_keys(path):
    with jax.default_prng_impl("rbg"):
        load(old_run(path))


# --- metrics.csv, checkpoints and agents ---------------------------------------------------------


@says(
    "metrics.csv",
    "{path}/metrics.csv is missing: restore the file, or use `sacjax resume`, which rewrites it "
    "from the last checkpoint",
)
def missing_metrics(path):
    read_metrics(path / "metrics.csv")


@says(
    "metrics.csv",
    "{path}/metrics.csv has no evaluation yet: wait for the first one, or use `sacjax resume`",
)
def empty_metrics(path):
    (path / "metrics.csv").write_text("")
    read_metrics(path / "metrics.csv")


@says(
    "metrics.csv",
    "{path}/metrics.csv is damaged (the first column is not member): restore the file, or use "
    "`sacjax resume`, which rewrites it from the last checkpoint",
)
def damaged_metrics(path):
    (path / "metrics.csv").write_text("seed,env_steps\n0,1\n")
    read_metrics(path / "metrics.csv")


def damage(folder):
    (folder / "0.npz").write_bytes(b"")


@says(
    "checkpoints",
    "no checkpoint is intact: {path}/run/checkpoints/2 is damaged (ValueError: 0.npz has "
    "changed): restore the folder, or train again",
)
def damaged_checkpoints(path):
    damage(old_run(path) / "checkpoints" / "2")
    resume(path / "run")


@says(
    "checkpoints",
    "{path}/run has trained agents but no checkpoint to resume from (checkpoint_every was 0, or "
    "the checkpoints were removed): train again in a new folder",
)
def no_checkpoints(path):
    shutil.rmtree(old_run(path) / "checkpoints")
    resume(path / "run")


@says(
    "checkpoints",
    "{path}/run/checkpoints/2 is intact, but cannot be read here (MemoryError: no room): free "
    "memory, or fix the cause, then `sacjax resume {path}/run`",
    RunError,
)
def unreadable_checkpoint(path):
    with patch.object(arrays.Stored, "__getitem__", side_effect=MemoryError("no room")):
        resume(old_run(path))


@says(
    "checkpoints",
    "the checkpoint of epoch 3 could not be written to {path}/run/checkpoints (OSError: [Errno 28] "
    "No space left on device); the checkpoint of epoch 2 is complete: make room, then `sacjax "
    "resume {path}/run`",
    RunError,
)
def checkpoint_on_a_full_disk(path):
    full = OSError(28, "No space left on device")
    with patch.object(arrays, "write_part", side_effect=full):
        checkpoints.Writer(old_run(path), keep=2, resumed_from=2).save(3, {}, {})


def larger(config, env):
    sac = make_sac(config, env)
    return sac._replace(init=lambda key, hp: {"sac": sac.init(key, hp)})


@says(
    "algorithm",
    "the checkpoint of epoch 2 does not fit this version of sacjax or this algorithm "
    "(.agent['sac'].actor_params['params']['MLP_0']['Dense_0']['bias'] is missing): resume with "
    "sacjax 0.2.0 and the run's algorithm",
)
def checkpoint_of_another_algorithm(path):
    resume(old_run(path, algorithm=None), algorithm=larger)


@says(
    "algorithm",
    "{path}/run was trained with the algorithm sac, not sac(rule=None): pass the run's algorithm "
    "to resume(..., algorithm=...) in Python",
)
def resumed_with_another_algorithm(path):
    resume(old_run(path), algorithm=partial(make_sac, rule=None))


@says(
    "algorithm",
    "{path}/run was trained with the algorithm sac, not larger: pass the run's algorithm to "
    "load(..., algorithm=...)",
)
def loaded_with_another_algorithm(path):
    load(old_run(path), algorithm=larger)


@says(
    "agents",
    "{path}/run has no trained agents (no folder agents/), because the run has not finished: "
    "resume the run with `sacjax resume {path}/run`",
)
def no_agents(path):
    shutil.rmtree(old_run(path) / "agents")
    load(path / "run")


@says(
    "agents",
    "{path}/run/agents is damaged, or does not fit this environment and algorithm (ValueError: "
    "0.npz has changed): pass the run's environment and algorithm, restore the folder, or use "
    "`sacjax resume {path}/run`, which writes the folder again",
)
def damaged_agents(path):
    damage(old_run(path) / "agents")
    load(path / "run")


@says(
    "agents",
    "the agents could not be written to {path}/run/agents (OSError: [Errno 28] No space left on "
    "device): make room, then `sacjax resume {path}/run`",
    RunError,
)
def agents_on_a_full_disk(path):
    done, full = load(old_run(path)), OSError(28, "No space left on device")
    with patch.object(arrays, "write_part", side_effect=full):
        result.save(done, path / "run")


@says("member", "member (4) must be from 0 to 3")
def unknown_member(path):
    load(old_run(path)).agent(4)


# --- several processes ---------------------------------------------------------------------------


@says(
    "coordinator",
    "--coordinator, --num-processes and --process-id must come together: give all three, or only "
    "--distributed on Slurm, MPI, Kubernetes or a TPU pod",
)
def coordinator_alone(path):
    processes.join("here:1234", None, None)


@says(
    "coordinator",
    "coordinator ('here') must be HOST:PORT, as in here:1234, and process-id (0) must be from 0 to "
    "num-processes (2) - 1",
)
def coordinator_without_a_port(path):
    processes.join("here", 2, 0)


@says(None, "several processes cannot evaluate a run: load the run in one process")
def evaluation_by_several_processes(path):
    done = load(old_run(path))
    with patch.object(jax, "process_count", lambda: 2):
        evaluate_run(done)


# --- command line --------------------------------------------------------------------------------


@says("env", "name the environment first, as in `sacjax train Pendulum-v1`")
def no_environment(path):
    parse_train(["--seeds", "2"])


@says("env", "{path} is a run: use `sacjax resume {path}`")
def train_a_run(path):
    (path / "config.json").write_text("{}")
    parse_train([str(path)])


@says("buffer_size", "no option --buffer-size: use replay_size")
def a_flag_of_another_library(path):
    parse_train(["Pendulum-v1", "--buffer-size=9"])


@says(
    "seed",
    "the number of seeds (2) must be at least 1, and each seed (4294967295 to 4294967296) must be "
    "from 0 to 4294967295: use --seed 0, or fewer seeds",
)
def too_large_a_seed(path):
    parse_train(["Pendulum-v1", "--seed", "4294967295", "--seeds", "2"])


@says(
    "config",
    "cannot read --config {path}/none.toml (No such file or directory): give a readable file",
)
def no_settings_file(path):
    parse_train(["Pendulum-v1", "--config", str(path / "none.toml")])


@says(
    "config",
    "--config {path}/a.json is not a file of settings ('list' object has no attribute 'get'): use "
    "JSON or TOML",
)
def a_file_without_settings(path):
    (path / "a.json").write_text("[1]")
    parse_train(["Pendulum-v1", "--config", str(path / "a.json")])


@says("config", "--config {path}/a.json has 2 settings: keep one of them")
def a_file_of_a_sweep(path):
    (path / "a.json").write_text('{"hyperparams": [{"tau": 0.1}, {"tau": 0.2}]}')
    parse_train(["Pendulum-v1", "--config", str(path / "a.json")])


@says(
    "sweep",
    "--sweep hidden=8,16: hidden is fixed in the compiled program: run `sacjax train` once for "
    "each value",
)
def a_sweep_of_a_size(path):
    parse_train(["Pendulum-v1", "--sweep", "hidden=8,16"])


@says("sweep", "--sweep tua=1,2: no hyperparameter 'tua': use tau")
def a_sweep_of_nothing(path):
    parse_train(["Pendulum-v1", "--sweep", "tua=1,2"])


@says("sweep", "--sweep tau=1,2: tau is given twice: give it once, with all its values")
def a_sweep_and_a_flag(path):
    parse_train(["Pendulum-v1", "--tau", "0.1", "--sweep", "tau=1,2"])


@says("sweep", "--sweep tau=a,b: write numbers with commas, as in --sweep tau=0.005,0.02")
def a_sweep_of_words(path):
    parse_train(["Pendulum-v1", "--sweep", "tau=a,b"])


@says(
    "coordinator",
    "`sacjax plan` plans for one process: pass only the seeds of one process, without "
    "--distributed or --coordinator",
)
def a_plan_for_several_processes(path):
    commands.plan(["Pendulum-v1", "--coordinator", "host:1234"])


# --- loggers -------------------------------------------------------------------------------------


@says("tensorboard", "tensorboard needs a package: pip install 'sacjax[tensorboard]'")
def no_tensorboard(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
        TensorBoard(path)


# --- reports -------------------------------------------------------------------------------------


def write_run(path, name, seed=0, rows="0,{seed},100,1.5", **fields):
    """Write the folder of a run of one seed."""
    points = [Hyperparams(**fields)]
    content = provenance.description(vars(TINY), TINY.env_name, points, [], [seed])
    directory.write_config(path / name, content)
    header = "member,seed,env_steps,eval_return"
    (path / name / "metrics.csv").write_text(f"{header}\n{rows.format(seed=seed)}\n")
    return path / name


@says("directories", "name the runs, as in `sacjax report runs/a runs/b`")
def a_report_of_nothing(path):
    compare()


@says(
    "labels",
    "labels (a) must be one name for each of 2 runs: write them after the DIRs, in the same order",
)
def one_label_for_two_runs(path):
    compare("a", "b", labels=["a"])


@says("last", "last (0) must be 1 evaluation or more")
def no_last_evaluation(path):
    compare("a", last=0)


@says("until", "until (0) must be 1 step or more")
def no_steps(path):
    compare("a", until=0)


@says(
    "last",
    "last (2) must be at most the number of evaluations (1 in {path}/a, seed 0): use a smaller "
    "--last or a larger --until, or leave the run out",
)
def too_few_evaluations(path):
    compare(write_run(path, "a"), last=2)


@says(
    "labels",
    "{path}/a and {path}/b have the same label 'sac' in Pendulum-v1, but seed 0 is in both: give "
    "each run its own name with --labels",
)
def the_same_seed_twice(path):
    compare(write_run(path, "a"), write_run(path, "b"), labels=["sac", "sac"])


@says(
    "labels",
    "{path}/a and {path}/b have the same label 'sac' in Pendulum-v1, but their settings differ: "
    "give each run its own name with --labels",
)
def different_settings_with_one_label(path):
    compare(write_run(path, "a"), write_run(path, "b", seed=1, tau=0.5), labels=["sac", "sac"])


@says(
    "metrics.csv",
    "{path}/a/metrics.csv does not match config.json: restore the file, or train again",
)
def metrics_of_another_run(path):
    compare(write_run(path, "a", rows="0,9,100,1.5"))


@says("out", "{path} is not an earlier report: give a new folder with --out, or an empty folder")
def a_folder_with_other_files(path):
    (path / "mine.txt").touch()
    page.write(comparison.read([write_run(path, "a")]), path)


# --- what an environment returns -----------------------------------------------------------------


@says(
    "observation",
    "observation of Counts is float32[2] after step_env, but must have the shape or type int32[2] "
    "as after reset_env: reset_env, step_env and the spaces must fit together, as in "
    "docs/environments.md",
)
def observations_of_two_types(path):
    make_env(Counts())


@says(
    "step_env",
    "step_env of ReturnsFour must return 5 values, but returns 4: reset_env, step_env and the "
    "spaces must fit together, as in docs/environments.md",
)
def step_with_four_values(path):
    make_env(ReturnsFour())


@says(
    "env",
    "cannot make Environment (NotImplementedError): reset_env, step_env and the spaces must fit "
    "together, as in docs/environments.md",
)
def environment_without_spaces(path):
    make_env(Environment())


# --- names of environments, continued ------------------------------------------------------------


@says("env", "unknown suite 'gym' in 'gym/Hopper-v5': did you mean gymnasium/Hopper-v5?")
def suite_of_old_names(path):
    make_env("gym/Hopper-v5")


@says(
    "env",
    "cannot import json:Nothing (AttributeError: module 'json' has no attribute 'Nothing'): fix "
    "json, or name something that it defines, as in my_module:MyName",
)
def name_that_a_module_lacks(path):
    make_env("json:Nothing")


@says(
    "range",
    "range ((0.8,inf) is no tuple, list or dictionary (SyntaxError: '(' was never closed "
    "(<unknown>, line 1)): write range=(0.8,inf)",
)
def tuple_without_its_end(path):
    names.parse("gymnasium/Hopper-v5?range=(0.8,inf")


# --- grids ---------------------------------------------------------------------------------------


@says(
    "over_members",
    "over_members cannot be nested: use over_grid(train, keys, grid), or jax.vmap for the inner "
    "axis",
)
def nested_members(path):
    inner = over_members(jnp.multiply, (0, None))
    over_members(inner, (None, 0))(jnp.arange(2.0), jnp.arange(2.0))


@says(
    "gamma",
    "gamma has the shape [], not the [M] of members: give one number per member, or use "
    "in_axes=None to share it, or over_grid",
)
def grid_of_scalars(path):
    over_grid(jnp.add, jax.random.split(jax.random.key(0)), Hyperparams())


@says(
    "algorithm",
    "algorithm (json:__name__) must be a function (config, env) -> Algorithm: name one",
)
def algorithm_that_is_no_function(path):
    make_program(TINY, "json:__name__")


# --- best agents and checkpoints -----------------------------------------------------------------


@says("keep_best", "keep_best needs a folder: pass directory")
def best_agents_without_a_folder(path):
    run(TINY, keep_best=True)


@says(
    "agents",
    "{path}/run has no trained agents (no folder agents/best/), because the run has not finished, "
    "or because keep_best was not set: resume the run with `sacjax resume {path}/run`",
)
def best_agents_that_were_not_kept(path):
    load(old_run(path), best=True)


# --- entries of info -----------------------------------------------------------------------------


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


# --- drawings, and the start of JAX --------------------------------------------------------------


@says(
    "render",
    "render(state) of Painter returned ndarray of float64 [4, 4, 3]: return pixels [H, W, 3] of "
    "uint8, or a Matplotlib figure",
)
def pixels_that_are_not_bytes(path):
    class Painter(Aim):
        name = "Painter"

        def render(self, state):
            return np.zeros((4, 4, 3))

    episode = Episode([None], np.zeros((1, 2)), np.zeros(1), 0, np.zeros((1, 1)))
    next(drawings.pictures(Painter(), None, episode))


def start(error, **variables):
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("JAX_", "XLA_"))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        with explain_jax_errors():
            raise error


@says(
    "JAX_PLATFORMS",
    "JAX cannot start (AssertionError): check JAX_PLATFORMS, XLA_PYTHON_CLIENT_PREALLOCATE",
)
def platform_that_is_not_installed(path):
    start(AssertionError(), JAX_PLATFORMS="cuda", XLA_PYTHON_CLIENT_PREALLOCATE="false")


@says(
    None,
    "JAX cannot start (RuntimeError: jaxlib is too old): check the installed versions of jax and "
    "jaxlib",
)
def jaxlib_that_is_too_old(path):
    start(RuntimeError("jaxlib is too old\nmore lines"))


@pytest.mark.parametrize(("do", "kind", "field", "message"), CASES)
def test_each_error_message_has_the_expected_text(do, kind, field, message, tmp_path):
    with pytest.raises(kind) as caught:
        do(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "{path}") == message
    assert caught.value.field == field


@pytest.mark.parametrize("kind", [InputError, RunError])
def test_errors_keep_their_field_when_they_are_pickled(kind):
    error = pickle.loads(pickle.dumps(kind("message", "tau")))
    assert (str(error), error.field) == ("message", "tau")
