"""W3: measure the time from process start to a trained agent, in RLtools' published test.

    python benchmarks/quick.py [--peers [PEER ...]]

Pendulum-v1 trains for 10,000 steps, with networks of 64x64 and batches of 100. One figure is the
wall time of a whole process that trains one seed and plays ten episodes, with and without a warm
compilation cache. The other is the time of training alone, for one seed and, with sacjax, for 32.
RLtools publishes 2.6 s for training in C++ on a laptop (arXiv:2306.03530). --peers rltools builds
that C++ and times it on this machine.
"""

import tempfile
from dataclasses import asdict, replace

from rounds import Contender, entry, once, options, ratio, report
from workloads import Workload

WORKLOAD = Workload(
    hidden=(64, 64), batch_size=100, warmup_steps=100, replay_size=10_000, iterations=9_900
)
SEEDS = 32


def measure(peers: list[str], rounds: int) -> list[dict]:
    """Run every contender once in every round."""
    answers_of: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as cache:
        once(Contender("", "sacjax", WORKLOAD), cache)  # fills the cache
        many = replace(WORKLOAD, seeds=SEEDS)
        for number in range(rounds):
            turns = {
                "sacjax, cold": lambda: once(Contender("", "sacjax", WORKLOAD)),
                "sacjax, warm": lambda: once(Contender("", "sacjax", WORKLOAD), cache),
                f"sacjax, {SEEDS} seeds": lambda: once(Contender("", "sacjax", many), cache),
            } | {
                name: lambda name=name: once(Contender("", name, WORKLOAD))
                for name in peers
                if number == 0 or name != "sb3"  # sb3 takes minutes, so it runs once
            }
            for name, turn in turns.items():
                print(f"round {number}: {name} ...", flush=True)
                answers_of.setdefault(name, []).append(turn())
    entries = []
    for case, field in (("whole process", "process_seconds"), ("training", "train_seconds")):
        for name, answers in answers_of.items():
            if case == "training" and name == "sacjax, cold":
                continue  # trains like the warm one
            values = [a[field] for a in answers if field in a]
            figure = entry(case, name, values, "s", "lower")
            returns = [sum(a["returns"]) / len(a["returns"]) for a in answers if "returns" in a]
            failed = {k: a[k] for a in answers for k in a if k == "failed"}
            entries.append(figure | {"mean_returns": returns} | failed)
    return entries


if __name__ == "__main__":
    args = options(__doc__)
    entries = measure(args.peers, min(args.rounds, 3))
    for name in args.peers:
        if times := ratio(entries, "training", "sacjax, warm", name):
            print(f"training alone: {times:.2f} x as fast as {name}")
    question = "W3: Pendulum-v1, 10,000 steps, 64x64, batch 100"
    report("quick", question, entries, workload=asdict(WORKLOAD))
