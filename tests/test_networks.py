"""Test the squashed Gaussian, the actor and the critics."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import twins
from probes import users_jit

from sacjax.config import Config
from sacjax.networks import MLP, Critic, SquashedGaussian, mlp

# Pairs (mean, log std): broad to narrow, and from the middle of tanh to its flat ends.
MODERATE = [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5), (2.0, -2.0)]
EXTREME = [(10.0, 2.0), (-10.0, 2.0), (10.0, -20.0), (50.0, 2.0), (-50.0, -20.0), (0.0, -20.0)]
SAMPLES = 64


def drawn(mean, log_std, key):
    return SquashedGaussian(mean, log_std).sample_and_log_prob(seed=key)


sample_and_log_prob = users_jit(drawn)
normal = users_jit(lambda key: jax.random.normal(key, (1, SAMPLES, 1), float))


@users_jit
def log_prob_of(mean, log_std, action):
    return SquashedGaussian(mean, log_std).log_prob(action)


@users_jit
def sample_grads(mean, log_std, key):
    """Return d a / d mean, d a / d log_std, d log pi(a) / d mean and d log pi(a) / d log_std."""

    def action(mean, log_std):
        return drawn(mean, log_std, key)[0].sum()

    def log_prob(mean, log_std):
        return drawn(mean, log_std, key)[1].sum()

    return *jax.grad(action, (0, 1))(mean, log_std), *jax.grad(log_prob, (0, 1))(mean, log_std)


def full(value) -> jax.Array:
    return jnp.full((SAMPLES, 1), value)


def draw(key) -> np.ndarray:
    """Return the standard normal noise of a sample of shape [SAMPLES, 1]."""
    return np.asarray(normal(key)[0], np.float64)


def test_the_action_density_integrates_to_one():
    edges = np.tanh(np.linspace(-15, 15, 40_001))  # cells of (-1, 1), narrower at its ends
    middles = np.tanh(np.linspace(-15, 15, 80_001)[1::2])
    with jax.enable_x64(True):
        for mean, log_std in MODERATE:
            log_density = log_prob_of(jnp.array([[mean]]), jnp.array([[log_std]]), middles[:, None])
            assert abs(np.sum(np.exp(log_density) * np.diff(edges)) - 1) < 1e-6


def test_log_prob_is_gaussian_log_prob_minus_log_tanh_derivative():
    action = np.linspace(-0.999, 0.999, SAMPLES)[:, None]
    u = np.arctanh(action)
    with jax.enable_x64(True):
        for mean, log_std in MODERATE:
            std = np.exp(log_std)
            gaussian = -0.5 * ((u - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
            expected = (gaussian - np.log(1 - action**2))[:, 0]
            actual = log_prob_of(full(mean), full(log_std), jnp.asarray(action))
            np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


def test_log_prob_sums_over_action_dimensions():
    mean, log_std = jnp.array([0.3, -0.2, 0.9]), jnp.array([-0.5, 0.1, -1.0])
    action = jnp.array([0.2, -0.6, 0.8])
    each = (x.reshape(3, 1) for x in (mean, log_std, action))
    separate = log_prob_of(*each)
    joint = log_prob_of(mean, log_std, action)
    assert joint.shape == ()
    np.testing.assert_allclose(joint, separate.sum(), rtol=1e-6)


@pytest.mark.parametrize(("mean", "log_std"), MODERATE + EXTREME)
def test_sampled_log_prob_is_exact_even_if_tanh_rounds_to_one(mean, log_std):
    key = jax.random.key(3)
    action, log_prob = sample_and_log_prob(full(mean), full(log_std), key)
    # The inputs are the library's float32 values, so only its arithmetic can differ.
    eps, std = draw(key), np.exp(np.float32(log_std)).astype(np.float64)
    u = mean + std * eps
    expected = -0.5 * eps**2 - log_std - 0.5 * np.log(2 * np.pi) - oracle.log_one_minus_tanh_sq(u)
    np.testing.assert_allclose(log_prob, expected[:, 0], rtol=5e-6, atol=5e-6)
    np.testing.assert_allclose(action, np.tanh(u), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("mean", "log_std"), MODERATE + EXTREME)
def test_gradients_of_samples_are_finite_and_match_the_closed_form(mean, log_std, dtype):
    """For u = mean + std eps, da/du = 1 - tanh(u)^2 and d log pi / du = 2 tanh(u)."""
    with jax.enable_x64(dtype == "float64"):
        noise = np.exp(log_std) * draw(jax.random.key(4))
        grads = sample_grads(full(mean), full(log_std), jax.random.key(4))
    u = mean + noise
    slope = np.exp(oracle.log_one_minus_tanh_sq(u))
    expected = slope, slope * noise, 2 * np.tanh(u), 2 * np.tanh(u) * noise - 1
    rtol, atol = {"float32": (1e-5, 5e-6), "float64": (1e-12, 1e-13)}[dtype]
    for actual, exact in zip(grads, expected, strict=True):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, exact, rtol=rtol, atol=atol)


def test_sample_gradients_match_finite_differences():
    mean, log_std, key, h = 0.4, -0.3, jax.random.key(5), 1e-6
    with jax.enable_x64(True):

        def both(mean, log_std):
            action, log_prob = sample_and_log_prob(full(mean), full(log_std), key)
            return np.stack([action[:, 0], log_prob])

        by_mean = (both(mean + h, log_std) - both(mean - h, log_std)) / (2 * h)
        by_log_std = (both(mean, log_std + h) - both(mean, log_std - h)) / (2 * h)
        grads = [grad[:, 0] for grad in sample_grads(full(mean), full(log_std), key)]
    numeric = by_mean[0], by_log_std[0], by_mean[1], by_log_std[1]
    np.testing.assert_allclose(grads, numeric, rtol=1e-7, atol=1e-8)


def test_sampled_actions_cover_the_range_from_minus_1_to_1():
    action, _ = sample_and_log_prob(full(0.0), full(2.0), jax.random.key(6))
    assert np.abs(action).max() <= 1
    assert np.max(action) > 0.999
    assert np.min(action) < -0.999


def test_mode_of_the_policy_is_the_tanh_of_the_mean():
    mean = jnp.linspace(-3, 3, 8).reshape(4, 2)
    mode = SquashedGaussian(mean, jnp.full((4, 2), 1.5)).mode()
    np.testing.assert_array_equal(mode, jnp.tanh(mean))


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_log_probs_have_the_shape_of_actions_without_the_last_axis(lead):
    nets = twins.make_nets(2)
    params = twins.make_state(nets).actor_params

    def outputs(obs, key):
        policy = nets.actor.apply(params, obs)
        return policy.sample(seed=key), *policy.sample_and_log_prob(seed=key), policy.mode()

    obs = jax.ShapeDtypeStruct((*lead, twins.OBS), jnp.float32)
    sample, action, log_prob, mode = jax.eval_shape(outputs, obs, jax.random.key(0))
    assert sample.shape == action.shape == mode.shape == (*lead, twins.ACTION)
    assert log_prob.shape == lead


@jax.jit
def narrow_sample(params, obs, key):
    nets = mlp(twins.make_config(log_std_min=-3.0, log_std_max=-1.0), twins.ACTION)
    return nets.actor.apply(params, obs).sample_and_log_prob(seed=key)


@pytest.mark.parametrize(("shift", "bound"), [(-100.0, -3.0), (100.0, -1.0)])
def test_log_std_is_clipped_to_the_bounds_in_config(shift, bound):
    params = twins.shifted_log_std(twins.make_state(twins.make_nets(2)).actor_params, shift)
    obs, key = twins.make_batch().obs, jax.random.key(0)
    action, log_prob = narrow_sample(params, obs, key)
    args = twins.oracle_actor(params), np.asarray(obs), twins.standard_normal(key)
    expected = oracle.policy(*args, (bound, bound))  # every std is e^bound
    np.testing.assert_allclose(action, expected[0], atol=1e-6)
    np.testing.assert_allclose(log_prob, expected[1], rtol=1e-5)


def test_the_default_bounds_of_log_std_equal_the_bounds_in_the_paper():
    config = twins.make_config()
    assert (config.log_std_min, config.log_std_max) == (-20, 2) == oracle.LOG_STD_BOUNDS


def test_log_std_is_not_changed_if_it_is_within_its_bounds():
    params = twins.shifted_log_std(twins.make_state(twins.make_nets(2)).actor_params, -2.0)
    params["params"]["log_std"]["kernel"] *= 0.1
    obs, key = twins.make_batch().obs, jax.random.key(0)
    action, _ = narrow_sample(params, obs, key)
    args = twins.oracle_actor(params), np.asarray(obs), twins.standard_normal(key)
    np.testing.assert_allclose(action, oracle.policy(*args, (-20, 2))[0], atol=1e-6)


@functools.cache
def five_critics():
    """Return random weights of five critics, a batch, and the critics' values [5, B]."""
    nets, batch = twins.make_nets(5), twins.make_batch()
    params = twins.make_state(nets).critic_params
    return params, batch, jax.jit(nets.critic.apply)(params, batch.obs, batch.action)


def test_an_ensemble_returns_one_value_per_critic_and_sample():
    params, batch, q = five_critics()
    assert q.shape == (5, twins.BATCH)
    expected = oracle.q_values(
        twins.oracle_critics(params), np.asarray(batch.obs), np.asarray(batch.action)
    )
    np.testing.assert_allclose(q, expected, rtol=1e-5, atol=1e-5)


def test_an_ensemble_equals_separate_calls_of_its_critics():
    params, batch, q = five_critics()
    single = jax.jit(Critic(twins.HIDDEN).apply)
    for i in range(5):
        alone = single(
            jax.tree.map(lambda x, i=i: np.asarray(x)[i], params), batch.obs, batch.action
        )
        np.testing.assert_allclose(q[i], alone, rtol=1e-5, atol=1e-6)


def test_every_critic_starts_with_different_weights():
    params = twins.first_state(0).critic_params
    kernels = [np.asarray(x) for x in jax.tree.leaves(params) if x.ndim == 3]  # [N, inputs, units]
    assert len(kernels) == 3
    for kernel in kernels:
        for i in range(5):
            for j in range(i):
                assert np.mean(kernel[i] == kernel[j]) < 0.01


def test_initial_kernels_are_glorot_uniform_and_initial_biases_are_zero():
    state = twins.first_state(0)
    trees = state.actor_params, state.critic_params
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    for path, array in leaves:
        leaf = np.asarray(array)
        if path[-1].key == "bias":
            assert not np.any(leaf)
        else:
            bound = np.sqrt(6 / (leaf.shape[-2] + leaf.shape[-1]))
            assert 0.8 * bound < np.abs(leaf).max() <= bound
            if leaf.size > 500:
                assert abs(np.std(leaf) / (bound / np.sqrt(3)) - 1) < 0.1


@functools.cache
def normalised():
    """Return networks with layer_norm and the shapes of their weights."""
    nets = mlp(twins.make_config(layer_norm=True), twins.ACTION)
    return nets, twins.state_shapes(nets)


def test_layer_norm_is_off_by_default_and_affects_only_the_critics():
    def norms(tree):
        names = {path[-2].key for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        return {name for name in names if "LayerNorm" in name}

    _, shapes = normalised()
    assert norms(shapes.critic_params) == {"LayerNorm_0", "LayerNorm_1"}
    assert norms(shapes.actor_params) == norms(twins.first_state(0).critic_params) == set()


def test_layer_norm_normalises_before_each_activation():
    nets, shapes = normalised()
    params = twins.random_weights(shapes.critic_params, np.random.default_rng(0))
    batch = twins.make_batch()
    q = jax.jit(nets.critic.apply)(params, batch.obs, batch.action)
    for i in range(2):
        layers = jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), params["params"])
        x = oracle.q_input(np.asarray(batch.obs), np.asarray(batch.action))
        for k in range(2):
            dense, norm = (layers["MLP_0"][f"{name}_{k}"] for name in ("Dense", "LayerNorm"))
            x = x @ dense["kernel"] + dense["bias"]
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = np.maximum(x * norm["scale"] + norm["bias"], 0)
        expected = x @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"]
        np.testing.assert_allclose(q[i], expected[:, 0], rtol=1e-5, atol=1e-6)


def rounded(x) -> np.ndarray:
    """Round to bfloat16, which has eight significant bits. Ties go to the even number."""
    return np.asarray(x).astype(jnp.bfloat16).astype(np.float64)


def hidden_product(x, w):
    """Return the matrix product in the second layer of an MLP. The first layer is the identity."""
    sizes = tuple(w.shape)
    params = {
        "Dense_0": {"kernel": jnp.eye(sizes[0]), "bias": jnp.zeros(sizes[0])},
        "Dense_1": {"kernel": w, "bias": jnp.full(sizes[1], 1_000.0)},  # so ReLU is the identity
    }
    return MLP(sizes, precision="bfloat16").apply({"params": params}, x) - 1_000


def test_bfloat16_rounds_the_inputs_but_not_the_sums_of_matrix_products():
    key_x, key_w, key_g = jax.random.split(jax.random.key(0), 3)
    x = jax.random.uniform(key_x, (32, 64))
    w, g = jax.random.normal(key_w, (64, 64)), jax.random.normal(key_g, (32, 64))
    y, pull = jax.vjp(hidden_product, x, w)
    dx, dw = pull(g)
    assert {a.dtype for a in (y, dx, dw)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(
        y, rounded(x) @ rounded(w), atol=1e-3
    )  # float32 near 1,000 has steps of 6e-5
    np.testing.assert_allclose(dx, rounded(g) @ rounded(w).T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dw, rounded(x).T @ rounded(g), rtol=1e-4, atol=1e-4)
    assert not np.allclose(dw, np.float64(x).T @ np.float64(g), rtol=1e-4, atol=1e-4)


def test_bfloat16_changes_only_matrix_products_between_hidden_layers():
    config = Config("Pendulum-v1", hidden=(32, 32))
    obs, action = jnp.full((4, 3), 0.3), jnp.full((4, 1), 0.7)
    exact, rough = (mlp(replace(config, hidden_precision=p), 1) for p in ("float32", "bfloat16"))
    for one, other, inputs in (
        (exact.actor, rough.actor, (obs,)),
        (exact.critic, rough.critic, (obs, action)),
    ):
        params = one.init(jax.random.key(1), *inputs)
        same = other.init(jax.random.key(1), *inputs)
        jax.tree.map(np.testing.assert_array_equal, params, same)
    single = replace(config, hidden=(32,), hidden_precision="bfloat16")  # has no hidden product
    params = exact_single(single).critic.init(jax.random.key(1), obs, action)
    np.testing.assert_array_equal(
        mlp(single, 1).critic.apply(params, obs, action),
        exact_single(single).critic.apply(params, obs, action),
    )


def exact_single(config):
    return mlp(replace(config, hidden_precision="float32"), 1)


def exact_log_prob(action, mean, log_std):
    """Return log pi of one-dimensional actions in float64."""
    a, mean, log_std = (np.asarray(x, np.float64) for x in (action, mean, log_std))
    z = (np.arctanh(a) - mean) / np.exp(log_std)
    return -(z**2) / 2 - log_std - np.log(2 * np.pi) / 2 - np.log1p(-(a**2))


@pytest.mark.parametrize("std", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("mean", [0.0, 3.0, -5.0])
def test_log_prob_of_given_actions_is_accurate_to_a_hundredth_of_a_nat(mean, std):
    rng = np.random.default_rng(0)
    near_one = (1 - 10 ** rng.uniform(-5, -1, 1000)) * rng.choice([-1, 1], 1000)
    action = np.concatenate([near_one, rng.uniform(-1, 1, 1000)]).astype(np.float32)
    action = np.clip(action, -1 + 1e-5, 1 - 1e-5)
    means = np.full_like(action, mean)
    log_stds = np.full_like(action, np.log(std))
    policy = SquashedGaussian(means[:, None], log_stds[:, None])
    exact = exact_log_prob(action, means, log_stds)
    np.testing.assert_allclose(policy.log_prob(action[:, None]), exact, rtol=0, atol=0.01)


@pytest.mark.parametrize("log_std", [-20.0, 0.0, 2.0])
@pytest.mark.parametrize("action", [1.0, -1.0, 1 - 1e-7])
def test_log_prob_and_its_gradients_are_finite_at_the_action_bounds(action, log_std):
    def log_prob(action, mean, log_std):
        return SquashedGaussian(mean, log_std).log_prob(action)

    args = jnp.full(3, action), jnp.zeros(3), jnp.full(3, log_std)
    value, gradients = jax.value_and_grad(log_prob, argnums=(0, 1, 2))(*args)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in gradients)
