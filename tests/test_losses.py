"""Test the equations of SAC, one fact per test. test_update.py compares numbers with the oracle."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
import twins
from jax.test_util import check_grads

from sacjax import sac
from sacjax.config import Hyperparams
from sacjax.networks import mlp
from sacjax.types import Transition, is_key


def step(state, batch=None, key=0, hp=twins.HP, num_critics=2):
    """Run a compiled `update_step` once."""
    batch = twins.make_batch() if batch is None else batch
    return twins.jitted_update(num_critics)(state, batch, jax.random.key(key), hp)


def state_of(num_critics=2, hp=twins.HP):
    return twins.make_state(twins.make_nets(num_critics), hp)


def changed(**changes) -> Hyperparams:
    return dataclasses.replace(twins.HP, **changes)


def output_bias(params, critic: int, shift: float):
    """Return the critics with `shift` added to all values of one critic."""
    layers = params["params"]
    bias = np.array(layers["Dense_0"]["bias"])
    bias[critic] += shift
    return {"params": layers | {"Dense_0": layers["Dense_0"] | {"bias": jnp.asarray(bias)}}}


def assert_identical(left, right):
    chex.assert_trees_all_equal_shapes_and_dtypes(left, right)
    for x, y in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_moved(before, after):
    """Assert that every array changed."""
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.any(np.asarray(x) != np.asarray(y))


# ---- The soft target and J(Q)


def two_transitions(discount) -> Transition:
    obs, action = jnp.zeros((2, twins.OBS)), jnp.zeros((2, twins.ACTION))
    return Transition(obs, action, jnp.array([3.0, 3.0]), jnp.array(discount), obs)


def test_soft_target_bootstraps_at_time_limits_but_not_at_terminations():
    next_value, next_log_prob = jnp.array([10.0, 10.0]), jnp.array([2.0, 2.0])
    target = sac.soft_target(
        two_transitions([0.0, 1.0]), next_value, next_log_prob, jnp.array(0.5), 0.9
    )
    np.testing.assert_allclose(target, [3.0, 3.0 + 0.9 * (10.0 - 0.5 * 2.0)], rtol=1e-6)


def test_soft_target_treats_each_quantile_like_a_single_value():
    next_value = jnp.array([[10.0, -3.0], [4.0, 8.0], [0.0, 1.0]])  # [K, B]
    given = jnp.array([2.0, -1.0]), jnp.array(0.5), 0.9
    batch = two_transitions([0.0, 1.0])
    target = sac.soft_target(batch, next_value, *given)
    each = [sac.soft_target(batch, value, *given) for value in next_value]
    np.testing.assert_array_equal(target, np.stack(each))
    with pytest.raises(AssertionError):
        sac.soft_target(batch, next_value.T, *given)  # the batch must be the last axis


def test_update_ignores_the_next_observation_after_a_termination():
    batch = twins.make_batch()
    elsewhere = batch._replace(next_obs=jnp.asarray(np.asarray(batch.next_obs) + 1.0))
    for discount, same in ((0.0, True), (1.0, False)):
        runs = [
            step(
                state_of(), b._replace(discount=jnp.asarray(np.full(twins.BATCH, discount), float))
            )
            for b in (batch, elsewhere)
        ]
        if same:
            assert_identical(*runs)
        else:
            assert runs[0][1]["critic_loss"] != runs[1][1]["critic_loss"]


def test_squared_error_is_a_mean_over_the_batch_and_a_sum_over_critics():
    q = np.array([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    target = np.array([1.0, 1.0, 1.0, 1.0])
    first, second, third = 0.5 * (0 + 1 + 4 + 9) / 4, 0.5, 0.0
    loss = jax.jit(sac.squared_error)
    assert loss(q, target) == first + second + third
    assert loss(np.tile(q, 2), np.tile(target, 2)) == first + second + third


def test_squared_error_moves_each_critic_towards_the_target_independently():
    q, target = np.array([[1.0, 2.0], [5.0, 1.0]]), np.array([1.0, 1.0])
    grad = jax.jit(jax.grad(sac.squared_error))(q, target)
    np.testing.assert_allclose(grad, (q - target) / 2)


def test_target_and_actor_use_the_minimum_over_all_critics():
    q = jnp.array([[3.0, 1.0], [2.0, 5.0], [4.0, 0.5]])
    for read in (sac.CLIPPED_DOUBLE_Q.target, sac.CLIPPED_DOUBLE_Q.value):
        np.testing.assert_array_equal(read(q, jax.random.key(0)), [2.0, 0.5])


@pytest.mark.parametrize("critic", range(5))
def test_each_of_five_critics_can_return_the_minimum(critic):
    state, hp = state_of(5), changed(critic_lr=0.0)
    _, plain = step(state, hp=hp, num_critics=5)
    low = state.replace(critic_params=output_bias(state.critic_params, critic, -1000.0))
    high = state.replace(critic_params=output_bias(state.critic_params, critic, +1000.0))
    _, low_metrics = step(low, hp=hp, num_critics=5)
    _, high_metrics = step(high, hp=hp, num_critics=5)
    assert 990 < low_metrics["actor_loss"] - plain["actor_loss"] < 1010  # it is the minimum
    assert -10 < high_metrics["actor_loss"] - plain["actor_loss"] <= 0  # it never is the minimum

    low = state.replace(target_params=output_bias(state.target_params, critic, -1000.0))
    high = state.replace(target_params=output_bias(state.target_params, critic, +1000.0))
    assert step(low, num_critics=5)[1]["critic_loss"] > 1e5
    assert step(high, num_critics=5)[1]["critic_loss"] < 10 * plain["critic_loss"]


def test_all_five_critics_receive_gradients_and_change():
    state = state_of(5)
    after, _ = step(state, num_critics=5)
    for leaf, moved in zip(
        jax.tree.leaves(state.critic_params), jax.tree.leaves(after.critic_params), strict=True
    ):
        assert np.all(np.any(np.asarray(leaf != moved).reshape(5, -1), axis=1))
    moments = [np.asarray(m) for m in jax.tree.leaves(after.critic_opt[0].mu)]
    norms = [np.sqrt(sum(np.sum(m[critic] ** 2) for m in moments)) for critic in range(5)]
    assert min(norms) > 0.01 * max(norms)


# ---- J(pi)


def test_actor_loss_uses_the_updated_critics():
    state, batch, hp = state_of(), twins.make_batch(), changed(critic_lr=0.1)
    after, metrics = step(state, batch, hp=hp)
    _, eps = twins.update_noise(jax.random.key(0))

    def loss(critic_params):
        return oracle.actor_loss_and_grad(
            twins.oracle_actor(state.actor_params),
            twins.oracle_critics(critic_params),
            np.asarray(batch.obs),
            eps,
            twins.HP.init_alpha,
        )[0]

    new, old = loss(after.critic_params), loss(state.critic_params)
    assert abs(new - old) > 0.1
    np.testing.assert_allclose(metrics["actor_loss"], new, rtol=1e-5)


# ---- J(alpha)


@pytest.mark.parametrize(("offset", "direction"), [(+1.0, +1), (-1.0, -1)])
def test_alpha_rises_if_entropy_is_below_its_target_and_falls_if_above(offset, direction):
    state = state_of()
    _, metrics = step(state)
    target = (float(metrics["entropy"]) + offset) / twins.ACTION
    after, _ = step(state, hp=changed(target_entropy_per_dim=target))
    assert np.sign(after.log_alpha - state.log_alpha) == direction


def test_zero_alpha_learning_rate_keeps_log_alpha_bit_identical():
    for init_alpha in (0.17, 0.34, 1.0, 2.45):  # log(exp(x)) differs from x at some of these
        hp = changed(alpha_lr=0.0, init_alpha=init_alpha)
        start = state = state_of(hp=hp)
        for key in range(3):
            state, metrics = step(state, twins.make_batch(key), key, hp)
            np.testing.assert_array_equal(state.log_alpha, start.log_alpha)
            np.testing.assert_allclose(metrics["alpha"], init_alpha, rtol=1e-6)
        assert_moved(start.actor_params, state.actor_params)


@pytest.mark.parametrize(("bound", "target"), [("max_alpha", 10.0), ("min_alpha", -10.0)])
def test_alpha_stops_at_its_bounds(bound, target):
    free = changed(alpha_lr=0.5, target_entropy_per_dim=target)
    limit = {"max_alpha": 0.4, "min_alpha": 0.2}[bound]
    bounded = dataclasses.replace(free, **{bound: limit})
    state, crossed, metrics = state_of(), state_of(), {}
    for key in range(3):
        crossed, _ = step(crossed, key=key, hp=free)
        state, metrics = step(state, key=key, hp=bounded)
        np.testing.assert_array_equal(state.log_alpha, np.log(np.float32(limit)))
    np.testing.assert_allclose(metrics["alpha"], limit, rtol=1e-6)
    beyond = np.exp(crossed.log_alpha) - limit
    assert beyond > 0 if bound == "max_alpha" else beyond < 0


def test_alpha_bounds_do_not_change_the_update_unless_alpha_reaches_them():
    state = state_of()
    absent = step(state)
    assert_identical(absent, step(state, hp=changed(min_alpha=0.1, max_alpha=0.9)))
    assert_identical(absent, step(state, hp=changed(min_alpha=0.0, max_alpha=np.inf)))
    unbounded = optax.apply_updates(
        state.log_alpha,
        optax.adam(twins.HP.alpha_lr).update(absent[1]["alpha_loss"], state.alpha_opt)[0],
    )
    np.testing.assert_allclose(absent[0].log_alpha, unbounded, rtol=1e-6)


def test_all_values_stay_finite_at_zero_temperature():
    hp = changed(init_alpha=0.0, alpha_lr=0.0)
    start = state = state_of(hp=hp)
    assert state.log_alpha == -np.inf
    for key in range(3):
        state, metrics = step(state, key=key, hp=hp)
        assert all(np.isfinite(x) for x in metrics.values())
        assert metrics["alpha"] == metrics["alpha_loss"] == 0
        assert state.log_alpha == -np.inf
    for leaf in jax.tree.leaves(state.replace(log_alpha=0.0)):
        assert np.isfinite(leaf).all()
    assert_moved(start.actor_params, state.actor_params)


# ---- The targets


def test_target_critics_move_by_tau_towards_the_updated_critics():
    state = state_of()
    after, _ = step(state)

    def blend(target, critic):
        return (1 - twins.HP.tau) * np.asarray(target, float) + twins.HP.tau * np.asarray(critic)

    expected = jax.tree.map(blend, state.target_params, after.critic_params)
    chex.assert_trees_all_close(after.target_params, expected, rtol=1e-6, atol=1e-7)


def test_tau_of_one_copies_the_critics_to_the_targets_exactly():
    after, _ = step(state_of(), hp=changed(tau=1.0))
    assert_identical(after.target_params, after.critic_params)


def test_zero_learning_rates_keep_actor_and_critics_unchanged():
    state = state_of()
    after, _ = step(state, hp=changed(critic_lr=0.0, actor_lr=0.0))
    assert_identical(after.critic_params, state.critic_params)
    assert_identical(after.actor_params, state.actor_params)
    assert_moved(state.target_params, after.target_params)
    assert after.log_alpha != state.log_alpha


# ---- The state, and the record of functions


@functools.cache
def algorithm():
    return sac.make_sac(twins.make_config(), twins.make_env())


def test_target_critics_start_as_a_copy_of_the_critics():
    state = twins.first_state(0)
    assert_identical(state.target_params, state.critic_params)
    assert state.step == 0


def test_the_buffers_of_the_initial_state_can_be_donated():
    state = algorithm().init(jax.random.key(0), twins.HP)
    double = jax.jit(lambda state: jax.tree.map(lambda x: 2 * x, state), donate_argnums=0)
    double(state)


def test_alpha_starts_at_init_alpha():
    for init_alpha in (0.2, 1.0, 5.0):
        state = twins.first_state(0, changed(init_alpha=init_alpha))
        np.testing.assert_allclose(np.exp(state.log_alpha), init_alpha, rtol=1e-6)
    zero = changed(init_alpha=0.0, alpha_lr=0.0)
    assert twins.first_state(0, zero).log_alpha == -np.inf


def test_different_keys_initialise_different_weights():
    one, other = twins.first_state(0), twins.first_state(1)
    for name in ("actor_params", "critic_params"):
        pairs = zip(*(jax.tree.leaves(getattr(state, name)) for state in (one, other)), strict=True)
        kernels = [(np.asarray(x), np.asarray(y)) for x, y in pairs if np.any(x)]
        assert len(kernels) >= 3
        assert all(np.mean(x == y) < 0.01 for x, y in kernels)


def test_act_samples_the_policy_and_mode_returns_the_greedy_action():
    state, obs, key = state_of(), twins.make_batch().obs, jax.random.key(5)
    actor = twins.oracle_actor(state.actor_params)
    action, greedy = jax.jit(lambda *args: (algorithm().act(*args), algorithm().mode(*args[:2])))(
        state, obs, key
    )
    expected = oracle.policy(actor, np.asarray(obs), twins.standard_normal(key))[0]
    np.testing.assert_allclose(action, expected, atol=1e-6)
    expected = oracle.policy(actor, np.asarray(obs), np.zeros((twins.BATCH, twins.ACTION)))[0]
    np.testing.assert_allclose(greedy, expected, atol=1e-6)


def test_update_keeps_the_shapes_and_dtypes_of_the_state():
    state, batch, key = state_of(), twins.make_batch(), jax.random.key(0)
    after, metrics = jax.eval_shape(algorithm().update, state, batch, key, twins.HP)
    before = jax.eval_shape(lambda x: x, state)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
    assert all(x.shape == () for x in metrics.values())


def test_state_contains_only_arrays():
    state = twins.first_state(0)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert not any(is_key(leaf) for leaf in jax.tree.leaves(state))


def test_custom_critic_rule_replaces_the_default():
    """A rule computes the target, the loss and the actor's value from critic values [N, B]."""
    seen = []

    def read(name):
        def value(q, key):
            seen.append((name, q.shape, key.shape))
            return q.mean(axis=0)

        return value

    def loss(q, target):
        seen.append(("loss", q.shape, target.shape))
        return sac.squared_error(q, target)

    rule = sac.CriticRule(target=read("target"), loss=loss, value=read("value"))
    agent = sac.make_sac(twins.make_config(3), twins.make_env(), rule=rule)
    state = jax.eval_shape(agent.init, jax.random.key(0), twins.HP)
    jax.eval_shape(agent.update, state, twins.make_batch(), jax.random.key(0), twins.HP)
    q = (3, twins.BATCH)
    assert seen == [("target", q, ()), ("loss", q, q[1:]), ("value", q, ())]


def test_custom_networks_replace_the_default():
    nets = mlp(twins.make_config(3), twins.ACTION)
    agent = sac.make_sac(twins.make_config(2), twins.make_env(), nets=nets)
    state = jax.eval_shape(agent.init, jax.random.key(0), twins.HP)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(state.critic_params)} == {3}


def test_a_vmapped_update_matches_separate_updates():
    grid = {
        "gamma": [0.9, 0.97, 0.99],
        "tau": [0.01, 0.1, 0.005],
        "actor_lr": [1e-3, 3e-3, 3e-4],
        "critic_lr": [3e-3, 1e-3, 1e-4],
        "alpha_lr": [1e-2, 0.0, 3e-4],
        "init_alpha": [0.1, 0.5, 1.0],
        "min_alpha": [0.0, 0.2, 0.0],
        "max_alpha": [0.101, np.inf, 2.0],
        "target_entropy_per_dim": [-1.0, -0.5, 0.3],
        "reward_scale": [1.0, 3.0, 0.5],
    }
    assert set(grid) == {field.name for field in dataclasses.fields(Hyperparams)}
    settings = [Hyperparams(**{k: v[i] for k, v in grid.items()}) for i in range(3)]
    swept = Hyperparams(**{k: np.array(v) for k, v in grid.items()})
    update = functools.partial(sac.update_step, nets=twins.make_nets(2))
    together = jax.jit(jax.vmap(update, in_axes=(0, None, None, 0)))

    alone = [state_of(hp=hp) for hp in settings]
    members = jax.tree.map(lambda *leaves: np.stack(leaves), *alone)
    for t in range(2):
        batch, key = twins.make_batch(t), jax.random.key(t)
        members, metrics = together(members, batch, key, swept)
        for i, hp in enumerate(settings):
            alone[i], expected = twins.jitted_update(2)(alone[i], batch, key, hp)
            for name, value in expected.items():
                np.testing.assert_allclose(metrics[name][i], value, rtol=1e-5, atol=1e-6)
    for i in range(3):
        member = jax.tree.map(lambda x, i=i: np.asarray(x)[i], members)
        chex.assert_trees_all_close(member, alone[i], rtol=1e-5, atol=1e-6)


# ---- Strictness


def test_update_passes_the_nan_check_of_jax():
    with jax.debug_nans(True):
        step(state_of())
        zero = changed(init_alpha=0.0, alpha_lr=0.0)
        step(state_of(hp=zero), hp=zero)


@pytest.mark.parametrize("arrays", [False, True], ids=["numbers", "arrays"])
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_update_step_does_not_promote_dtypes(monkeypatch, arrays, x64):
    """Only optax's bias correction may promote a dtype, because it computes float ** int32."""
    bias_correction = optax.tree.bias_correction

    def lenient(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return bias_correction(*args, **kwargs)

    monkeypatch.setattr(optax.tree, "bias_correction", lenient)
    with jax.enable_x64(x64):
        hp = jax.tree.map(lambda x: jnp.asarray(x, float), twins.HP) if arrays else twins.HP
        state, batch, key = state_of(hp=hp), twins.make_batch(), jax.random.key(0)
        update = functools.partial(sac.update_step, nets=twins.make_nets(2))
        with jax.numpy_dtype_promotion("strict"):
            after, _ = jax.eval_shape(update, state, batch, key, hp)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert x.dtype == y.dtype


@pytest.mark.parametrize("new_key", [jax.random.key, jax.random.PRNGKey], ids=["typed", "legacy"])
@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
def test_init_act_and_mode_do_not_promote_dtypes(new_key, x64):
    with jax.enable_x64(x64), jax.numpy_dtype_promotion("strict"):
        made = sac.make_sac(twins.make_config(), twins.make_env())
        key, obs = new_key(0), twins.make_batch().obs
        state = jax.eval_shape(made.init, key, twins.HP)
        action = jax.eval_shape(made.act, state, obs, key)
        greedy = jax.eval_shape(made.mode, state, obs)
    assert action.dtype == greedy.dtype == ("float64" if x64 else "float32")
    assert action.shape == greedy.shape == (twins.BATCH, twins.ACTION)


@pytest.mark.parametrize("field", ["reward", "discount"])
@pytest.mark.parametrize("batch_size", [1, 2, twins.BATCH])
def test_update_rejects_column_arrays_where_vectors_are_expected(field, batch_size):
    """Without a check, [B, 1] and [B] would broadcast to [B, B], even for B = N = 2."""
    batch = twins.make_batch(batch=batch_size)
    column = batch._replace(**{field: getattr(batch, field)[:, None]})
    update = functools.partial(sac.update_step, nets=twins.make_nets(2))
    jax.eval_shape(update, state_of(), batch, jax.random.key(0), twins.HP)
    with pytest.raises(AssertionError, match=r"shape"):
        jax.eval_shape(update, state_of(), column, jax.random.key(0), twins.HP)


def test_update_rejects_a_single_transition():
    one = jax.tree.map(lambda x: x[0], twins.make_batch())
    update = functools.partial(sac.update_step, nets=twins.make_nets(2))
    with pytest.raises(AssertionError, match=r"rank"):
        jax.eval_shape(update, state_of(), one, jax.random.key(0), twins.HP)


def test_actor_loss_rejects_critic_values_with_an_extra_axis():
    nets, batch = twins.make_nets(2), twins.make_batch()
    state = state_of()

    class Column:
        @staticmethod
        def apply(*args):
            return nets.critic.apply(*args)[..., None]

    wrong = nets._replace(critic=Column)
    args = (sac.CLIPPED_DOUBLE_Q, state.critic_params, 0.1, batch.obs, jax.random.key(0))
    with pytest.raises(AssertionError, match="shape"):
        jax.eval_shape(lambda params: sac.actor_loss(params, wrong, *args), state.actor_params)


# ---- Gradients against finite differences


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def check(loss, *args):
    check_grads(jax.jit(loss), args, order=1, modes=["rev"], atol=1e-7, rtol=1e-7, eps=1e-6)


@pytest.mark.usefixtures("x64")
def test_critic_loss_gradient_matches_finite_differences():
    state, batch = state_of(5), twins.make_batch()
    target = jnp.asarray(np.random.default_rng(0).normal(size=twins.BATCH))
    nets, rule = twins.make_nets(5), sac.CLIPPED_DOUBLE_Q
    check(lambda p: sac.critic_loss(p, nets, rule, batch, target)[0], state.critic_params)


@pytest.mark.usefixtures("x64")
def test_actor_loss_gradient_matches_finite_differences():
    state, batch, key = state_of(5), twins.make_batch(), jax.random.key(0)
    nets, rule = twins.make_nets(5), sac.CLIPPED_DOUBLE_Q

    def loss(params):
        return sac.actor_loss(params, nets, rule, state.critic_params, 0.3, batch.obs, key)[0]

    check(loss, state.actor_params)


@pytest.mark.usefixtures("x64")
def test_temperature_loss_gradient_matches_finite_differences():
    log_prob = jnp.asarray(np.random.default_rng(0).normal(size=twins.BATCH))
    check(lambda log_alpha: sac.temperature_loss(log_alpha, log_prob, -2.0), jnp.array(-0.7))


# ---- The deterministic limit


def td3_target(state, batch, hp):
    """Return TD3's target without smoothing, scale r + gamma d min_i Q_i'(s', tanh(mu(s')))."""
    next_action, _ = deterministic(state.actor, batch["next_obs"])
    next_q = oracle.q_values(state.targets, batch["next_obs"], next_action)
    return hp.reward_scale * batch["reward"] + hp.gamma * batch["discount"] * next_q.min(axis=0)


def deterministic(actor, obs):
    """Return the action tanh(mu(s)) and the inputs of the layers."""
    hidden = oracle.relu_stack(actor["hidden"], obs)
    return np.tanh(hidden[-1] @ actor["mean"][0] + actor["mean"][1]), hidden


def deterministic_policy_gradient(actor, critics, obs):
    """Return -E[d min_i Q_i(s, a) / da . d tanh(mu(s)) / dtheta]."""
    action, hidden = deterministic(actor, obs)
    _, slope = oracle.min_q_and_action_grad(critics, obs, action)
    d_hidden, mean = oracle.dense_backward(
        actor["mean"], hidden[-1], -slope * (1 - action**2) / len(obs)
    )
    _, layers = oracle.relu_stack_backward(actor["hidden"], hidden, d_hidden)
    return {"hidden": layers, "mean": mean}


@pytest.mark.usefixtures("x64")
def test_sac_without_entropy_and_noise_equals_td3_without_smoothing():
    hp = changed(init_alpha=0.0, alpha_lr=0.0, critic_lr=0.0)  # the critics do not change
    state, batch = state_of(hp=hp), twins.make_batch()
    actor_params = twins.shifted_log_std(state.actor_params, -100.0)  # clipped to e^-20
    state = state.replace(actor_params=actor_params)
    after, metrics = step(state, batch, hp=hp)
    # After one step, Adam's first moment is (1 - 0.9) times the gradient.
    grads = jax.tree.map(
        lambda m: np.asarray(m) / 0.1, (after.actor_opt[0].mu, after.critic_opt[0].mu)
    )
    actor_grads, critic_grads = twins.oracle_actor(grads[0]), twins.oracle_critics(grads[1])

    td3, data = twins.oracle_state(state), twins.oracle_batch(batch)
    loss, expected, _ = oracle.critic_loss_and_grad(
        td3.critics, data["obs"], data["action"], td3_target(td3, data, hp)
    )
    np.testing.assert_allclose(metrics["critic_loss"], loss, rtol=1e-7)
    assert_close(critic_grads, expected)
    expected = deterministic_policy_gradient(td3.actor, td3.critics, data["obs"])
    np.testing.assert_array_equal(actor_grads.pop("log_std")[0], 0)
    assert_close(actor_grads, expected)


def assert_close(ours, theirs):
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert twins.relative_error(x, y) < 1e-7
