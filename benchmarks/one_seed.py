"""W1: how many gradient steps a second does one seed make, with the paper's sizes?

    python benchmarks/one_seed.py [--peers [PEER ...]]

Actor and two critics of 256x256, batch 256, one gradient step for each step of one environment, a
replay of 1e6 places; Pendulum-v1, and a synthetic environment with HalfCheetah's dimensions (17 and
6). No evaluation and no compilation in the timed part. rejax also with a replay of 1e5 places.
"""

from dataclasses import replace

from rounds import ROUNDED, Contender, on_gpu, options, race
from workloads import Workload

CASES = {"Pendulum": Workload(), "synthetic, 17 / 6": Workload(env="synthetic")}
# About 4 s a piece; 200 where nothing is said.
ITERATIONS = {"sacjax": 1_000, ROUNDED: 1_000, "brax": 600, "evorl": 400, "rltools": 1_000}


def contenders(peers: list[str]) -> list[Contender]:
    """sacjax first, in each case."""
    found = []
    for case, workload in CASES.items():
        for name in ["sacjax", ROUNDED, *peers]:
            if name == "rltools" and workload.env != "pendulum":
                continue
            fits = replace(workload, iterations=ITERATIONS.get(name, 200))
            if name == ROUNDED:
                fits = replace(fits, hidden_precision="bfloat16")
            if on_gpu():
                fits = replace(fits, iterations=5_000)
            found.append(Contender(case, name, fits))
        if "rejax" in peers:
            small = replace(workload, iterations=400, replay_size=100_000)
            found += [
                Contender(f"{case}, replay 1e5", "sacjax", replace(small, iterations=1_000)),
                Contender(f"{case}, replay 1e5", "rejax", small),
            ]
    return found


if __name__ == "__main__":
    args = options(__doc__)
    question = "W1: one seed, 256x256, batch 256, replay 1e6"
    race("one_seed", question, [contenders(args.peers)], args)
