"""Compare two results files of one benchmark, and fail if sacjax became slower.

    python benchmarks/compare.py OLD.json NEW.json [--loss 0.1]

It prints the ratio of each figure, new to old: above 1 is better. The exit code is 1 if a figure of
sacjax worsens by more than `--loss`, if a figure is missing, or if the machines differ. With
--any-machine, different machines are accepted. Figures of peers and of the machine may worsen.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rounds import PEERS

# These figures are measured for comparison. sacjax cannot make them faster.
REFERENCES = {*PEERS, "matrix products alone", "dependencies", "never"}
SHARES = ("%", "of the state")  # these are near 0, so their ratio has no meaning


def figures(content: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Map (case, name) to each measured figure."""
    return {(e["case"], e["name"]): e for e in content["results"] if "median" in e}


def compare(old: dict[str, Any], new: dict[str, Any], loss: float) -> tuple[list[str], list[str]]:
    """Return the lines to print and the problems found."""
    before, after = figures(old), figures(new)
    lines, wrong = [], []
    for name, figure in before.items():
        title = f"{name[0]}: {name[1]}"
        if name not in after:
            wrong.append(f"{title} is missing")
            continue
        if figure["unit"] in SHARES:
            lines.append(f"{figure['median']:.3g} -> {after[name]['median']:.3g}  {title}")
            continue
        times = after[name]["median"] / figure["median"]
        times = times if figure["better"] == "higher" else 1 / times
        lines.append(f"{times:6.2f} x  {title}")
        if times < 1 - loss and name[1] not in REFERENCES:
            wrong.append(f"{title} is {1 - times:.0%} worse")
    if not before:
        wrong.append("the old file has no figures")
    return lines, wrong


def machine(content: dict[str, Any]) -> tuple[Any, ...]:
    """Return the properties of a machine that must match for a comparison."""
    device = content["device"]
    return device["platform"], device["kind"], device["cpu"], device["cores"]


def main(argv: list[str] | None = None) -> int:
    """Compare two files. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--loss", type=float, default=0.1, help="largest accepted loss, as a share")
    parser.add_argument("--any-machine", action="store_true")
    args = parser.parse_args(argv)
    if not 0 <= args.loss < 1:
        parser.error(f"--loss ({args.loss}) must be in [0, 1)")
    old, new = (json.loads(path.read_text()) for path in (args.old, args.new))
    lines, wrong = compare(old, new, args.loss)
    if machine(old) != machine(new) and not args.any_machine:
        wrong.append(f"the machines differ: {machine(old)} and {machine(new)}")
    print("\n".join(lines))
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
