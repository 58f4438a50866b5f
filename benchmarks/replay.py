"""W5: measure the cost of replay at several capacities. It should not depend on the capacity.

    python benchmarks/replay.py

One figure is the microseconds of one insert and one minibatch of 256 transitions of Pendulum-v1, in
a compiled loop. Capacities are 1e4 to 1e7, for one seed and for 8 vmapped seeds. The other figure
is W1's whole iteration (64x64 and 256x256) at 1e4 and 1e7. All replays are full at the start, and
the measurements take turns.
"""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from rounds import entry, options, ratio, report
from sacjax_sac import compiled, make_config
from workloads import Workload

from sacjax import Hyperparams
from sacjax.envs.names import make_env
from sacjax.replay import ReplayState, make_replay

CAPACITIES, SEEDS, STEPS = (10**4, 10**5, 10**6, 10**7), 8, 2_000
ITERATIONS = 300


def full(state: ReplayState) -> ReplayState:
    """Fill a replay, and touch every page of its memory."""
    size = jnp.full_like(state.size, state.rows.shape[-2])
    return state._replace(rows=state.rows + 1, size=size)


def alone(capacity: int, seeds: int) -> Callable[[], float]:
    """Measure insert and sample alone, in microseconds per iteration of all seeds."""
    example = make_env("Pendulum-v1")(1).example
    memory = make_replay(make_config(Workload(replay_size=capacity)), example)
    new = jax.tree.map(lambda x: jnp.ones((1, *x.shape)), example)

    def steps(state: ReplayState, key: jax.Array) -> tuple[ReplayState, jax.Array]:
        def step(carry, key):
            state, total = carry
            state = memory.add(state, new._replace(reward=total[None]))
            return (state, memory.sample(state, key).reward.mean()), None

        carry, _ = jax.lax.scan(step, (state, jnp.zeros(())), jax.random.split(key, STEPS))
        return carry

    run, fill = steps, full
    state, key = memory.init(), jax.random.key(0)
    if seeds > 1:
        run, fill = jax.vmap(steps), jax.vmap(full)
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), state)
        key = jax.random.split(key, seeds)
    held = [jax.jit(fill)(state)]
    del state
    executable = jax.jit(run, donate_argnums=0).lower(held[0], key).compile()

    def piece() -> float:
        begin = time.perf_counter()
        held[0], total = executable(held[0], key)
        jax.block_until_ready(total)
        return (time.perf_counter() - begin) / STEPS * 1e6

    piece()
    return piece


def iteration(capacity: int, hidden: tuple[int, ...], seeds: int) -> Callable[[], float]:
    """Measure W1's iteration without evaluation, in microseconds per iteration of all seeds."""
    workload = Workload(hidden=hidden, replay_size=capacity, iterations=ITERATIONS, seeds=seeds)
    # A vmapped layout is the most likely one to copy the replay.
    loop, compiled_piece = compiled(workload, Hyperparams(), strategy="vmap", devices=1)
    held = [loop.replace(replay=jax.jit(full, donate_argnums=0)(loop.replay))]
    del loop

    def piece() -> float:
        begin = time.perf_counter()
        held[0] = jax.block_until_ready(compiled_piece.run(held[0]))
        return (time.perf_counter() - begin) / ITERATIONS * 1e6

    piece()
    return piece


def measure(rounds: int) -> list[dict]:
    """Measure groups of pieces that take turns."""
    groups = [
        {
            (f"insert and sample, {seeds} seed{'s' * (seeds > 1)}", c): partial(alone, c, seeds)
            for c in CAPACITIES
        }
        for seeds in (1, SEEDS)
    ] + [
        {
            (f"iteration {hidden[0]}x{hidden[1]}, {seeds} seed{'s' * (seeds > 1)}", c): (
                partial(iteration, c, hidden, seeds)
            )
            for c in (CAPACITIES[0], CAPACITIES[-1])
        }
        for hidden, seeds in (((256, 256), 1), ((64, 64), 1), ((64, 64), SEEDS))
    ]
    entries = []
    for group in groups:
        pieces = {name: make() for name, make in group.items()}
        values: dict[tuple[str, int], list[float]] = {name: [] for name in pieces}
        for _ in range(rounds):
            for name, piece in pieces.items():
                values[name].append(piece())
        for (case, capacity), taken in values.items():
            entries.append(entry(case, f"sacjax, {capacity:.0e} places", taken, "us", "lower"))
    return entries


if __name__ == "__main__":
    entries = measure(max(options(__doc__).rounds, 7))
    for case in dict.fromkeys(e["case"] for e in entries):
        times = ratio(entries, case, "sacjax, 1e+04 places", "sacjax, 1e+07 places")
        print(f"{case}: at 1e7 places {times:.2f} x the time at 1e4")
    report("replay", "W5: replay at any capacity", entries)
