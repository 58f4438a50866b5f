"""Soft Actor-Critic (SAC) in pure JAX, compiled end to end, for reinforcement-learning experiments.

`__init__.pyi` lists the public names. Python imports each name on its first use, so
`import sacjax` and `sacjax --help` are quick.
"""

import os
import sys

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

_forked_after_start = False  # whether this process was forked after JAX had started its threads


def _note_fork() -> None:
    global _forked_after_start
    bridge = sys.modules.get("jax._src.xla_bridge")
    _forked_after_start = bridge is not None and bridge.backends_are_initialized()


os.register_at_fork(after_in_child=_note_fork)
