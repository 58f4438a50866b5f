"""A virtual environment of its own for every peer: their requirements exclude each other.

python benchmarks/peers/environments.py [NAME ...]   makes them ahead of time
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS: dict[str, list[str]] = {
    "rejax": ["rejax==0.1.3", "gymnax==0.0.9", "jax==0.10.2"],
    "brax": ["brax==0.14.2", "jax==0.9.2"],
    "evorl": ["evorl-jax==0.1.1", "brax==0.14.2", "jax==0.9.2"],
    "sbx": ["sbx-rl==0.28.0", "torch==2.13.0"],
    "sb3": ["stable-baselines3==2.9.2", "torch==2.13.0"],
    "sb3-mujoco": [
        *("stable-baselines3==2.9.2", "torch==2.13.0"),
        *("gymnasium[mujoco]==1.3.0", "mujoco==4.0.0"),
    ],
    # it needs a C++ compiler too; NumPy is for workloads.py
    "rltools": ["rltools==2.2.1", "mkl==2026.2.0", "mkl-include==2026.2.0", "numpy==2.4.6"],
}


def python_of(name: str) -> Path:
    """The Python of a peer's environment, which is made if it is not there yet."""
    requirements = ENVIRONMENTS[name]
    told = repr((sys.version_info[:2], sorted(requirements)))
    cache = Path(os.environ.get("SACJAX_PEERS", Path.home() / ".cache" / "sacjax-peers"))
    folder = cache.absolute() / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "complete"  # the last file written: without it, the folder is a torso
    if complete.exists():
        return python
    print(f"making {folder} for {', '.join(requirements)}", file=sys.stderr, flush=True)
    if folder.exists():
        shutil.rmtree(folder)
    _run([sys.executable, "-m", "venv", folder], f"no virtual environment for {name}")
    _run([python, "-m", "pip", "install", *requirements], f"could not install {name}")
    complete.write_text("\n".join(requirements) + "\n")
    return python


def _run(command: list[str | Path], failure: str) -> None:
    """Run a command; if it fails, say so with its last lines."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-15:])
        raise RuntimeError(f"{failure}: `{' '.join(map(str, command))}` ended with\n{last}")


if __name__ == "__main__":
    for peer in sys.argv[1:] or ENVIRONMENTS:
        print(python_of(peer))
