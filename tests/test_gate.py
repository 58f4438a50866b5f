"""Test that four tiny runs still produce the stored results (see tests/helpers/gate.py)."""

import gate
import pytest


@pytest.mark.exact
@pytest.mark.two_cpus
@pytest.mark.parametrize("name", gate.RUNS)
def test_a_tiny_run_reproduces_the_recorded_bits(name):
    gate.check(name)
