"""Strictness and speed for the whole suite.

Ranks never promote silently and warnings are errors (pyproject.toml). XLA programs are kept in a
cache for the session, so that tests, processes started by tests, and repeated runs share them.
"""

import os
import tempfile
from pathlib import Path

CACHE = Path(tempfile.gettempdir()) / f"sacjax-test-cache-{os.getuid()}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
