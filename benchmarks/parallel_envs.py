"""W4: many environments and large batches, as massively parallel training has them.

    python benchmarks/parallel_envs.py [--peers [PEER ...]]

128 and 1,024 copies of Pendulum-v1, batch 512, 8 gradient steps after each step of all copies,
256x256, replay 1e6. Environment steps a second are in the JSON beside the gradient steps. The last
cases start with a full replay, as all of a run has it but its first thousand iterations; the very
last with the dimensions of HalfCheetah (17 and 6).
"""

from dataclasses import replace

from rounds import ROUNDED, Contender, on_gpu, options, race
from workloads import Workload

ONE = Workload(batch_size=512, updates=8, warmup_steps=8_192, iterations=40)


def contenders(peers: list[str]) -> list[Contender]:
    """sacjax first, in each case."""
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
        beside = ("brax",) if "full" in case else ("brax", "rejax", "evorl")
        for name in ["sacjax", ROUNDED, *(p for p in peers if p in beside)]:
            precision = "bfloat16" if name == ROUNDED else "float32"
            iterations = 500 if on_gpu() else 10 if name == "rejax" else workload.iterations
            fits = replace(workload, iterations=iterations, hidden_precision=precision)
            found.append(Contender(case, name, fits))
    return found


if __name__ == "__main__":
    args = options(__doc__)
    question = "W4: many environments, batch 512, 8 gradient steps each"
    race("parallel_envs", question, [contenders(args.peers)], args)
