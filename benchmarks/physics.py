"""Brax and MuJoCo Playground: many seeds in one program, return against wall-clock.

    python benchmarks/physics.py train brax/ant playground/CheetahRun [--seeds 16] [--peer]
    python benchmarks/physics.py draw

`train` runs each task's preset, all seeds as one program; --peer, instead, Brax's own SAC with the
same settings, seed after seed (it has no more at a time), in the same Python. Every evaluation is
written as it comes, to results/PLATFORM/physics/TASK-WHO.csv, so a run that is stopped has left
what it had; the file beside it says what it was made with. `draw` makes results/physics.png and
the table in docs/results.md.

Protocol: 16 greedy episodes an evaluation, as a run makes them between its epochs; seconds, shown
of accelerators, are those since training was called for: compilation, warm-up and evaluations are
in them.
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

use_all_cores()  # before JAX makes its devices
keep_compiled_programs()

import numpy as np
import record
from documents import dress, fill_in, grid, mean_and_range, over_steps, seed_count

from sacjax import Config, Hyperparams, preset, run
from sacjax.envs.names import make_env, path_of
from sacjax.runs.provenance import description

COLUMNS = ("seed", "env_steps", "seconds", "eval_return", "eval_length")
NAMES = {"sacjax": "sacjax", "brax": "Brax's SAC"}
UNEQUAL = [  # what Brax's SAC does otherwise
    "the warm-up acts with the untrained policy, not uniformly",
    "every episode of a copy of the environment starts in the copy's first start state",
    "transitions cut off by the time limit do not train the critics",
    "the mean and deviation of the observations are those of every step, and nothing is clipped",
    "LayerNorm comes after the activation; the deviation is a softplus; other initial weights",
    "the actor learns from the critics before their step",
    "one evaluation more, before training, is in its seconds",
]
Found = dict[tuple[str, str], dict[str, np.ndarray]]  # by task and machine, by who: `curves`


def settings(task: str, steps: int | None, every: int | None) -> tuple[Config, Hyperparams]:
    """The preset, shorter or with other evaluations where asked."""
    config, hp = preset(task, eval_episodes=16)
    every = every or config.eval_every
    total = config.total_steps if steps is None else config.warmup_steps + steps
    epochs = max((total - config.warmup_steps) // every, 1)
    total = config.warmup_steps + epochs * every
    size = min(config.replay_size, total)  # more would hold nothing
    return replace(config, eval_every=every, total_steps=total, replay_size=size), hp


class Evaluations:
    """A file of them that grows, and one of what they were made with, from the first one on."""

    def __init__(self, about: dict[str, Any]):
        self.about, self.begun = about, False
        name = path_of(about["task"]).replace("/", "-")
        self.name = f"physics/{name}-{about['who']}"

    def add(self, rows: list[tuple]) -> None:
        """As in `COLUMNS`."""
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
    """All seeds as one program."""
    about = {"task": task, "who": "sacjax"}
    found = Evaluations(
        about | description(vars(config), config.env_name, [hp], [], list(range(seeds)))
    )
    make_env(task)  # its suite is imported, as Brax's is before its seconds begin
    begin = time.perf_counter()

    def tell(step: int, metrics: dict[str, Any]) -> None:
        now = time.perf_counter() - begin
        means = [np.mean(metrics[name], axis=-1) for name in ("eval_return", "eval_length")]
        found.add([(i, step, round(now, 2), *row) for i, row in enumerate(np.transpose(means))])

    run(config, hp, seeds=seeds, on_epoch=[tell])


def train_peer(task: str, seeds: int, config: Config, hp: Hyperparams) -> None:
    """Brax's SAC, seed after seed, each in a process."""
    brax_has = {"target_entropy_per_dim": -0.5, "alpha_lr": 3e-4, "actor_lr": hp.critic_lr}
    for name, value in {**brax_has, "n_step": 1, "num_critics": 2}.items():
        ours = getattr(hp if hasattr(hp, name) else config, name)
        if ours != value:
            sys.exit(f"{task}'s preset has {name}={ours}, Brax's SAC knows {value} only")
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
            sys.exit(f"Brax's SAC on {task}, seed {seed}, ended with {process.returncode}")


def curves(path: Path) -> np.ndarray:
    """[seeds, evaluations, 3]: steps, seconds and returns, of the seeds that came farthest (a peer
    that is stopped leaves one that did not)."""
    with path.open(newline="") as file:
        rows = [[float(row[name]) for name in COLUMNS[:4]] for row in csv.DictReader(file)]
    found: dict[float, list] = {}
    for seed, *row in rows:
        found.setdefault(seed, []).append(row)
    most = max(map(len, found.values()), default=0)
    return np.array([rows for rows in found.values() if len(rows) == most]).reshape(-1, most, 3)


def measured() -> Found:
    """What has any evaluations; a GPU's first."""
    found: Found = {}
    for path in sorted(record.RESULTS.rglob("physics/*.json")):
        about, values = json.loads(path.read_text()), curves(path.with_suffix(".csv"))
        if values.size:
            found.setdefault((about["task"], machine(about["device"])), {})[about["who"]] = values
    return found


def machine(device: dict[str, Any]) -> str:
    """What it was made on, in words."""
    on_cpu = device["platform"] == "cpu"
    return f"{device['cores']} cores, {device['cpu']}" if on_cpu else device["kind"]


def table(found: Found) -> str:
    """A line for each task, machine and who, at the last steps that all there came to."""
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
            wall = seconds.max() if who == "sacjax" else seconds.sum()  # one after the other
            pace = np.diff(values[:, :, 1]).mean() if values.shape[1] > 1 else np.nan
            known = [np.isfinite(x) and "cores" not in on for x in (wall, pace)]
            told = [f"{x:.0f} s" if ok else "-" for x, ok in zip((wall, pace), known, strict=True)]
            made = (task, on, NAMES[who], len(scores), f"{last:,.0f}")
            lines.append(f"| {' | '.join(map(str, (*made, *told, mean_and_range(scores))))} |")
    return "\n".join(lines)


def draw() -> None:
    """Return against wall-clock, on CPU cores against steps; seeds faint. The table."""
    found = measured()
    if not found:
        sys.exit("nothing is measured yet: python benchmarks/physics.py train")
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
    parser.add_argument("--steps", type=int, help="after the warm-up; default: the preset's")
    parser.add_argument("--every", type=int, help="steps between evaluations")
    parser.add_argument("--peer", action="store_true", help="Brax's SAC instead")
    args = parser.parse_args()
    if args.what == "draw":
        return draw()
    for task in args.tasks:
        if task.split("/")[0] not in ("brax", "playground"):
            parser.error(f"{task} is neither brax/... nor playground/...")
    one: Callable = train_peer if args.peer else train
    for task in args.tasks:
        one(task, args.seeds, *settings(task, args.steps, args.every))


if __name__ == "__main__":
    main()
