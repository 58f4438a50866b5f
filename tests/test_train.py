"""Test the training loop."""

import dataclasses
import os
import subprocess
import sys
from fractions import Fraction
from functools import cache, partial
from typing import Any

import checks
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import KEYS, TINY, assert_close, recorder, refused, scalar_transition
from gymnax.environments.classic_control.pendulum import EnvParams as PendulumParams
from probes import Chain, ChainParams, Noise, NoiseParams, member, quick_jit, stack

from sacjax import evaluate_run, run
from sacjax.bits import as_arrays
from sacjax.config import Config, Hyperparams
from sacjax.envs.names import make_env
from sacjax.evaluate import evaluate
from sacjax.replay import make_replay
from sacjax.runs.population import extended
from sacjax.sac import make_sac
from sacjax.train import _scan_mean, epoch_keys, make_program, make_train
from sacjax.types import Transition

LIMITS = 5, 9


def settings() -> tuple[Hyperparams, Any]:
    """Return the hyperparameters [2] and the env params [2] of two settings."""
    hp = Hyperparams(critic_lr=jnp.array([1e-3, 3e-3]), gamma=jnp.array([0.9, 0.99]))
    return hp, stack(PendulumParams(max_steps_in_episode=limit) for limit in LIMITS)


def over_grid(f: Any) -> Any:
    """Apply vmap to f(key or loop, hp, env_params) over two settings and two seeds."""
    return jax.vmap(jax.vmap(f, (0, None, None)), (0, 0, 0))


def grid_of_keys() -> jax.Array:
    return jnp.stack([KEYS, KEYS])


class Compilations:
    """Count how often XLA compiles a function, or loads it from disk, in a `with` block."""

    def __enter__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event, duration, **_):
        self.count += event == "/jax/core/compile/backend_compile_duration"


@cache
def trained_grid() -> tuple[Any, int, int]:
    """Train the sweep in one compiled function. Call it twice and count the compilations.

    Return (result, compilations of the first call, compilations of the second call).
    """
    train = jax.jit(over_grid(make_train(TINY)))
    keys, (hp, params) = grid_of_keys(), settings()
    other = dataclasses.replace(hp, tau=2 * hp.tau)
    with Compilations() as first:
        result = jax.block_until_ready(train(keys, hp, params))
    with Compilations() as second:
        train(keys, other, params)
    return result, first.count, second.count


@cache
def trained_alone() -> Any:
    """Train one setting and one seed. The setting is a constant of the compiled function."""
    train, (hp, params) = make_train(TINY), member(settings(), 0)
    return jax.jit(lambda key: train(key, hp, params))(KEYS[0])


def stepped(key: Any, hp: Any, params: Any, over: Any) -> tuple[Any, Any]:
    """Run the epochs in a Python loop. Return the agent and the metrics of each epoch."""
    program = make_program(TINY)
    hp, params = as_arrays(hp, params)
    loop = jax.jit(over(program.init))(key, hp, params)
    epoch = jax.jit(over(program.epoch), donate_argnums=0)
    rows = []
    for _ in range(TINY.num_epochs):
        loop, metrics = epoch(loop, hp, params)
        rows.append(jax.tree.map(np.asarray, metrics))
    return loop.agent, rows


def assert_same_bits(result: Any, agent: Any, rows: list[Any], axis: int) -> None:
    metrics = {name: np.stack([row[name] for row in rows], axis) for name in rows[0]}
    jax.tree.map(np.testing.assert_array_equal, (result.agent, result.metrics), (agent, metrics))


# Scanned and stepped


@pytest.mark.exact
def test_a_compiled_run_is_bit_identical_to_a_python_loop_over_epochs():
    agent, rows = stepped(KEYS[0], *member(settings(), 0), over=lambda f: f)
    assert_same_bits(trained_alone(), agent, rows, axis=0)


@pytest.mark.exact
def test_a_compiled_sweep_is_bit_identical_to_a_python_loop_over_epochs():
    agent, rows = stepped(grid_of_keys(), *settings(), over=over_grid)
    assert_same_bits(trained_grid()[0], agent, rows, axis=2)


@pytest.mark.nightly  # the sweep above covers more
def test_compiled_runs_of_several_seeds_are_bit_identical_to_a_python_loop():
    hp, params = member(settings(), 0)
    over = partial(jax.vmap, in_axes=(0, None, None))
    result = jax.jit(over(make_train(TINY)))(KEYS, hp, params)
    agent, rows = stepped(KEYS, hp, params, over=over)
    assert_same_bits(result, agent, rows, axis=1)


def test_metric_means_stay_accurate_over_many_iterations():
    """A plain float32 sum of 10,000 terms would have an error of 1e-4."""
    numbers = jax.random.uniform(jax.random.key(0), (10_000,))

    def step(count, key):
        return count + 1, {"same": jnp.float32(0.2), "many": 7 + numbers[count]}

    keys = jax.random.split(jax.random.key(1), 10_000)
    count, means = quick_jit(partial(_scan_mean, step))(jnp.int32(0), keys)
    assert count == 10_000
    assert means["same"] == np.float32(0.2)
    np.testing.assert_allclose(means["many"], 7 + np.float64(numbers).mean(), rtol=2e-6)


def test_train_function_rejects_arrays_of_hyperparameters_without_vmap():
    hp, _ = settings()
    with refused("hp"):
        jax.jit(make_train(TINY))(KEYS[0], hp)


@dataclasses.dataclass(frozen=True)
class Mine(Hyperparams):
    beta: float = 0.1


def past_the_bounds(config, env):
    """Return SAC with actions outside the bounds and with a Python number in its state."""
    sac = make_sac(config, env)

    def update(state, batch, key, hp):
        agent, metrics = sac.update(state[0], batch, key, hp)
        seen = {
            "highest": batch.action.max(),
            "histogram": jnp.bincount(jnp.int32(batch.reward), length=3),
        }
        return (agent, state[1] + 1), metrics | seen

    return sac._replace(
        init=lambda key, hp: (sac.init(key, hp), 0),
        act=lambda state, obs, key: sac.act(state[0], obs, key) + 3,
        mode=lambda state, obs: sac.mode(state[0], obs),
        update=update,
    )


def test_replay_buffer_stores_clipped_actions(tmp_path):
    sizes = {"warmup_steps": TINY.num_envs, "total_steps": TINY.num_envs + 2 * TINY.eval_every}
    config = dataclasses.replace(TINY, **sizes)
    done = run(config, seeds=1, directory=tmp_path / "run", algorithm=past_the_bounds)
    np.testing.assert_allclose(done.metrics["highest"][0, -1], 1)
    assert done.metrics["histogram"].shape == (1, config.num_epochs, 3)
    columns = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "highest" in columns
    assert not {"histogram", "histogram_std"} & {*columns}  # histograms get no column
    assert done.agents[1].tolist() == [config.gradient_steps]


def test_arguments_of_the_wrong_type_raise_input_errors():
    train, key = make_train(TINY), KEYS[0]
    with refused("config"):
        make_train("Pendulum-v1")
    with refused("hp"):
        train(key, {"tau": 0.1})
    several = jax.random.split(key, 3), jax.random.split(jax.random.PRNGKey(0), 3)
    for wrong in 0, "x", np.zeros(2), *several:
        with refused("key"):
            train(wrong)
    with refused("hp"):
        run(TINY, TINY)
    params = make_program(TINY).default_params.replace(max_speed=jnp.array([1.0, 2.0]))
    for wrong in 3, params:
        with refused("env_params"):
            train(key, Hyperparams(), wrong)
    with refused("hp"):
        run(TINY, Mine())
    with refused("run"):
        evaluate_run("runs/a")
    with refused("extend_to"):
        extended(TINY, "600")


def test_a_sweep_compiles_only_once():
    _, first, second = trained_grid()
    assert (first, second) == (1, 0)


def test_a_member_of_a_sweep_matches_a_single_run_with_its_settings():
    ours, alone = member(member(trained_grid()[0], 0), 0), trained_alone()
    assert_close(ours, alone, rtol=1e-5, atol=1e-6)  # measured: 6e-8 after 12 updates


def test_the_members_of_a_sweep_learn_different_weights():
    weights = jax.tree.leaves(trained_grid()[0].agent.actor_params)[0].reshape(4, -1)
    assert checks.all_different(weights)


# The plain-Python loop


def twin(key: Any, hp: Hyperparams, params: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Train a run with Python lists and loops. Only single steps and updates are compiled."""
    env = make_env(TINY.env)(TINY.num_envs)
    sac = make_sac(TINY, env)
    reset, step = quick_jit(env.reset), quick_jit(env.step)
    act, mode, update = quick_jit(sac.act), quick_jit(sac.mode), quick_jit(sac.update)
    numbers = make_replay(TINY, scalar_transition(0.0))  # stores the number of each transition
    add, sample = quick_jit(numbers.add), quick_jit(numbers.sample)
    number, transitions = numbers.init(), []
    key_agent, key_reset, key_warmup, key_loop = jax.random.split(key, 4)
    agent = quick_jit(sac.init)(key_agent, hp)
    state, obs = reset(key_reset, params)
    open_returns, ended = np.zeros(TINY.num_envs), []

    def interact(action: Any, key_env: Any) -> None:
        nonlocal state, obs, number
        state, timestep = step(state, action, key_env, params)
        ids = range(len(transitions), len(transitions) + TINY.num_envs)
        number = add(number, scalar_transition(jnp.array(ids)))
        for i in range(TINY.num_envs):
            discount = 0.0 if timestep.terminated[i] else 1.0
            transitions.append(
                Transition(obs[i], action[i], timestep.reward[i], discount, timestep.final_obs[i])
            )
            open_returns[i] += timestep.reward[i]
            if timestep.terminated[i] or timestep.truncated[i]:
                ended.append(open_returns[i])
                open_returns[i] = 0.0
        obs = timestep.obs

    def greedy_returns(key: Any) -> np.ndarray:
        key_reset, key = jax.random.split(key)
        state, obs = reset(key_reset, params)
        returns = np.zeros(TINY.eval_episodes)
        for _ in range(int(params.max_steps_in_episode)):
            key, key_step = jax.random.split(key)
            state, timestep = step(state, mode(agent, obs), key_step, params)
            obs, returns = timestep.obs, returns + timestep.reward
        return returns

    warmup = TINY.warmup_steps // TINY.num_envs
    for key_action, key_env in jax.random.split(key_warmup, (warmup, 2)):
        interact(env.random_action(key_action), key_env)
    rows = []
    for epoch in range(TINY.num_epochs):
        ended.clear()
        key_steps, key_eval = epoch_keys(key_loop, epoch)
        iterations = TINY.eval_every // TINY.steps_per_iteration
        per_iteration = 1 + 2 * TINY.rollout + TINY.updates_per_iteration
        for keys in jax.random.split(key_steps, (iterations, per_iteration)):
            keys = iter(keys)
            key_replay = next(keys)
            for _ in range(TINY.rollout):
                key_action, key_env = next(keys), next(keys)
                interact(act(agent, obs, key_action), key_env)
            sampled = np.asarray(sample(number, key_replay).reward, int)  # [U, B]
            assert sampled.min() >= len(transitions) - TINY.capacity
            for ids, key in zip(sampled, keys, strict=True):
                agent, metrics = update(agent, stack(transitions[i] for i in ids), key, hp)
        rows.append(
            {
                "eval_return": greedy_returns(key_eval),
                "train_return": np.mean(ended),
                "train_episodes": len(ended),
                "last": metrics,
            }
        )
    return agent, rows


def test_compiled_loop_matches_a_plain_python_loop():
    agent, rows = twin(KEYS[0], *as_arrays(*member(settings(), 0)))
    ours = trained_alone()
    assert_close(ours.agent, agent, rtol=1e-5, atol=1e-6)  # measured: equal bits
    for name in ("eval_return", "train_return", "train_episodes"):
        expected = np.stack([row[name] for row in rows])
        np.testing.assert_allclose(ours.metrics[name], expected, rtol=1e-5)


# Counts


@pytest.mark.parametrize("num_envs", [1, 3, 4])
@pytest.mark.parametrize("utd", [Fraction(1, 2), Fraction(1), Fraction(2), Fraction(1, 3)])
def test_gradient_steps_equal_utd_times_the_steps_after_warm_up(num_envs, utd):
    config = Config(
        Chain(),
        num_envs=num_envs,
        utd=float(utd),
        warmup_steps=12,
        eval_every=12,
        total_steps=12 + 36,
        replay_size=24,
        batch_size=4,
        eval_episodes=1,
    )
    train, params = make_train(config, recorder), ChainParams(max_steps_in_episode=5)

    @quick_jit  # XLA drops all computations that these counts do not need
    def counts(key):
        agent, metrics = train(key, Hyperparams(), params)
        return agent["step"], [metrics[n] for n in ("gradient_steps", "env_steps", "replay_size")]

    step, (gradient_steps, env_steps, replay_size) = counts(jax.random.key(0))
    assert int(step) == 36 * utd
    assert gradient_steps.tolist() == [12 * utd, 24 * utd, 36 * utd]
    assert env_steps.tolist() == [24, 36, 48]
    assert replay_size.tolist() == [24, 24, 24]


def test_each_optimizer_counts_every_gradient_step():
    agent, updates = trained_alone().agent, TINY.utd * (TINY.total_steps - TINY.warmup_steps)
    assert int(agent.step) == updates == 12
    for adam in (agent.actor_opt, agent.critic_opt, agent.alpha_opt):
        assert int(optax.tree.get(adam, "count")) == updates


# Each of two environments takes two warm-up steps, then two epochs of six steps.
CHAIN = Config(
    Chain(),
    num_envs=2,
    warmup_steps=4,
    eval_every=12,
    total_steps=28,
    batch_size=2,
    eval_episodes=1,
)
LENGTHS = 3, 4, 100


@cache
def chains() -> tuple[Any, dict[str, np.ndarray]]:
    """Return (loop state, metrics [members, epochs]) of three members. Every reward is 1.

    Episodes terminate after 3, 4 and 100 steps. The second member terminates and reaches its time
    limit in the same step.
    """
    program = make_program(CHAIN, recorder)
    params = [ChainParams(length=length, reward_each=1.0) for length in LENGTHS]
    params[1] = params[1].replace(max_steps_in_episode=4)
    hp, params = as_arrays(Hyperparams(), stack(params))

    def run(params):
        loop = program.init(jax.random.key(0), hp, params)
        return jax.lax.scan(lambda loop, _: program.epoch(loop, hp, params), loop, length=2)

    loop, metrics = quick_jit(jax.vmap(run))(params)
    return loop, jax.tree.map(np.asarray, metrics)


def test_train_return_is_the_mean_over_episodes_that_end_in_the_epoch():
    """Episodes that began in the warm-up also count."""
    _, metrics = chains()
    assert metrics["train_episodes"].tolist() == [[4, 4], [4, 2], [0, 0]]
    for name in ("train_return", "train_length"):
        np.testing.assert_array_equal(metrics[name], [[3, 3], [4, 4], [np.nan, np.nan]])


def test_evaluation_plays_whole_episodes_in_the_environment_of_each_member():
    assert chains()[1]["eval_return"].tolist() == [[[n], [n]] for n in LENGTHS]
    lengths = trained_grid()[0].metrics["eval_length"]
    for i, limit in enumerate(LIMITS):
        assert (lengths[i] == limit).all()


def test_metrics_of_an_algorithm_are_means_over_the_updates_of_an_epoch():
    assert chains()[1]["update"].tolist() == [[11 / 2, 12 + 11 / 2]] * 3


def test_replay_buffer_stores_every_step_of_every_environment():
    loop, _ = chains()
    assert loop.env_state.time.tolist() == [[14 % n, 14 % n] for n in LENGTHS]
    assert loop.replay.size.tolist() == [28] * 3
    assert loop.replay.position.tolist() == [0] * 3


def test_stored_discount_is_zero_at_every_termination():
    stored = checks.stored(CHAIN, chains()[0]).discount.reshape(3, 14, 2)
    for discount, length in zip(stored, LENGTHS, strict=True):
        ends = np.arange(1, 15) % length == 0
        np.testing.assert_array_equal(discount, np.stack([1.0 - ends] * 2, axis=1))


def test_no_random_number_is_used_twice():
    checks.no_random_number_is_used_twice(make_program)


def test_stored_transitions_follow_the_pendulum_equations():
    checks.transitions_follow_the_pendulum_equations(make_program)


def test_warm_up_repeats_each_action_for_warmup_hold_steps():
    config = dataclasses.replace(CHAIN, warmup_steps=16, warmup_hold=3)
    program = make_program(config, recorder)
    hp, params = as_arrays(Hyperparams(), program.default_params)
    loop = quick_jit(program.init)(jax.random.key(0), hp, params)
    actions = np.asarray(checks.stored(config, loop).action[:16, 0]).reshape(8, 2)
    assert (actions == actions[[0, 0, 0, 3, 3, 3, 6, 6]]).all()
    assert checks.all_different(actions[[0, 3, 6]].reshape(6, 1))


# Shapes: only the metrics grow with the run, by one row per epoch


@cache
def shapes(total_steps: int) -> tuple[Any, Any, Any]:
    """Return the shapes of the loop state, of the outputs of an epoch and of a run's result."""
    config = dataclasses.replace(TINY, total_steps=total_steps)
    program = make_program(config)
    hp, params = as_arrays(Hyperparams(), program.default_params)
    loop = jax.eval_shape(program.init, KEYS[0], hp, params)
    result = jax.eval_shape(make_train(config), KEYS[0], hp, params)
    return loop, jax.eval_shape(program.epoch, loop, hp, params), result


def test_metrics_have_the_documented_names_and_shapes():
    _, _, result = shapes(TINY.total_steps)
    scalars = (
        "critic_loss actor_loss alpha_loss q alpha entropy critic_grad_norm actor_grad_norm "
        "train_return train_length train_episodes replay_size env_steps gradient_steps"
    )
    expected = dict.fromkeys(scalars.split(), (2,)) | {"eval_return": (2, 2), "eval_length": (2, 2)}
    assert {name: x.shape for name, x in result.metrics.items()} == expected


def test_the_size_of_the_state_does_not_depend_on_total_steps():
    loop, outputs, result = shapes(TINY.total_steps)
    long_loop, long_outputs, long_result = shapes(20 + 12 * 10_000)
    assert loop == long_loop
    assert outputs == long_outputs
    assert outputs[0] == loop  # the carry of the scan
    assert result.agent == long_result.agent
    assert {x.shape[0] for x in result.metrics.values()} == {2}
    assert {x.shape[0] for x in long_result.metrics.values()} == {10_000}


def test_an_epoch_does_not_copy_the_replay_buffer():
    checks.epoch_does_not_copy_the_replay(make_program)


# Hyperparameters

FIELDS = [field.name for field in dataclasses.fields(Hyperparams)]


@pytest.mark.parametrize("field", FIELDS)
def test_vmap_over_updates_can_sweep_any_hyperparameter(field):
    env = make_env(TINY.env)(1)
    sac = make_sac(TINY, env)
    batch = jax.tree.map(lambda x: jnp.ones((8, *x.shape)), env.example)

    def learn(value):
        hp = Hyperparams(**{field: value})
        return sac.update(sac.init(KEYS[0], hp), batch, KEYS[1], hp)[0].step

    assert jax.eval_shape(jax.vmap(learn), jnp.array([0.5, 1.0, 1.0])).shape == (3,)


def test_vmap_over_runs_can_sweep_a_hyperparameter():
    train = make_train(TINY)
    sweep = jax.vmap(lambda tau: train(KEYS[0], Hyperparams(tau=tau)).metrics["alpha"])
    assert jax.eval_shape(sweep, jnp.array([0.5, 1.0, 1.0])).shape == (3, TINY.num_epochs)


# Pairs of settings that differ in one field.
PAIRS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "gamma": ({}, {"gamma": 0.5}),
    "tau": ({}, {"tau": 0.5}),
    "actor_lr": ({}, {"actor_lr": 0.1}),
    "critic_lr": ({}, {"critic_lr": 0.1}),
    "alpha_lr": ({}, {"alpha_lr": 0.0}),
    "init_alpha": ({}, {"init_alpha": 0.5}),
    "min_alpha": ({}, {"min_alpha": 1.0}),  # without the bound, alpha falls from 1
    "max_alpha": (
        {"target_entropy_per_dim": 5.0},
        {"target_entropy_per_dim": 5.0, "max_alpha": 1.0},
    ),
    "target_entropy_per_dim": ({}, {"target_entropy_per_dim": 5.0}),
    "reward_scale": ({}, {"reward_scale": 3.0}),
}


def test_each_hyperparameter_changes_the_learned_state():
    env = make_env(TINY.env)(1)
    sac = make_sac(TINY, env)
    batch = jax.tree.map(lambda x: jnp.ones((8, *x.shape)), env.example)

    @quick_jit
    @jax.vmap
    def learn(hp):
        def step(state, key):
            return sac.update(state, batch, key, hp)[0], None

        state, _ = jax.lax.scan(step, sac.init(KEYS[0], hp), jax.random.split(KEYS[1], 3))
        return state

    assert list(PAIRS) == FIELDS
    state = learn(stack(Hyperparams(**values) for pair in PAIRS.values() for values in pair))
    for i, field in enumerate(PAIRS):
        one, other = member(state, 2 * i), member(state, 2 * i + 1)
        same = jax.tree.map(np.array_equal, one, other)
        assert not jax.tree.all(same), f"{field} has no effect"


# Keys and evaluation


def test_typed_and_legacy_jax_keys_produce_the_same_run():
    run = partial(checks.after_epochs, make_program, checks.NOISE, epochs=2)
    typed, legacy = run(key=jax.random.key(7)), run(key=jax.random.PRNGKey(7))
    typed, legacy = (loop.replace(key=jax.random.key_data(loop.key)) for loop in (typed, legacy))
    jax.tree.map(np.testing.assert_array_equal, typed, legacy)


def test_evaluation_counts_only_the_first_episode_of_each_environment_copy():
    env, params = make_env(Noise())(5), NoiseParams(max_steps_in_episode=6, hazard=0.3)
    key = jax.random.key(0)
    play = quick_jit(lambda key: evaluate(env, lambda obs: 2 * obs - 1, key, params, 100))
    returns, lengths = play(key)

    key_reset, key = jax.random.split(key)
    state, obs = quick_jit(env.reset)(key_reset, params)
    step = quick_jit(env.step)
    expected: list[list[float]] = [[] for _ in range(5)]
    running = set(range(5))
    while running:
        key, key_step = jax.random.split(key)
        state, timestep = step(state, 2 * obs - 1, key_step, params)
        obs = timestep.obs
        for i in sorted(running):
            expected[i].append(float(timestep.reward[i]))
            if timestep.terminated[i] or timestep.truncated[i]:
                running.remove(i)
    assert lengths.tolist() == [len(rewards) for rewards in expected]
    assert len(set(lengths.tolist())) > 1
    np.testing.assert_allclose(returns, [sum(rewards) for rewards in expected], rtol=1e-6)


SCANNED_AND_STEPPED = """
import jax, jax.numpy as jnp, numpy as np
from sacjax import make_train, preset, run
config, hp = preset("Pendulum-v1", total_steps=2_000)
keys = jax.vmap(jax.random.key)(jnp.arange(3))
scanned = jax.jit(jax.vmap(make_train(config), in_axes=(0, None)))(keys, hp)
for name, x in run(config, hp, seeds=3).metrics.items():
    np.testing.assert_array_equal(x, scanned.metrics[name], err_msg=name)
"""


@pytest.mark.exact
def test_run_and_vmapped_make_train_return_the_same_bits_for_a_preset():
    """The test uses one device and large networks.

    Smaller networks or two devices would hide rounding differences.
    """
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    subprocess.run([sys.executable, "-c", SCANNED_AND_STEPPED], check=True, env=environment)
