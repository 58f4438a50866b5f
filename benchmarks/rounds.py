"""Run contenders in turns: all of them start, then each runs one piece per round.

A contender is a driver (peers/protocol.py) with a workload. All contenders compile and warm up at
the same time, so `compile_seconds` are those of a busy machine. Then only one process computes at a
time, so a slow phase of the machine affects all of them. Figures are medians over the rounds. The
results files have all values.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "peers"))

import record
from environments import ENVIRONMENTS, python_of  # pyright: ignore[reportMissingImports]
from workloads import Workload

# The peers with a driver here. Other benchmarks use the remaining environments.
PEERS = [name for name in ENVIRONMENTS if (ROOT / "peers" / f"{name}_sac.py").exists()]
ROUNDED = "sacjax, bfloat16"  # hidden_precision="bfloat16": no peer has this option


class Contender(NamedTuple):
    """An implementation of SAC with a workload. `case` groups the contenders of a comparison."""

    case: str
    name: str  # "sacjax", "sacjax, with an option", or a peer
    workload: Workload

    def command(self, *options: str) -> list[str | Path]:
        """Return the driver's command line."""
        if self.name.startswith("sacjax"):
            python, script = Path(sys.executable), ROOT / "sacjax_sac.py"
        else:
            python, script = python_of(self.name), ROOT / "peers" / f"{self.name}_sac.py"
        return [python, script, *options, self.workload.to_json()]


def environment(cache: str = "") -> dict[str, str]:
    """Return the environment variables of a driver, with the given compilation cache only."""
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def interleaved(contenders: Iterable[Contender], rounds: int) -> list[dict[str, Any]]:
    """Measure the gradient steps per second of each contender in every round.

    If a contender fails, its entry has the error.
    """
    racers = [_Racer(contender) for contender in contenders]  # all of them compile at the same time
    for racer in racers:
        print(
            f"{racer.contender.case}: {racer.contender.name} ...",
            end=" ",
            file=sys.stderr,
            flush=True,
        )
        racer.state = racer.answer()
        print(racer.state.get("failed", "ready"), file=sys.stderr, flush=True)
    for _ in range(rounds):
        for racer in racers:
            racer.piece()
    return [racer.finish() for racer in racers]


class _Racer:
    """The process of a contender, with its results."""

    def __init__(self, contender: Contender):
        self.contender, self.pieces, self.state = contender, [], {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 closed with the process
        self._process = subprocess.Popen(
            contender.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(),
        )

    def answer(self) -> dict[str, Any]:
        """Read the driver's next line: it is ready, or has run a piece."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            return {"failed": " ".join(self._errors.read().split())[-300:] or "no answer"}
        return json.loads(line)

    def piece(self) -> None:
        if "failed" not in self.state:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the process died: `answer` has the reason
                self._process.stdin.write("go\n")
                self._process.stdin.flush()
            answer = self.answer()
            if "failed" in answer:
                self.state = answer
            else:
                self.pieces.append(answer)

    def finish(self) -> dict[str, Any]:
        self._process.communicate()
        rates = [p["gradient_steps"] / p["seconds"] for p in self.pieces]
        env_rates = [p["env_steps"] / p["seconds"] for p in self.pieces]
        about = {k: v for k, v in self.state.items() if k != "ready"}
        extra = {"env_steps_per_second": statistics.median(env_rates)} if env_rates else {}
        return entry(
            self.contender.case, self.contender.name, rates, "gradient steps/s", "higher"
        ) | {**extra, "workload": dataclasses.asdict(self.contender.workload), **about}


def once(contender: Contender, cache: str = "") -> dict[str, Any]:
    """Train once in a new process. Return its wall seconds and its answer."""
    start = time.perf_counter()
    done = subprocess.run(
        contender.command("--once"), env=environment(cache), capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        return {"failed": " ".join(done.stderr.split())[-300:]}
    return {"process_seconds": seconds} | json.loads(done.stdout.splitlines()[-1])


def entry(case: str, name: str, values: list[float], unit: str, better: str) -> dict[str, Any]:
    """Make a figure: the median of `values`, their range, and which direction is better."""
    figure: dict[str, Any] = {"case": case, "name": name, "unit": unit, "better": better}
    if values:
        figure |= {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return figure | {"values": values}


def ratio(entries: list[dict[str, Any]], case: str, name: str, other: str) -> float | None:
    """Return the ratio of the medians of `name` and `other`: above 1, `name` is better.

    It is None if one of them is missing.
    """
    found = {e["name"]: e for e in entries if e["case"] == case and "median" in e}
    if name not in found or other not in found:
        return None
    value = found[name]["median"] / found[other]["median"]
    return value if found[name]["better"] == "higher" else 1 / value


def show(entries: list[dict[str, Any]]) -> None:
    """Print a line for each figure."""
    for e in entries:
        if "median" in e:
            spread = f"{e['low']:,.4g} to {e['high']:,.4g}"
            print(f"{e['case']:34s} {e['name']:26s} {e['median']:12,.4g} {e['unit']} ({spread})")
        else:
            print(f"{e['case']:34s} {e['name']:26s} {'failed':>12s}: {e.get('failed')}")


def race(name: str, question: str, groups: Iterable[list[Contender]], args: Any) -> None:
    """Run each group in turns, print the ratios to `args.peers`, and report."""
    entries = [e for group in groups for e in interleaved(group, args.rounds)]
    for case in dict.fromkeys(e["case"] for e in entries):
        for peer in args.peers:
            if times := ratio(entries, case, "sacjax", peer):
                print(f"{case}: {times:.2f} x as fast as {peer}")
    report(name, question, entries)


def report(name: str, question: str, entries: list[dict[str, Any]], **more: Any) -> None:
    """Print the figures, write results/NAME.json and draw results/NAME.png."""
    show(entries)
    path = record.save(name, {"question": question, **more, "results": entries})
    draw(question, entries, path.with_suffix(".png"))
    print(path)


def draw(question: str, entries: list[dict[str, Any]], path: Path) -> None:
    """Draw a panel per case: medians as bars, ranges over the rounds as lines."""
    from matplotlib.figure import Figure

    cases = {e["case"]: [f for f in entries if f["case"] == e["case"]] for e in entries}
    heights = [len(figures) for figures in cases.values()]
    figure = Figure(figsize=(8, 1 + 0.32 * sum(heights) + 0.55 * len(cases)), layout="constrained")
    panels = figure.subplots(len(cases), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (case, figures) in zip(panels, cases.items(), strict=True):
        for row, e in enumerate(figures):
            axes.barh(row, e.get("median", 0), color="C0" if "sacjax" in e["name"] else "0.7")
            if "median" not in e:
                axes.text(0, row, " failed", va="center")
                continue
            axes.plot([e["low"], e["high"]], [row, row], color="0.2", linewidth=1)
            axes.text(max(e["high"], e["median"]), row, f" {e['median']:,.4g}", va="center")
        axes.set_yticks(range(len(figures)), [e["name"] for e in figures])
        axes.invert_yaxis()
        axes.set_title(case, loc="left", fontsize=10)
        axes.set_xlabel(f"{figures[0]['unit']} ({figures[0]['better']} is better)", fontsize=8)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(question, fontsize=10)
    figure.savefig(path, dpi=110)


def options(description: str | None) -> Any:
    """Parse the options that the scripts share: peers and rounds."""
    import argparse

    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=[], metavar="PEER",
        help=f"also run these peers (without names: all): {', '.join(PEERS)}",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if "--peers" in sys.argv and not args.peers:
        args.peers = list(PEERS)
    return args


def on_gpu() -> bool:
    """Return whether JAX finds an accelerator."""
    import jax

    return jax.default_backend() != "cpu"
