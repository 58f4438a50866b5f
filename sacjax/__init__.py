"""Soft Actor-Critic for people who run experiments: pure JAX, compiled end to end.

Names are imported on first use, so that `import sacjax` and the command line's help are quick.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sacjax.config import Config as Config
    from sacjax.config import Hyperparams as Hyperparams
    from sacjax.devices import keep_compiled_programs as keep_compiled_programs
    from sacjax.devices import over_members as over_members
    from sacjax.devices import use_all_cores as use_all_cores
    from sacjax.networks import mlp as mlp
    from sacjax.presets import preset as preset
    from sacjax.sac import TrainState as TrainState
    from sacjax.sac import make_sac as make_sac
    from sacjax.sac import update_step as update_step
    from sacjax.train import make_program as make_program
    from sacjax.train import make_train as make_train
    from sacjax.types import Transition as Transition

__version__ = "0.1.0"

_HOMES = {
    "Config": "config",
    "Hyperparams": "config",
    "preset": "presets",
    "over_members": "devices",
    "mlp": "networks",
    "TrainState": "sac",
    "make_sac": "sac",
    "keep_compiled_programs": "devices",
    "use_all_cores": "devices",
    "update_step": "sac",
    "make_program": "train",
    "make_train": "train",
    "Transition": "types",
}

__all__ = [
    "Config",
    "Hyperparams",
    "TrainState",
    "Transition",
    "__version__",
    "keep_compiled_programs",
    "make_program",
    "make_sac",
    "make_train",
    "mlp",
    "over_members",
    "preset",
    "update_step",
    "use_all_cores",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"sacjax.{_HOMES[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"sacjax.{name}"):
        return importlib.import_module(f"sacjax.{name}")  # as in sacjax.run.load(DIR)
    raise AttributeError(f"module 'sacjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
