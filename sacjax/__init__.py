"""Soft Actor-Critic for people who run experiments: pure JAX, compiled end to end.

`__init__.pyi` lists the public names. They are imported on first use, so that `import sacjax` and
the command line's help are quick.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
