"""Suggest the right name if a user gives an unknown setting."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

from sacjax.types import InputError

# Names of settings in other libraries, and the corresponding fields in sacjax.
OTHER_NAMES = {
    "alpha": "init_alpha and alpha_lr",
    "buffer_size": "replay_size",
    "discount": "gamma",
    "ent_coef": "init_alpha and alpha_lr",
    "entropy_coefficient": "init_alpha and alpha_lr",
    "gradient_steps": "utd",
    "hidden_sizes": "hidden",
    "learning_rate": "actor_lr, critic_lr and alpha_lr",
    "learning_starts": "warmup_steps",
    "lr": "actor_lr, critic_lr and alpha_lr",
    "net_arch": "hidden",
    "polyak": "tau",
    "replay_buffer_size": "replay_size",
    "target_entropy": "target_entropy_per_dim",
    "total_timesteps": "total_steps",
}


def right_name(name: str, known: Iterable[str]) -> str:
    """Return a suggestion for an unknown name, such as "use gamma"."""
    if name in OTHER_NAMES:
        return f"use {OTHER_NAMES[name]}"
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f"use {', '.join(close)}" if close else "see Config and Hyperparams"


def check_names(cls: type, fields: dict[str, Any], other: type) -> None:
    """Raise InputError if a name in `fields` is not a field of `cls`, and suggest a name."""
    known, others = ({f.name for f in dataclasses.fields(x)} for x in (cls, other))
    for name in fields.keys() - known:
        remedy = f"it is a field of {other.__name__}" if name in others else right_name(name, known)
        if name not in others and name in OTHER_NAMES:
            first = OTHER_NAMES[name].split(",")[0].split(" ")[0]
            where = other if first in others else cls
            remedy += f" of {where.__name__}"
        raise InputError(f"{cls.__name__} has no field {name!r}: {remedy}", name)
