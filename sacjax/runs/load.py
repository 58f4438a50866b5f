"""Runs read back from their folders, and evaluated again."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sacjax.bits import as_arrays
from sacjax.config import Hyperparams
from sacjax.devices import layout, over_members
from sacjax.envs.host import for_a_while
from sacjax.runs import directory as folders
from sacjax.runs.population import Population
from sacjax.runs.processes import several
from sacjax.runs.provenance import algorithm_name, surroundings
from sacjax.runs.result import Run, merged, read
from sacjax.sac import make_sac
from sacjax.train import epoch_keys, make_program
from sacjax.types import InputError
from sacjax.validation import must_be

_LOG = logging.getLogger("sacjax")


def load(directory: str | os.PathLike, env: Any = None, algorithm: Callable = make_sac) -> Run:
    """Read the run in a folder.

    Args:
      directory: what `run` wrote to.
      env: the environment, where the run's was an object.
      algorithm: the run's own `algorithm`. A warning says if it has another name.

    Raises:
      InputError: the folder is damaged, or is not a run's.
    """
    path = Path(directory)
    folders.check_is_run(path)
    written = folders.read_config(path, env)
    _check_kinds(path, written.content)
    program = make_program(written.config, algorithm)
    whole = Population(written.config, written.grid, None, program, algorithm, {})
    other = other_algorithm(written.content, algorithm)
    places = folders.batches(path) or [path]
    there = [place for place in places if (place / "agents").is_dir()] or places[:1]
    grids = [folders.read_config(place, env).grid for place in there]
    try:
        runs = [read(whole._replace(grid=x), y) for x, y in zip(grids, there, strict=True)]
    except InputError as error:
        if not other:
            raise
        raise InputError(f"{path} {other}: give that to load(..., algorithm=...)") from error
    found = merged(runs, whole.size)
    if other:
        _LOG.warning("%s %s: its agents may act otherwise here", path, other)
    if len(found.members) < whole.size:
        _LOG.warning(
            "%s: %d of %d members have agents; %s trains the others",
            *(path, len(found.members), whole.size, folders.resume_command(path)),
        )
    return found


def evaluate_run(run: Run, episodes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Greedy returns and lengths [M, episodes] of a run's agents, from its last evaluation's keys.

    With as many episodes as the run's own evaluations had, it repeats the last one.
    """
    must_be(Run, run, "run", "load('runs/Pendulum-v1')")
    if several():
        raise InputError("several processes cannot evaluate a run together: load it in one")
    program = run.program
    if episodes is not None and episodes != run.config.eval_episodes:
        program = make_program(replace(run.config, eval_episodes=episodes), run.algorithm)
    keys = jax.vmap(lambda key, epoch: epoch_keys(key, epoch)[1])(run.keys, run.epochs - 1)
    _, env_params = as_arrays(Hyperparams(), program.default_params)
    if program.host is not None:  # outside of JAX: one after the other
        evaluate = jax.jit(program.evaluate)
        with for_a_while(program.host, run.config.env):
            results = [
                evaluate(jax.tree.map(lambda x: x[i], run.agents), keys[i], env_params)  # noqa: B023
                for i in range(len(run.members))
            ]
            returns, lengths = (np.stack(x) for x in zip(*results, strict=True))
        return returns, lengths
    strategy, _ = layout(len(run.members))  # as in training, to the rounding
    evaluate = jax.jit(over_members(program.evaluate, (0, 0, None), strategy=strategy, devices=1))
    returns, lengths = evaluate(run.agents, keys, env_params)
    return np.asarray(returns), np.asarray(lengths)


def _check_kinds(path: Path, content: dict[str, Any]) -> None:
    """Of its numbers, which can be converted, and of its keys, which cannot."""
    around = content.get("jax")
    then, now = around if isinstance(around, dict) else {}, surroundings()["jax"]
    here, there = now["x64"], then.get("x64", now["x64"])
    if there != here:
        _LOG.warning(
            "%s was trained with jax_enable_x64=%s and is loaded with %s: its numbers are rounded, "
            "or computed otherwise",
            *(path, there, here),
        )
    if (prng := then.get("prng", now["prng"])) != now["prng"]:
        raise InputError(f"the keys of {path} are of {prng}: set JAX_DEFAULT_PRNG_IMPL={prng}")


def other_algorithm(content: dict[str, Any], algorithm: Callable) -> str:
    """What is wrong, if it is not the run's own, as far as names say."""
    was, here = content.get("algorithm"), algorithm_name(algorithm)
    return "" if was in (None, here) else f"was trained with the algorithm {was}, not {here}"
