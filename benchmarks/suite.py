"""Measure how long each suite of tests takes without a compilation cache.

python benchmarks/suite.py [SUITE ...]    writes results/suite.json; it needs '.[test]'

Every suite starts with an empty cache of compiled programs. The default suite runs twice, the
second time with the cache of the first. Suites that you do not name keep their seconds in the file.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import record

SUITES = ("default", "exact", "processes", "nightly")


def seconds(suite: str, cache: str) -> int:
    """Run one suite and return its seconds. Raises CalledProcessError if a test fails."""
    which = [] if suite == "default" else ["-m", suite]
    begin = time.time()
    subprocess.run(
        [sys.executable, "-m", "pytest", "--durations=20", *which],
        cwd=record.ROOT.parent,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
        check=True,
    )
    return round(time.time() - begin)


def table(measured: dict[str, int]) -> str:
    """Return the table of CONTRIBUTING.md, in minutes."""
    holds = {
        "default": ("numbers, errors, files", "pytest"),
        "exact": ("equal bits and compiled code, with XLA's default options", "pytest -m exact"),
        "processes": (
            "several processes, kills, signals, full disks; the documents' code",
            "pytest -m processes",
        ),
        "nightly": ("real physics, learning runs, twenty kills", "pytest -m nightly"),
    }
    rows = ["| suite | what it tests | command | minutes |", "|---|---|---|---|"]
    for suite, (what, command) in holds.items():
        rows.append(f"| {suite} | {what} | `{command}` | {measured[suite] / 60:.1f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"any of {', '.join(SUITES)} (default: all)")
    suites = parser.parse_args().suites or SUITES
    if unknown := set(suites) - {*SUITES}:
        parser.error(f"unknown suites {', '.join(sorted(unknown))}: use {', '.join(SUITES)}")
    measured = record.load("suite")["seconds"]
    for suite in suites:
        with tempfile.TemporaryDirectory() as cache:
            measured[suite] = seconds(suite, cache)
            if suite == "default":
                measured["default again"] = seconds(suite, cache)
        print(f"{suite}: {measured[suite]} s", flush=True)
        record.save("suite", {"seconds": measured})
    print(table(measured))
