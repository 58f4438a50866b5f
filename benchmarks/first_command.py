"""Time the README's first command, and record the return of every seed.

python benchmarks/first_command.py    runs in a new folder, writes results/first_command.json
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record

from sacjax.runs.metrics_csv import read_metrics

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as folder:
        environment["XDG_CACHE_HOME"] = str(Path(folder) / "cache")  # starts empty
        begin = time.time()
        command = [str(Path(sys.executable).with_name("sacjax")), "train", "Pendulum-v1"]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        seconds = time.time() - begin
        members, metrics = read_metrics(Path(folder) / "runs/Pendulum-v1/metrics.csv")
    returns = metrics["eval_return"][:, -1]
    print(f"{seconds:.1f} s, returns {returns.round(1)}")
    record.save(
        "first_command",
        {
            "command": "sacjax train Pendulum-v1",
            "seconds": round(seconds, 1),
            "returns": {
                f"seed {m['seed']}": float(r) for m, r in zip(members, returns, strict=True)
            },
        },
    )
