"""Test that every evaluation ends, also in environments without a time limit."""

import logging
from dataclasses import replace

import numpy as np
from checks import TINY
from gymnax.environments.classic_control.pendulum import Pendulum

from sacjax import run


class Endless(Pendulum):
    """Pendulum with a time limit that no evaluation reaches."""

    @property
    def default_params(self):
        return super().default_params.replace(max_steps_in_episode=10**9)


def test_evaluation_without_a_time_limit_ends_and_warns_once(caplog):
    config = replace(TINY, env=Endless(), eval_max_steps=30)
    with caplog.at_level(logging.WARNING, "sacjax"):
        done = run(config, seeds=1)
    assert done.config.num_epochs > 1
    np.testing.assert_array_equal(done.metrics["eval_length"], 30)
    cuts = [x.getMessage() for x in caplog.records if "eval_max_steps" in x.getMessage()]
    assert len(cuts) == 1
    assert cuts[0].startswith("2 of 2 evaluation episodes were cut after eval_max_steps (30)")


def test_evaluation_uses_a_time_limit_that_is_below_eval_max_steps():
    config = replace(TINY, eval_max_steps=201)
    np.testing.assert_array_equal(run(config, seeds=1).metrics["eval_length"], 200)
