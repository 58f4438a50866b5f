"""Test that this version can load and resume a folder that sacjax 0.2.0 wrote."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from checks import refused

from sacjax import evaluate_run, load, resume

OLD = Path(__file__).parents[1] / "data" / "run-0.2.0"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_a_run_from_version_0_2_0_can_be_loaded_and_evaluated(folder):
    run = load(folder)
    assert [member["tau"] for member in run.members] == [0.005, 0.005, 0.02, 0.02]
    assert run.epochs.tolist() == [2] * 4
    returns, _ = evaluate_run(run)
    np.testing.assert_allclose(returns, run.metrics["eval_return"][:, -1], rtol=1e-3)


def test_a_run_from_version_0_2_0_can_be_resumed(folder):
    before = (folder / "metrics.csv").read_text().splitlines()
    run = resume(folder)
    assert run.completed
    after = (folder / "metrics.csv").read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == 1 + 4 * 4
    assert [row.split(",")[0] for row in after[1:5]] == ["0", "1", "2", "3"]
    assert json.loads((folder / "config.json").read_text())["algorithm"] == "sac"


def test_load_and_resume_reject_a_folder_of_an_unknown_format(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content |= {"format": 3, "versions": content["versions"] | {"sacjax": "0.1.0"}}
    path.write_text(json.dumps(content))
    for use in load, resume:
        with refused("config.json"):
            use(folder)
