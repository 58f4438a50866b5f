"""Write results files with versions, hardware, commit and XLA's flags."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

# Several processes share the GPU, so none may take all of its memory in advance.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from sacjax.runs.files import write_text
from sacjax.runs.provenance import SUITES, surroundings, versions

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"


def folder() -> Path:
    """Return the folder for results: results/ for CPUs, results/PLATFORM/ for accelerators."""
    platform = jax.default_backend()
    path = RESULTS / ("" if platform == "cpu" else platform)
    path.mkdir(parents=True, exist_ok=True)
    return path


def save(name: str, content: dict[str, Any]) -> Path:
    """Write `content` with versions and hardware to NAME.json in `folder()`."""
    path = folder() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"commit": commit(), "xla_flags": os.environ.get("XLA_FLAGS", "")}
    around = surroundings()
    suites = versions(package for packages in SUITES.values() for package in packages)
    around["versions"] |= {package: found for package, found in suites.items() if found}
    content = around | content | about
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def load(name: str) -> dict[str, Any]:
    """Read NAME.json in results/. The documents show these figures, whatever the machine."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def commit() -> str:
    """Return the commit of the code, with a mark if the package has uncommitted changes.

    Outside of a git repository, it is the value of SACJAX_COMMIT.
    """

    def git(*args: str | Path) -> str:
        done = subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True)
        return done.stdout.strip()

    if not (head := git("rev-parse", "HEAD")):
        return os.environ.get("SACJAX_COMMIT", "unknown")
    changed = git("status", "--porcelain", "--", ROOT.parent / "sacjax")
    return head + (" (changed)" if changed else "")
