"""Insert known mistakes into the source of sacjax, and test that the checks detect the mistakes.

A mutant is a copy of the package with one replaced text. Each check passes for sacjax and fails for
the mutant. The test fails if the original text does not occur exactly once in the source. The
numbers of mistakes refer to "Mistakes seen in other implementations" in docs/design.md.
"""

import importlib
import itertools
import shutil
from pathlib import Path

import checks
import probes
import pytest

import sacjax
from sacjax import replay, sac, train

PACKAGE = Path(sacjax.__file__).parent
numbers = itertools.count()


@pytest.fixture
def mutant(tmp_path, monkeypatch):
    """Return a function that replaces `old` in `file` and loads `module` of the changed package."""

    def load(file, old, new, module):
        name = f"sacjax_mutant_{next(numbers)}"
        shutil.copytree(PACKAGE, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (tmp_path / name).rglob("*.py"):
            source = path.read_text()
            if path == tmp_path / name / file:
                if source.count(old) != 1:
                    pytest.fail(f"{file} has {old!r} {source.count(old)} times")
                source = source.replace(old, new)
            path.write_text(source.replace("from sacjax", f"from {name}"))
        monkeypatch.syspath_prepend(tmp_path)
        return importlib.import_module(f"{name}.{module}")

    return load


MISTAKES_1_AND_2 = {
    "1, time limit as termination": (
        "train.py",
        "1 - timestep.terminated.",
        "1 - (timestep.terminated | timestep.truncated).",
    ),
    "1, next_obs after the reset": (
        "train.py",
        "next_obs=timestep.final_obs",
        "next_obs=timestep.obs",
    ),
    "2, actions stored in environment units": (
        "train.py",
        "action=action,",
        "action=2 * action,",
    ),
    "2, actions rescaled twice": (
        "envs/gymnax.py",
        "rescale(action, *bounds_of(params))",
        "rescale(rescale(action, *bounds_of(params)), *bounds_of(params))",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES_1_AND_2)
def test_a_check_detects_wrong_transitions(mutant, mistake):
    checks.transitions_follow_the_pendulum_equations(train.make_program)
    wrong = mutant(*MISTAKES_1_AND_2[mistake], "train").make_program
    with pytest.raises(AssertionError):
        checks.transitions_follow_the_pendulum_equations(wrong)


@pytest.mark.nightly  # four training runs of 10 s each
@pytest.mark.parametrize(
    ("mistake", "check", "probe"),
    [
        (
            "1, time limit as termination",
            probes.check_chain,
            "reward 1 for ever under a time limit: Q is 1 / (1 - gamma)",
        ),
        (
            "1, next_obs after the reset",
            probes.check_chain,
            "reward x for ever under a time limit: Q is x / (1 - gamma)",
        ),
        (
            "2, actions stored in environment units",
            probes.check_aim,
            "the best action is off centre",
        ),
        ("2, actions rescaled twice", probes.check_aim, "the best action is off centre"),
    ],
)
def test_training_on_a_simple_mdp_detects_wrong_transitions(mutant, mistake, check, probe):
    check(probe, train.make_train)
    with pytest.raises(AssertionError):
        check(probe, mutant(*MISTAKES_1_AND_2[mistake], "train").make_train)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "jax.random.split(key_warmup, (steps, 2))",
            "jnp.stack([jax.random.split(key_warmup)] * steps)",
            "action was drawn twice",
        ),
        (
            "keys = jax.random.split(key_steps, (iterations, _keys_per_iteration(config)))",
            "keys = jnp.stack([jax.random.split(key_steps, _keys_per_iteration(config))] "
            "* iterations)",
            "action was drawn twice",
        ),
        (
            "key_replay, keys_collect, keys_learn = _deal(parts.config, keys)",
            "key_replay, keys_collect, keys_learn = _deal(parts.config, keys); "
            "keys_collect = keys_collect.at[:].set(keys_collect[0])",
            "action was drawn twice",
        ),
        (
            "pairs = keys[1 : 1 + collect]",
            "pairs = jnp.stack([keys[1]] * collect)",
            "action was drawn twice",
        ),
        (
            "keys[1 + collect :]",
            "jnp.stack([keys[-1]] * config.updates_per_iteration)",
            "two gradient steps received the same key",
        ),
    ],
)
def test_a_check_detects_a_random_key_reused_within_a_loop(mutant, old, new, message):
    """Mistake 5: keys are reused."""
    checks.no_random_number_is_used_twice(train.make_program)
    with pytest.raises(AssertionError, match=message):
        checks.no_random_number_is_used_twice(mutant("train.py", old, new, "train").make_program)


def test_a_check_detects_a_random_key_reused_across_epochs(mutant):
    """Mistake 5: keys are reused."""
    wrong = mutant("train.py", "jax.random.fold_in(lean(key), epoch)", "key", "train").make_program
    with pytest.raises(AssertionError, match="action was drawn twice"):
        checks.no_random_number_is_used_twice(wrong)


def test_a_check_detects_a_minibatch_that_is_used_twice(mutant):
    """Mistake 5: all gradient steps of an iteration use one minibatch."""
    checks.minibatches_differ(replay.make_replay)
    old = "jax.random.bits(key, shape, jnp.uint32)"
    new = "jnp.stack([jax.random.bits(key, shape[1:], jnp.uint32)] * shape[0])"
    with pytest.raises(AssertionError):
        checks.minibatches_differ(mutant("replay.py", old, new, "replay").make_replay)


def test_a_check_detects_target_critics_that_move_once_per_iteration(mutant):
    """Mistake 6: the target critics do not move in every gradient step."""
    checks.every_gradient_step_moves_the_targets(sac.make_sac)
    old, new = "state.target_params, hp.tau", "state.target_params, hp.tau * (state.step % 4 == 3)"
    with pytest.raises(AssertionError):
        checks.every_gradient_step_moves_the_targets(mutant("sac.py", old, new, "sac").make_sac)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("sac.py", "return q.min(axis=0)", "return jnp.minimum(q[0], q[1])"),
        ("networks.py", "precision), config.num_critics)", "precision), 2)"),
    ],
)
def test_a_check_detects_that_num_critics_is_ignored(mutant, file, old, new):
    """Mistake 9: the library uses two critics although the config has three."""
    checks.every_critic_can_be_the_minimum(sac.make_sac)
    with pytest.raises(AssertionError):
        checks.every_critic_can_be_the_minimum(mutant(file, old, new, "sac").make_sac)


def test_a_check_detects_minibatches_drawn_before_new_steps_are_stored(mutant):
    """Mistake 11: XLA copies the whole replay buffer."""
    checks.epoch_does_not_copy_the_replay(train.make_program)
    insert = "    loop, _ = jax.lax.scan(collect, loop, keys_collect)\n"
    sample = "    batches = parts.replay.sample(loop.replay, key_replay)  # [U, B, ...]\n"
    wrong = mutant("train.py", insert + sample, sample + insert, "train").make_program
    with pytest.raises(AssertionError):
        checks.epoch_does_not_copy_the_replay(wrong)
