"""How a timing program talks with a driver, the same for sacjax and its peers.

    python DRIVER.py WORKLOAD            builds, compiles, fills the replay and runs one piece, then
                                         prints {"ready": true, ...}; for every line `go` on its
                                         input, runs a piece and prints what it took; ends with EOF
    python DRIVER.py --once WORKLOAD     trains once, prints the training's seconds and the returns
                                         of ten greedy episodes, and ends

WORKLOAD is the JSON of a `workloads.Workload`, a piece `iterations` iterations of it. One JSON
object per line on the standard output; what else a library prints there goes to standard error.
"""

import json
import os
import sys
from importlib.metadata import version
from typing import Any

GAMMA, TAU = 0.99, 0.005
LEARNING_RATE, LEARNING_RATE_ONCE = 3e-4, 1e-3  # Adam's, of actor, critics and temperature
EPISODES = 10  # evaluated by --once


class Session:
    """The driver's end."""

    def __init__(self) -> None:
        *options, self.workload = sys.argv[1:]  # as JSON
        if options not in ([], ["--once"]):
            raise SystemExit(f"usage: {sys.argv[0]} [--once] WORKLOAD, not {options}")
        self.once = bool(options)
        self.learning_rate = LEARNING_RATE_ONCE if self.once else LEARNING_RATE
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # also what native libraries print

    def ready(
        self,
        packages: list[str],
        unequal: list[str],
        compile_seconds: float | None = None,
        **more: Any,
    ) -> None:
        """All is compiled and warmed up. `unequal`: where the workload could not be followed."""
        versions = {name: version(name) for name in packages}
        told = {"versions": versions, "compile_seconds": compile_seconds, "unequal": unequal}
        self._say(ready=True, **told, **more)

    def go(self) -> bool:
        """Wait for the word to run a piece; False at the end."""
        line = sys.stdin.readline()
        if line.strip() not in ("", "go"):
            raise SystemExit(f"expected `go`, got {line!r}")
        return line.strip() == "go"

    def ran(self, seconds: float, gradient_steps: int, env_steps: int) -> None:
        """One piece: its wall time and what was really done in it, all seeds together."""
        self._say(seconds=seconds, gradient_steps=gradient_steps, env_steps=env_steps)

    def trained(self, seconds: float, returns: list[float]) -> None:
        """The answer to --once."""
        self._say(train_seconds=seconds, returns=returns)

    def _say(self, **content: Any) -> None:
        print(json.dumps(content), file=self._answers, flush=True)


def single_seed(name: str, seeds: int) -> None:
    """Refuse more than one seed."""
    if seeds != 1:
        raise SystemExit(f"{name} trains one seed per process; the workload has seeds={seeds}")
