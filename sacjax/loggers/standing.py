"""Where a whole run stands after an epoch: what the progress bar and JSON lines show."""

import math
import time
from typing import Any

import numpy as np

from sacjax import statistics
from sacjax.config import Config


class Standing:
    """Where the whole run stands after an epoch of all its members, or of some."""

    def __init__(self, config: Config, steps: np.ndarray | None = None):
        """`steps`: those of the first members, done before."""
        self._config = config
        self._before = np.zeros(0) if steps is None else steps
        self._steps, self._diverged = np.zeros(0), np.zeros(0, bool)
        self._pace, self._then = math.nan, math.nan  # seconds per step of one member; last call

    def __call__(self, step: int, metrics: dict[str, Any]) -> dict[str, Any]:
        """Numbers, NaN where there are none. Returns are over the members told of that are finite,
        each member's a mean over its episodes; times are in seconds from now."""
        config, who, seconds = self._config, metrics["member"], metrics["seconds"].max().item()
        if not self._steps.size:
            members = metrics["members"][0]
            self._steps, self._diverged = np.zeros(members), np.zeros(members, bool)
            self._steps[: len(self._before)] = self._before[:members]
        self._steps[who], self._diverged[who] = step, metrics["diverged"]
        returns = metrics["eval_return"].mean(-1)
        returns = returns[np.isfinite(returns)]
        reached = (statistics.iqm(returns), returns.min(), returns.max()) if returns.size else ()
        iqm, low, high = (float(x) for x in reached or [math.nan] * 3)
        if not math.isnan(seconds):  # they were trained, and not only told of
            # `seconds` is without compilation; what lies between two calls has the checkpoints too
            first = math.isnan(self._pace)
            passed = seconds if first else time.monotonic() - self._then
            pace = passed / (len(who) * config.eval_every)
            self._pace = pace if first else 0.7 * self._pace + 0.3 * pace
        self._then = time.monotonic()
        return {
            "step": step,
            "total_steps": config.total_steps,
            "done": float(self._steps.mean() / config.total_steps),  # of 1
            "members": len(self._steps),
            "told": len(who),
            "diverged": int(self._diverged.sum()),
            "return_iqm": iqm,
            "return_min": low,
            "return_max": high,
            "gradient_steps_per_second": len(who) * config.updates_per_epoch / seconds,
            "seconds": seconds,
            "time_left": float(self._pace * (config.total_steps - self._steps).sum()),
            "next_checkpoint": metrics["next_checkpoint"].min().item(),
        }
