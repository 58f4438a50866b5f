"""What every benchmark writes beside its figures: versions, hardware, commit."""

import json
import subprocess
from pathlib import Path
from typing import Any

from sacjax.folder import write_text
from sacjax.provenance import surroundings

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"


def save(name: str, content: dict[str, Any]) -> Path:
    """Write results/NAME.json: the content, and what it was measured with.

    What was measured on an accelerator goes to results/PLATFORM/NAME.json, beside the CPU's.
    """
    about = surroundings()
    platform = about["device"]["platform"]
    folder = RESULTS if platform == "cpu" else RESULTS / platform
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_text(path, json.dumps(content | about | {"commit": commit()}, indent=1) + "\n")
    return path


def load(name: str) -> dict[str, Any]:
    """Read results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def commit() -> str:
    """The commit of the code, marked where the package differs from it."""

    def git(*args: str | Path) -> str:
        done = subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ROOT.parent / "sacjax")
    return git("rev-parse", "HEAD") + (" (changed)" if changed else "")
