"""What every benchmark writes beside its figures: versions, hardware, commit."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

# A script's processes share a GPU with this one: each takes memory as it needs it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from sacjax.folder import write_text
from sacjax.provenance import surroundings

ROOT = Path(__file__).parent


def folder() -> Path:
    """results/, of an accelerator results/PLATFORM/: beside the CPU's, which the documents show."""
    platform = jax.default_backend()
    path = ROOT / "results" / ("" if platform == "cpu" else platform)
    path.mkdir(parents=True, exist_ok=True)
    return path


def save(name: str, content: dict[str, Any]) -> Path:
    """Write NAME.json in `folder()`: the content, and what it was measured with."""
    path = folder() / f"{name}.json"
    content = content | surroundings() | {"commit": commit()}
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def load(name: str) -> dict[str, Any]:
    """Read NAME.json in `folder()`."""
    return json.loads((folder() / f"{name}.json").read_text())


def commit() -> str:
    """The commit of the code, marked where the package differs from it; in a copy that is no
    repository, what SACJAX_COMMIT says."""
    if told := os.environ.get("SACJAX_COMMIT"):
        return told

    def git(*args: str | Path) -> str:
        done = subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ROOT.parent / "sacjax")
    return git("rev-parse", "HEAD") + (" (changed)" if changed else "")
