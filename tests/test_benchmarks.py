"""Test `benchmarks/compare.py` and the committed results files."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import sacjax

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def result(tmp_path, name, *medians, cores=2, better="higher", who="sacjax", unit="x/s"):
    device = {"platform": "cpu", "kind": "cpu", "cpu": "a", "cores": cores}
    entries = [
        {"case": f"case {i}", "name": who, "median": m, "unit": unit, "better": better}
        for i, m in enumerate(medians)
    ]
    path = tmp_path / name
    path.write_text(json.dumps({"device": device, "results": entries}))
    return str(path)


@pytest.mark.parametrize(
    ("new", "better", "code"),
    [
        ((100.0, 91.0), "higher", 0),
        ((100.0, 89.0), "higher", 1),
        ((100.0, 109.0), "lower", 0),
        ((100.0, 115.0), "lower", 1),
        ((200.0, 50.0), "lower", 1),
        ((100.0,), "higher", 1),  # a figure is missing
    ],
)
def test_compare_reports_benchmark_results_that_became_worse(
    tmp_path, capsys, benchmark_module, new, better, code
):
    old = result(tmp_path, "old.json", 100.0, 100.0, better=better)
    compare = benchmark_module("compare").main
    assert compare([old, result(tmp_path, "new.json", *new, better=better)]) == code
    shown = capsys.readouterr()
    assert bool(shown.err) == bool(code)
    if len(new) == 2:
        assert "1.00 x" in shown.out or "2.00 x" in shown.out or "0.50 x" in shown.out


def test_compare_accepts_a_custom_tolerance_and_ignores_other_libraries(tmp_path, benchmark_module):
    compare = benchmark_module("compare").main
    old, new = result(tmp_path, "old.json", 100.0), result(tmp_path, "new.json", 60.0)
    assert compare([old, new]) == 1
    assert compare([old, new, "--loss", "0.5"]) == 0
    peer_old = result(tmp_path, "peer_old.json", 100.0, who="rejax")
    assert compare([peer_old, result(tmp_path, "peer_new.json", 10.0, who="rejax")]) == 0


def test_compare_ignores_percentages_and_results_of_dependencies(tmp_path, benchmark_module):
    compare = benchmark_module("compare").main
    for who, code in {"training waits": 1, "one program": 1, "dependencies": 0}.items():
        old = result(tmp_path, "old.json", 100.0, who=who, better="lower")
        new = result(tmp_path, "new.json", 200.0, who=who, better="lower")
        assert compare([old, new]) == code
    shares = [
        result(tmp_path, f"{x}.json", x, who="overhead", unit="%", better="lower")
        for x in (0.0, 3.0)
    ]
    assert compare(shares) == 0


def test_pytorch_weights_have_the_distribution_of_torch_linear(benchmark_module):
    config = sacjax.Config("Pendulum-v1", hidden=(64, 64))
    weights, nets = benchmark_module("pytorch_weights").PyTorchWeights, sacjax.mlp(config, 1)
    obs, action = jax.numpy.zeros((2, 3)), jax.numpy.zeros((2, 1))
    for net, inputs, size in ((nets.actor, (obs,), 3), (nets.critic, (obs, action), 4)):
        params, ours = (x.init(jax.random.key(0), *inputs) for x in (weights(net), net))
        assert jax.tree.structure(params) == jax.tree.structure(ours)
        leaves: Any = flatten_dict(params)
        for path, leaf in leaves.items():
            fan_in = size if path[-2] == "Dense_0" and "MLP_0" in path else 64
            largest = float(abs(leaf).max())
            assert largest <= fan_in**-0.5  # weights and biases: U(-1/sqrt(I), 1/sqrt(I))
            assert leaf.size < 8 or largest > 0.7 * fan_in**-0.5
            assert leaf.std() > 0 or leaf.size == 1


@pytest.mark.filterwarnings("ignore:.*Ant-v4 is out of date.*")
def test_ant_v5_without_contact_forces_differs_from_v4_only_in_rewards():
    """docs/results.md says that states and observations of both versions are equal, bit for bit."""
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("mujoco")
    v4 = gymnasium.make("Ant-v4")
    v5 = gymnasium.make("Ant-v5", include_cfrc_ext_in_observation=False)
    assert v5.unwrapped.contact_forces.size * v5.unwrapped._contact_cost_weight == 0.042
    rng, falls, forces = np.random.default_rng(0), 0, 0
    for seed in range(10):
        np.testing.assert_array_equal(v4.reset(seed=seed)[0], v5.reset(seed=seed)[0])
        over = False
        while not over:
            action = rng.uniform(-1, 1, 8).astype(np.float32)
            obs, reward, fallen, cut, _ = v4.step(action)
            other, less, over, late, info = v5.step(action)
            np.testing.assert_array_equal(obs, other)
            assert (fallen, cut) == (over, late)
            assert 0 <= -info["reward_contact"] <= 0.042  # each force is clipped to [-1, 1]
            assert reward == pytest.approx(less - info["reward_contact"] + over, abs=1e-9)
            falls, forces, over = falls + over, forces - info["reward_contact"], over or cut
    assert falls
    assert forces


def test_compare_rejects_results_from_different_machines(tmp_path, benchmark_module):
    compare = benchmark_module("compare").main
    old, new = result(tmp_path, "old.json", 100.0), result(tmp_path, "new.json", 100.0, cores=64)
    assert compare([old, new]) == 1
    assert compare([old, new, "--any-machine"]) == 0


@pytest.mark.parametrize(
    "path", sorted((BENCHMARKS / "results").rglob("*.json")), ids=lambda p: p.stem
)
def test_every_result_file_records_versions_device_and_commit(path):
    content = json.loads(path.read_text())
    assert content["versions"]["jax"]
    assert content["device"]["cores"]
    assert len(content["commit"].split()[0]) == 40
    for entry in content.get("results", []):
        assert {"case", "name", "unit", "better", "values"} <= entry.keys()
        assert "median" in entry or "failed" in entry
