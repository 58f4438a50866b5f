"""Compare returns with hidden layers in float32 and in bfloat16.

    python benchmarks/precision.py

Eight seeds train with `hidden_precision` "float32" and "bfloat16", on Pendulum-v1 for 10,000 steps
and on Reacher-misc for 20,000. The sizes are the paper's (256x256, batch 256), all other settings
the preset's. Scores are those of learning.py: 128 greedy episodes per seed, IQM over seeds with a
95% bootstrap interval.
"""

import argparse
from typing import Any

import record
from learning import measure

from sacjax import preset

STEPS = {"Pendulum-v1": 10_000, "Reacher-misc": 20_000}
SEEDS = range(100, 108)
PAPER: dict[str, Any] = {"hidden": (256, 256), "batch_size": 256}

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    results: dict[str, dict[str, Any]] = {}
    for name, steps in STEPS.items():
        for precision in ("float32", "bfloat16"):
            settings = PAPER | {"total_steps": steps, "hidden_precision": precision}
            results.setdefault(name, {})[precision] = measure(
                name, *preset(name, **settings), seeds=SEEDS
            )
    path = record.save("precision", {"environments": results})
    for name, by_precision in results.items():
        for precision, r in by_precision.items():
            low, high = r["interval"]
            print(f"{name} {precision}: IQM {r['iqm']:.1f} [{low:.1f}, {high:.1f}]")
    print(path)
