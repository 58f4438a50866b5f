"""`import gymnax` without waiting for what only its drawings need.

Some of its modules import pyplot and seaborn (with pandas and scipy.stats) at their top: 1.3 of the
1.8 seconds that it takes. Here they get a stand-in that imports the real thing on first use.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is imported when one of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system itself
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def imported_on_first_use(*names: str) -> Iterator[None]:
    """Modules that are not loaded yet are stood in for while the `with` lasts."""
    stand_ins = {name: _Later(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
