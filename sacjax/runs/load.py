"""Read runs from their folders, and evaluate their agents again."""

import importlib.util
import itertools
import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sacjax.bits import as_arrays
from sacjax.config import Hyperparams
from sacjax.devices import layout, over_members
from sacjax.envs.host import for_a_while
from sacjax.envs.names import own_module
from sacjax.own import OWN, used
from sacjax.runs import directory as folders
from sacjax.runs.files import expanded
from sacjax.runs.population import Layout, Population
from sacjax.runs.processes import several
from sacjax.runs.provenance import Description, algorithm_name, check_jax_settings
from sacjax.runs.result import Run, best_epochs, merge, read
from sacjax.sac import make_sac
from sacjax.train import MakeAlgorithm, epoch_keys, make_program
from sacjax.types import InputError
from sacjax.validation import must_be

_LOG = logging.getLogger("sacjax")


def load(
    directory: str | os.PathLike,
    env: Any = None,
    algorithm: MakeAlgorithm | None = None,
    trust: bool = False,
    best: bool = False,
) -> Run:
    """Read a run from its folder.

    A stopped run can be loaded too. If a batch of the run has no agents yet, sacjax warns and omits
    the members of the batch.

    Args:
      directory: the folder that `run` wrote.
      env: the environment of the run, if it was an object. A folder stores only the object's name.
      algorithm: the function that made the run's algorithm. If it is None, sacjax uses the
        "module:Name" in config.json, or `make_sac` if config.json contains no "module:Name". If
        config.json names a different algorithm, sacjax warns, because the policy may behave
        differently.
      trust: If True, import the modules that config.json names. Only an environment or an
        algorithm with a name such as "module:Name" needs such a module. You can instead pass the
        names as `env` or `algorithm`.
      best: If True, read the copy of each member's agent from the member's best evaluation. Only
        runs with `keep_best=True` save these copies.
        The field `epochs` of the run then contains the epoch of each member's best evaluation.

    Returns:
      The run. The leaves of its agents are NumPy arrays.

    Raises:
      InputError: `directory` is not the folder of a run, or a file in the folder is damaged.
    """
    path = expanded(directory)
    folders.check_is_run(path)
    saved = folders.read_config(path, env)
    algorithm = choose_algorithm(path, saved, env, algorithm, trust)
    check_jax_settings(str(path), saved.content["jax"], exact=False)
    program = make_program(saved.config, algorithm)
    here = Layout(strategy="auto", devices=1)
    whole = Population(saved.config, saved.grid, None, program, algorithm, here)
    mismatch = describe_mismatch(saved.content, algorithm)
    places = folders.batches(path) or [path]
    trained = [place for place in places if (place / "agents").is_dir()] or places[:1]
    grids = [folders.read_config(place, env).grid for place in trained]
    try:
        runs = [read(whole._replace(grid=x), y, best) for x, y in zip(grids, trained, strict=True)]
    except InputError as error:
        if not mismatch:
            raise
        raise InputError(
            f"{path} {mismatch}: pass the run's algorithm to load(..., algorithm=...)", "algorithm"
        ) from error
    found = merge(runs, whole.size)
    if best:
        found = found._replace(epochs=best_epochs(found.metrics["eval_return"]))
    if mismatch:
        _LOG.warning("%s %s: its policy may behave differently", path, mismatch)
    if len(found.members) < whole.size:
        _LOG.warning(
            f"{path}: only {len(found.members)} of {whole.size} members have agents; "
            f"{folders.resume_command(path)} trains the others"
        )
    return found


def evaluate_run(run: Run, episodes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate the agents of a run again, with the PRNG keys of the last evaluation.

    If `episodes` is None, the returns equal the returns of the last evaluation, up to rounding.

    Args:
      run: the result of `sacjax.run`, `resume` or `load`.
      episodes: the number of greedy episodes per agent, or None for `run.config.eval_episodes`.

    Returns:
      Undiscounted returns [M, episodes], and episode lengths [M, episodes] in environment steps.

    Raises:
      InputError: `run` is not a Run, or JAX has several processes.
    """
    must_be(Run, run, "run", "load('runs/Pendulum-v1')")
    if several():
        raise InputError("several processes cannot evaluate a run: load the run in one process")
    program = run.program
    if episodes is not None and episodes != run.config.eval_episodes:
        program = make_program(replace(run.config, eval_episodes=episodes), run.algorithm)
    keys = jax.vmap(lambda key, epoch: epoch_keys(key, epoch)[1])(run.keys, run.epochs - 1)
    _, env_params = as_arrays(Hyperparams(), program.default_params)
    if program.host is not None:  # outside of JAX, members run one at a time
        evaluate = jax.jit(program.evaluate)
        with for_a_while(program.host, run.config.env):
            results = [evaluate(run.agent(i), keys[i], env_params) for i in range(len(keys))]
            returns, lengths = (np.stack(x) for x in zip(*results, strict=True))
        return returns, lengths
    strategy, _ = layout(len(run.members))  # as in training, to change only the rounding
    evaluate = jax.jit(over_members(program.evaluate, (0, 0, None), strategy=strategy, devices=1))
    returns, lengths = evaluate(run.agents, keys, env_params)
    return np.asarray(returns), np.asarray(lengths)


def choose_algorithm(
    path: Path, saved: folders.SavedConfig, env: Any, algorithm: MakeAlgorithm | None, trust: bool
) -> MakeAlgorithm:
    """Return the given algorithm, or else the algorithm that config.json names.

    Raises InputError if a user's module is inside the run's folder. Also raises InputError if
    `trust` is False and only config.json names a user's module.
    """
    stored = str(saved.content.get("algorithm"))
    chosen = algorithm or (stored if OWN.fullmatch(stored) else make_sac)
    for field, name, given in (("env", saved.config.env, env), ("algorithm", chosen, algorithm)):
        module, problem = own_module(name), ""
        if module and given is None and not trust and name not in used:
            problem = f"pass --trust (trust=True) to import it, or {field} {name} again"
        elif module and _is_inside(module, path.resolve()):
            problem = "sacjax runs no code from a run's folder, so move it to another one"
        if problem:
            text = f"{path / 'config.json'} names the module {module} ({name}): {problem}"
            raise InputError(text, field)
    return chosen


def _is_inside(module: str, directory: Path) -> bool:
    """Return whether a module or one of its parent packages is in a directory."""
    with suppress(Exception):  # the later import raises the error
        for name in itertools.accumulate(module.split("."), "{}.{}".format):  # parents first
            spec = importlib.util.find_spec(name)
            places = [spec.origin, *(spec.submodule_search_locations or [])] if spec else []
            if any(Path(x).resolve().is_relative_to(directory) for x in places if x):
                return True
    return False


def describe_mismatch(content: Description, algorithm: MakeAlgorithm) -> str:
    """Return a warning if config.json names a different algorithm, else ""."""
    trained_with, given = content.get("algorithm"), algorithm_name(algorithm)
    same = trained_with in (None, given) or trained_with.endswith(f":{given}")
    if same or given.endswith(f":{trained_with}"):  # a name and its function
        return ""
    return f"was trained with the algorithm {trained_with}, not {given}"
