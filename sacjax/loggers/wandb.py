"""A logger that sends the columns of metrics.csv to Weights & Biases (W&B)."""

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
    """Log to one W&B run. W&B plots keys such as `eval_return/seed_3` over `env_steps`.

    The keys `eval_return/iqm`, `eval_return/min` and `eval_return/max` aggregate over members. If a
    run trains in batches of members, each key starts with the name of the batch, as in
    `members_0_3/eval_return/iqm`.

    DIRECTORY/wandb.json stores the id of the W&B run, so that a resumed run continues the same W&B
    run. If WANDB_MODE is offline or W&B cannot be reached, the data stay in DIRECTORY/wandb. The
    command `wandb sync` uploads the data later.

    The W&B run starts at the first call, because `sacjax.run` needs an empty folder. If W&B fails
    later, sacjax logs one warning and continues without W&B. All numbers are also in metrics.csv.

    >>> with WandB("runs/a", project="walkers") as wandb:
    ...   run(config, directory="runs/a", on_epoch=[wandb])
    """

    service = "wandb"

    def __init__(self, directory: str | os.PathLike, *, project: str | None = None):
        """Check that wandb is installed and that W&B accepts the API key.

        Args:
          directory: the run's directory.
          project: the W&B project. By default, the project in DIRECTORY/wandb.json. If this
            file does not exist, the project is "sacjax".

        Raises:
          InputError: wandb is not installed, or W&B does not accept the API key.
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
          step: the number of environment steps of each member so far.
          metrics: the metrics [M, ...] of the epoch by name, as in `sacjax.types.OnEpoch`.
        """
        if self._run is None:
            self._run = _start(self._library, self._directory, self._project)
        keys = {posixpath.join(batch_name(metrics), tag): x for tag, x in scalars(metrics).items()}
        self._run.log({"env_steps": step} | keys)


def _check_key(wandb: Any) -> None:
    """Raise InputError if W&B does not accept the API key. The offline mode needs no key."""
    try:
        if wandb.setup().settings.mode != "online" or wandb.login(prompt=False):
            return
        problem = "there is no key"
    except Exception as error:
        problem = str(error)
    message = f"cannot log in to W&B ({problem}): call `wandb login`, or set WANDB_MODE=offline"
    raise InputError(message, "wandb")


def _start(wandb: Any, directory: Path, project: str | None) -> Any:
    """Start or continue the W&B run that belongs to `directory`."""
    note, about = directory / "wandb.json", directory / "config.json"
    directory.mkdir(parents=True, exist_ok=True)
    known = json.loads(note.read_text()) if note.exists() else {"id": secrets.token_hex(4)}
    project = known["project"] = project or known.get("project", "sacjax")
    write_text(note, json.dumps(known, indent=2) + "\n")  # first, so that a crash keeps the id
    options = {
        "project": project,
        "name": directory.resolve().name,
        "dir": directory,
        "id": known["id"],
        "resume": "allow",
        "config": json.loads(about.read_text()) if about.exists() else None,
        "allow_val_change": True,  # an extended run changes total_steps
        "reinit": "create_new",  # the caller may have another W&B run
        "settings": wandb.Settings(silent=True, console="off"),
    }
    try:
        run = wandb.init(**options)
    except Exception as error:
        _LOG.warning("W&B cannot be reached (%s): run `wandb sync` later", error)
        run = wandb.init(**options, mode="offline")
    run.define_metric("*", step_metric="env_steps")
    return run
