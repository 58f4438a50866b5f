"""Write a comparison of runs as a self-contained HTML page, and the figures also as PNGs."""

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
MARK = '<meta name="generator" content="sacjax report">'  # marks pages that a report may replace


def write(
    entries: list[Entry], directory: str | os.PathLike, last: int = 1, command: Sequence[str] = ()
) -> list[Path]:
    """Write the HTML page and the PNGs of a report, and return the paths of these files.

    Args:
      entries: the runs to compare, with an entry for each setting and environment.
      directory: a new directory, an empty directory, or the directory of an earlier report.
      last: the number of evaluations in the score of a seed. The page shows this number.
      command: the arguments of the shell command that made the report. The page shows the
        arguments.

    Raises:
      InputError: the directory contains files that are not from a report.
      RunError: the files of the report cannot be written.
    """
    path = files.expanded(directory)
    _check_ours(path)
    panels = comparison.panels(entries)
    images = figures.draw(entries, panels)
    text = _html(entries=entries, panels=panels, images=images, last=last, command=command)
    try:
        path.mkdir(parents=True, exist_ok=True)
        files.write_text(path / PAGE, text)  # first, to mark the folder as a report
        for name in figures.NAMES:
            if name in images:
                files.write_bytes(path / name, images[name])
            else:  # an earlier report may have written this figure
                (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot write to {path} ({error.strerror}): give another folder with --out", "out"
        ) from error
    return [path / PAGE, *(path / name for name in images)]


def _check_ours(path: Path) -> None:
    """Raise InputError if the directory `path` contains files that are not from a report.

    Hidden files are ignored.
    """
    if not path.exists():
        return
    with contextlib.suppress(OSError):  # `path` may be a file or unreadable
        names = {file.name for file in path.iterdir() if not file.name.startswith(".")}
        known = names <= {PAGE, *figures.NAMES}
        if not names or (known and MARK in (path / PAGE).read_text(errors="replace")[:1000]):
            return
    raise InputError(
        f"{path} is not an earlier report: give a new folder with --out, or an empty folder", "out"
    )


def _html(**shown: Any) -> str:
    """Fill the template report.html.j2 with values, and return the HTML page."""
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("sacjax", "report")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True)
    environment.filters |= {"marked": _mark_code, "image": _encode_image, "shell": shlex.join}
    template = environment.get_template("report.html.j2")
    return template.render(mark=MARK, comparison=comparison, tables=tables, **shown)


def _encode_image(png: bytes) -> dict[str, Any]:
    """Return the data and the width of an <img> for a PNG.

    An inch has 150 pixels in the PNG, and 100 pixels on the page.
    """
    width = int.from_bytes(png[16:20]) * 100 // 150
    return {"width": width, "data": base64.b64encode(png).decode()}


def _mark_code(text: str) -> Any:
    """Escape a text for HTML, and convert each `word` in backquotes to a <code> element."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text))))
