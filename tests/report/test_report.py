"""Test `read_metrics` and the learning curve."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from sacjax.runs import curve
from sacjax.runs.metrics_csv import MetricsFile, epochs_of, read_metrics
from sacjax.types import InputError


def test_read_metrics_returns_exactly_the_written_numbers(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    file = MetricsFile(tmp_path / "metrics.csv")
    for epoch in range(3):
        file.append(
            {"member": s, "tau": 0.005, "seed": s, "env_steps": epoch, "q": values[s, epoch].item()}
            | {"train_return": float("nan")}
            for s in range(2)
        )
    path = tmp_path / "metrics.csv"
    members, metrics = read_metrics(path, swept=["tau"])  # flushed, though not closed
    file.close()
    assert members == [{"tau": 0.005, "seed": 0}, {"tau": 0.005, "seed": 1}]
    np.testing.assert_array_equal(metrics["q"].astype(np.float32), values)
    assert np.isnan(metrics["train_return"]).all()


def test_read_metrics_ignores_an_epoch_that_a_batch_did_not_finish(tmp_path):
    rows = "0,0,1,1\n1,1,1,2\n0,0,2,3\n1,1,2,3\n0,0,3,5\n1,1,3."
    (tmp_path / "a.csv").write_text(f"member,seed,env_steps,q\n{rows}")
    (tmp_path / "b.csv").write_text("member,seed,env_steps,q\n2,2,1,4\n")
    members, metrics = read_metrics(tmp_path / "a.csv", tmp_path / "b.csv")
    assert members == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    np.testing.assert_array_equal(metrics["q"], [[1, 3], [2, 3], [4, np.nan]])
    assert epochs_of(metrics).tolist() == [2, 2, 1]


COLUMNS = "member,seed,env_steps\n"


@pytest.mark.parametrize(
    "text",
    ["a,b\n1,2\n", f"{COLUMNS}0,0,x\n", f"{COLUMNS}0,0\n", "seed,q\n0,1\n", f"{COLUMNS}0,,1\n"],
)
def test_a_damaged_metrics_csv_raises_an_input_error(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match="damaged"):
        read_metrics(tmp_path / "m.csv")


def test_a_metrics_csv_without_the_swept_column_counts_as_damaged(tmp_path):
    (tmp_path / "m.csv").write_text(f"{COLUMNS}0,0,1\n")
    with pytest.raises(InputError, match=r"m\.csv is damaged"):
        read_metrics(tmp_path / "m.csv", swept=["tau"])


@pytest.mark.parametrize("text", ["", COLUMNS, f"{COLUMNS}0,0,1"])
def test_a_metrics_csv_without_rows_is_not_reported_as_damaged(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match="no evaluation yet"):
        read_metrics(tmp_path / "m.csv")


def test_the_learning_curve_ends_at_the_end_of_the_shortest_run(monkeypatch):
    """The line shows the IQM over the seeds that have not diverged."""
    drawn, draw = [], Axes.plot

    def spy(*args, **kwargs):
        drawn.append((kwargs.get("label"), *(np.array(x) for x in args[1:])))
        return draw(*args, **kwargs)

    monkeypatch.setattr(Axes, "plot", spy)
    members = [{"tau": tau, "seed": seed} for tau in (0.1, 0.2) for seed in (0, 1)]
    returns = np.array([[1.0, 2, 3], [3, 4, np.nan], [5, np.nan, np.nan], [7, 8, 9]])
    steps = np.where([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]], [10.0, 20, 30], np.nan)
    episodes = np.stack([returns - 0.5, returns + 0.5], axis=-1)
    metrics = {"env_steps": steps, "eval_return": episodes}
    assert curve.learning_curve(members, metrics, "a run").startswith(b"\x89PNG")
    lines = {label: np.stack(xy).tolist() for label, *xy in drawn if label}
    assert lines == {"tau=0.1": [[10, 20], [2, 3]], "tau=0.2": [[10, 20, 30], [7, 8, 9]]}


def test_the_legend_distinguishes_settings_with_similar_values():
    members = [{"gamma": gamma, "seed": 0} for gamma in (0.9999991, 0.9999992)]
    assert list(curve.settings(members)) == ["gamma=0.9999991", "gamma=0.9999992"]
