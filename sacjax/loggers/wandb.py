"""Weights & Biases: an `OnEpoch` callable with the columns of metrics.csv.

The W&B run starts at the first call, when the run has claimed its folder. A failure after that is
logged once and does not stop the run: metrics.csv has everything.
"""

import contextlib
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any

from sacjax.loggers.series import Series, tables_of
from sacjax.runs import files
from sacjax.types import InputError

_LOG = logging.getLogger("sacjax")


class WandB:
    """One W&B run per run: metric/seed_3 of each member, metric/iqm, /min and /max of all.

    Its id is kept in DIRECTORY/wandb.json, and a resumed run goes on with it. It is written to
    DIRECTORY/wandb, for `wandb sync`, with WANDB_MODE=offline or where W&B is not to be reached.
    """

    def __init__(self, directory: str | os.PathLike, *, project: str = "sacjax"):
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise InputError("W&B needs a package: pip install 'sacjax[wandb]'") from error
        self._check_key()
        self._directory, self._project = Path(directory), project
        self._series = Series(self._directory)
        self._run: Any = None
        self._rows: int | None = None
        self._failed = False

    def __enter__(self) -> "WandB":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._run is not None:
            with self._never_mind():
                self._run.finish(exit_code=int(kind is not None))

    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        if self._failed and self._run is None:
            return
        found = self._series(step, metrics)
        keys = {f"{metric}/{name}": x for name, row in found.items() for metric, x in row.items()}
        # W&B drops rows that go back. Those that a resumed run repeats it has; where batches of
        # members follow each other, the rows of the next go behind the last one's.
        if self._rows is None:
            self._rows = _rows_before(self._directory)
        self._rows = max(step, self._rows + 1)
        with self._never_mind():
            if self._run is None:
                self._run = self._start()
            self._run.log({"env_steps": step} | keys, step=self._rows)

    def _check_key(self) -> None:
        import wandb

        try:  # asks W&B whether the key is good
            if wandb.setup().settings.mode != "online" or wandb.login(prompt=False):
                return
            problem = "there is no key"
        except Exception as error:
            problem = str(error)
        raise InputError(f"W&B: {problem}: call `wandb login`, or set WANDB_MODE=offline")

    def _start(self) -> Any:
        import wandb

        note, about = self._directory / "wandb.json", self._directory / "config.json"
        self._directory.mkdir(parents=True, exist_ok=True)
        known = json.loads(note.read_text()) if note.exists() else {"id": secrets.token_hex(4)}
        known["project"] = self._project
        _write_note(note, known)  # before W&B knows of the run, so that none is without a note
        init: Any = wandb.init
        options = {
            "project": self._project,
            "name": self._directory.resolve().name,
            "dir": self._directory,
            "id": known["id"],
            "resume": "allow",
            "config": json.loads(about.read_text()) if about.exists() else None,
            "allow_val_change": True,  # total_steps, where the run is extended
            "reinit": "create_new",  # besides one that the caller may have
            "settings": wandb.Settings(silent=True, console="off"),
        }
        try:
            run = init(**options)
        except Exception as error:
            _LOG.warning("W&B is not to be reached (%s): `wandb sync` sends the run later", error)
            run = init(**options | {"mode": "offline"})
        run.define_metric("*", step_metric="env_steps")
        if not run.offline:
            _write_note(note, known | {"url": run.url})
        return run

    @contextlib.contextmanager
    def _never_mind(self) -> Any:
        try:
            yield
        except Exception as error:  # a service of others, with errors of many kinds
            if not self._failed:
                _LOG.warning("W&B failed, the run goes on: %s: %s", type(error).__name__, error)
            self._failed = True


def _write_note(path: Path, content: dict[str, str]) -> None:
    files.write_text(path, json.dumps(content, indent=2) + "\n")


def _rows_before(directory: Path) -> int:
    """The number of W&B's last row: of a run in batches, as if it had not been stopped."""
    steps = [metrics["env_steps"] for _, metrics in tables_of(directory)]
    further = sum(x.shape[1] for x in steps[1:])
    return int(steps[0][0, -1]) + further - 1 if further else -1
