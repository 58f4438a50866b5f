"""Did it get slower? Ratios between two result files of one benchmark.

    python benchmarks/compare.py OLD.json NEW.json [--loss 0.1]

Prints how many times as good each figure is as it was. Ends with 1 if one has lost more than
`--loss` that is not a peer's or a bare measure of the machine, if one is missing, or if the files
are not from the same kind of machine (--any-machine: ratios all the same).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rounds import PEERS

# What is measured for comparison, and is not ours to make faster.
REFERENCES = {*PEERS, "matrix products alone", "dependencies", "never"}
SHARES = ("%", "of the state")  # differences, about 0: no ratio of two of them says anything


def figures(content: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Case and name -> figure, of those that were measured."""
    return {(e["case"], e["name"]): e for e in content["results"] if "median" in e}


def compare(old: dict[str, Any], new: dict[str, Any], loss: float) -> tuple[list[str], list[str]]:
    """The lines to print, and what is wrong."""
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
            wrong.append(f"{title} has lost {1 - times:.0%}")
    if not before:
        wrong.append("the old file has no figures")
    return lines, wrong


def machine(content: dict[str, Any]) -> tuple[Any, ...]:
    """What must be the same for absolute figures to be comparable."""
    device = content["device"]
    return device["platform"], device["kind"], device["cpu"], device["cores"]


def main(argv: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--loss", type=float, default=0.1, help="the share that may be lost")
    parser.add_argument("--any-machine", action="store_true")
    args = parser.parse_args(argv)
    if not 0 <= args.loss < 1:
        parser.error(f"--loss ({args.loss}) must be in [0, 1)")
    old, new = (json.loads(path.read_text()) for path in (args.old, args.new))
    lines, wrong = compare(old, new, args.loss)
    if machine(old) != machine(new) and not args.any_machine:
        wrong.append(f"measured on {machine(old)} and on {machine(new)}")
    print("\n".join(lines))
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
