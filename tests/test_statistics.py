"""Compare the statistics with their definitions and with the numbers of rliable."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from sacjax import statistics

RLIABLE = json.loads((Path(__file__).parent / "data" / "rliable.json").read_text())
SCORES = {name: list(np.array(x).T) for name, x in RLIABLE["scores"].items()}


def test_iqm_is_the_mean_of_the_middle_half_of_the_scores():
    x = np.array([100.0, 1, 2, 3, 4, 5, 6, -100])
    assert statistics.iqm(x) == np.mean([2, 3, 4, 5])
    assert statistics.iqm(np.array([7.0])) == 7


def test_confidence_interval_covers_the_true_iqm_in_95_percent_of_samples():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = statistics.interval(rng.normal(size=16), resamples=500)
        hits += low <= 0 <= high
    assert 0.86 <= hits / 200 <= 0.99  # at n = 16 the percentile bootstrap covers slightly less


@pytest.mark.parametrize(("seeds", "share"), [(2, 0.5), (3, 0.74), (4, 0.87), (5, 0.9), (8, 0.93)])
def test_the_interval_has_the_coverage_stated_in_its_docstring(seeds, share, monkeypatch):
    monkeypatch.setattr(statistics, "LEAST_SEEDS", 2)
    low, high = statistics.interval(np.random.default_rng(0).normal(size=(seeds, 1500)), 500)
    assert abs(((low <= 0) & (high >= 0)).mean() - share) < 0.03


def test_intervals_use_all_scores_at_the_minimum_number_of_seeds():
    """With fewer seeds, more than 2.5% of the resamples have the worst score as their IQM."""

    def share_of_worst(seeds):
        resamples = np.array(list(itertools.product(range(seeds), repeat=seeds)))
        return (statistics.iqm(resamples, axis=1) == 0).mean()

    least = statistics.LEAST_SEEDS
    assert all(share_of_worst(seeds) > 0.025 for seeds in range(2, least))
    assert share_of_worst(least) < 0.01


def test_confidence_intervals_of_curves_are_nan_for_few_seeds():
    low, high = statistics.interval(np.random.default_rng(0).normal(size=(8, 5)))
    assert low.shape == high.shape == (5,)
    assert (low < high).all()
    assert np.isnan(statistics.interval(np.zeros((4, 5)))).all()
    assert np.isfinite(statistics.interval(np.zeros((5, 5)))).all()
    assert statistics.interval(np.zeros((5, 0)))[0].shape == (0,)
    few, many = [np.zeros(9), np.arange(4.0)], [np.zeros(9), np.arange(5.0)]
    for estimate in (statistics.aggregate_iqm, lambda x: statistics.performance_profile(x, 1.0)):
        assert np.isnan(estimate(few)[1:]).all()
        assert np.isfinite(estimate(many)).all()


def test_confidence_intervals_do_not_depend_on_the_memory_limit(monkeypatch):
    x = np.random.default_rng(0).normal(size=(8, 3, 5))
    whole = statistics.interval(x)
    monkeypatch.setattr(statistics, "_HELD", 4 * 2_000 * 8)  # four columns at once
    np.testing.assert_array_equal(statistics.interval(x), whole)


@pytest.mark.parametrize("name", SCORES)
def test_iqm_equals_the_iqm_of_rliable(name):
    value, *ends = RLIABLE["iqm"][name]
    found = statistics.aggregate_iqm(SCORES[name])
    np.testing.assert_allclose(found.value, value, rtol=1e-12)
    np.testing.assert_allclose(
        found[1:], ends, atol=0.06
    )  # the two bootstraps use different random numbers


@pytest.mark.parametrize("name", SCORES)
def test_performance_profile_equals_the_profile_of_rliable(name):
    value, *ends = RLIABLE["profile"][name]
    found = statistics.performance_profile(SCORES[name], np.array(RLIABLE["taus"]))
    np.testing.assert_allclose(found.value, value, atol=1e-12)
    np.testing.assert_allclose(
        found[1:], ends, atol=0.06
    )  # a profile changes in steps of at least 1/30


@pytest.mark.parametrize("pair", RLIABLE["improvement"])
def test_probability_of_improvement_equals_the_result_of_rliable(pair):
    value, *ends = RLIABLE["improvement"][pair]
    found = statistics.probability_of_improvement(*(SCORES[name] for name in pair.split(",")))
    np.testing.assert_allclose(found.value, value, rtol=1e-12)
    np.testing.assert_allclose(found[1:], ends, atol=0.02)


def test_statistics_accept_different_numbers_of_seeds_per_environment():
    x, y = [np.array([1.0, 2]), np.array([3.0])], [np.array([0.0]), np.array([3.0, 4, 5])]
    assert statistics.probability_of_improvement(x, y).value == (1 + 0.5 / 3) / 2
    assert statistics.performance_profile(x, np.array([1.5])).value == [0.75]
    assert statistics.aggregate_iqm(x).value == 2
    one_seed = statistics.probability_of_improvement(x, y)
    assert np.isnan(one_seed.low)  # one seed has no spread


def test_normalised_scores_are_0_for_the_lowest_and_1_for_the_highest():
    found = statistics.normalised({"a": np.array([1.0, 3]), "b": np.array([2.0, 5])})
    assert found["a"].tolist() == [0, 0.5]
    assert found["b"].tolist() == [0.25, 1]
    assert statistics.normalised({"a": np.array([2.0, 2])})["a"].tolist() == [0, 0]
