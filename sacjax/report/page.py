"""Write a comparison as one HTML page that needs no other file, and its figures as PNGs."""

import base64
import contextlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sacjax.report import comparison, figures, tables
from sacjax.report.comparison import Entry
from sacjax.runs import files
from sacjax.types import InputError, RunError

PAGE = "report.html"
MARK = '<meta name="generator" content="sacjax report">'  # marks pages that may be replaced


def write(
    entries: list[Entry], directory: str | os.PathLike, last: int = 1, command: Sequence[str] = ()
) -> list[Path]:
    """Write the page and its PNGs, and return their paths.

    Args:
      entries: the entries to compare.
      directory: a directory that is new, empty, or an earlier report.
      last: the number of evaluations in a seed's score, which the page mentions.
      command: the command that made the report. The page shows the command.

    Raises:
      InputError: the directory contains other files.
      RunError: the files cannot be written.
    """
    path = Path(directory)
    _check_ours(path)
    panels = comparison.panels(entries)
    images = figures.draw(entries, panels)
    text = _html(entries=entries, panels=panels, images=images, last=last, command=command)
    try:
        path.mkdir(parents=True, exist_ok=True)
        files.write_text(path / PAGE, text)  # written first: it shows that the folder is a report
        for name in figures.NAMES:
            if name in images:
                files.write_bytes(path / name, images[name])
            else:  # an earlier report may have left this figure
                (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot write to {path} ({error.strerror}): give another folder with --out", "out"
        ) from error
    return [path / PAGE, *(path / name for name in images)]


def _check_ours(path: Path) -> None:
    """Raise InputError unless `path` is new, empty, or an earlier report. Ignore hidden files."""
    if not path.exists():
        return
    with contextlib.suppress(OSError):  # `path` is a file, or not readable
        names = {file.name for file in path.iterdir() if not file.name.startswith(".")}
        known = names <= {PAGE, *figures.NAMES}
        if not names or (known and MARK in (path / PAGE).read_text(errors="replace")[:1000]):
            return
    raise InputError(
        f"{path} is not an earlier report: give a new folder with --out, or an empty folder", "out"
    )


def _html(**shown: Any) -> str:
    """Render report.html.j2."""
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("sacjax", "report")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True)
    environment.filters |= {"marked": _mark_code, "image": _encode_image, "shell": shlex.join}
    template = environment.get_template("report.html.j2")
    return template.render(mark=MARK, comparison=comparison, tables=tables, **shown)


def _encode_image(png: bytes) -> dict[str, Any]:
    """Return the content and width of an <img>. One inch is 150 pixels in the PNG, 100 in HTML."""
    width = int.from_bytes(png[16:20]) * 100 // 150
    return {"width": width, "data": base64.b64encode(png).decode()}


def _mark_code(text: str) -> Any:
    """Escape a text for HTML, and turn `code` in backquotes into <code>."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))
