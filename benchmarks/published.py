"""Convert Tianshou's published SAC results to the files of locomotion.py.

    git clone https://github.com/thu-ml/tianshou && git -C tianshou fetch origin pull/341/head
    python benchmarks/published.py tianshou

This writes results/locomotion/TASK/tianshou-SEED.csv: the raw evaluations of ten seeds up to
1,000,000 steps, every 10,000 steps (for the easy tasks up to 100,000, every 5,000). The runs are
from January 2021, with gym 0.17.3, MuJoCo 2.0 and versions 3 and 2 of the tasks. An evaluation
plays ten greedy episodes, as in sacjax. Tianshou counts steps after 10,000 random ones, which this
script adds. Its settings are the paper's, except for learning rates of 1e-3 and a fixed temperature
of 0.2: see its mujoco_sac.py.
"""

import csv
import subprocess
import sys
from pathlib import Path

from locomotion import STEPS, THEIRS, csv_of

# This commit of pull request 341 has all seeds. The merged version has means only.
COMMIT = "39acf2094d96268d92ebb54dcbfc3de76d702567"
FILE = "examples/mujoco/benchmark/{task}/sac/test_rew_10seeds.csv"
RANDOM, SEEDS = 10_000, 10
VERSIONS = {
    **dict.fromkeys(("HalfCheetah", "Hopper", "Walker2d", "Ant"), "v3"),
    **dict.fromkeys(("InvertedPendulum", "InvertedDoublePendulum", "Reacher"), "v2"),
}


def evaluations(clone: Path, task: str) -> list[tuple[int, list[str]]]:
    """Return the steps and the return of each seed for one of Tianshou's tasks."""
    command = ["git", "-C", str(clone), "show", f"{COMMIT}:{FILE.format(task=task)}"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    _, *rows = csv.reader(text.splitlines())
    return [(int(row[0]) + RANDOM, row[-SEEDS:]) for row in rows]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for task, least in STEPS.items():
        name = task.removesuffix("-v5")
        if name not in VERSIONS:
            continue
        easy = least == 100_000
        every, last = (5_000, least) if easy else (10_000, 1_000_000)
        found = evaluations(Path(sys.argv[1]), f"{name}-{VERSIONS[name]}")
        kept = [(step, returns) for step, returns in found if step <= last and step % every == 0]
        for seed in range(SEEDS):
            path = csv_of(task, THEIRS, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(("env_steps", "eval_return"))
                writer.writerows((step, returns[seed]) for step, returns in kept)
        print(f"{task}: {len(kept)} evaluations of {SEEDS} seeds")


if __name__ == "__main__":
    main()
