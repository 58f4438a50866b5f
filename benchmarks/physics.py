"""Measure returns and wall-clock time on Brax and MuJoCo Playground, many seeds in one program.

    python benchmarks/physics.py train brax/ant playground/CheetahRun [--seeds 16] [--peer]
    python benchmarks/physics.py draw

`train` runs each task's preset, all seeds as one program. With --peer it runs Brax's own SAC with
the same settings in the same Python. Brax trains one seed at a time. Each evaluation is written at
once to results/PLATFORM/physics/TASK-WHO.csv, so a stopped run keeps its results. The JSON file
next to it has settings and versions. `draw` makes results/physics.png and the table in
docs/results.md.

Protocol: an evaluation between two epochs plays 16 greedy episodes. Seconds count from the call of
training, and include compilation, warm-up and evaluations. They are shown for accelerators only.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sacjax.devices import keep_compiled_programs, use_all_cores

use_all_cores()  # must run before JAX makes its devices
keep_compiled_programs()

import numpy as np
import record
from documents import dress, fill_in, grid, mean_and_range, over_steps, seed_count

from sacjax import Config, Hyperparams, preset, run
from sacjax.envs.names import make_env, path_of
from sacjax.runs.provenance import description

COLUMNS = ("seed", "env_steps", "seconds", "eval_return", "eval_length")
NAMES = {"sacjax": "sacjax", "brax": "Brax's SAC"}
UNEQUAL = [  # the differences of Brax's SAC
    "the warm-up acts with the untrained policy, not uniformly at random",
    "every episode of a copy of the environment starts in the copy's first start state",
    "transitions cut off by the time limit do not train the critics",
    "the mean and deviation of the observations are those of every step, and nothing is clipped",
    "LayerNorm comes after the activation; the deviation is a softplus; other initial weights",
    "the actor learns from the critics before their step",
    "its seconds include one more evaluation, before training",
]
Found = dict[tuple[str, str], dict[str, np.ndarray]]  # {(task, machine): {who: curves}}


def settings(task: str, steps: int | None, every: int | None) -> tuple[Config, Hyperparams]:
    """Return the task's preset, with the given number of steps and evaluation interval."""
    config, hp = preset(task, eval_episodes=16)
    every = every or config.eval_every
    total = config.total_steps if steps is None else config.warmup_steps + steps
    epochs = max((total - config.warmup_steps) // every, 1)
    total = config.warmup_steps + epochs * every
    size = min(config.replay_size, total)  # a larger replay would stay partly empty
    return replace(config, eval_every=every, total_steps=total, replay_size=size), hp


class Evaluations:
    """The files of a run's evaluations and of its settings. The first evaluation creates both."""

    def __init__(self, about: dict[str, Any]):
        self.about, self.begun = about, False
        name = path_of(about["task"]).replace("/", "-")
        self.name = f"physics/{name}-{about['who']}"

    def add(self, rows: list[tuple]) -> None:
        """Append rows with the columns `COLUMNS`."""
        path = record.folder() / f"{self.name}.csv"
        if not self.begun:
            record.save(self.name, self.about)
        with path.open("a" if self.begun else "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows(rows if self.begun else [COLUMNS, *rows])
        self.begun = True
        steps, seconds, score = rows[0][1], rows[0][2], np.mean([row[3] for row in rows])
        print(f"{self.name}: {steps:,} steps, {seconds:.0f} s, {score:.1f}", flush=True)


def train(task: str, seeds: int, config: Config, hp: Hyperparams) -> None:
    """Train all seeds as one program."""
    about = {"task": task, "who": "sacjax"}
    found = Evaluations(
        about | description(vars(config), config.env_name, [hp], [], list(range(seeds)))
    )
    make_env(task)  # imports the suite: Brax's seconds exclude its imports too
    begin = time.perf_counter()

    def write(step: int, metrics: dict[str, Any]) -> None:
        now = time.perf_counter() - begin
        means = [np.mean(metrics[name], axis=-1) for name in ("eval_return", "eval_length")]
        found.add([(i, step, round(now, 2), *row) for i, row in enumerate(np.transpose(means))])

    run(config, hp, seeds=seeds, on_epoch=[write])


def train_peer(task: str, seeds: int, config: Config, hp: Hyperparams) -> None:
    """Train Brax's SAC seed by seed, each in its own process."""
    brax_has = {"target_entropy_per_dim": -0.5, "alpha_lr": 3e-4, "actor_lr": hp.critic_lr}
    for name, value in {**brax_has, "n_step": 1, "num_critics": 2}.items():
        ours = getattr(hp if hasattr(hp, name) else config, name)
        if ours != value:
            sys.exit(f"{task}'s preset has {name}={ours}: Brax's SAC supports only {value}")
    asked = {
        "env": task,
        "num_envs": config.num_envs,
        "batch_size": config.batch_size,
        "updates": round(config.utd * config.num_envs),
        "warmup_steps": config.warmup_steps,
        "replay_size": config.replay_size,
        "total_steps": config.total_steps,
        "eval_every": config.eval_every,
        "eval_episodes": config.eval_episodes,
        "hidden": config.hidden,
        "layer_norm": config.layer_norm,
        "normalize_obs": config.normalize_obs,
        "learning_rate": float(hp.critic_lr),
        "gamma": float(hp.gamma),
        "tau": float(hp.tau),
        "reward_scale": float(hp.reward_scale),
    }
    made_with = description(vars(config), config.env_name, [hp], [], list(range(seeds)))
    about = {name: made_with[name] for name in ("versions", "seeds")}
    about |= {"task": task, "who": "brax", "settings": asked, "unequal": UNEQUAL}
    found = Evaluations(about)
    script = record.ROOT / "peers" / "brax_physics.py"
    for seed in range(seeds):
        command = [sys.executable, script, json.dumps(asked | {"seed": seed})]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                found.add([(seed, *json.loads(line))])
        if process.returncode:
            sys.exit(f"Brax's SAC on {task}, seed {seed}, failed with {process.returncode}")


def curves(path: Path) -> np.ndarray:
    """Return steps, seconds and returns, [seeds, evaluations, 3], of the longest seeds.

    A stopped peer leaves one shorter seed, which is left out.
    """
    with path.open(newline="") as file:
        rows = [[float(row[name]) for name in COLUMNS[:4]] for row in csv.DictReader(file)]
    found: dict[float, list] = {}
    for seed, *row in rows:
        found.setdefault(seed, []).append(row)
    most = max(map(len, found.values()), default=0)
    return np.array([rows for rows in found.values() if len(rows) == most]).reshape(-1, most, 3)


def measured() -> Found:
    """Load all results with evaluations, those of GPUs first."""
    found: Found = {}
    for path in sorted(record.RESULTS.rglob("physics/*.json")):
        about, values = json.loads(path.read_text()), curves(path.with_suffix(".csv"))
        if values.size:
            found.setdefault((about["task"], machine(about["device"])), {})[about["who"]] = values
    return found


def machine(device: dict[str, Any]) -> str:
    """Describe the machine of a result."""
    on_cpu = device["platform"] == "cpu"
    return f"{device['cores']} cores, {device['cpu']}" if on_cpu else device["kind"]


def table(found: Found) -> str:
    """Return the table. Algorithms are compared at the last step that all of them reached."""
    lines = [
        "| task | on | who | seeds | steps of each | wall-clock | between evaluations | return |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (task, on), by in found.items():
        common = set.intersection(*(set(values[0, :, 0]) for values in by.values()))
        last = max(common, default=0)
        for who in (name for name in NAMES if name in by and common):
            values = by[who][:, by[who][0, :, 0] <= last]
            _, seconds, scores = values[:, -1].T
            wall = seconds.max() if who == "sacjax" else seconds.sum()  # Brax trains in sequence
            pace = np.diff(values[:, :, 1]).mean() if values.shape[1] > 1 else np.nan
            known = [np.isfinite(x) and "cores" not in on for x in (wall, pace)]
            times = [f"{x:.0f} s" if ok else "-" for x, ok in zip((wall, pace), known, strict=True)]
            made = (task, on, NAMES[who], len(scores), f"{last:,.0f}")
            lines.append(f"| {' | '.join(map(str, (*made, *times, mean_and_range(scores))))} |")
    return "\n".join(lines)


def draw() -> None:
    """Draw returns over seconds, or over steps for CPUs, and update the table."""
    found = measured()
    if not found:
        sys.exit("no results yet: run `python benchmarks/physics.py train` first")
    figure, panels = grid(len(found), 3.7, 3)
    for axes, ((task, on), by) in zip(panels, found.items(), strict=True):
        column = 0 if "cores" in on else 1  # steps or seconds
        for colour, (who, name) in zip(("C0", "C1"), NAMES.items(), strict=True):
            if who not in by:
                continue
            values = by[who]
            for curve in values if len(values) > 1 else ():
                style = colour if len(curve) > 1 else f"{colour}."
                axes.plot(curve[:, column], curve[:, 2], style, alpha=0.25, linewidth=0.7)
            mean = values.mean(axis=0)
            label = f"{name}, {seed_count(len(values))}"
            axes.plot(mean[:, column], mean[:, 2], f"{colour}.-", linewidth=2, label=label)
        if column == 0:
            over_steps(axes, task, f"steps; {on}")
        else:
            dress(axes, task, f"seconds; {on}")
        axes.set_xlim(0, None)
        axes.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("return of 16 greedy episodes")
    figure.savefig(record.RESULTS / "physics.png", dpi=110)
    fill_in(record.ROOT.parent / "docs" / "results.md", "physics", table(found))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "draw"))
    parser.add_argument("tasks", nargs="*", help="environments: brax/... or playground/...")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, help="steps after the warm-up (default: the preset's)")
    parser.add_argument("--every", type=int, help="steps between evaluations")
    parser.add_argument("--peer", action="store_true", help="train Brax's SAC instead of sacjax")
    args = parser.parse_args()
    if args.what == "draw":
        return draw()
    for task in args.tasks:
        if task.split("/")[0] not in ("brax", "playground"):
            parser.error(f"{task} must be brax/... or playground/...")
    one: Callable = train_peer if args.peer else train
    for task in args.tasks:
        one(task, args.seeds, *settings(task, args.steps, args.every))


if __name__ == "__main__":
    main()
