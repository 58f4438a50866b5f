"""Train with `make_train` on MDPs with known solutions (see tests/helpers/probes.py)."""

import probes
import pytest

from sacjax.train import make_train


@pytest.mark.parametrize("probe", probes.CHAIN_PROBES)
def test_critics_learn_the_known_values_of_simple_mdps(probe):
    probes.check_chain(probe, make_train)


@pytest.mark.parametrize("probe", probes.AIM_PROBES)
def test_policy_learns_the_known_best_action_of_simple_mdps(probe):
    probes.check_aim(probe, make_train)


@pytest.mark.parametrize("probe", [name for name, x in probes.AIM_PROBES.items() if x.alpha_lr])
def test_learning_the_temperature_brings_the_entropy_to_its_target(probe):
    probes.check_entropy(probe, make_train)
