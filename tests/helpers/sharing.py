"""Reuse compiled functions between the runs of one test session.

Only the tests reuse compiled functions. The library compiles again in each call of `run`. With a
cache, a user who edits a notebook cell could get the compiled function of the old cell.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import pytest

from sacjax.runs import epochs
from sacjax.runs.population import Population

SETTINGS = "jax_enable_x64", "jax_default_prng_impl", "jax_default_matmul_precision"


def key_of(plan: Population) -> Any:
    """Return everything that determines the compiled functions of a population."""
    settings = tuple(jax.config.values[name] for name in SETTINGS)
    one_point = len(plan.grid.settings) == 1
    layout = tuple(plan.layout.values())
    return plan.config, plan.algorithm, plan.size, layout, one_point, settings


@contextmanager
def shared() -> Iterator[None]:
    """Cache the results of `epochs.compile_programs` for environments that run in JAX."""
    compile_programs, known = epochs.compile_programs, {}

    def compile_or_find(plan: Population, fresh: bool = True) -> epochs.Compiled:
        if plan.program.host is not None:
            return compile_programs(plan, fresh)
        key = key_of(plan)
        if key not in known or (fresh and known[key].init is None):
            known[key] = compile_programs(plan, fresh)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epochs, "compile_programs", compile_or_find)
        yield
