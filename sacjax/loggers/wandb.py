"""Weights & Biases: an `OnEpoch` callable that logs the columns of metrics.csv."""

import json
import logging
import os
import posixpath
import secrets
from pathlib import Path
from typing import Any

from sacjax.loggers.summary import batch_name, require, scalars, survives
from sacjax.runs.files import write_text
from sacjax.types import InputError

_LOG = logging.getLogger("sacjax")


class WandB:
    """Log to one W&B run, with keys such as `eval_return/seed_3` over `env_steps`.

    `eval_return/iqm`, `/min` and `/max` aggregate over members. If a run trains in batches of
    members, each key starts with its batch, as in `members_0_3/eval_return/iqm`.

    The id of the W&B run is kept in DIRECTORY/wandb.json, and a resumed run continues it. With
    WANDB_MODE=offline, or if W&B cannot be reached, the data stay in DIRECTORY/wandb for
    `wandb sync`. The W&B run starts at the first call, because a run refuses a folder that is not
    empty. A later failure is logged once, and the run goes on without W&B; metrics.csv has
    the same numbers.
    """

    def __init__(self, directory: str | os.PathLike, *, project: str = "sacjax"):
        """Check the package and the key, before anything is trained.

        Args:
            directory: The run's folder.
            project: The W&B project.

        Raises:
            InputError: If wandb is not installed, or if W&B does not accept the key.
        """
        self._library = require("wandb", "wandb")
        _check_key(self._library)
        self._directory, self._project = Path(directory), project
        self._run: Any = None
        self.failed = False

    def __enter__(self) -> "WandB":
        return self

    @survives
    def __exit__(self, kind: Any, *_: Any) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(kind is not None))

    @survives
    def __call__(self, step: int, metrics: dict[str, Any]) -> None:
        """Log an epoch; the arguments are those of `OnEpoch`."""
        if self._run is None:
            self._run = _start(self._library, self._directory, self._project)
        keys = {posixpath.join(batch_name(metrics), tag): x for tag, x in scalars(metrics).items()}
        self._run.log({"env_steps": step} | keys)


def _check_key(wandb: Any) -> None:
    """Ask W&B whether the key is good, unless the mode is offline."""
    try:
        if wandb.setup().settings.mode != "online" or wandb.login(prompt=False):
            return
        problem = "there is no key"
    except Exception as error:
        problem = str(error)
    raise InputError(f"W&B: {problem}: call `wandb login`, or set WANDB_MODE=offline")


def _start(wandb: Any, directory: Path, project: str) -> Any:
    """Start or continue the W&B run of a folder."""
    note, about = directory / "wandb.json", directory / "config.json"
    directory.mkdir(parents=True, exist_ok=True)
    known = json.loads(note.read_text()) if note.exists() else {"id": secrets.token_hex(4)}
    known["project"] = project
    write_text(note, json.dumps(known, indent=2) + "\n")  # first: no W&B run without its id here
    options = {
        "project": project,
        "name": directory.resolve().name,
        "dir": directory,
        "id": known["id"],
        "resume": "allow",
        "config": json.loads(about.read_text()) if about.exists() else None,
        "allow_val_change": True,  # total_steps changes if the run is extended
        "reinit": "create_new",  # leaves a W&B run of the caller alone
        "settings": wandb.Settings(silent=True, console="off"),
    }
    try:
        run = wandb.init(**options)
    except Exception as error:
        _LOG.warning("W&B cannot be reached (%s): `wandb sync` sends the run later", error)
        run = wandb.init(**options, mode="offline")
    run.define_metric("*", step_metric="env_steps")
    return run
