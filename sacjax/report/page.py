"""A comparison as files: PNGs, and one HTML page that needs nothing else."""

import base64
import contextlib
import html
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from sacjax.report import comparison, figures, tables
from sacjax.report.comparison import Entry, Panel
from sacjax.report.tables import Cell
from sacjax.runs import files
from sacjax.types import InputError, RunError

PAGE = "report.html"
FIGURES = ("learning_curves.png", "profiles.png", "improvement.png")
MARK = '<meta name="generator" content="sacjax report">'  # a page of ours, which may be replaced

STYLE = """\
:root { color-scheme: light dark; --ink: #24292f; --soft: #59636e; --paper: #fff; --line: #d7dce1;
  --mark: #fff6dd; --edge: #d9a400; --good: #1a7f3718; --bad: #cf222e14; }
@media (prefers-color-scheme: dark) { :root { --ink: #d8dee6; --soft: #98a3ae; --paper: #15191f;
  --line: #343b44; --mark: #2d2816; --edge: #b58900; --good: #3fb95024; --bad: #f8514924; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 70rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, ul { max-width: 46rem; margin: .4rem 0; } p.soft, td.soft { color: var(--soft); }
.notes { background: var(--mark); border-left: 4px solid var(--edge); padding: .6rem 1rem;
  margin: 1.2rem 0; } .notes ul { padding-left: 1.1rem; margin: 0; }
.notes code { white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
  margin: .6rem 0; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; } th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.good { background: var(--good); } td.bad { background: var(--bad); }
.good, .bad, .even { padding-left: .6rem; } td.good, td.bad, td.even { white-space: nowrap; }
td:first-child { min-width: 8rem; } td, th { max-width: 22rem; overflow-wrap: break-word; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; margin: .8rem 0; }
"""


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
    drawn = {}
    for dark in (False, True):
        drawn[dark] = {FIGURES[0]: figures.learning_curves(entries, dark)}
        if scored:
            drawn[dark][FIGURES[1]] = figures.profiles(scored, entries, dark)
        if several:
            drawn[dark][FIGURES[2]] = figures.improvements(several, entries, dark)
    text = page(entries, panels, drawn[False], drawn[True], last, command)
    try:
        path.mkdir(parents=True, exist_ok=True)
        files.write_text(path / PAGE, text)  # first: with it, what follows can be replaced
        for name, image in drawn[False].items():
            files.write_bytes(path / name, image)
        for name in set(FIGURES) - set(drawn[False]):  # of the report that was here
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot write to {path} ({error.strerror}): give another folder with --out"
        ) from error
    return [path / PAGE, *(path / name for name in drawn[False])]


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
    light: dict[str, bytes],
    dark: dict[str, bytes],
    last: int,
    command: Sequence[str],
) -> str:
    """The HTML."""
    envs = list(dict.fromkeys(entry.env for entry in entries))
    title = f"Report: {', '.join(envs)}"
    what = "last evaluation" if last == 1 else f"last {last} evaluations"
    said = comparison.notes(entries)
    together = [panel for panel in panels if panel.together]
    scored = (
        f"A seed's score is its mean return over the greedy episodes of its {what}. IQM is the "
        "mean of the middle half of the seeds; [ ] are 95% stratified bootstrap intervals over "
        "seeds (Agarwal et al. 2021, arXiv:2108.13264)."
    )
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _text(scored),
        f'<div class="notes"><ul>{_items(said)}</ul></div>' if said else "",
        "<h2>Final returns</h2>",
        _table(*tables.finals(entries, panels)),
        "<h2>Learning curves</h2>",
        _picture(FIGURES[0], light, dark, "learning curves"),
        _text("Lines: IQM with its interval; faint: single seeds, those that diverged too."),
    ]
    for panel in together:
        parts += ["<h2>All environments</h2>", _text(tables.normalisation(panel, entries))]
        parts.append(_table(*tables.totals(panel, entries)))
    if FIGURES[1] in light:
        parts += ["<h2>Performance profiles</h2>", _picture(FIGURES[1], light, dark, "profiles")]
        parts.append(
            _text(
                "The fraction of seeds that score above τ, with pointwise 95% intervals: a curve "
                "that is higher everywhere is better at every level; if they cross, neither is."
            )
        )
    if FIGURES[2] in light:
        parts += ["<h2>Probability of improvement</h2>"]
        parts.append(_picture(FIGURES[2], light, dark, "probability of improvement"))
        parts.append(
            _text(
                "How likely a random seed of the row beats one of the column; ties count half. It "
                "says how often, not by how much. Shaded where the interval leaves out one half. "
                "With few seeds the bootstrap is too narrow: [1.00, 1.00] says that every seed "
                "here beat every other, not that it always would."
            )
        )
        for panel in panels:
            if len(panel.scores) > 1:
                parts += [f"<h3>{html.escape(panel.title)}</h3>", _table(*tables.matrix(panel))]
    differ = tables.settings(entries)
    same = _text("None: the runs have the same settings, the environment aside.")
    parts += ["<h2>Settings that differ</h2>", _table(*differ) if differ[1] else same]
    parts += ["<h2>Runs</h2>", _table(*tables.runs(entries))]
    if command:
        parts.append(f"<p>Made by <code>{html.escape(shlex.join(command))}</code></p>")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _table(names: list[str], rows: list[list[Cell]]) -> str:
    def cell(x: Cell, tag: str = "td") -> str:
        text, kind = x if isinstance(x, tuple) else (x, "")
        return f"<{tag}{f' class={kind!r}' if kind else ''}>{html.escape(text)}</{tag}>"

    kinds = [x[1] if isinstance(x, tuple) else "" for x in rows[0]]
    kinds = [kind if kind in ("", "number") else "even" for kind in kinds]
    head = "".join(cell((name, kind), "th") for name, kind in zip(names, kinds, strict=True))
    body = "\n".join(f"<tr>{''.join(cell(x) for x in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _picture(name: str, light: dict[str, bytes], dark: dict[str, bytes], alt: str) -> str:
    """The light image, or the dark one where the reader's browser is."""
    day, night = (base64.b64encode(images[name]).decode() for images in (light, dark))
    width = (
        int.from_bytes(light[name][16:20]) * 100 // figures.DPI
    )  # a PNG's; an inch is 100 pixels
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" '
        f'srcset="data:image/png;base64,{night}">'
        f'<img alt="{alt}" width="{width}" src="data:image/png;base64,{day}"></picture>'
    )


def _text(text: str) -> str:
    return f'<p class="soft">{_marked(text)}</p>'


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{_marked(text)}</li>" for text in texts)


def _marked(text: str) -> str:
    """Escaped, with `code` as code."""
    return re.sub("`(.+?)`", r"<code>\1</code>", html.escape(text))
