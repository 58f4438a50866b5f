"""Make agents for tests. Convert weights, batches and noise for the NumPy oracle.

NumPy draws the weights, including the biases and the target critics, so that none has a special
value. All tests of a process use the same compiled update step.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle

from sacjax import sac
from sacjax.config import Config, Hyperparams
from sacjax.networks import Networks, mlp
from sacjax.types import Env, Transition

OBS, ACTION, BATCH, HIDDEN = 3, 2, 32, (32, 32)

# No value is the default, and all learning rates differ.
HP = Hyperparams(
    gamma=0.97,
    tau=0.03,
    actor_lr=1e-3,
    critic_lr=2e-3,
    alpha_lr=3e-3,
    init_alpha=0.3,
    target_entropy_per_dim=-0.7,
    reward_scale=2.5,
)


def make_config(num_critics: int = 2, **changes: Any) -> Config:
    return Config("Pendulum-v1", hidden=HIDDEN, num_critics=num_critics, **changes)


@functools.cache
def make_nets(num_critics: int) -> Networks:
    return mlp(make_config(num_critics), ACTION)


@functools.cache
def jitted_update(num_critics: int) -> Any:
    return jax.jit(functools.partial(sac.update_step, nets=make_nets(num_critics)))


def example() -> Transition:
    obs, action, scalar = jnp.zeros(OBS), jnp.zeros(ACTION), jnp.zeros(())
    return Transition(obs, action, scalar, scalar, obs)


def make_env() -> Env:
    """Return an environment for `make_sac`. `make_sac` reads only the shapes of the environment."""

    def unused(*args):
        raise NotImplementedError

    return Env("none", unused, unused, unused, None, example(), ACTION, (-1, 1))


def random_weights(shapes: Any, rng: np.random.Generator) -> Any:
    """Draw kernels with scale 1 / sqrt(inputs) and biases with magnitude 0.1 to 0.3."""

    def draw(path, leaf):
        if path[-1].key == "kernel":
            values = rng.normal(scale=leaf.shape[-2] ** -0.5, size=leaf.shape)
        else:
            values = rng.choice([-1, 1], leaf.shape) * rng.uniform(0.1, 0.3, leaf.shape)
        return jnp.asarray(values.astype(np.float32), float)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def state_shapes(nets: Networks) -> sac.TrainState:
    init = functools.partial(sac.init, nets=nets, example=example())
    return jax.eval_shape(init, jax.random.key(0), HP)


def make_state(nets: Networks, hp: Hyperparams = HP, seed: int = 0) -> sac.TrainState:
    """Return a state with random weights, in JAX's current float type."""
    shapes = state_shapes(nets)
    state = jax.tree.map(lambda s: jnp.asarray(np.zeros(s.shape, _current(s.dtype))), shapes)
    rng = np.random.default_rng(seed)
    return state.replace(
        actor_params=random_weights(shapes.actor_params, rng),
        critic_params=random_weights(shapes.critic_params, rng),
        target_params=random_weights(shapes.target_params, rng),
        log_alpha=jnp.log(jnp.asarray(hp.init_alpha, float)),
    )


@functools.cache
def _jitted_init() -> Any:
    return jax.jit(sac.make_sac(make_config(5), make_env()).init)


@functools.cache
def first_state(seed: int, hp: Hyperparams = HP) -> sac.TrainState:
    """Return the initial state of training, with five critics."""
    return _jitted_init()(jax.random.key(seed), hp)


def shifted_log_std(params: Any, shift: float) -> Any:
    """Return an actor whose log standard deviations are larger by `shift` before the clip."""
    layers = params["params"]
    bias = jnp.asarray(np.asarray(layers["log_std"]["bias"]) + shift)
    return {"params": layers | {"log_std": layers["log_std"] | {"bias": bias}}}


def make_batch(seed: int = 0, batch: int = BATCH) -> Transition:
    """Return random transitions. A quarter of the transitions terminate the episode."""
    rng = np.random.default_rng(seed)
    fields = Transition(
        obs=rng.normal(size=(batch, OBS)),
        action=rng.uniform(-1, 1, size=(batch, ACTION)),
        reward=rng.normal(size=batch),
        discount=(np.arange(batch) % 4 != 0).astype(float),
        next_obs=rng.normal(size=(batch, OBS)),
    )
    return jax.tree.map(lambda x: jnp.asarray(x.astype(np.float32), float), fields)


def update_noise(key: jax.Array, batch: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard normal noise that `update_step` draws from `key` for a' and a~."""
    key_next, _, key_actor = jax.random.split(key, 3)
    key_action, _ = jax.random.split(key_actor)
    return standard_normal(key_next, batch), standard_normal(key_action, batch)


def standard_normal(key: jax.Array, batch: int = BATCH) -> np.ndarray:
    """Return the noise that distrax draws from `key` for one sample. distrax adds a first axis."""
    return np.asarray(jax.random.normal(key, (1, batch, ACTION), float)[0], np.float64)


def oracle_actor(params: Any) -> dict[str, Any]:
    layers = params["params"]
    return {
        "hidden": _hidden(layers["MLP_0"]),
        "mean": _dense(layers["mean"]),
        "log_std": _dense(layers["log_std"]),
    }


def oracle_critics(params: Any) -> list[Any]:
    num_critics = len(jax.tree.leaves(params)[0])
    critics = [jax.tree.map(lambda x, i=i: x[i], params["params"]) for i in range(num_critics)]
    return [[*_hidden(critic["MLP_0"]), _dense(critic["Dense_0"])] for critic in critics]


def oracle_state(state: sac.TrainState) -> oracle.OracleState:
    """Convert an initial state to a state of the oracle. All optimizer states are zero."""
    assert state.step == 0
    start = oracle.init_state(
        oracle_actor(state.actor_params),
        oracle_critics(state.critic_params),
        float(state.log_alpha),
    )
    return dataclasses.replace(start, targets=oracle_critics(state.target_params))


def oracle_batch(batch: Transition) -> dict[str, np.ndarray]:
    return {name: np.asarray(x, np.float64) for name, x in batch._asdict().items()}


def oracle_hp(hp: Hyperparams) -> dict[str, float]:
    return {name: float(x) for name, x in dataclasses.asdict(hp).items()}


def arrays(state: sac.TrainState) -> dict[str, np.ndarray]:
    """Return every learned array of a state by name, with the shapes that the oracle uses."""
    return _named(
        oracle_actor(state.actor_params),
        oracle_critics(state.critic_params),
        oracle_critics(state.target_params),
        state.log_alpha,
    )


def oracle_arrays(state: oracle.OracleState) -> dict[str, np.ndarray]:
    return _named(state.actor, state.critics, state.targets, state.log_alpha)


def relative_error(ours: Any, theirs: Any) -> float:
    """Return the largest difference divided by the largest magnitude in the reference array."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def _current(dtype: Any) -> Any:
    return jnp.result_type(float) if jnp.issubdtype(dtype, jnp.floating) else dtype


def _dense(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)


def _hidden(layers: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [_dense(layers[f"Dense_{i}"]) for i in range(len(layers))]


def _named(actor: Any, critics: Any, targets: Any, log_alpha: Any) -> dict[str, np.ndarray]:
    tree = {"actor": actor, "critics": critics, "targets": targets, "log_alpha": log_alpha}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf, np.float64) for path, leaf in leaves}
