"""What every benchmark writes beside its figures: versions, hardware, commit, XLA's flags."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

# A script's processes share a GPU with this one: each takes memory as it needs it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from sacjax.runs.files import write_text
from sacjax.runs.provenance import SUITES, surroundings, versions

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"


def folder() -> Path:
    """Where figures are written: results/, an accelerator's to results/PLATFORM/."""
    platform = jax.default_backend()
    path = RESULTS / ("" if platform == "cpu" else platform)
    path.mkdir(parents=True, exist_ok=True)
    return path


def save(name: str, content: dict[str, Any]) -> Path:
    """Write NAME.json in `folder()`: the content, and what it was measured with."""
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
    """Read NAME.json in results/, as the documents show it on any machine."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def commit() -> str:
    """The commit of the code, marked where the package differs from it; in a copy that is no
    repository, what SACJAX_COMMIT says."""

    def git(*args: str | Path) -> str:
        done = subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True)
        return done.stdout.strip()

    if not (head := git("rev-parse", "HEAD")):
        return os.environ.get("SACJAX_COMMIT", "unknown")
    changed = git("status", "--porcelain", "--", ROOT.parent / "sacjax")
    return head + (" (changed)" if changed else "")
