"""Time RLtools' SAC, in C++ on its own Pendulum, with the protocol of protocol.py.

This compiles rltools_sac.cpp for the workload, with the headers and flags of RLtools' package. It
uses MKL, as RLtools recommends: without MKL, it is many times slower. It needs g++ or the compiler
in $CXX. `train_seconds` of --once exclude the warm-up. RLtools' own evaluation plays the ten
episodes.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from protocol import EPISODES, GAMMA, TAU, Session, single_seed
from workloads import Workload

UNEQUAL = [
    "everything runs in one thread",
    "all sizes are constants of a program compiled for this processor, with fast-math",
]


def check(workload: Workload) -> None:
    """Exit if RLtools' loop does not support the workload."""
    single_seed("rltools", workload.seeds)
    for name, wanted in {"env": "pendulum", "num_envs": 1, "updates": 1}.items():
        if getattr(workload, name) != wanted:
            raise SystemExit(f"rltools needs {name}={wanted}, not {getattr(workload, name)}")
    if len(set(workload.hidden)) != 1:
        raise SystemExit(f"rltools needs hidden layers of one size, not {workload.hidden}")
    if workload.warmup_steps < workload.batch_size:
        raise SystemExit("rltools: warmup_steps must be at least batch_size")


def build(workload: Workload, learning_rate: float, program: Path) -> float:
    """Compile the program for the workload. Return the seconds."""
    spec = importlib.util.find_spec("rltools")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("rltools is not installed")
    headers = Path(spec.submodule_search_locations[0]) / "external" / "rl_tools" / "include"
    prefix = Path(sys.prefix)
    constants = {
        "WARMUP": workload.warmup_steps,
        "ITERATIONS": workload.iterations,
        "REPLAY": workload.replay_size,
        "BATCH": workload.batch_size,
        "HIDDEN": workload.hidden[0],
        "LAYERS": len(workload.hidden),
        "GAMMA": f"{GAMMA}f",
        "TAU": f"{TAU}f",
        "LEARNING_RATE": f"{learning_rate}f",
    }
    command = [
        os.environ.get("CXX", "g++"),
        *("-std=c++17", "-O3", "-march=native", "-ffast-math"),
        *(f"-DPEER_{name}={value}" for name, value in constants.items()),
        *("-DRL_TOOLS_BACKEND_ENABLE_MKL", "-DRL_TOOLS_DISABLE_UNALIGNED_MEMORY_ALLOCATIONS"),
        *(f"-I{folder}" for folder in (headers, prefix / "include")),
        str(Path(__file__).with_suffix(".cpp")),
        "-Wl,--no-as-needed",
        *(
            str(next((prefix / "lib").glob(f"libmkl_{name}.so*")))
            for name in ("intel_lp64", "sequential", "core")
        ),
        *("-lpthread", "-lm", "-ldl", f"-Wl,-rpath,{prefix / 'lib'}", "-o", str(program)),
    ]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except FileNotFoundError:
        raise SystemExit(f"rltools: the C++ compiler {command[0]!r} is missing") from None
    if done.returncode:
        raise SystemExit(f"rltools: the compiler failed:\n{done.stdout[-3000:]}")
    return time.perf_counter() - start


def main() -> None:
    """Serve the protocol."""
    session = Session()
    workload = Workload.from_json(session.workload)
    check(workload)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "rltools_sac"
        compile_seconds = build(workload, session.learning_rate, program)
        child = subprocess.Popen(
            [program, "once"] if session.once else [program],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdin
        assert child.stdout
        lines = (line for line in child.stdout if not line.startswith("Step:"))  # RLtools' log
        if session.once:
            seconds, *found = map(float, next(lines).split())
            assert len(found) == EPISODES
            session.trained(seconds, found)
        else:
            assert next(lines) == "ready\n"
            session.ready(["rltools", "mkl"], UNEQUAL, compile_seconds)
            while session.go():
                child.stdin.write("go\n")
                child.stdin.flush()
                seconds = float(next(lines))
                session.ran(seconds, workload.gradient_steps, workload.env_steps)
        child.stdin.close()
        child.wait()


if __name__ == "__main__":
    main()
