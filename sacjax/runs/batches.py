"""The folders of a population that is trained in batches, one below another."""

import logging
from pathlib import Path
from typing import Any

from sacjax.runs import directory, files, processes, recorder
from sacjax.runs.divergence import Divergence
from sacjax.runs.population import Population
from sacjax.runs.result import Run, all_diverged, read_one
from sacjax.types import InputError

_LOG = logging.getLogger("sacjax")


def is_begun(population: Population, path: Path) -> bool:
    """Whether this batch is in its folder. InputError where another one is."""

    def check() -> bool:
        if not (path / "config.json").exists():
            return False
        recorder.same_run(population, directory.read_config(path, population.config.env).content)
        return True

    return bool(processes.of_first(bool(processes.first(check))))


def at_hand(population: Population, path: Path) -> Run | None:
    """What a batch's folder holds, so far; None where its files are not all in order, which are
    then made anew from its last checkpoint."""
    if not processes.of_first((path / "agents").is_dir()):
        return None
    done = None
    try:
        who = population.config, population.settings, population.swept, population.seeds
        written = directory.Written(*who, population.description())
        done = read_one(path, written, population.program, population.algorithm)
    except InputError as error:
        _LOG.warning("%s: making it anew", error)
    return None if processes.any_of(done is None) else done


def begin_batch(place: Path, content: dict[str, Any], again: bool) -> None:
    """Make a batch's folder and its config.json. RunError if that fails."""
    with directory.written(place):
        place.mkdir(parents=True, exist_ok=True)
    directory.write_config(place, content, again)


def write_table(path: Path | None, population: Population, runs: list[Run]) -> None:
    """Write metrics.csv, the curve and who diverged, of all batches so far."""
    if path is not None:
        processes.first(lambda: _write_table(path, population, all_diverged(runs)))


def _write_table(path: Path, population: Population, diverged: list[Divergence]) -> None:
    """metrics.csv, the curve and who diverged, of all batches so far."""
    tables = directory.tables(path)
    texts = [table.read_text() for table in tables]
    header, whole = texts[0].partition("\n")[0] + "\n", path / "metrics.csv"
    with directory.written(path):
        files.write_text(whole, header + "".join(t.partition("\n")[2] for t in texts))
        recorder.write_curve(path, population, tables)
        directory.write_diverged(path, diverged, population.members, population.config)
