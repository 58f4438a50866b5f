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
from sacjax.runs import checkpoints, processes
from sacjax.runs.directory import check_is_whole, read_config
from sacjax.runs.provenance import algorithm_name, surroundings
from sacjax.runs.result import Run, read
from sacjax.sac import make_sac
from sacjax.train import epoch_keys, make_program
from sacjax.types import InputError, must_be

_LOG = logging.getLogger("sacjax")


def load(directory: str | os.PathLike, env: Any = None, algorithm: Callable = make_sac) -> Run:
    """The run that a folder holds. `env`: the environment, where it was an object of your own; an
    `algorithm` of your own is said if it is not given again.

    Raises InputError if the folder is damaged, or is not a run's.
    """
    path = Path(directory)
    check_is_whole(path)
    written = read_config(path, env)
    _check_kinds(path, written.content)
    program = make_program(written.config, algorithm)
    other = other_algorithm(written.content, algorithm)
    try:
        found = read(path, written, program, algorithm)
    except InputError as error:
        if not other:
            raise
        raise InputError(f"{path} {other}: give that to load(..., algorithm=...)") from error
    if other:
        _LOG.warning("%s %s: its agents may act otherwise here", path, other)
    planned = len(written.settings) * len(written.seeds)
    if len(found.members) < planned:
        _LOG.warning(
            "%s: %d of %d members have agents; %s trains the others",
            *(path, len(found.members), planned, checkpoints.resuming(path)),
        )
    return found


def evaluate_run(run: Run, episodes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Greedy returns and lengths [M, episodes] of a run's agents, from its last evaluation's keys.

    With as many episodes as the run's own evaluations had, it is that last evaluation again.
    """
    must_be(Run, run, "run", "load('runs/Pendulum-v1')")
    if processes.several():
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
