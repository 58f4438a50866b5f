"""Measure the overhead of the host side of a run, relative to one compiled program.

    python benchmarks/overhead.py

Eight seeds of Pendulum-v1 train on all cores, with epochs of 1,000 steps. The two contenders take
turns: `over_members(make_train(config))` as one program, and `run` with a folder, metrics.csv and
TensorBoard's files. The figures are seconds per epoch without compilation. checkpoint.py measures
checkpoints. The preset's networks are small: with larger ones, the overhead is a smaller share.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jax
from rounds import entry, options, report
from sacjax_sac import Synthetic  # noqa: F401  (sets JAX up)

from sacjax import Config, Hyperparams, make_train, over_members, preset, run
from sacjax.loggers import TensorBoard

EPOCHS, SEEDS = 6, 8


def epochs_by_host(config: Config, hp: Hyperparams, folder: Path, logged: bool) -> float:
    """Return the seconds per epoch of `run`, including all work between epochs.

    They are measured from the end of the first epoch to the end of the last.
    """
    ends = []

    def end_of_epoch(step, metrics):
        ends.append(time.perf_counter())

    loggers = [TensorBoard(folder), end_of_epoch] if logged else [end_of_epoch]
    run(config, hp, seeds=SEEDS, directory=folder, checkpoint_every=0, on_epoch=loggers)
    return (ends[-1] - ends[0]) / (EPOCHS - 1)


def measure(rounds: int) -> list[dict]:
    entries = []
    small, hp = preset("Pendulum-v1")
    for case, logged in (("metrics.csv", False), ("metrics.csv and TensorBoard", True)):
        total = 1_000 + 1_000 * EPOCHS
        config = replace(small, eval_every=1_000, warmup_steps=1_000, total_steps=total)
        short = replace(config, total_steps=2_000)
        keys = jax.random.split(jax.random.key(0), SEEDS)
        programs = [
            jax.jit(over_members(make_train(c), (0, None))).lower(keys, hp).compile()
            for c in (config, short)
        ]
        one, host = [], []
        with tempfile.TemporaryDirectory() as folder:
            epochs_by_host(config, hp, Path(folder) / "first", logged)
            for i in range(rounds):
                times = []
                for program in programs:  # the difference of the two cancels the warm-up
                    begin = time.perf_counter()
                    jax.block_until_ready(program(keys, hp))
                    times.append(time.perf_counter() - begin)
                one.append((times[0] - times[1]) / (EPOCHS - 1))
                host.append(epochs_by_host(config, hp, Path(folder) / str(i), logged))
        entries += [
            entry(case, "one program", one, "s per epoch", "lower"),
            entry(case, "run", host, "s per epoch", "lower"),
            entry(
                case,
                "overhead",
                [(h / o - 1) * 100 for h, o in zip(host, one, strict=True)],
                "%",
                "lower",
            ),
        ]
    return entries


if __name__ == "__main__":
    report("overhead", "The host side over one program", measure(min(options(__doc__).rounds, 7)))
