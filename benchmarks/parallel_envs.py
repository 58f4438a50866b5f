"""W4: measure many environments and large batches, as in massively parallel training.

    python benchmarks/parallel_envs.py [--peers [PEER ...]]

128 or 1,024 copies of Pendulum-v1 train with batches of 512, networks of 256x256 and a replay of
1e6. Each step of all copies is followed by 8 gradient steps. The JSON also has environment steps
per second. Two cases start with a full replay, as it is after the first thousand iterations of a
run. One of them has the dimensions of HalfCheetah (17 and 6).
"""

from dataclasses import replace

from rounds import ROUNDED, Contender, on_gpu, options, race
from workloads import Workload

ONE = Workload(batch_size=512, updates=8, warmup_steps=8_192, iterations=40)


def contenders(peers: list[str]) -> list[Contender]:
    """Return the contenders of all cases. In each case, sacjax comes first."""
    few, many = replace(ONE, num_envs=128), replace(ONE, num_envs=1_024)
    full = replace(many, warmup_steps=many.replay_size)
    cases = {
        "128 environments": few,
        "1024 environments": many,
        "1024 environments, replay full": full,
        "1024 of 17 / 6, replay full": replace(full, env="synthetic"),
    }
    found = []
    for case, workload in cases.items():
        fitting = ("brax",) if "full" in case else ("brax", "rejax", "evorl")
        for name in ["sacjax", ROUNDED, *(p for p in peers if p in fitting)]:
            precision = "bfloat16" if name == ROUNDED else "float32"
            iterations = 500 if on_gpu() else 10 if name == "rejax" else workload.iterations
            fits = replace(workload, iterations=iterations, hidden_precision=precision)
            found.append(Contender(case, name, fits))
    return found


if __name__ == "__main__":
    args = options(__doc__)
    question = "W4: many environments, batch 512, 8 gradient steps each"
    race("parallel_envs", question, [contenders(args.peers)], args)
