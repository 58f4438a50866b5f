"""Soft Actor-Critic (SAC) in pure JAX, compiled end to end, for reinforcement-learning experiments.

`__init__.pyi` lists the public names. Python imports each name when it is first used, so
`import sacjax` and `sacjax --help` are quick.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
