"""Run the benchmarks W1 to W7 for sacjax alone, in sequence. This needs no network.

python benchmarks/all.py

It replaces results/*.json, including the figures of the peers. On a GPU it writes
results/gpu/*.json.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = "one_seed", "many_seeds", "quick", "parallel_envs", "replay", "startup", "limit"

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    failed = []
    for name in SCRIPTS:
        begin = time.perf_counter()
        command = [sys.executable, Path(__file__).with_name(f"{name}.py"), "--rounds", "3"]
        if subprocess.run(command).returncode:
            failed.append(name)
        print(f"-- {name}: {time.perf_counter() - begin:.0f} s", flush=True)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
