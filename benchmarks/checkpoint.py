"""Measure the cost of a checkpoint: seconds that training waits, and memory.

    python benchmarks/checkpoint.py

The state has eight members with the paper's networks and full replays of 1e6 random transitions. It
has the dimensions of Pendulum-v1 (3 / 1) and of the synthetic environment (17 / 6). Measured are
the seconds that training waits, the seconds until the checkpoint is complete, the seconds to read
it back, its size on disk, and the growth of the process meanwhile. /proc gives the memory, so this
needs Linux.
"""

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rounds import entry, options, report
from sacjax_sac import Synthetic  # sets JAX up

from sacjax import Config, Hyperparams, make_program, over_members
from sacjax.bits import as_arrays
from sacjax.runs import checkpoints
from sacjax.runs.arrays import flatten

MEMBERS, CAPACITY = 8, 1_000_000
ENVS = {"Pendulum": "Pendulum-v1", "synthetic, 17 / 6": Synthetic()}


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class Peak:
    """The peak memory of this process in a `with` block, relative to its start."""

    def __enter__(self) -> "Peak":
        self.before = self.most = resident()
        self._over = False
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over = True
        self._thread.join()

    def _watch(self) -> None:
        while not self._over:
            self.most = max(self.most, resident())
            time.sleep(0.002)

    @property
    def growth(self) -> int:
        return self.most - self.before


def members(env: Any) -> Any:
    """Return the loop states of all members, with replays full of random numbers."""
    config = Config(env, total_steps=CAPACITY, replay_size=CAPACITY)
    program = make_program(config)
    hp, params = as_arrays(Hyperparams(), program.default_params)

    def init(key):
        loop = program.init(key, hp, params)
        rows = jax.random.normal(loop.key, loop.replay.rows.shape)
        return loop.replace(replay=loop.replay._replace(rows=rows, size=jnp.int32(CAPACITY)))

    keys = jax.random.split(jax.random.key(0), MEMBERS)
    return jax.block_until_ready(jax.jit(over_members(init))(keys))


def measure(rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write and read one checkpoint in every round."""
    entries, memory = [], {}
    for case, env in ENVS.items():
        loop = members(env)
        arrays = flatten(loop)
        held = sum(x.nbytes for x in arrays.values())
        waited, whole, read, grew, size = [], [], [], [], 0
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                writer = checkpoints.Writer(Path(folder), keep=1)
                begin = time.perf_counter()
                with Peak() as peak:
                    writer.save(1, {}, arrays)
                    waited.append(time.perf_counter() - begin)
                    writer.finish()
                whole.append(time.perf_counter() - begin)
                grew.append(peak.growth)
                size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
                begin = time.perf_counter()
                found = checkpoints.restore(Path(folder))
                assert found is not None
                for name in found.arrays:
                    found.arrays[name]
                read.append(time.perf_counter() - begin)
        entries += [
            entry(case, "training waits", waited, "s", "lower"),
            entry(case, "whole", whole, "s", "lower"),
            entry(case, "read", read, "s", "lower"),
            entry(case, "growth while writing", [g / held for g in grew], "of the state", "lower"),
        ]
        memory[case] = {"state_bytes": held, "disk_bytes": size, "growth_bytes": grew}
        print(f"{case}: state {held / 2**30:.2f} GiB, on disk {size / 2**30:.2f} GiB")
    return entries, memory


if __name__ == "__main__":
    entries, memory = measure(min(options(__doc__).rounds, 5))
    report("checkpoint", "A checkpoint of 8 members, replays of 1e6", entries, memory=memory)
