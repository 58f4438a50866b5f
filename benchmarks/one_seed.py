"""W1: measure the gradient steps per second of one seed, with the paper's sizes.

    python benchmarks/one_seed.py [--peers [PEER ...]]

The networks are an actor and two critics of 256x256. The batch size is 256, and the replay holds
1e6 transitions. One environment takes one step per gradient step. It is Pendulum-v1, or a synthetic
environment with HalfCheetah's dimensions (17 and 6). The timed part contains no evaluation and no
compilation. rejax also runs with a replay of 1e5.
"""

from dataclasses import replace

from rounds import ROUNDED, Contender, on_gpu, options, race
from workloads import Workload

CASES = {"Pendulum": Workload(), "synthetic, 17 / 6": Workload(env="synthetic")}
# A piece takes about 4 s. The default is 200 iterations.
ITERATIONS = {"sacjax": 1_000, ROUNDED: 1_000, "brax": 600, "evorl": 400, "rltools": 1_000}


def contenders(peers: list[str]) -> list[Contender]:
    """Return the contenders of all cases. In each case, sacjax comes first."""
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
