"""Write rliable.json for test_statistics.py: scores and the statistics that rliable computes.

The script needs its own virtual environment, because rliable 1.2.0 does not support pandas 3.

    python -m venv oracle && oracle/bin/pip install rliable==1.2.0 'pandas<3'
    oracle/bin/python tests/data/rliable_numbers.py
"""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
from rliable import library, metrics

TAUS = np.linspace(-2, 3, 11)
REPS = 50_000  # enough for bootstrap noise below 0.01


def main() -> None:
    rng = np.random.default_rng(0)
    # rliable ignores its random_state and draws from the global generator
    np.random.seed(0)  # noqa: NPY002
    scores = {  # [seeds, environments], rounded to create ties
        "a": rng.normal(1.0, 1.0, (8, 3)).round(1),
        "b": rng.normal(0.4, 0.7, (6, 3)).round(1),
        "one_task": rng.normal(0.7, 1.0, (10, 1)).round(1),
        "other_task": rng.normal(0.2, 1.0, (10, 1)).round(1),
    }
    iqm, iqm_ends = library.get_interval_estimates(
        scores, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=REPS
    )
    profile, profile_ends = library.create_performance_profile(scores, TAUS, reps=5_000)
    pairs = [("a", "b"), ("b", "a"), ("one_task", "other_task")]
    better, better_ends = library.get_interval_estimates(
        {f"{x},{y}": (scores[x], scores[y]) for x, y in pairs},
        metrics.probability_of_improvement,
        reps=5_000,
    )
    found = {
        "versions": {
            name: importlib.metadata.version(name) for name in ("rliable", "arch", "numpy")
        },
        "scores": {name: x.tolist() for name, x in scores.items()},
        "taus": TAUS.tolist(),
        "iqm": {n: [float(iqm[n][0]), *iqm_ends[n].ravel().tolist()] for n in scores},
        "profile": {n: [profile[n].tolist(), *profile_ends[n].tolist()] for n in scores},
        "improvement": {n: [float(better[n]), *better_ends[n].ravel().tolist()] for n in better},
    }
    Path(__file__).with_name("rliable.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
