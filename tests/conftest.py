"""Configure pytest so that all tests are strict and fast.

Rank promotion in JAX raises an error. Warnings raise errors too (see pyproject.toml). A cache on
disk stores compiled functions. Tests, their subprocesses and later test sessions use this cache.
"""

import importlib
import os
import sys
import tempfile
from pathlib import Path

from compile_options import QUICK, as_flags

CACHE = Path(tempfile.gettempdir()) / f"sacjax-test-cache-{os.getuid()}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # some tests spread members over two devices
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
ON_CPU = os.environ["JAX_PLATFORMS"].split(",")[0] == "cpu"
if not ON_CPU:  # a GPU would multiply in TF32
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    """Let XLA compile quickly in the default suite and in the suite `processes`."""
    suite = config.option.markexpr
    config.is_exact = suite not in ("processes", *config.getini("addopts"))
    if ON_CPU and not config.is_exact:
        os.environ.setdefault("XLA_FLAGS", as_flags(QUICK))


def pytest_collection_modifyitems(items):
    for item in items:
        if not ON_CPU and item.get_closest_marker("two_cpus"):
            item.add_marker(pytest.mark.skip(reason="needs the two CPU devices of this suite"))


@pytest.fixture(autouse=True, scope="session")
def shared_programs(request):
    """Reuse compiled functions between runs, except in suites that test exact bits."""
    if request.config.is_exact:
        yield
        return
    from sharing import shared

    with shared():
        yield


@pytest.fixture
def benchmark_module(monkeypatch):
    """Return a function that imports a benchmark by its name until the test ends."""
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module
    for name, module in list(sys.modules.items()):
        if folder in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]
