"""Run sacjax for an hour, and record its memory, file handles, threads and files.

    python benchmarks/soak.py [--minutes 60]

A process runs `sacjax train Pendulum-v1` with eight seeds, an evaluation every 1,000 steps, a
checkpoint every 20 evaluations and TensorBoard. This script reads /proc every ten seconds, so it
needs Linux. At the end it sends SIGTERM. Then metrics.csv must have every row, and the run must
load.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import record

from sacjax import load

EVERY, SEEDS, WARMUP = 1_000, 8, 1_000


def sample(process: int, begin: float) -> dict[str, float]:
    """Sample a process. Its memory includes only a share of the pages that others use too."""
    place = Path("/proc") / str(process)
    rollup = dict(line.split(":") for line in (place / "smaps_rollup").read_text().splitlines()[1:])
    return {
        "seconds": round(time.monotonic() - begin, 1),
        "memory_bytes": int(rollup["Pss"].split()[0]) * 1024,
        "handles": len(os.listdir(place / "fd")),
        "threads": len(os.listdir(place / "task")),
    }


def draw(samples: list[dict[str, float]], target: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    minutes = [s["seconds"] / 60 for s in samples]
    upper.plot(minutes, [s["memory_bytes"] / 2**20 for s in samples])
    upper.set_ylabel("memory, MiB")
    lower.plot(minutes, [s["handles"] for s in samples], label="file handles")
    lower.plot(minutes, [s["threads"] for s in samples], label="threads")
    lower.set_xlabel("minutes")
    lower.legend(frameon=False)
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=150)


def soak(minutes: float, folder: Path) -> dict:
    command = [sys.executable, "-m", "sacjax", "train", "Pendulum-v1", "--out", str(folder)]
    flags = {
        "total-steps": 100_000_000 + WARMUP,
        "warmup-steps": WARMUP,
        "replay-size": 100_000,
        "eval-every": EVERY,
        "seeds": SEEDS,
        "checkpoint-every": 20,
    }
    command += [str(x) for name, x in flags.items() for x in (f"--{name}", x)] + ["--tensorboard"]
    process, samples = subprocess.Popen(command, stdout=subprocess.DEVNULL), []
    begin = time.monotonic()
    try:
        while time.monotonic() < begin + 60 * minutes:
            time.sleep(10)
            samples.append(sample(process.pid, begin))
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    rows = list(csv.DictReader((folder / "metrics.csv").open(newline="")))
    epochs, steps = int(load(folder).epochs[0]), {}
    for row in rows:
        steps.setdefault(row["seed"], []).append(int(row["env_steps"]))
    whole = [WARMUP + EVERY * (i + 1) for i in range(epochs)]
    early = len(samples) // 4
    tail = samples[early:]
    slope = np.polyfit([s["seconds"] for s in tail], [s["memory_bytes"] for s in tail], 1)[0]
    return {
        "exit_code": code,
        "epochs": epochs,
        "csv_complete": len(steps) == SEEDS and all(x == whole for x in steps.values()),
        "memory_bytes_per_hour": float(slope) * 3600,
        "memory_mib": [samples[i]["memory_bytes"] / 2**20 for i in (early, -1)],
        "samples": samples,
        "command": "sacjax train Pendulum-v1 --tensorboard",
        "flags": flags,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        found = soak(minutes, folder)
    draw(found["samples"], record.folder() / "soak.png")
    print({k: v for k, v in found.items() if k != "samples"})
    record.save("soak", {"minutes": minutes} | found)
