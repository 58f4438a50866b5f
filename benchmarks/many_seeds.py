"""W2: measure many seeds together: gradient steps per second, and memory per seed.

    python benchmarks/many_seeds.py [--peers [rejax]]

The workload is W1's on Pendulum-v1. Replays hold 1e5 transitions, because rejax permutes its whole
replay for each batch. On a CPU, 8 and 32 seeds train, sacjax also with replays of 1e6. On a GPU, 1
to 4,096 seeds train. The JSON has bytes per seed: XLA's figure for the compiled iteration,
arguments and temporary memory together.
"""

from dataclasses import replace

from rounds import Contender, on_gpu, options, race
from workloads import Workload

ONE = Workload(replay_size=100_000)
SEEDS = (1, 4, 16, 64, 256, 1_024, 4_096)  # on a GPU


def contenders(peers: list[str]) -> list[Contender]:
    """Return the contenders of all cases. In each case, sacjax comes first."""
    if on_gpu():
        pieces = {n: min(max(50, 100_000 // n), 8_000) for n in SEEDS}  # one or two seconds each
        return [
            Contender(f"{n} seeds", "sacjax", replace(ONE, seeds=n, iterations=iterations))
            for n, iterations in pieces.items()
        ]
    found = []
    for n in (8, 32):
        found.append(
            Contender(f"{n} seeds", "sacjax", replace(ONE, seeds=n, iterations=1_600 // n))
        )
        if "rejax" in peers:
            fits = replace(ONE, seeds=n, iterations=480 // n)
            found.append(Contender(f"{n} seeds", "rejax", fits))
        large = replace(ONE, seeds=n, iterations=1_600 // n, replay_size=1_000_000)
        found.append(Contender(f"{n} seeds, replay 1e6", "sacjax", large))
    return found


if __name__ == "__main__":
    args = options(__doc__)
    groups = [contenders(args.peers)]
    if on_gpu():  # the largest case runs alone: it takes 40 GB
        groups = [groups[0][:-1], groups[0][-1:]]
    race("many_seeds", "W2: many seeds, 256x256, batch 256, all seeds together", groups, args)
