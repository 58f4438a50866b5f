"""W4: many environments and large batches, as massively parallel training has them.

    python benchmarks/parallel_envs.py [--peers [PEER ...]]

128 and 1,024 copies of Pendulum-v1, batch 512, 8 gradient steps after each step of all copies,
256x256, replay 1e6. Environment steps a second are in the JSON beside the gradient steps. The last
case starts with a full replay, as most of a long run has it.
"""

from dataclasses import replace

from rounds import Contender, on_gpu, options, race
from workloads import Workload

ONE = Workload(batch_size=512, updates=8, warmup_steps=8_192, iterations=40)


def contenders(peers: list[str]) -> list[Contender]:
    """sacjax first, in each case."""
    found = []
    for copies in (128, 1_024):
        workload = replace(ONE, num_envs=copies)
        if on_gpu():
            workload = replace(workload, iterations=2_000)
        for name in ["sacjax", *(p for p in peers if p in ("brax", "rejax", "evorl"))]:
            fits = replace(workload, iterations=10) if name == "rejax" else workload
            found.append(Contender(f"{copies} environments", name, fits))
    full = replace(workload, warmup_steps=workload.replay_size)
    for name in ["sacjax", *(p for p in peers if p == "brax")]:
        found.append(Contender(f"{copies} environments, replay full", name, full))
    return found


if __name__ == "__main__":
    args = options(__doc__)
    question = "W4: many environments, batch 512, 8 gradient steps each"
    race("parallel_envs", question, [contenders(args.peers)], args)
