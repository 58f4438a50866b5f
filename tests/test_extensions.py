"""Compare each option that the paper does not have with an implementation in plain Python."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import CONFIG, refused
from probes import Chain, quick_jit

from sacjax import Config, Hyperparams, make_sac, make_train, mlp
from sacjax.envs.names import make_env
from sacjax.extensions import normalized
from sacjax.replay import make_replay, n_step_return
from sacjax.runs.population import extended
from sacjax.sac import Learner, update_actor, update_critics
from sacjax.types import Algorithm, InputError, Step, Transition

ENV = make_env("Pendulum-v1")(2)
HP = Hyperparams(actor_lr=1e-2, critic_lr=1e-2, alpha_lr=1e-2)


def batch_of(key, size=16):
    obs, next_obs = 3 + 5 * jax.random.normal(key, (2, size, 3))
    action = jax.random.uniform(key, (size, 1), minval=-1.0)
    return Transition(obs, action, obs[:, 0], jnp.ones(size), next_obs)


# n-step returns


def test_the_n_step_return_equals_the_result_of_a_python_loop():
    rng = np.random.default_rng(0)
    shape, gamma = (3, 50, 4), 0.9
    terminated, truncated = rng.random((2, *shape)) < 0.2
    reward, obs, next_obs = rng.normal(size=(3, *shape)).astype(np.float32)
    goes_on = (~terminated).astype(np.float32)
    steps = Transition(obs[..., None], obs[..., None], reward, goes_on, next_obs[..., None])
    ended = terminated | truncated
    found = n_step_return(jax.tree.map(jnp.asarray, steps), jnp.asarray(ended), gamma)
    for where in np.ndindex(shape[:-1]):
        total, factor = 0.0, 1.0
        for k in range(4):
            total += factor * reward[where][k]
            if ended[where][k] or k == 3:
                break
            factor *= gamma
        np.testing.assert_allclose(found.reward[where], total, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            found.discount[where], factor * (not terminated[where][k]), rtol=1e-6
        )
        assert found.next_obs[where] == next_obs[where][k]
        assert found.obs[where] == found.action[where] == obs[where][0]


@pytest.mark.parametrize("added", [4, 9, 23])
def test_n_step_samples_are_consecutive_steps_of_one_environment(added):
    """Every stored step with n - 1 later steps is the start of some sample.

    The test checks a buffer before it is full and after it wraps around.
    """
    config = Config(Chain(), num_envs=2, n_step=3, replay_size=20, total_steps=1200,
                    warmup_steps=20, batch_size=20, eval_every=20, utd=0.5)  # fmt: skip
    example = Transition(jnp.zeros(1), jnp.zeros(1), jnp.zeros(()), jnp.zeros(()), jnp.zeros(1))
    replay = make_replay(config, Step(example, jnp.zeros(())))
    state = replay.init()
    for t in range(added):
        items = Transition(jnp.full((2, 1), t), jnp.array([[0.0], [1.0]]), jnp.zeros(2),
                           jnp.zeros(2), jnp.zeros((2, 1)))  # fmt: skip
        state = replay.add(state, Step(items, jnp.zeros(2)))
    starts = set()
    for i in range(30):
        steps, _ = replay.sample(state, jax.random.key(i))
        assert steps.obs.shape == (1, 20, 3, 1)
        times, envs = np.asarray(steps.obs[0, ..., 0]), np.asarray(steps.action[0, ..., 0])
        np.testing.assert_array_equal(times, times[:, :1] + np.arange(3))
        np.testing.assert_array_equal(envs, np.repeat(envs[:, :1], 3, 1))
        starts |= set(zip(times[:, 0].tolist(), envs[:, 0].tolist(), strict=True))
    kept = range(max(0, added - 10), added - 2)
    assert starts == {(t, e) for t in kept for e in (0.0, 1.0)}


def test_three_step_returns_learn_the_known_values_of_simple_mdps():
    """One chain has reward 1 and a time limit. The other chain terminates after five rewards."""
    chain, gamma = Chain(), 0.8
    config = Config(chain, total_steps=80 + 4000, eval_every=4000, num_envs=8, warmup_steps=80,
                    utd=0.25, batch_size=128, hidden=(16, 16), eval_episodes=1,
                    n_step=3)  # fmt: skip
    hp = Hyperparams(
        gamma=gamma, tau=0.05, critic_lr=3e-3, actor_lr=1e-3, alpha_lr=0.0, init_alpha=0.0
    )
    params = chain.default_params.replace(
        reward_each=jnp.ones(2),
        max_steps_in_episode=jnp.array([5, 10**6]),
        length=jnp.array([10**6, 5]),
        clock=jnp.array([0.0, 0.2]),
        reward_last=jnp.zeros(2),
        reward_x=jnp.zeros(2),
    )
    train = make_train(config)
    agents = quick_jit(jax.vmap(lambda p: train(jax.random.key(0), hp, p).agent))(params)

    def q(i, t):
        critic = jax.tree.map(lambda x: x[i], agents.critic_params)
        obs = jnp.array([[1.0, t * [0.0, 0.2][i]]])
        return mlp(config, 1).critic.apply(critic, obs, jnp.zeros((1, 1)))

    np.testing.assert_allclose(q(0, 0), 1 / (1 - gamma), rtol=0.05)
    for t in range(5):
        np.testing.assert_allclose(q(1, t), (1 - gamma ** (5 - t)) / (1 - gamma), atol=0.15)


def test_config_requires_n_stored_steps_before_learning_starts():
    sizes = {"n_step": 5, "num_envs": 2, "warmup_steps": 2, "eval_every": 2}
    with refused("warmup_steps"):
        Config("Pendulum-v1", **sizes, total_steps=602)
    with refused("replay_size"):
        Config("Pendulum-v1", **sizes, total_steps=4, replay_size=4, batch_size=4)


# Normalised observations


def test_observations_are_normalised_by_statistics_of_all_minibatches():
    seen = []

    def update(state, batch, key, hp):
        seen.append(batch)
        return state + 1, {"n": state}

    inner = Algorithm(
        init=lambda key, hp: jnp.zeros(()),
        act=lambda state, obs, key: obs,
        mode=lambda state, obs: -obs,
        update=update,
    )
    agent = normalized(inner, ENV)
    state = agent.init(jax.random.key(0), HP)
    obs = jnp.array([[1.0, -2.0, 30.0]])
    np.testing.assert_allclose(agent.act(state, obs, jax.random.key(0)), [[1, -2, 10]])
    batches = [batch_of(key) for key in jax.random.split(jax.random.key(1), 5)]
    for n, batch in enumerate(batches, 1):
        state, _ = agent.update(state, batch, jax.random.key(0), HP)
        every = np.concatenate([b.obs for b in batches[:n]])
        np.testing.assert_allclose(state.mean, every.mean(0), rtol=1e-4)
        np.testing.assert_allclose(state.variance, every.var(0), rtol=1e-4)
        for name in ("obs", "next_obs"):
            wanted = (np.asarray(getattr(batch, name)) - every.mean(0)) / every.std(0)
            np.testing.assert_allclose(getattr(seen[-1], name), wanted.clip(-10, 10), atol=1e-4)
        np.testing.assert_array_equal(seen[-1].reward, batch.reward)
    assert state.inner == 5
    acted = agent.act(state, obs, jax.random.key(0))
    np.testing.assert_array_equal(agent.mode(state, obs), -acted)
    wanted = (np.asarray(obs) - every.mean(0)) / every.std(0)
    np.testing.assert_allclose(acted, wanted.clip(-10, 10), rtol=1e-3)


def test_normalisation_statistics_stay_accurate_over_many_minibatches():
    """The mean is 1,000 standard deviations away from 0, and there are 20,000 minibatches."""
    agent = normalized(make_sac(CONFIG, ENV), ENV)
    agent = normalized(
        Algorithm(lambda key, hp: jnp.zeros(()), agent.act, agent.mode,
                  lambda state, batch, key, hp: (state, {})), ENV)  # fmt: skip

    @quick_jit
    def run(key):
        def step(state, key):
            batch = batch_of(key)._replace(obs=1000 + jax.random.normal(key, (16, 3)))
            return agent.update(state, batch, key, HP)[0], None

        return jax.lax.scan(step, agent.init(key, HP), jax.random.split(key, 20_000))[0]

    state = run(jax.random.key(0))
    np.testing.assert_allclose(state.mean, 1000, atol=0.02)
    np.testing.assert_allclose(state.variance, 1, rtol=0.02)


# Optimiser steps


def descent(config):
    """Return the optimiser step that `make_sac` passes to the update."""
    return make_sac(config, ENV).update.keywords["descend"]


def trained_by(descend, steps=6):
    def step(state, i):
        params, opt = state
        grads = jax.tree.map(lambda x: jnp.cos(3.0 * i + x), params)
        params, opt = descend(1e-2, grads, opt, params, i)
        return (params, opt), params

    params = {"a": jnp.arange(3.0), "b": jnp.ones((2, 2))}
    return jax.lax.scan(step, (params, optax.adam(0.0).init(params)), jnp.arange(steps))[1]


@pytest.mark.parametrize(
    ("changes", "twin"),
    [
        ({}, lambda total: optax.adam(1e-2)),
        (
            {"max_grad_norm": 0.5},
            lambda total: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2)),
        ),
        (
            {"lr_schedule": "linear"},
            lambda total: optax.adam(optax.linear_schedule(1e-2, 0.0, total)),
        ),
    ],
)
def test_an_optimiser_step_equals_the_step_of_optax(changes, twin):
    config = dataclasses.replace(CONFIG, total_steps=150, **changes)
    other = twin(config.gradient_steps)

    def descend(lr, grads, opt, params, step):
        updates, opt = other.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt

    params = {"a": jnp.arange(3.0), "b": jnp.ones((2, 2))}

    def step(state, i):
        grads = jax.tree.map(lambda x: jnp.cos(3.0 * i + x), state[0])
        params, opt = descend(0.0, grads, state[1], state[0], i)
        return (params, opt), params

    wanted = jax.lax.scan(step, (params, other.init(params)), jnp.arange(6))[1]
    found = trained_by(descent(config))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, wanted)
    if changes:
        plain = trained_by(descent(CONFIG))
        assert not np.allclose(plain["a"], found["a"], rtol=1e-4)


def test_each_optimiser_clips_gradients_and_decays_its_learning_rate():
    """Compare the update with one Adam step in NumPy whose moments start at 0."""
    bound, step, beta1, beta2 = 0.05, 100, 0.9, 0.999
    config = dataclasses.replace(CONFIG, max_grad_norm=bound, lr_schedule="linear")
    assert config.gradient_steps == 400
    sac, nets, key = make_sac(config, ENV), mlp(config, 1), jax.random.key(1)
    start = sac.init(jax.random.key(0), HP).replace(step=jnp.array(step))
    batch = batch_of(jax.random.key(2))
    after, _ = quick_jit(sac.update)(start, batch, key, HP)

    def only_grads(lr, grads, opt, params, step):
        return grads, opt

    learner = Learner(nets, descend=only_grads)
    key_next, key_target, key_actor = jax.random.split(key, 3)
    judge, improve = (
        quick_jit(partial(f, learner=learner)) for f in (update_critics, update_actor)
    )
    judged, _ = judge(start, batch, (key_next, key_target), HP)
    now = start.replace(critic_params=after.critic_params)
    unbounded = dataclasses.replace(
        HP, min_alpha=1e-30, max_alpha=1e30
    )  # so the bounds do not clip
    improved, _ = improve(now, batch, key_actor, unbounded)
    for params, grads, opt in (
        ("critic_params", judged.critic_params, after.critic_opt),
        ("actor_params", improved.actor_params, after.actor_opt),
        ("log_alpha", improved.log_alpha, after.alpha_opt),
    ):
        norm = np.sqrt(sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(grads)))
        assert norm > 2 * bound, params  # the global norm, so clipping has an effect
        leaves = zip(
            *(jax.tree.leaves(x) for x in (getattr(start, params), grads)),
            *(jax.tree.leaves(x) for x in (opt[0].mu, opt[0].nu, getattr(after, params))),
            strict=True,
        )
        for before, grad, mu, nu, found in leaves:
            clipped = np.float64(grad) * bound / norm
            np.testing.assert_allclose(mu, (1 - beta1) * clipped, rtol=1e-4, atol=1e-8)
            np.testing.assert_allclose(nu, (1 - beta2) * clipped**2, rtol=1e-4, atol=1e-12)
            moved = 1e-2 * (1 - step / 400) * clipped / (np.abs(clipped) + 1e-8)
            np.testing.assert_allclose(found, before - moved, atol=1e-5)


def test_a_linear_learning_rate_ends_at_0_and_cannot_be_extended():
    config = dataclasses.replace(CONFIG, lr_schedule="linear")
    assert config.gradient_steps == 400
    zero = {"a": jnp.ones(2)}
    for step in 400, 401, 4_000:  # also past the end, where another run's agent can be
        after, _ = descent(config)(1.0, zero, optax.adam(0.0).init(zero), zero, jnp.array(step))
        np.testing.assert_array_equal(after["a"], 1)
    with pytest.raises(InputError, match="constant learning rates"):
        extended(config, 1000)


# Delayed policy updates


def test_a_policy_with_delay_3_is_updated_in_every_third_step():
    config = dataclasses.replace(CONFIG, policy_delay=3, eval_every=8)
    agent, nets = make_sac(config, ENV), mlp(config, 1)
    learner = Learner(nets, descend=descent(config))
    state = twin = agent.init(jax.random.key(0), HP)
    update, judge, improve = (
        quick_jit(agent.update),
        quick_jit(lambda *x: update_critics(*x, learner)),
        quick_jit(lambda *x: update_actor(*x, learner)),
    )
    rows, improvements = [], []
    for i, key in enumerate(jax.random.split(jax.random.key(1), 24)):
        batch = batch_of(key)
        state, metrics = update(state, batch, key, HP)
        rows.append(metrics)
        key_next, key_target, key_actor = jax.random.split(key, 3)
        twin, _ = judge(twin, batch, (key_next, key_target), HP)
        if i % 3 == 0:
            twin, metrics = improve(twin, batch, key_actor, HP)
            improvements.append((i // 8, metrics))
        target = optax.incremental_update(twin.critic_params, twin.target_params, HP.tau)
        twin = twin.replace(target_params=target, step=twin.step + 1)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), state, twin)
    for epoch, count in enumerate((3, 3, 2)):  # in epochs of 8: steps 0 3 6, 9 12 15, 18 21
        found = [metrics for i, metrics in improvements if i == epoch]
        assert len(found) == count
        for name in found[0]:
            over_all = np.mean([row[name] for row in rows[8 * epoch : 8 * epoch + 8]])
            np.testing.assert_allclose(over_all, np.mean([m[name] for m in found]), rtol=1e-4)


@pytest.mark.exact
def test_vmapped_members_with_delayed_policy_updates_equal_single_runs():
    config = dataclasses.replace(CONFIG, total_steps=300, policy_delay=2)
    train, keys = make_train(config), jax.random.split(jax.random.key(0))
    together = quick_jit(jax.vmap(train))(keys)
    alone = quick_jit(train)(keys[1])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-3, atol=1e-4),
        together.agent.actor_params,
        alone.agent.actor_params,
    )


# All options in one run


@pytest.mark.exact
def test_a_resumed_run_with_all_options_equals_an_uninterrupted_run(tmp_path):
    from sacjax import load, resume, run

    config = dataclasses.replace(
        CONFIG,
        normalize_obs=True,
        n_step=3,
        max_grad_norm=10.0,
        lr_schedule="linear",
        policy_delay=2,
        layer_norm=True,
    )
    whole, stopped, epochs = tmp_path / "whole", tmp_path / "stopped", []
    run(config, seeds=2, directory=whole)
    run(config, seeds=2, directory=stopped, on_epoch=[lambda step, _: epochs.append(step)],
        should_stop=lambda: len(epochs) == 3)  # fmt: skip
    assert resume(stopped).completed
    assert (whole / "metrics.csv").read_bytes() == (stopped / "metrics.csv").read_bytes()
    one, other = load(whole), load(stopped)
    jax.tree.map(np.testing.assert_array_equal, one.agents, other.agents)
    assert (one.agents.batches == 400).all()


def test_the_update_ratio_of_playground_is_kept_exactly():
    config = Config("Pendulum-v1", num_envs=128, batch_size=512, utd=8 / 128, warmup_steps=1280,
                    eval_every=1280, total_steps=128_000)  # fmt: skip
    assert (config.steps_per_iteration, config.updates_per_iteration) == (128, 8)
