"""How long do the tests take? `pytest`, before anything is compiled, and with what that has kept.

python benchmarks/suite.py    runs it twice, writes results/suite.json; it needs '.[test]'
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import record

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        for when in ("first", "again"):
            begin = time.time()
            command = [sys.executable, "-m", "pytest", "-q", "--durations=20"]
            subprocess.run(command, cwd=record.ROOT.parent, env=environment, check=True)
            seconds[when] = round(time.time() - begin)
            print(f"{when}: {seconds[when]} s", flush=True)
    record.save("suite", {"command": "pytest", "seconds": seconds})
