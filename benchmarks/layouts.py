"""Compare layouts of members on a CPU: vmapped or in sequence, on one device or all.

    python benchmarks/layouts.py

One process trains eight seeds of W1's workload with each strategy and number of devices, in turns.
Then it compares the parameters of four seeds between layouts. They differ by rounding only, but
reinforcement learning amplifies rounding.
"""

import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from rounds import entry, options, report
from sacjax_sac import compiled  # sets JAX up
from workloads import Workload

from sacjax import Config, Hyperparams, make_program, over_members
from sacjax.bits import as_arrays
from sacjax.devices import layout

DEVICES = jax.device_count()
LAYOUTS = [("vmap", 1), ("vmap", DEVICES), ("map", 1), ("map", DEVICES)]
SIZES = {"64x64, batch 128": ((64, 64), 128, 200), "256x256, batch 256": ((256, 256), 256, 40)}
STEPS = 1, 50, 400, 2_000  # gradient steps


def name_of(strategy: str, devices: int) -> str:
    chosen = ", the default" if layout(8) == (strategy, devices) else ""
    return f"{strategy}, {devices} device{'s' if devices > 1 else ''}{chosen}"


def speed(rounds: int) -> list[dict[str, Any]]:
    """Measure gradient steps per second, all seeds together."""
    entries = []
    for size, (hidden, batch, iterations) in SIZES.items():
        workload = Workload(
            hidden=hidden, batch_size=batch, seeds=8, iterations=iterations, replay_size=100_000
        )
        racers = {}
        for strategy, devices in LAYOUTS:
            how = {"strategy": strategy, "devices": devices}
            loop, piece = compiled(workload, Hyperparams(), **how)
            racers[strategy, devices] = [jax.block_until_ready(piece.run(loop)), piece, []]
        for _ in range(rounds):
            for racer in racers.values():
                begin = time.perf_counter()
                racer[0] = jax.block_until_ready(racer[1].run(racer[0]))
                racer[2].append(workload.gradient_steps / (time.perf_counter() - begin))
        entries += [
            entry(f"8 seeds, {size}", name_of(*how), rates, "gradient steps/s", "higher")
            for how, (_, _, rates) in racers.items()
        ]
    return entries


def rounding() -> list[dict[str, Any]]:
    """Return the largest parameter difference between each layout and "map" on one device."""
    config = Config(
        *("Pendulum-v1", 1_000),
        warmup_steps=500,
        eval_every=500,
        eval_episodes=1,
        replay_size=10_000,
        hidden=(64, 64),
        batch_size=128,
    )
    found: dict[tuple[str, int], dict[int, Any]] = {}
    for strategy, devices in LAYOUTS:
        loop, parameters, at = None, {}, 0
        for steps in STEPS:
            every = steps - at
            longer = replace(config, eval_every=every, total_steps=500 + 20_000 * every)
            program = make_program(longer)
            hp, env_params = as_arrays(Hyperparams(), program.default_params)
            how = {"strategy": strategy, "devices": devices}
            if loop is None:
                init = jax.jit(over_members(program.init, (0, None, None), **how))
                loop = init(jax.random.split(jax.random.key(0), 4), hp, env_params)
            epoch = jax.jit(over_members(program.epoch, (0, None, None), **how))
            loop, _ = epoch(loop, hp, env_params)
            parameters[steps] = [np.asarray(x) for x in jax.tree.leaves(loop.agent)]
            at = steps
        found[strategy, devices] = parameters
    reference = found["map", 1]

    def apart(one: list[np.ndarray], other: list[np.ndarray]) -> float:
        return max(float(abs(x - y).max()) for x, y in zip(one, other, strict=True))

    return [
        {
            "layout": name_of(*how),
            "gradient_steps": steps,
            "largest_difference": apart(parameters[steps], reference[steps]),
        }
        for how, parameters in found.items()
        if how != ("map", 1)
        for steps in STEPS
    ]


if __name__ == "__main__":
    args = options(__doc__)
    apart = rounding()
    for e in apart:
        print(f"{e['layout']:30s} {e['gradient_steps']:6d} {e['largest_difference']:.1e}")
    report("layouts", "Eight seeds on a CPU, all together", speed(args.rounds), rounding=apart)
