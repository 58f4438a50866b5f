"""Measure the cost of resets in Brax and Playground: cached, fresh, and without resets.

    python benchmarks/resets.py [--envs brax/... playground/...]

The figures are microseconds per step of all copies with random actions. The adapter with
`reset=cached`, the adapter with `reset=fresh`, and the raw environment without resets ("never")
take turns.
"""

import argparse
import time
from collections.abc import Callable

from sacjax.devices import keep_compiled_programs

keep_compiled_programs()

import jax
from rounds import entry, report

from sacjax.envs.names import adapter, make_env, parse

ENVS = (
    "brax/inverted_pendulum?backend=spring",
    "brax/hopper?backend=spring",
    "playground/CartpoleBalance",
)
STEPS = 200


def stepper(env: str, how: str, copies: int) -> Callable[[], float]:
    """Return a function that takes `STEPS` steps and returns the microseconds per step."""
    keys = jax.random.split(jax.random.key(0), STEPS)
    if how == "never":
        parsed = parse(env)
        raw = adapter(parsed.suite).raw(env, parsed)
        state = jax.jit(jax.vmap(raw.reset))(jax.random.split(keys[0], copies))

        def step(state, key):
            action = jax.random.uniform(key, (copies, raw.action_size), minval=-1.0)
            new = jax.vmap(raw.step)(state, action)
            return jax.tree.map(lambda a, b: a.astype(b.dtype), new, state), None
    else:
        made = make_env(f"{env}{'&' if '?' in env else '?'}reset={how}")(copies)
        params = made.default_params
        state, _ = jax.jit(made.reset)(keys[0], params)

        def step(state, key):
            return made.step(state, made.random_action(key), key, params)[0], None

    run = jax.jit(lambda state: jax.lax.scan(step, state, keys)[0])
    held = [jax.block_until_ready(run(state))]

    def piece() -> float:
        begin = time.perf_counter()
        held[0] = jax.block_until_ready(run(held[0]))
        return (time.perf_counter() - begin) / STEPS * 1e6

    return piece


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", nargs="*", default=ENVS)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    entries = []
    for env in args.envs:
        for copies in (1, 64):
            pieces = {how: stepper(env, how, copies) for how in ("never", "cached", "fresh")}
            values: dict[str, list[float]] = {how: [] for how in pieces}
            for _ in range(args.rounds):
                for how, piece in pieces.items():
                    values[how].append(piece())
            case = f"{env}, {copies}"
            entries += [entry(case, how, x, "us", "lower") for how, x in values.items()]
    report("resets", "A step of all copies, by how episodes begin", entries)


if __name__ == "__main__":
    main()
