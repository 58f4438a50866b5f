"""Update the README's speed figures from the results files.

python benchmarks/speed_table.py
"""

import argparse

import record
from documents import fill_in
from rounds import ROUNDED, ratio

# File, case, peer, and the goal of the project for the ratio.
ROWS = [
    ("one_seed", "Pendulum, replay 1e5", "rejax", 1.1),
    ("one_seed", "Pendulum", "rejax", 2.5),
    ("one_seed", "Pendulum", "sb3", 2.5),
    ("one_seed", "Pendulum", "sbx", None),
    ("one_seed", "Pendulum", "brax", None),
    ("one_seed", "Pendulum", "evorl", None),
    ("one_seed", "Pendulum", "rltools", None),
    ("one_seed", "synthetic, 17 / 6, replay 1e5", "rejax", 1.1),
    ("one_seed", "synthetic, 17 / 6", "rejax", 2.5),
    ("one_seed", "synthetic, 17 / 6", "sb3", 2.5),
    ("one_seed", "synthetic, 17 / 6", "sbx", None),
    ("one_seed", "synthetic, 17 / 6", "brax", None),
    ("one_seed", "synthetic, 17 / 6", "evorl", None),
    ("many_seeds", "8 seeds", "rejax", 1.5),
    ("many_seeds", "32 seeds", "rejax", 1.5),
    ("quick", "training", "sbx", 4),
    ("quick", "training", "rejax", None),
    ("quick", "training", "brax", None),
    ("quick", "training", "rltools", None),
    ("parallel_envs", "128 environments", "brax", 1.5),
    ("parallel_envs", "128 environments", "rejax", None),
    ("parallel_envs", "128 environments", "evorl", None),
    ("parallel_envs", "1024 environments", "brax", 1.5),
    ("parallel_envs", "1024 environments, replay full", "brax", 1.5),
    ("parallel_envs", "1024 of 17 / 6, replay full", "brax", 1.5),
    ("parallel_envs", "1024 environments", "rejax", None),
    ("parallel_envs", "1024 environments", "evorl", None),
]
TITLES = {
    "one_seed": "W1 one seed",
    "many_seeds": "W2 all seeds together",
    "quick": "W3 training alone",
    "parallel_envs": "W4 many environments",
}


def table() -> str:
    """Return a table with one row per case: the ratio to each peer, and the goal if any."""
    rows: dict[tuple[str, str], list[str]] = {}
    for file, case, peer, goal in ROWS:
        ours = "sacjax, warm" if file == "quick" else "sacjax"
        times = ratio(record.load(file)["results"], case, ours, peer)
        if times is not None:
            shown = f"{times:.2f} {peer}"
            if goal is not None:
                missed = ", missed" if round(times, 2) < goal else ""
                shown = f"**{times:.2f}** {peer} (goal {goal}{missed})"
            rows.setdefault((TITLES[file], case), []).append(shown)
    lines = ["| workload | case | times as fast as |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {t} | {c} | {', '.join(r)} |" for (t, c), r in rows.items())])


def figures(name: str) -> dict[tuple[str, str], dict]:
    """Load the figures of NAME.json by case and name."""
    return {(e["case"], e["name"]): e for e in record.load(name)["results"]}


def flat(name: str) -> str:
    """Format the times of W5's iterations at a capacity of 1e7, relative to 1e4."""
    entries = record.load(name)["results"]
    cases = dict.fromkeys(e["case"] for e in entries if e["case"].startswith("iteration"))
    return ", ".join(
        f"{ratio(entries, c, 'sacjax, 1e+04 places', 'sacjax, 1e+07 places'):.2f} ({c[10:]})"
        for c in cases
    )


def limit() -> str:
    """Format the figures of bfloat16, the machine's limit, replay and start-up."""
    shares = record.load("limit")["limit"]
    near = ", ".join(f"{v['share_of_the_limit']:.0%} ({case})" for case, v in shares.items())
    start = {name: e["median"] for (_, name), e in figures("startup").items()}
    first, again = start["sacjax, cold"], start["sacjax, warm cache"]
    quick = figures("quick")
    cold, warm = (quick["whole process", f"sacjax, {how}"]["median"] for how in ("cold", "warm"))
    reached, together = (
        quick["training", f"sacjax, {how}"]["mean_returns"][0] for how in ("warm", "32 seeds")
    )
    rounded = ", ".join(
        f"{times:.2f} {peer} ({case})"
        for file, case, peer in (
            ("one_seed", "Pendulum", "sb3"),
            ("one_seed", "synthetic, 17 / 6", "sb3"),
            ("parallel_envs", "128 environments", "brax"),
            ("parallel_envs", "1024 environments", "brax"),
        )
        if (times := ratio(record.load(file)["results"], case, ROUNDED, peer)) is not None
    )
    return f"""
- **bfloat16** (`hidden_precision`): the speed ratios to float32 peers are {rounded}.
  The peers have no such option, and this processor multiplies bfloat16 in hardware.
- **Limit of the machine** (W7): one seed reaches {near} of the best rate of its matrix products
  alone.
- **Replay** (W5): the time of an iteration at a capacity of 1e7, divided by the time at 1e4, is
  {flat("replay")}.
- **Start-up** (W6): importing the training code takes {start["sacjax, all that trains"]:.1f} s.
  Importing its dependencies without sacjax takes {start["dependencies"]:.1f} s. The first gradient
  step ends after {first:.1f} s, or {again:.1f} s with a warm compilation cache (goals: 6 and 3).
- **Pendulum from process start to 10,000 steps** (W3): {cold:.1f} s, or {warm:.1f} s with a warm
  cache (goals: 12 and 6). With RLtools' settings, not every run learns: the measured seed reaches a
  return of {reached:.0f}. Trained together with 31 others, the same seed reaches {together:.0f},
  because rounding differs."""


def text() -> str:
    """Return the comparison with peers on a CPU."""
    return f"{table()}\n{limit()}"


def accelerator() -> str:
    """Return the figures of W1 to W7 on a GPU, for sacjax alone."""

    def rate(file: str, case: str, name: str = "sacjax", field: str = "median") -> float:
        return figures(f"gpu/{file}")[case, name][field]

    together = record.load("gpu/many_seeds")
    rates = {e["workload"]["seeds"]: e["median"] for e in together["results"]}
    seeds, last = " | ".join(f"{n:,}" for n in rates), together["results"][-1]
    all_of_them = " | ".join(f"{x:,.0f}" for x in rates.values())
    each = " | ".join(f"{x / n:,.0f}" for n, x in rates.items())
    near, envs = record.load("gpu/limit")["limit"]["Pendulum"], "1024 environments"
    sizes = ("Pendulum", "sacjax"), ("synthetic, 17 / 6", "sacjax"), ("Pendulum", ROUNDED)
    alone, wide, rounded = (f"{rate('one_seed', *size):,.0f}" for size in sizes)
    filling, full = (rate("parallel_envs", case) for case in (envs, f"{envs}, replay full"))
    inserted = rate("replay", "insert and sample, 1 seed", "sacjax, 1e+07 places")
    cold, warm = (rate("quick", "whole process", f"sacjax, {how}") for how in ("cold", "warm"))
    one, many = (rate("quick", "training", f"sacjax, {how}") for how in ("warm", "32 seeds"))
    first, again = (
        rate("startup", "first gradient step", f"sacjax, {how}") for how in ("cold", "warm cache")
    )
    return f"""
| seeds together, on one {together["device"]["kind"]} | {seeds} |
|---|{"---|" * len(rates)}
| gradient steps/s of all | {all_of_them} |
| gradient steps/s per seed | {each} |

- **One seed** (W1): {alone} gradient steps/s, {wide} at 17 / 6, {rounded} in bfloat16. The number
  of kernels limits the speed: {near["kernels_per_gradient_step"]:.0f} per gradient step.
  The GPU reaches {near["share_of_the_limit"]:.0%} of its arithmetic limit (W7).
- **1,024 environments**, batches of 512 (W4): {filling:,.0f} gradient steps/s and
  {rate("parallel_envs", envs, field="env_steps_per_second"):,.0f} environment steps/s. With a full
  replay buffer, the rates are {full / filling:.2f} times as high.
- **Memory**: {last["bytes_per_seed"] / 1e6:.1f} MB per seed for {last["workload"]["seeds"]:,} seeds
  with replay buffers of 1e5 transitions, according to XLA.
- **Replay** (W5): the time of an iteration at a capacity of 1e7, divided by the time at 1e4, is
  {flat("gpu/replay")}. Insertion and sampling take {inserted:.1f} us at 1e7.
- **Start-up** (W6, one round): the first gradient step ends after {first:.1f} s, or {again:.1f} s
  with a warm cache.
- **Pendulum from process start to 10,000 steps** (W3, one round): {cold:.1f} s, or {warm:.1f} s
  with a warm cache. The training takes {one:.2f} s, or {many:.2f} s for 32 seeds.""".lstrip()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    readme = record.ROOT.parent / "README.md"
    fill_in(readme, "speed", text())
    fill_in(readme, "gpu", accelerator())
