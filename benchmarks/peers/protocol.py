"""Define the protocol between a timing program and the drivers of sacjax and its peers.

    python DRIVER.py WORKLOAD            compiles, fills the replay, runs one piece, and prints
                                         {"ready": true, ...}. For each line `go` on its input, it
                                         runs a piece and prints its seconds. It ends at EOF.
    python DRIVER.py --once WORKLOAD     trains once, and prints the training's seconds and the
                                         returns of ten greedy episodes.

WORKLOAD is the JSON of a `workloads.Workload`. A piece has `iterations` iterations. The standard
output has one JSON object per line. Other output of libraries goes to standard error.
"""

import json
import os
import sys
from importlib.metadata import version
from typing import Any

GAMMA, TAU = 0.99, 0.005
LEARNING_RATE, LEARNING_RATE_ONCE = 3e-4, 1e-3  # for actor, critics and temperature
EPISODES = 10  # played by --once


class Session:
    """The driver's side of the protocol."""

    def __init__(self) -> None:
        *options, self.workload = sys.argv[1:]  # the workload is JSON
        if options not in ([], ["--once"]):
            raise SystemExit(f"unknown options {options}: use {sys.argv[0]} [--once] WORKLOAD")
        self.once = bool(options)
        self.learning_rate = LEARNING_RATE_ONCE if self.once else LEARNING_RATE
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # also redirects output of native libraries

    def ready(
        self,
        packages: list[str],
        unequal: list[str],
        compile_seconds: float | None = None,
        **more: Any,
    ) -> None:
        """Report that compilation and warm-up are done.

        `unequal` lists the differences from the workload.
        """
        versions = {name: version(name) for name in packages}
        about = {"versions": versions, "compile_seconds": compile_seconds, "unequal": unequal}
        self._say(ready=True, **about, **more)

    def go(self) -> bool:
        """Wait for the request to run a piece. Return False at the end of the input."""
        line = sys.stdin.readline()
        if line.strip() not in ("", "go"):
            raise SystemExit(f"expected `go`, got {line!r}")
        return line.strip() == "go"

    def ran(self, seconds: float, gradient_steps: int, env_steps: int) -> None:
        """Report the wall time and the actual steps of one piece, all seeds together."""
        self._say(seconds=seconds, gradient_steps=gradient_steps, env_steps=env_steps)

    def trained(self, seconds: float, returns: list[float]) -> None:
        """Report the result of --once."""
        self._say(train_seconds=seconds, returns=returns)

    def _say(self, **content: Any) -> None:
        print(json.dumps(content), file=self._answers, flush=True)


def single_seed(name: str, seeds: int) -> None:
    """Exit if the workload has more than one seed."""
    if seeds != 1:
        raise SystemExit(f"seeds ({seeds}) must be 1: {name} trains one seed per process")
