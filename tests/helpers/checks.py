"""Configs, tools and checks that several test files use.

A check is a function with a library function as argument. Most tests pass the original function;
test_mutations.py passes a mutant. `recorder` is an algorithm that learns nothing and stores the
arguments of `update`.
"""

from collections.abc import Callable
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.pendulum import Pendulum
from probes import Chain, Noise, quick_jit

from sacjax.bits import as_arrays
from sacjax.config import Config, Hyperparams
from sacjax.envs.names import make_env
from sacjax.networks import mlp
from sacjax.replay import make_replay
from sacjax.types import Algorithm, Env, InputError, Transition

# CONFIG trains within seconds. GRID has two settings.
CONFIG = Config(
    "Pendulum-v1",
    total_steps=500,
    warmup_steps=100,
    eval_every=50,
    hidden=(8,),
    batch_size=8,
    eval_episodes=2,
)
# TINY trains for two epochs of two iterations. An iteration takes 3 x 2 environment steps and U = 3
# gradient steps. The replay wraps around.
TINY = Config(
    "Pendulum-v1",
    num_envs=2,
    warmup_steps=20,
    rollout_length=3,
    utd=0.5,
    eval_every=12,
    total_steps=44,
    replay_size=30,
    batch_size=8,
    hidden=(8,),
    eval_episodes=2,
)
KEYS = jax.random.split(jax.random.key(0), 2)
GRID = Hyperparams(tau=np.array([0.005, 0.02]))


@contextmanager
def refused(field, kind=InputError):
    """Assert that the block raises an error about `field`. test_messages.py tests the wording."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.field == field, f"{caught.value.field}: {caught.value}"


def recorder(config: Config, env: Env) -> Algorithm:
    """Return an algorithm that acts at random and stores the keys and minibatches of `update`."""
    updates = config.num_epochs * config.eval_every // config.steps_per_iteration
    updates *= config.updates_per_iteration

    def init(key, hp):
        del key, hp
        return {
            "step": jnp.array(0),
            "keys": jnp.zeros((updates, 2), jnp.uint32),
            "batches": jnp.zeros((updates, config.batch_size)),
        }

    def act(state, obs, key):
        del state
        return jax.random.uniform(key, (len(obs), env.action_size), minval=-1.0)

    def mode(state, obs):
        del state
        return jnp.zeros((len(obs), env.action_size))

    def update(state, batch, key, hp):
        del hp
        i = state["step"]
        state = {
            "step": i + 1,
            "keys": state["keys"].at[i].set(jax.random.key_data(key)),
            "batches": state["batches"].at[i].set(batch.obs[:, 0]),
        }
        return state, {"update": i.astype(float)}

    return Algorithm(init, act, mode, update)


def assert_close(a: Any, b: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Assert that all leaves of two trees are equal within a tolerance."""
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), a, b)


def all_different(rows: Any) -> bool:
    """Return True if all rows are different."""
    rows = np.asarray(rows)
    return len(np.unique(rows.reshape(len(rows), -1), axis=0)) == len(rows)


def after_epochs(
    make_program: Callable[..., Any],
    config: Config,
    env_params: Any = None,
    epochs: int = 1,
    key: Any = None,
) -> Any:
    """Return the state of the training loop after some epochs of `recorder`."""
    program = make_program(config, recorder)
    default = program.default_params
    hp, params = as_arrays(Hyperparams(), default if env_params is None else env_params)

    @quick_jit
    def run(key):
        def epoch(loop, _):
            return program.epoch(loop, hp, params)[0], None

        return jax.lax.scan(epoch, program.init(key, hp, params), length=epochs)[0]

    return run(jax.random.key(0) if key is None else key)


def stored(config: Config, loop: Any) -> Transition:
    """Return the transitions in the replay buffer of a loop, as arrays [..., C, ...]."""
    example = make_env(config.env)(1).example
    return make_replay(config, example).unpack(loop.replay.rows)


# NOISE has a warm-up and two epochs of two iterations, with three steps and three updates each.
NOISE = Config(
    Noise(),
    num_envs=2,
    warmup_steps=8,
    rollout_length=3,
    utd=0.5,
    eval_every=12,
    total_steps=8 + 2 * 12,
    batch_size=8,
    eval_episodes=2,
)


def no_random_number_is_used_twice(make_program: Callable[..., Any]) -> None:
    """Assert that the program never draws the same random number twice."""
    loop = after_epochs(make_program, NOISE, epochs=2)
    transitions = stored(NOISE, loop)
    assert transitions.action.shape == (32, 1)
    assert all_different(transitions.action), "an action was drawn twice"
    assert all_different(transitions.next_obs), "the environments received a key twice"
    assert all_different(loop.agent["keys"]), "two gradient steps received the same key"
    assert all_different(loop.agent["batches"]), "two gradient steps received the same minibatch"


def transitions_follow_the_pendulum_equations(make_program: Callable[..., Any]) -> None:
    """Assert that the transitions of a warm-up and an epoch follow the equations of motion.

    Several episodes end at their time limit. Gymnasium's Pendulum-v1 uses the same equations, with
    torque in [-2, 2], time step 0.05, g = 10 and m = l = 1.
    """
    config = Config(
        "Pendulum-v1",
        num_envs=2,
        warmup_steps=30,
        eval_every=30,
        total_steps=60,
        batch_size=4,
        eval_episodes=1,
    )
    params = Pendulum().default_params.replace(max_steps_in_episode=7)
    loop = after_epochs(make_program, config, params)
    assert float(loop.episodes.count) == 4  # each environment ends two in its steps 16 to 30
    data = jax.tree.map(lambda x: np.asarray(x, float), stored(config, loop))
    assert np.abs(data.action).max() <= 1
    assert data.action.min() < -0.9
    assert data.action.max() > 0.9
    torque, speed = 2 * data.action[:, 0], data.obs[:, 2]
    angle = np.arctan2(data.obs[:, 1], data.obs[:, 0])
    reward = -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
    next_speed = np.clip(speed + (15 * np.sin(angle) + 3 * torque) * 0.05, -8, 8)
    next_angle = angle + next_speed * 0.05
    next_obs = np.stack([np.cos(next_angle), np.sin(next_angle), next_speed], axis=1)
    np.testing.assert_allclose(data.reward, reward, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(data.next_obs, next_obs, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(data.discount, 1)


def epoch_does_not_copy_the_replay(make_program: Callable[..., Any]) -> None:
    """Assert that XLA's temporary memory is much smaller than the replay buffer of one member."""
    config = Config(
        Chain(),
        total_steps=1_200_000,
        warmup_steps=0,
        eval_every=12,
        replay_size=200_000,
        batch_size=2,
        eval_episodes=1,
    )

    def without_records(config, env):
        return recorder(config, env)._replace(
            init=lambda key, hp: jnp.zeros(()),
            update=lambda state, batch, key, hp: (state + batch.reward.sum(), {}),
        )

    program = make_program(config, without_records)
    params = program.default_params.replace(max_steps_in_episode=5)
    hp, params = as_arrays(Hyperparams(), params)
    keys = jax.random.split(jax.random.key(0), 2)
    loop = jax.eval_shape(jax.vmap(program.init, (0, None, None)), keys, hp, params)
    epoch = quick_jit(jax.vmap(program.epoch, (0, None, None)), donate_argnums=0)
    memory = epoch.lower(loop, hp, params).compile().memory_analysis()
    rows = loop.replay.rows
    replay = rows.size * rows.dtype.itemsize // len(keys)
    assert memory.alias_size_in_bytes > 2 * replay
    assert memory.temp_size_in_bytes < 0.05 * replay


def minibatches_differ(make_replay: Callable[..., Any]) -> None:
    """Assert that the U minibatches of one call of `sample` all differ."""
    config = Config(Chain(), num_envs=4, utd=4.0, batch_size=16, replay_size=64)
    memory = make_replay(config, scalar_transition(0.0))

    @quick_jit
    def fill_and_sample(key):
        state = memory.init()
        return memory.sample(memory.add(state, scalar_transition(jnp.arange(64.0))), key).reward

    batches = fill_and_sample(jax.random.key(0))
    assert batches.shape == (16, 16)
    assert all_different(batches)


def scalar_transition(x: Any) -> Transition:
    """Return transitions with `x` in every field. The axes of `x` are the first axes."""
    x = jnp.asarray(x, float)
    return Transition(
        obs=x[..., None], action=-x[..., None], reward=x, discount=x, next_obs=x[..., None]
    )


THREE_CRITICS = Config(Chain(), num_critics=3, hidden=(8,), batch_size=4)
TAU = 0.1


@cache
def sac_with_three_critics(make_sac: Callable[..., Any]) -> tuple[Any, ...]:
    """Return (state, batch, update(state, batch)) of an untrained agent."""
    env = make_env(THREE_CRITICS.env)(1)
    agent = make_sac(THREE_CRITICS, env)
    hp, key = Hyperparams(tau=TAU), jax.random.key(0)
    batch = jax.tree.map(lambda x: jax.random.uniform(key, (4, *x.shape)), env.example)
    batch = batch._replace(discount=jnp.ones(4))
    state = quick_jit(agent.init)(key, hp)
    return state, batch, quick_jit(lambda s, b: agent.update(s, b, key, hp))


def every_gradient_step_moves_the_targets(make_sac: Callable[..., Any]) -> None:
    """Assert that each update moves the target critics by tau towards the updated critics."""
    state, batch, update = sac_with_three_critics(make_sac)
    for _ in range(4):
        new, _ = update(state, batch)
        expected = jax.tree.map(
            lambda target, critic: (1 - TAU) * target + TAU * critic,
            state.target_params,
            new.critic_params,
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
            new.target_params,
            expected,
        )
        state = new


def every_critic_can_be_the_minimum(make_sac: Callable[..., Any]) -> None:
    """Assert that the soft target falls if the output of any target critic falls by 1000."""
    state, batch, update = sac_with_three_critics(make_sac)
    assert {x.shape[0] for x in jax.tree.leaves(state.critic_params)} == {3}
    q = mlp(THREE_CRITICS, 1).critic.apply(state.critic_params, batch.obs, batch.action)
    assert q.shape == (3, 4)
    for lowest in range(3):
        lowered = jax.tree.map(
            lambda x, i=lowest: x.at[i].add(-1000) if x.shape == (3, 1) else x, state.target_params
        )
        _, metrics = update(state.replace(target_params=lowered), batch)
        np.testing.assert_allclose(metrics["critic_loss"], 3 * 0.5 * 990**2, rtol=0.02)
