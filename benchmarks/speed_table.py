"""The README's table of ratios, from the result files.

python benchmarks/speed_table.py    fills it in
"""

import argparse

import record
from documents import fill_in
from rounds import ROUNDED, ratio

# Case, file, peer, and the ratio that the project set itself.
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
    """One row per case, the peers side by side, the goal where there is one."""
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
    """What NAME.json measured, by case and name."""
    return {(e["case"], e["name"]): e for e in record.load(name)["results"]}


def flat(name: str) -> str:
    """W5's iterations at 1e7 places, in ratio to 1e4."""
    entries = record.load(name)["results"]
    cases = dict.fromkeys(e["case"] for e in entries if e["case"].startswith("iteration"))
    return ", ".join(
        f"{ratio(entries, c, 'sacjax, 1e+04 places', 'sacjax, 1e+07 places'):.2f} ({c[10:]})"
        for c in cases
    )


def limit() -> str:
    """How near W1 comes to the machine's limit, and how replay and start-up do."""
    shares = record.load("limit")["limit"]
    near = ", ".join(f"{v['share_of_the_limit']:.0%} ({case})" for case, v in shares.items())
    start = {name: e["median"] for (_, name), e in figures("startup").items()}
    first, again = start["sacjax, cold"], start["sacjax, warm cache"]
    quick = figures("quick")
    cold, warm = (quick["whole process", f"sacjax, {how}"]["median"] for how in ("cold", "warm"))
    reached, beside = (
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
- **In bfloat16** (`hidden_precision`, which the peers have not; this processor multiplies it in
  hardware): {rounded}.
- **The limit** (W7): one seed runs at {near} of the best rate that its matrix products alone
  reached.
- **Replay** (W5): an iteration at 1e7 places takes, in ratio to 1e4 places, {flat("replay")}.
- **Start-up** (W6): importing all that trains takes {start["sacjax, all that trains"]:.1f} s (its
  dependencies, imported plainly: {start["dependencies"]:.1f}); the first gradient step comes after
  {first:.1f} s, {again:.1f} s with a warm cache (goals: 6 and 3).
- **From nothing to 10,000 steps of Pendulum** (W3, one process): {cold:.1f} s, {warm:.1f} s with a
  warm cache (goals: 12, 6). Settings are RLtools', which are no guarantee: the seed that is timed
  reaches {reached:.0f}, the same seed trained beside 31 others, roundings apart, {beside:.0f}."""


def text() -> str:
    """Against the peers, on a CPU."""
    return f"{table()}\n{limit()}"


def accelerator() -> str:
    """W1 to W7 on a GPU, sacjax alone."""

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
| of each | {each} |

- **One seed** (W1): {alone} gradient steps/s, {wide} at 17 / 6, {rounded} in bfloat16. What decides
  is the number of kernels, {near["kernels_per_gradient_step"]:.0f} to a gradient step, not their
  arithmetic, which is at {near["share_of_the_limit"]:.0%} of its limit (W7).
- **1,024 environments**, batches of 512 (W4): {filling:,.0f} gradient steps/s,
  {rate("parallel_envs", envs, field="env_steps_per_second"):,.0f} environment steps/s; with a full
  replay {full / filling:.2f} times that.
- **Memory**: {last["bytes_per_seed"] / 1e6:.1f} MB for each of {last["workload"]["seeds"]:,} seeds
  (XLA's account; replays of 1e5).
- **Replay** (W5): an iteration at 1e7 places takes, in ratio to 1e4 places, {flat("gpu/replay")};
  insert and sample alone {inserted:.1f} us at 1e7.
- **Start-up** (W6, one round): the first gradient step comes after {first:.1f} s,
  {again:.1f} s with a warm cache.
- **From nothing to 10,000 steps of Pendulum** (W3, one process, one round): {cold:.1f} s,
  {warm:.1f} s with a warm cache. Training is {one:.2f} s of it, of 32 seeds
  {many:.2f} s.""".lstrip()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    readme = record.ROOT.parent / "README.md"
    fill_in(readme, "speed", text())
    fill_in(readme, "gpu", accelerator())
