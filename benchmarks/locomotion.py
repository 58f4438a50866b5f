"""Compare sacjax on Gymnasium's MuJoCo tasks with Stable-Baselines3 and published curves.

    python benchmarks/locomotion.py train [TASK ...] [--seeds 0 1 2] [--peer sb3] [--jobs 2]
    python benchmarks/locomotion.py train "Ant-v5 --critic-lr 1e-3"     uses other settings
    python benchmarks/locomotion.py collect FOLDER ... --commit COMMIT     adds other runs
    python benchmarks/locomotion.py draw

`train` runs `sacjax train gymnasium/TASK` with its preset, or a peer with its own defaults. Seeds
run in sequence, under runs/locomotion. Unfinished runs resume, and finished runs are skipped. A run
of 300,000 steps takes half an hour to an hour on two cores. The evaluations of each run are written
to results/locomotion/TASK/WHO-SEED.csv, its settings and versions to results/locomotion.json.
`draw` makes results/locomotion.png, results/ant.png and the tables in docs/results.md and the
README. It shows the tasks in STEPS and ANTS.

All runs follow one protocol. Every 10,000 steps (3,000 for the easy tasks), an evaluation plays 10
greedy episodes from new start states. The score at a step is the mean of the last three evaluations
up to it. A table shows the mean over seeds, with the lowest and highest score.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import record
from documents import fill_in, grid, mean_and_range, over_steps, seed_count

from sacjax import preset

sys.path.insert(0, str(record.ROOT / "peers"))
from environments import python_of  # pyright: ignore[reportMissingImports]

STEPS = {
    **dict.fromkeys(("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5"), 300_000),
    **dict.fromkeys(
        ("InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Reacher-v5", "Pusher-v5"), 100_000
    ),
}
# These variants show why Ant-v5 scores lower than published results. They change the contact forces
# in the observations, the version of the task, the settings (Tianshou's, see published.py, together
# and one half at a time), the number of random steps, and the initial weights (PyTorch's).
ANTS = {"Ant-v5": "--", "Ant-v5?include_cfrc_ext_in_observation=False": "-.", "Ant-v4": "-"}
RATES, TEMPERATURE = " --actor-lr 1e-3 --critic-lr 1e-3", " --alpha-lr 0 --init-alpha 0.2"
FEW, WEIGHTS = " --warmup-steps 300 --eval-every 9990", "--pytorch-weights"
NAMES = {"sacjax": "sacjax", "sb3": "Stable-Baselines3"}
ANT_RUNS = {  # name: settings, who
    "sacjax, the paper's settings": ("", "sacjax"),
    "sacjax, Tianshou's rates": (RATES, "sacjax"),
    "sacjax, Tianshou's temperature": (TEMPERATURE, "sacjax"),
    "sacjax, Tianshou's settings": (RATES + TEMPERATURE, "sacjax"),
    "sacjax, 300 random steps": (FEW, "sacjax"),
    "sacjax, PyTorch's initial weights": (f" {WEIGHTS}", "sacjax"),
    NAMES["sb3"]: ("", "sb3"),
}
# Returns of SAC on the v4 tasks, means over 10 seeds, by environment steps. They have no known
# source, so they are a rough guide only.
PUBLISHED = {
    "HalfCheetah-v5": {300_000: 8_272, 1_000_000: 11_113},
    "Hopper-v5": {300_000: 2_308, 1_000_000: 2_730},
    "Walker2d-v5": {300_000: 2_396, 1_000_000: 4_549},
    "Ant-v5": {300_000: 3_113, 1_000_000: 5_285},
}
FOLDER = record.RESULTS / "locomotion"
RUNS = Path("runs/locomotion")
COLUMNS = (
    *("env_steps", "eval_return", "eval_return_std", "eval_length"),
    *("train_return", "alpha", "entropy", "q", "critic_loss"),
)
WRITING = threading.Lock()
PINNED = """
import os, sys
os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})
os.execv(sys.argv[2], sys.argv[2:])
"""
DIVERGED = 4  # sacjax's exit code
THEIRS = "tianshou"  # published runs with other settings, see published.py


def train(task: str, steps: int, seed: int, peer: str | None, cores: set[int] | None) -> None:
    """Train or resume one run, on the given cores only."""
    who = peer or "sacjax"
    if steps_of(task, who, seed) >= steps:
        return
    out = RUNS / slug(task) / f"{who}-{seed}"
    out.parent.mkdir(parents=True, exist_ok=True)
    commit = record.commit()
    command = command_of(task, steps, seed, peer, out)
    if cores:
        command = [sys.executable, "-c", PINNED, ",".join(map(str, cores)), *command]
    with out.with_suffix(".log").open("a") as log:
        done = subprocess.run([str(x) for x in command], stdout=log, stderr=subprocess.STDOUT)
    if done.returncode not in (0, DIVERGED):
        raise RuntimeError(f"{task}, seed {seed}, failed ({done.returncode}): see {log.name}")
    collect(out, task, commit)
    print(f"{task}, {who}, seed {seed}: {score(rows(task, who, seed), steps):.0f}", flush=True)


def command_of(task: str, steps: int, seed: int, peer: str | None, out: Path) -> list[Any]:
    """Return the command that trains or resumes a run in `out`.

    Options of `sacjax train`, and WEIGHTS, may follow the name of a task.
    """
    id, *options = task.split()
    if peer:
        if options:
            raise ValueError(f"{NAMES[peer]} has no option {options[0]}: leave out --peer")
        script = record.ROOT / "peers" / f"{peer}_locomotion.py"
        ours, _ = preset(f"gymnasium/{task}")
        when = (ours.warmup_steps, ours.eval_every)  # evaluate at the same steps
        return [python_of(f"{peer}-mujoco"), script, task, steps, seed, *when, out]
    start: list[Any] = ["-m", "sacjax", "train"]
    if WEIGHTS in options:
        options.remove(WEIGHTS)
        start = [record.ROOT / "pytorch_weights.py"]  # this script resumes by itself
    elif (out / "config.json").exists():
        return [sys.executable, "-m", "sacjax", "resume", out, "--extend-to", steps]
    command = [sys.executable, *start, f"gymnasium/{id}", "--out", out, *options]
    return [*command, "--total-steps", steps, "--seeds", 1, "--seed", seed]


def collect(out: Path, task: str, commit: str) -> None:
    """Write a run's evaluations, settings and versions into results/."""
    about = json.loads((out / "config.json").read_text())
    who, seed = about.get("who", "sacjax"), about["seeds"][0]
    with (out / "metrics.csv").open(newline="") as file:
        found = [{name: row.get(name, "") for name in COLUMNS} for row in csv.DictReader(file)]
    path = csv_of(task, who, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    kept = {name: about[name] for name in ("versions", "device", "config", "hyperparams")}
    with WRITING:
        entries = runs() | {f"{task}/{who}-{seed}": kept | {"commit": commit}}
        record.save("locomotion", {"runs": dict(sorted(entries.items()))})


def runs() -> dict[str, Any]:
    """Load the settings and versions of all runs."""
    try:
        return record.load("locomotion")["runs"]
    except FileNotFoundError:
        return {}


def slug(task: str) -> str:
    """Return the name of a task's folder, valid on any system."""
    return task.replace("?", "-").replace("=", "-").replace(" ", "_")


def task_of(out: Path) -> str:
    """Return the task of a run's folder that `train` made."""
    ants = (ant + settings for ant in ANTS for settings, _ in ANT_RUNS.values())
    known = {slug(task): task for task in (*STEPS, *ants)}
    name = out.absolute().parent.name
    if name not in known:
        sys.exit(f"{out} has no known task: rename its parent folder to one of {', '.join(known)}")
    return known[name]


def csv_of(task: str, who: str, seed: int) -> Path:
    """Return the path of a run's evaluations."""
    return FOLDER / slug(task) / f"{who}-{seed}.csv"


def rows(task: str, who: str, seed: int, column: str = "eval_return") -> np.ndarray:
    """Return [evaluations, 2]: steps and a column. Empty cells are NaN."""
    path = csv_of(task, who, seed)
    if not path.exists():
        return np.zeros((0, 2))
    with path.open(newline="") as file:
        return np.array(
            [[float(row["env_steps"]), float(row[column] or "nan")] for row in csv.DictReader(file)]
        )


def steps_of(task: str, who: str, seed: int) -> int:
    """Return the last evaluated step of a run."""
    found = rows(task, who, seed)
    return int(found[-1, 0]) if len(found) else 0


def score(found: np.ndarray, steps: int) -> float:
    """Return the mean of the last three evaluations up to a step.

    It is NaN if the run ended earlier or diverged.
    """
    if not len(found) or found[-1, 0] < steps:
        return float("nan")
    return float(found[found[:, 0] <= steps, 1][-3:].mean())


def seeds_of(task: str, who: str) -> list[int]:
    """Return the seeds with results."""
    return sorted(
        int(path.stem.split("-")[-1]) for path in (FOLDER / slug(task)).glob(f"{who}-*.csv")
    )


def curves_of(task: str, who: str, column: str = "eval_return") -> list[np.ndarray]:
    """Return the `rows` of each seed."""
    return [rows(task, who, seed, column) for seed in seeds_of(task, who)]


def cell(task: str, who: str, steps: int) -> str:
    """Format the mean over seeds, the lowest and highest, and the number of diverged seeds."""
    found = curves_of(task, who)
    gone = sum(bool(len(x) and np.isnan(x[x[:, 0] <= steps, 1]).any()) for x in found)
    scores = np.array([score(x, steps) for x in found])
    scores = scores[np.isfinite(scores)]
    others = f", {gone} diverged" if gone else ""
    if not scores.size:
        return others[2:] or "not measured"
    return f"{mean_and_range(scores)}, {seed_count(scores.size)}{others}"


def table(everything: bool) -> str:
    """Return the table of all tasks, or only of the measured ones."""
    lines = [
        "| task | steps | sacjax | Stable-Baselines3 | Tianshou (v3, v2) | reported (v4) |",
        "|---|---|---|---|---|---|",
    ]
    for task, least in STEPS.items():
        for steps in (least, 1_000_000) if least > 100_000 else (least,):
            published = PUBLISHED.get(task, {}).get(steps)
            cells = [cell(task, who, steps) for who in (*NAMES, THEIRS)]
            if not everything and "not measured" in cells[0]:
                continue
            if not seeds_of(task, THEIRS):
                cells[-1] = "-"
            cells.append(f"{published:,}" if published else "-")
            lines.append(f"| {task} | {steps:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ants() -> str:
    """Return the table of the variants of Ant, at 300,000 steps."""
    lines = [f"| run | {' | '.join(f'`{task}`' for task in ANTS)} |", "|---|" + "---|" * len(ANTS)]
    for name, (settings, who) in ANT_RUNS.items():
        cells = (cell(task + settings, who, 300_000) for task in ANTS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_of(curves: list[np.ndarray]) -> np.ndarray:
    """Return the mean over seeds, [evaluations, 2], up to the end of the shortest curve."""
    length = min(map(len, curves))
    return np.mean([curve[:length] for curve in curves], axis=0)


def draw_theirs(axes: Any, task: str) -> None:
    """Draw Tianshou's mean within the limits of the axes."""
    if curves := curves_of(task, THEIRS):
        mean, end = mean_of(curves), axes.get_xlim()[1]
        label = f"Tianshou, {seed_count(len(curves))}"
        axes.plot(*mean[mean[:, 0] <= end].T, "0.4", linestyle=":", label=label)


def draw_ants() -> None:
    """Draw return, temperature, entropy and value of the variants of Ant, as means over seeds."""
    figure, panels = grid(4, 3.5, 3.8)
    titles = {
        "eval_return": "return of 10 greedy episodes",
        "alpha": "temperature",
        "entropy": "entropy in nats",
        "q": "Q on replayed transitions",
    }
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for task, style in ANTS.items():
            for i, (name, (settings, who)) in enumerate(ANT_RUNS.items()):
                curves = curves_of(task + settings, who, column)
                curves = [curve for curve in curves if np.isfinite(curve[:, 1]).all()]
                if curves:
                    look = {"color": f"C{i}", "linestyle": style, "label": f"{task}, {name}"}
                    axes.plot(*mean_of(curves).T, linewidth=1.5, **look)
        over_steps(axes, title)
    draw_theirs(panels[0], "Ant-v5")
    panels[1].set_yscale("log")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    figure.savefig(record.folder() / "ant.png", dpi=110)


def draw() -> None:
    """Draw the figures and update the tables in the documents."""
    tasks = [task for task in STEPS if any(seeds_of(task, who) for who in NAMES)]
    if not tasks:
        sys.exit("no results yet: run `python benchmarks/locomotion.py train` first")
    figure, panels = grid(len(tasks), 4.2, 3.2, margin=0.8)
    for axes, task in zip(panels, tasks, strict=True):
        for colour, (who, name) in zip(("C0", "C1"), NAMES.items(), strict=True):
            curves = curves_of(task, who)
            for curve in curves:
                axes.plot(*curve.T, colour, alpha=0.35, linewidth=0.8)
            if curves:
                label = f"{name}, {seed_count(len(curves))}"
                axes.plot(*mean_of(curves).T, colour, linewidth=2, label=label)
        draw_theirs(axes, task)
        for i, (steps, value) in enumerate(PUBLISHED.get(task, {}).items()):
            if steps <= axes.get_xlim()[1] * 1.02:
                label = None if i else "reported SAC (v4, 10 seeds)"
                axes.plot(steps, value, "k*", markersize=10, label=label)
        over_steps(axes, task)
        axes.legend(frameon=False, fontsize=8, loc="best")
    panels[0].set_ylabel("return of 10 greedy episodes")
    figure.savefig(record.folder() / "locomotion.png", dpi=110)
    draw_ants()
    results = record.ROOT.parent / "docs" / "results.md"
    fill_in(results, "locomotion", table(True))
    fill_in(results, "ants", ants())
    fill_in(record.ROOT.parent / "README.md", "locomotion", table(False))


def cores_of(job: int, jobs: int) -> set[int] | None:
    """Return a job's share of the cores."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return None
    return set(sorted(os.sched_getaffinity(0))[job::jobs])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "collect", "draw"))
    parser.add_argument("names", nargs="*", help="tasks to train, or folders to collect")
    parser.add_argument("--seeds", type=int, nargs="*", help="default: 0 1 2, easy tasks 0 to 4")
    parser.add_argument("--steps", type=int, help="default: 300,000, easy tasks 100,000")
    parser.add_argument("--peer", choices=("sb3",))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each on its own cores")
    parser.add_argument("--commit", default="unknown", help="commit of the runs to collect")
    args = parser.parse_args()
    if args.what == "collect":
        for name in args.names:
            collect(Path(name), task_of(Path(name)), args.commit)
    elif args.what == "train":
        usual = {task: STEPS.get(task.split()[0], 300_000) for task in args.names or STEPS}
        seeds = {task: args.seeds or range(5 if usual[task] == 100_000 else 3) for task in usual}
        jobs = [  # the first seed of every task comes first
            (task, args.steps or usual[task], seed, args.peer)
            for seed in sorted({seed for those in seeds.values() for seed in those})
            for task in seeds
            if seed in seeds[task]
        ]
        if args.peer:
            python_of(f"{args.peer}-mujoco")  # made before several jobs need it at once
        shares: Queue[set[int] | None] = Queue()
        for job in range(args.jobs):
            shares.put(cores_of(job, args.jobs))

        def one(job: tuple[str, int, int, str | None]) -> None:
            cores = shares.get()
            try:
                train(*job, cores)
            finally:
                shares.put(cores)

        failed: list[str] = []
        with ThreadPoolExecutor(args.jobs) as pool:
            running = [pool.submit(one, job) for job in jobs]
            try:
                for done in as_completed(running):
                    if error := done.exception():
                        failed.append(str(error))
                        print(error, file=sys.stderr, flush=True)
            except KeyboardInterrupt:  # the runs receive it too and end with a checkpoint
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        draw()
        sys.exit(1 if failed else 0)
    draw()


if __name__ == "__main__":
    main()
