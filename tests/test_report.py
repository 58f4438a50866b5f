"""Interquartile means and intervals against their definitions; metrics.csv read back exactly."""

import numpy as np
import pytest

from sacjax import report
from sacjax.folder import MetricsFile
from sacjax.types import InputError


def test_iqm_is_the_mean_of_the_middle_half():
    x = np.array([100.0, 1, 2, 3, 4, 5, 6, -100])
    assert report.iqm(x) == np.mean([2, 3, 4, 5])
    assert report.iqm(np.array([7.0])) == 7


def test_interval_covers_the_true_iqm_about_95_percent_of_the_time():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = report.interval(rng.normal(size=16), resamples=500)
        hits += low <= 0 <= high
    assert 0.86 <= hits / 200 <= 0.99  # the percentile bootstrap is a little short at n = 16


def test_interval_works_along_a_curve_and_says_nothing_of_one_seed():
    low, high = report.interval(np.random.default_rng(0).normal(size=(8, 5)))
    assert low.shape == high.shape == (5,)
    assert (low < high).all()
    assert np.isnan(report.interval(np.zeros((1, 5)))).all()


def test_metrics_file_reads_back_to_the_bit(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    file = MetricsFile(tmp_path / "metrics.csv")
    for epoch in range(3):
        file.append(
            {"tau": 0.005, "seed": s, "q": values[s, epoch].item(), "train_return": float("nan")}
            for s in range(2)
        )
    members, metrics = report.read_metrics(tmp_path / "metrics.csv", ["tau"])  # not closed: flushed
    file.close()
    assert members == [{"tau": 0.005, "seed": 0}, {"tau": 0.005, "seed": 1}]
    np.testing.assert_array_equal(metrics["q"].astype(np.float32), values)
    assert np.isnan(metrics["train_return"]).all()


def test_a_half_written_epoch_is_left_out(tmp_path):
    (tmp_path / "m.csv").write_text("seed,q\n0,1\n1,2\n0,3\n")
    _, metrics = report.read_metrics(tmp_path / "m.csv")
    assert metrics["q"].tolist() == [[1], [2]]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "seed,q\n", "seed,q\n0,x\n", "seed,q\n0\n"])
def test_a_damaged_csv_is_an_input_error(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match="damaged"):
        report.read_metrics(tmp_path / "m.csv")
