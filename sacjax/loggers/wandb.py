"""Weights & Biases: a logger that sends the columns of metrics.csv to W&B."""

import json
import logging
import os
import posixpath
import secrets
from pathlib import Path
from typing import Any

from sacjax.loggers.summary import Logger, batch_name, require, scalars, survives
from sacjax.runs.files import expanded, write_text
from sacjax.types import InputError

_LOG = logging.getLogger("sacjax")


class WandB(Logger):
    """Log to one W&B run, with keys such as `eval_return/seed_3` over `env_steps`.

    `eval_return/iqm`, `/min` and `/max` aggregate over members. If a run trains in batches of
    members, each key starts with its batch, as in `members_0_3/eval_return/iqm`.

    DIRECTORY/wandb.json holds the id of the W&B run, so that a resumed run continues it. With
    WANDB_MODE=offline, or if W&B cannot be reached, the data stay in DIRECTORY/wandb for
    `wandb sync`.

    The W&B run starts at the first call, because a run needs an empty directory. If W&B fails
    later, sacjax logs one warning and the run continues without W&B. metrics.csv has the same
    numbers.

    >>> with WandB("runs/a", project="walkers") as wandb:
    ...   run(config, directory="runs/a", on_epoch=[wandb])
    """

    service = "wandb"

    def __init__(self, directory: str | os.PathLike, *, project: str | None = None):
        """Check that wandb is installed and that W&B accepts the key.

        Args:
          directory: the run's directory.
          project: the W&B project. None: that of DIRECTORY/wandb.json, or "sacjax".

        Raises:
          InputError: wandb is not installed, or W&B does not accept the key.
        """
        self._library = require("wandb", "wandb")
        _check_key(self._library)
        self._directory, self._project = expanded(directory), project
        self._run: Any = None

    @survives
    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(kind is not None))

    @survives
    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Log an epoch.

        Args:
          step: environment steps of each member so far.
          metrics: the epoch's metrics by name, [M, ...] each (`sacjax.types.OnEpoch`).
        """
        if self._run is None:
            self._run = _start(self._library, self._directory, self._project)
        keys = {posixpath.join(batch_name(metrics), tag): x for tag, x in scalars(metrics).items()}
        self._run.log({"env_steps": step} | keys)


def _check_key(wandb: Any) -> None:
    """Raise InputError if W&B does not accept the key. The offline mode needs no key."""
    try:
        if wandb.setup().settings.mode != "online" or wandb.login(prompt=False):
            return
        problem = "there is no key"
    except Exception as error:
        problem = str(error)
    message = f"cannot log in to W&B ({problem}): call `wandb login`, or set WANDB_MODE=offline"
    raise InputError(message, "wandb")


def _start(wandb: Any, directory: Path, project: str | None) -> Any:
    """Start or continue the W&B run of a run's directory."""
    note, about = directory / "wandb.json", directory / "config.json"
    directory.mkdir(parents=True, exist_ok=True)
    known = json.loads(note.read_text()) if note.exists() else {"id": secrets.token_hex(4)}
    project = known["project"] = project or known.get("project", "sacjax")
    write_text(note, json.dumps(known, indent=2) + "\n")  # first, so that the id cannot get lost
    options = {
        "project": project,
        "name": directory.resolve().name,
        "dir": directory,
        "id": known["id"],
        "resume": "allow",
        "config": json.loads(about.read_text()) if about.exists() else None,
        "allow_val_change": True,  # an extended run has other total_steps
        "reinit": "create_new",  # the caller may have a W&B run too
        "settings": wandb.Settings(silent=True, console="off"),
    }
    try:
        run = wandb.init(**options)
    except Exception as error:
        _LOG.warning("W&B cannot be reached (%s): run `wandb sync` later", error)
        run = wandb.init(**options, mode="offline")
    run.define_metric("*", step_metric="env_steps")
    return run
