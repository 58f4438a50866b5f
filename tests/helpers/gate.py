"""Compare the results of four tiny runs with stored results, to check a refactoring.

    python tests/helpers/gate.py            compare with tests/data/gate.json
    python tests/helpers/gate.py --write    store the results of this commit

A refactoring keeps every hash. A change of the compiled functions may change the numbers by 1e-6
after ten updates. In this case, store the results again, and mention the change in the commit. The
bits depend on the version of jaxlib and on the type of processor. If the file has no results for
your processor, the script compares the numbers with a tolerance of 1e-6.
"""

import hashlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # must be set before JAX starts

import jax
import numpy as np
from probes import Noise

from sacjax import run
from sacjax.config import Config, Hyperparams
from sacjax.devices import _processor

DATA = Path(__file__).parents[1] / "data"
HASHES, NUMBERS = DATA / "gate.json", DATA / f"gate-jaxlib-{version('jaxlib')}.npz"
# Each run makes ten updates in two epochs. Its warm-up passes a time limit and fills the replay.
SIZES = {
    "warmup_steps": 210,
    "eval_every": 5,
    "total_steps": 220,
    "replay_size": 64,
    "batch_size": 8,
    "hidden": (8,),
    "eval_episodes": 2,
}
PENDULUM = Config("Pendulum-v1", **SIZES)
EXTENDED = {"n_step": 3, "normalize_obs": True, "policy_delay": 2, "layer_norm": True}
RUNS: dict[str, dict[str, Any]] = {
    "vmap": {
        "config": PENDULUM,
        "hp": Hyperparams(tau=np.array([0.005, 0.02])),
        "seeds": 2,
        "strategy": "vmap",
        "devices": 1,
    },
    "map over two devices": {"config": PENDULUM, "seeds": 3, "strategy": "map", "devices": 2},
    "extensions": {"config": Config(Noise(), **SIZES | EXTENDED), "seeds": 2, "devices": 1},
    "host environment": {"config": Config("gymnasium/Pendulum-v1", **SIZES), "seeds": 1},
}


def record(name: str) -> tuple[str, dict[str, np.ndarray]]:
    """Train one of RUNS. Return its final parameters and metrics as a hash and as arrays."""
    done = run(**RUNS[name])
    leaves = [np.asarray(x) for x in jax.tree.leaves(done.agents)]
    arrays = {f"{name}/{i}": x for i, x in enumerate(leaves)}
    arrays |= {f"{name}/{metric}": x for metric, x in sorted(done.metrics.items())}
    digest = hashlib.sha256()
    for x in arrays.values():
        digest.update(f"{x.dtype} {x.shape}".encode() + x.tobytes())
    return digest.hexdigest(), arrays


def recorded() -> dict[str, dict[str, str]]:
    """Return the stored hashes as {"jaxlib VERSION, PROCESSOR": {run: hash}}."""
    return json.loads(HASHES.read_text()) if HASHES.exists() else {}


def here() -> str:
    """Return the version of jaxlib and the type of processor of this machine."""
    return f"jaxlib {version('jaxlib')}, {_processor()}"


def check(name: str) -> None:
    """Raise AssertionError if the results of the run `name` differ from the stored results."""
    digest, arrays = record(name)
    if known := recorded().get(here()):
        assert digest == known[name], f"{name}: the bits changed"
    with np.load(NUMBERS) as numbers:
        for key, x in arrays.items():
            np.testing.assert_allclose(x, numbers[key], rtol=1e-6, atol=1e-6, err_msg=key)


def write() -> None:
    """Store the results of all runs."""
    hashes, numbers = {}, {}
    for name in RUNS:
        hashes[name], arrays = record(name)
        numbers |= arrays
    HASHES.write_text(json.dumps(recorded() | {here(): hashes}, indent=1, sort_keys=True) + "\n")
    np.savez_compressed(NUMBERS, **numbers)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write()
    else:
        for run_name in RUNS:
            check(run_name)
            print(f"{run_name}: equal", flush=True)
