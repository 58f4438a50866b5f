"""Does learning suffer when hidden products are rounded to bfloat16?

    python benchmarks/precision.py

The paper's sizes (256x256, batch 256) and otherwise the preset's settings, Pendulum-v1 for 10,000
steps and Reacher-misc for 20,000, eight seeds with `hidden_precision` "float32" and "bfloat16".
Scored as in learning.py: 128 greedy episodes per seed, IQM and 95% bootstrap interval over seeds.
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
