"""Measure the returns of the presets on five gymnax environments, with 16 seeds each.

    python benchmarks/learning.py [ENV ...]     trains, writes results/learning.json
    python benchmarks/learning.py --draw        draws results/learning.png, updates the README

Protocol: `sacjax.run` trains each environment's preset (Pendulum-v1 for 10,000 steps) with seeds
100 to 115. The presets were chosen on other seeds. Then every agent plays 128 greedy episodes from
new start states. Scores are the IQM over seeds with a 95% bootstrap interval. For comparison there
is a uniformly random policy, and MountainCarContinuous-v0 without held warm-up actions.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sacjax.devices import keep_compiled_programs, use_all_cores

use_all_cores()  # must run before gymnax makes arrays
keep_compiled_programs()

import jax
import jax.numpy as jnp
import numpy as np
import record
from documents import fill_in
from matplotlib.figure import Figure

from sacjax import Config, Hyperparams, evaluate_run, preset, run, statistics
from sacjax.envs.names import make_env
from sacjax.presets import PRESETS

ENVS = list(PRESETS["gymnax"])
SEEDS, EPISODES = range(100, 116), 128
BUDGET = {"Pendulum-v1": {"total_steps": 10_000}}  # the usual budget; the preset trains longer
# Published elsewhere: https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md (SAC)
PUBLISHED = {
    "Pendulum-v1": "-157.0 at 20,000 steps (rl-zoo, one run)",
    "MountainCarContinuous-v0": "94.7 at 50,000 steps (rl-zoo, one run)",
}


def random_return(name: str, episodes: int = 512) -> float:
    """Return the mean return of a uniformly random policy over whole episodes."""
    env = make_env(name)(episodes)

    def step(carry, key):
        env_state, running, total = carry
        key_action, key_step = jax.random.split(key)
        env_state, timestep = env.step(
            env_state, env.random_action(key_action), key_step, env.default_params
        )
        total += jnp.where(running, timestep.reward, 0)
        running &= ~(timestep.terminated | timestep.truncated)
        return (env_state, running, total), None

    @jax.jit
    def play(key):
        key_reset, key_steps = jax.random.split(key)
        env_state, _ = env.reset(key_reset, env.default_params)
        keys = jax.random.split(key_steps, env.default_params.max_steps_in_episode)
        carry = (env_state, jnp.ones(episodes, bool), jnp.zeros(episodes))
        (_, running, total), _ = jax.lax.scan(step, carry, keys)
        return total.mean(), running.any()

    mean, unfinished = play(jax.random.key(0))
    assert not unfinished, name
    return float(mean)


def measure(
    name: str, config: Config, hp: Hyperparams, seeds: Sequence[int] = SEEDS
) -> dict[str, Any]:
    """Train the seeds and score the final agents."""

    def show(step, metrics):
        speed = config.updates_per_epoch * len(metrics["member"]) / metrics["seconds"][0]
        print(
            f"{name} {step:7,} {statistics.iqm(metrics['eval_return'].mean(1)):9.1f}",
            f"{speed:8,.0f} gradient steps/s",
            flush=True,
        )

    begin = time.time()
    done = run(config, hp, seeds=seeds, on_epoch=[show])
    seconds = time.time() - begin
    returns, lengths = evaluate_run(done, EPISODES)
    scores = returns.mean(axis=1)
    low, high = statistics.interval(scores)
    curve = done.metrics["eval_return"].mean(axis=-1)  # [seeds, epochs]
    curve_low, curve_high = statistics.interval(curve)
    return {
        "config": vars(config),
        "hyperparams": {k: v for k, v in vars(hp).items() if k != "max_alpha"},
        "iqm": float(statistics.iqm(scores)),
        "interval": [float(low), float(high)],
        "scores": [round(float(s), 3) for s in scores],
        "episode_length": float(lengths.mean()),
        "episodes_per_seed": EPISODES,
        "seconds": round(seconds, 1),
        "commit": record.commit(),
        "curve": {
            "env_steps": done.metrics["env_steps"][0].tolist(),
            "iqm": statistics.iqm(curve).round(3).tolist(),
            "low": curve_low.round(3).tolist(),
            "high": curve_high.round(3).tolist(),
            "seeds": curve.round(2).tolist(),
        },
    }


def train(names: list[str]) -> None:
    """Measure some environments. The results file keeps the figures of the others."""
    path = record.folder() / "learning.json"
    results = json.loads(path.read_text())["environments"] if path.exists() else {}
    for name in names:
        config, hp = preset(name, "sac", **BUDGET.get(name, {}))
        results[name] = measure(name, config, hp)
        results[name]["random"] = random_return(name)
        results[name]["published"] = PUBLISHED.get(name)
        if name == "MountainCarContinuous-v0":
            results[name]["without_hold"] = measure(name, replace(config, warmup_hold=1), hp)
        ordered = {k: results[k] for k in ENVS if k in results}
        print(record.save("learning", {"environments": ordered}))


def table(results: dict[str, Any]) -> str:
    """Return the README's table of a results file."""
    lines = [
        "| environment | steps | IQM return [95%] | worst seed | random policy | published SAC |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in results["environments"].items():
        low, high = r["interval"]
        lines.append(
            f"| {name} | {r['config']['total_steps']:,} | **{r['iqm']:.1f}** [{low:.1f}, "
            f"{high:.1f}] | {min(r['scores']):.1f} | {r['random']:.1f} | {r['published'] or '-'} |"
        )
    return "\n".join(lines)


def draw(results: dict[str, Any]) -> None:
    """Draw results/learning.png."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    for axes, (name, r) in zip(panels, results["environments"].items(), strict=False):
        curve = r["curve"]
        axes.plot(curve["env_steps"], np.array(curve["seeds"]).T, "C0", alpha=0.2, linewidth=0.6)
        axes.fill_between(curve["env_steps"], curve["low"], curve["high"], color="C0", alpha=0.25)
        axes.plot(curve["env_steps"], curve["iqm"], "C0", linewidth=2)
        axes.axhline(r["random"], color="0.5", linestyle=":", linewidth=1)
        if "without_hold" in r:
            other = r["without_hold"]["curve"]
            axes.plot(other["env_steps"], other["iqm"], "C1", linewidth=2)
            axes.text(other["env_steps"][-1], 4, "warm-up actions not held", color="C1", ha="right")
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
    panels[3].set_xlabel("environment steps")
    panels[3].set_ylabel("greedy return")
    panels[0].set_ylabel("greedy return")
    panels[-1].axis("off")
    panels[-1].text(
        0, 0.75, "IQM and 95% interval of 16 seeds,\nsingle seeds faint,\nrandom policy dotted",
        va="top",
    )  # fmt: skip
    figure.savefig(record.folder() / "learning.png", dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the returns of the presets")
    parser.add_argument("envs", nargs="*", default=ENVS)
    parser.add_argument("--draw", action="store_true", help="only draw, and update the README")
    args = parser.parse_args()
    if unknown := [name for name in args.envs if name not in ENVS]:
        parser.error(f"unknown environments {', '.join(unknown)}: choose from {', '.join(ENVS)}")
    if not args.draw:
        train(args.envs)
    draw(record.load("learning"))
    fill_in(record.ROOT.parent / "README.md", "learning", table(record.load("learning")))
