"""A comparison as files: PNGs, and one HTML page that needs nothing else; and as a text table."""

import base64
import contextlib
import html
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sacjax import comparison, folder, plots
from sacjax.comparison import Entry, Estimate, Panel, finite, runs_of
from sacjax.types import InputError, RunError

PAGE = "report.html"
FIGURES = ("learning_curves.png", "profiles.png", "improvement.png")
MARK = '<meta name="generator" content="sacjax report">'  # a page of ours, which may be replaced
Cell = str | tuple[str, str]  # text, or text and a class of the style sheet

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
        drawn[dark] = {FIGURES[0]: plots.learning_curves(entries, dark)}
        if scored:
            drawn[dark][FIGURES[1]] = plots.profiles(scored, entries, dark)
        if several:
            drawn[dark][FIGURES[2]] = plots.improvements(several, entries, dark)
    text = page(entries, panels, drawn[False], drawn[True], last, command)
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder.write_text(path / PAGE, text)  # first: with it, what follows can be replaced
        for name, image in drawn[False].items():
            folder.write_bytes(path / name, image)
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
    names = {entry.name.removesuffix(".part") for entry in path.iterdir()} if path.exists() else ()
    earlier = path / PAGE
    with contextlib.suppress(OSError):
        if not names or (
            set(names) <= {PAGE, *FIGURES}
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
        _table(*finals(entries, panels)),
        "<h2>Learning curves</h2>",
        _picture(FIGURES[0], light, dark, "learning curves"),
        _text("Lines: IQM with its interval; faint: single seeds, those that diverged too."),
    ]
    for panel in together:
        parts += ["<h2>All environments</h2>", _text(_normalisation(panel, entries))]
        parts.append(_table(*_totals(panel, entries)))
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
                parts += [f"<h3>{html.escape(panel.title)}</h3>", _table(*_matrix(panel))]
    parts += ["<h2>Settings that differ</h2>", _settings(entries)]
    parts += ["<h2>Runs</h2>", _table(*_runs(entries))]
    if command:
        parts.append(f"<p>Made by <code>{html.escape(shlex.join(command))}</code></p>")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def finals(entries: list[Entry], panels: list[Panel]) -> tuple[list[str], list[list[Cell]]]:
    """Names of columns, and a row per entry, the environments' after each other."""
    scores = {panel.title: panel.scores for panel in panels}
    rows: list[list[Cell]] = []
    for env in dict.fromkeys(entry.env for entry in entries):
        first = next(iter(scores[env]), None)
        for entry in (entry for entry in entries if entry.env == env):
            ends, seeds = finite(entry), len(entry.seeds)
            row = [env, entry.label, f"{len(ends)} of {seeds}" if len(ends) < seeds else str(seeds)]
            row.append(f"{entry.steps[-1]:,.0f}")
            if len(ends):
                middle = comparison.iqm([ends])
                row += [number(middle.value), spread(middle), number(ends.min())]
                better = comparison.improvement([ends], next(iter(scores[env].values())))
                row.append("-" if entry.label == first else _beats(better, first, entries))
            else:
                row += ["all diverged", "", "", ""]
            rows.append([row[0], row[1], *((cell, "number") for cell in row[2:])])
    names = ["environment", "run", "seeds", "steps", "IQM", "95% interval", "worst seed"]
    return [*names, "P(beats first)"], rows


def _beats(better: Estimate, first: str | None, entries: list[Entry]) -> str:
    """Where the first run of all has no score here, it says whom instead."""
    return estimate(better, ".2f") + ("" if first == entries[0].label else f" (beats {first})")


def table(entries: list[Entry]) -> str:
    """Text: `finals`, the aggregate if there is one, and the notes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=120, highlight=False)
    panels = comparison.panels(entries)
    shown = [finals(entries, panels)]
    together = [panel for panel in panels if panel.together]
    shown += [_totals(panel, entries) for panel in together]
    said = [_normalisation(panel, entries) for panel in together] + comparison.notes(entries)
    with console.capture() as capture:
        for names, rows in shown:
            view = Table(show_edge=False, pad_edge=False)
            for i, name in enumerate(names):
                justify = "right" if rows and isinstance(rows[0][i], tuple) else "left"
                view.add_column(name, justify=justify, overflow="fold")
            for row in rows:
                view.add_row(*(Text(cell if isinstance(cell, str) else cell[0]) for cell in row))
            console.print(view)
            console.print()
        for note in said:
            console.print(Text(f"- {note}"))
    return capture.get().rstrip("\n")


def number(x: float) -> str:
    """As many decimals as say something: -1,234.5, 2.61, 0.031."""
    return f"{x:,.{1 if abs(x) >= 10 else 2 if abs(x) >= 1 else 3}f}"


def spread(x: Estimate) -> str:
    return f"[{number(x.low)}, {number(x.high)}]" if np.isfinite(x.low) else "one seed has none"


def estimate(x: Estimate, digits: str) -> str:
    """Value and interval."""
    ends = f" [{x.low:{digits}}, {x.high:{digits}}]" if np.isfinite(x.low) else ""
    return f"{x.value:{digits}}{ends}"


def _totals(panel: Panel, entries: list[Entry]) -> tuple[list[str], list[list[Cell]]]:
    first = next(iter(panel.scores))
    rows: list[list[Cell]] = []
    for label, scores in panel.scores.items():
        better = comparison.improvement(scores, panel.scores[first])
        cells = [estimate(comparison.iqm(scores), ".3f")]
        cells.append("-" if label == first else _beats(better, first, entries))
        rows.append([label, *((cell, "number") for cell in cells)])
    return ["all environments", "normalised IQM [95%]", "P(beats first)"], rows


def _normalisation(panel: Panel, entries: list[Entry]) -> str:
    missing = {entry.label for entry in entries} - set(panel.scores)
    text = (
        "Runs of the same name, over the environments. In each environment the lowest score of any "
        "seed shown is 0 and the highest 1, so these numbers hold within this report only. "
        "Every score counts once in the IQM; the improvement is the mean over environments."
    )
    left = f" Not run in every environment, or all diverged: {', '.join(sorted(missing))}."
    return text + (left if missing else "")


def _matrix(panel: Panel) -> tuple[list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = []
    for label, scores in panel.scores.items():
        row: list[Cell] = [label]
        for other, others in panel.scores.items():
            p = comparison.improvement(scores, others)
            shade = "good" if p.low > 0.5 else "bad" if p.high < 0.5 else "even"
            row.append(("", "even") if other == label else (estimate(p, ".2f"), shade))
        rows.append(row)
    return ["P(row better than column)", *panel.scores], rows


def _settings(entries: list[Entry]) -> str:
    names = comparison.differing(entries)
    if not names:
        return _text("None: the runs have the same settings, the environment aside.")
    rows: list[list[Cell]] = [
        [entry.env, entry.label, *(_value(entry.settings[name]) for name in names)]
        for entry in entries
    ]
    return _table(["environment", "run", *names], rows)


def _value(x: Any) -> str:
    return f"{x:,g}" if isinstance(x, float) else f"{x:,}" if type(x) is int else str(x)


def _runs(entries: list[Entry]) -> tuple[list[str], list[list[Cell]]]:
    rows: list[list[Cell]] = []
    for run in runs_of(entries):
        entry, content, seeds = run[0], run[0].content, run[0].content["seeds"]
        whole = seeds == list(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) > 2
        device, versions = content["device"], content["versions"]
        rows.append(
            [
                str(entry.directory),
                entry.env,
                f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds)),
                f"{comparison.reached(run)} of {entry.settings['total_steps']:,}",
                ", ".join(f"{n} {versions.get(n)}" for n in ("sacjax", "jax", "gymnax", "python")),
                f"{device.get('count')} x {device.get('kind')}, {device.get('cpu')}",
                shlex.join(map(str, content.get("command") or [])) or "from Python",
            ]
        )
    return ["folder", "environment", "seeds", "steps", "versions", "device", "command"], rows


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
    width = int.from_bytes(light[name][16:20]) * 100 // plots.DPI  # a PNG's; an inch is 100 pixels
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
