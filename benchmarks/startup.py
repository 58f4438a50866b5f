"""W6: measure start-up: imports, the first gradient step, and compilation.

    python benchmarks/startup.py

For the first gradient step, a new process imports sacjax. `sacjax.run` with the paper's sizes then
warms up, compiles, makes one gradient step and plays a greedy episode. This is measured with and
without a warm compilation cache. Compile time is that of `init` and `epoch`, traced, lowered and
compiled in sequence. It is measured for several network sizes, numbers of critics and gradient
steps per iteration.
"""

import subprocess
import sys
import tempfile
import time

from rounds import entry, environment, options, report

DEPENDENCIES = "import jax, flax.linen, optax, chex, distrax, gymnax"
EVERYTHING = "import sacjax.runs.run"  # all modules except the command line
FIRST = """
from sacjax.devices import keep_compiled_programs, use_all_cores
use_all_cores()
keep_compiled_programs()
from sacjax import Config
from sacjax import run
config = Config("Pendulum-v1", total_steps=1_001, warmup_steps=1_000, eval_every=1, eval_episodes=1)
run(config, seeds=1, on_epoch=[lambda step, metrics: print("stepped", flush=True)])
"""
COMPILE = """
import sys, time
import jax
from sacjax import Config, Hyperparams, make_program
from sacjax.bits import as_arrays
program = make_program(Config("Pendulum-v1", **eval(sys.argv[1])))
hp, params = as_arrays(Hyperparams(), program.default_params)
key = jax.random.key(0)
jax.block_until_ready(key)
begin = time.perf_counter()
init = jax.jit(program.init)
init.lower(key, hp, params).compile()
loop = jax.eval_shape(init, key, hp, params)
jax.jit(program.epoch, donate_argnums=0).lower(loop, hp, params).compile()
print(time.perf_counter() - begin)
"""
SETTINGS = [
    {"hidden": (64, 64)},
    {},
    {"hidden": (1024, 1024)},
    {"hidden": (256, 256, 256)},
    {"num_critics": 5},
    {"num_critics": 10},
    {"utd": 4},
    {"utd": 20},
    {"num_envs": 128, "warmup_steps": 1_024, "eval_every": 1_024, "total_steps": 2**20,
     "replay_size": 2**19},
]  # fmt: skip


def python(code: str, *args: str, cache: str = "", until_line: bool = False) -> tuple[float, str]:
    """Run code in a new process. Return its seconds (or until its first line) and its output."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code, *args],
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline() if until_line else ""
        seconds = time.perf_counter() - begin
        rest = process.stdout.read()
        if not until_line:
            seconds = time.perf_counter() - begin
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of this code: {code}")
    return seconds, line + rest


def measure(rounds: int) -> list[dict]:
    """Measure each figure once in every round."""
    values: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        python(FIRST, cache=cache)
        for _ in range(rounds):
            turns = {
                ("import", "sacjax alone"): lambda: python("import sacjax")[0],
                ("import", "dependencies"): lambda: python(DEPENDENCIES)[0],
                ("import", "sacjax, all that trains"): lambda: python(EVERYTHING)[0],
                ("first gradient step", "sacjax, cold"): lambda: python(FIRST, until_line=True)[0],
                ("first gradient step", "sacjax, warm cache"): lambda: python(
                    FIRST, cache=cache, until_line=True
                )[0],
            } | {
                ("compile", next((f"{k} {v}" for k, v in s.items()), "the paper's")): (
                    lambda s=s: float(python(COMPILE, repr(s))[1])
                )
                for s in SETTINGS
            }
            for name, turn in turns.items():
                print(*name, "...", flush=True)
                values.setdefault(name, []).append(turn())
    return [entry(case, name, taken, "s", "lower") for (case, name), taken in values.items()]


if __name__ == "__main__":
    entries = measure(min(options(__doc__).rounds, 3))
    seconds = {e["name"]: e["median"] for e in entries}
    all_of_it = seconds["sacjax, all that trains"] / seconds["dependencies"]
    print(f"importing all of sacjax takes {all_of_it:.2f} x the time of its dependencies")
    report("startup", "W6: start-up", entries)
