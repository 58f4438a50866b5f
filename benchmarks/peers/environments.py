"""Make a virtual environment for each peer, because their requirements exclude each other.

python benchmarks/peers/environments.py [NAME ...]   makes them in advance
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
    # rltools also needs a C++ compiler. workloads.py needs NumPy.
    "rltools": ["rltools==2.2.1", "mkl==2026.2.0", "mkl-include==2026.2.0", "numpy==2.4.6"],
}


def python_of(name: str) -> Path:
    """Return the Python of a peer's environment. Make the environment if it does not exist yet."""
    requirements = ENVIRONMENTS[name]
    key = repr((sys.version_info[:2], sorted(requirements)))
    cache = Path(os.environ.get("SACJAX_PEERS", Path.home() / ".cache" / "sacjax-peers"))
    folder = cache.absolute() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "complete"  # written last: without this file, the folder is incomplete
    if complete.exists():
        return python
    print(f"making {folder} for {', '.join(requirements)}", file=sys.stderr, flush=True)
    if folder.exists():
        shutil.rmtree(folder)
    _run([sys.executable, "-m", "venv", folder], f"could not make a virtual environment for {name}")
    _run([python, "-m", "pip", "install", *requirements], f"could not install {name}")
    complete.write_text("\n".join(requirements) + "\n")
    return python


def _run(command: list[str | Path], failure: str) -> None:
    """Run a command. If it fails, raise an error with its last lines of output."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-15:])
        raise RuntimeError(f"{failure}: `{' '.join(map(str, command))}` failed:\n{last}")


if __name__ == "__main__":
    for peer in sys.argv[1:] or ENVIRONMENTS:
        print(python_of(peer))
