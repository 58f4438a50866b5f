"""Check that the environments of an adapter behave as the docstring of `types.Env` says."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from probes import quick_jit

from sacjax.types import Env


class Rollout(NamedTuple):
    """T steps of E environment copies. `first_obs` has shape [E, O], other fields [T, E, ...]."""

    first_obs: Any
    obs: Any
    final_obs: Any
    reward: Any
    terminated: Any
    truncated: Any


def inputs(steps: int, copies: int, action_size: int) -> tuple[np.ndarray, Any]:
    """Return actions [T, E, A] and keys of the steps [T]. Some actions are outside [-1, 1]."""
    key_action, key_steps = jax.random.split(jax.random.key(1))
    shape = (steps, copies, action_size)
    actions = jax.random.uniform(key_action, shape, minval=-1.2, maxval=1.2)
    return np.asarray(actions), jax.random.split(key_steps, steps)


def rollouts(env: Env, params: Any = None) -> Callable[..., Rollout]:
    """Return a compiled function that maps (reset key, actions, step keys) to a Rollout."""
    params = env.default_params if params is None else params

    @quick_jit
    def run(key, actions, keys):
        state, obs = env.reset(key, params)
        _, steps = jax.lax.scan(lambda s, x: env.step(s, *x, params), state, (actions, keys))
        return Rollout(obs, **steps._asdict())

    return lambda *given: jax.tree.map(np.asarray, run(*given))


def assert_equal(one: Rollout, other: Rollout) -> None:
    for field in Rollout._fields:
        a, b = getattr(one, field), getattr(other, field)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=field)


def assert_shapes(env: Env, name: str, obs_size: int, action_size: int, got: Rollout) -> None:
    steps, copies = got.reward.shape
    assert (env.name, env.action_size) == (name, action_size)
    assert env.example.obs.shape == env.example.next_obs.shape == (obs_size,)
    assert env.example.action.shape == (action_size,)
    assert env.example.reward.shape == env.example.discount.shape == ()
    assert {x.dtype for x in env.example} == {np.dtype("float32")}
    assert got.first_obs.shape == (copies, obs_size)
    assert got.obs.shape == got.final_obs.shape == (steps, copies, obs_size)
    assert got.obs.dtype == got.final_obs.dtype == got.reward.dtype == np.float32
    assert got.terminated.shape == got.truncated.shape == (steps, copies)
    assert got.terminated.dtype == got.truncated.dtype == np.bool_
    action = env.random_action(jax.random.key(0))
    assert action.shape == (copies, action_size)
    assert action.dtype == np.float32
    assert np.abs(action).max() <= 1


def assert_resets_are_seen_only_at_ends(got: Rollout) -> None:
    same = (got.obs == got.final_obs).all(axis=-1)
    np.testing.assert_array_equal(same, ~(got.terminated | got.truncated))


def assert_state_keeps_its_types(env: Env, copies: int) -> None:
    """Assert that a step keeps the shapes and dtypes of the state and creates no weak type."""
    state, _ = jax.eval_shape(env.reset, jax.random.key(0), env.default_params)
    action = jnp.zeros((copies, env.action_size))
    after, _ = jax.eval_shape(env.step, state, action, jax.random.key(0), env.default_params)
    assert not any(x.weak_type for x in jax.tree.leaves(state))
    one, other = jax.tree.leaves(state), jax.tree.leaves(after)
    assert [(x.shape, x.dtype) for x in one] == [(x.shape, x.dtype) for x in other]
