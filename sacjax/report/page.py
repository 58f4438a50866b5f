"""A comparison as files: PNGs, and one HTML page that needs nothing else."""

import base64
import contextlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sacjax.report import comparison, figures, tables
from sacjax.report.comparison import Entry, Panel
from sacjax.report.tables import Cell
from sacjax.runs import files
from sacjax.types import InputError, RunError

PAGE = "report.html"
FIGURES = ("learning_curves.png", "profiles.png", "improvement.png")
MARK = '<meta name="generator" content="sacjax report">'  # a page of ours, which may be replaced


def write(
    entries: list[Entry], directory: str | os.PathLike, last: int = 1, command: Sequence[str] = ()
) -> list[Path]:
    """The page and its PNGs in `directory`: new, empty, or of an earlier report, which is replaced.

    InputError where it holds anything else, RunError where the files cannot be written.
    """
    path = Path(directory)
    _check_ours(path)
    panels = comparison.panels(entries)
    scored = [panel for panel in panels if panel.scores]
    several = [panel for panel in panels if len(panel.scores) > 1]
    images = {FIGURES[0]: figures.learning_curves(entries)}
    if scored:
        images[FIGURES[1]] = figures.profiles(scored, entries)
    if several:
        images[FIGURES[2]] = figures.improvements(several, entries)
    text = page(entries, panels, images, last, command)
    try:
        path.mkdir(parents=True, exist_ok=True)
        files.write_text(path / PAGE, text)  # first: with it, what follows can be replaced
        for name, image in images.items():
            files.write_bytes(path / name, image)
        for name in set(FIGURES) - set(images):  # of the report that was here
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot write to {path} ({error.strerror}): give another folder with --out"
        ) from error
    return [path / PAGE, *(path / name for name in images)]


def _check_ours(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give a folder with --out")
    there = path.iterdir() if path.exists() else ()
    names = {entry.name.removeprefix(files.PART) for entry in there}
    earlier = path / PAGE
    with contextlib.suppress(OSError):
        if not names or (
            names <= {PAGE, *FIGURES}
            and earlier.exists()
            and MARK in earlier.read_text(errors="replace")[:1000]
        ):
            return
    raise InputError(
        f"{path} holds other files than a report's: give a new folder with --out, or empty it"
    )


def page(
    entries: list[Entry],
    panels: list[Panel],
    images: dict[str, bytes],
    last: int,
    command: Sequence[str],
) -> str:
    """The HTML, made from report.html.j2."""
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("sacjax", "report")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True)
    environment.filters |= {"marked": _marked, "kind": _kind}
    envs = list(dict.fromkeys(entry.env for entry in entries))
    together = [panel for panel in panels if panel.together]
    several = [panel for panel in panels if len(panel.scores) > 1]
    return environment.get_template("report.html.j2").render(
        mark=MARK,
        title=f"Report: {', '.join(envs)}",
        what="last evaluation" if last == 1 else f"last {last} evaluations",
        notes=comparison.notes(entries),
        finals=tables.finals(entries, panels),
        together=[(tables.normalisation(x, entries), tables.totals(x, entries)) for x in together],
        matrices=[(panel.title, tables.matrix(panel)) for panel in several],
        settings=tables.settings(entries),
        runs=tables.runs(entries),
        images={name: _image(png) for name, png in images.items()},
        command=shlex.join(command),
    )


def _image(png: bytes) -> dict[str, Any]:
    """What an <img> needs. An inch is 100 pixels."""
    width = int.from_bytes(png[16:20]) * 100 // figures.DPI
    return {"width": width, "data": base64.b64encode(png).decode()}


def _kind(cell: Cell) -> str:
    """The class of a cell in the style sheet, if it has one."""
    return cell[1] if isinstance(cell, tuple) else ""


def _marked(text: str) -> Any:
    """Escaped, with `code` as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))
