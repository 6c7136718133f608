"""One self-contained, offline page of a run: `report.html` in its folder.

Everything is inline; the content security policy allows exactly the style and the scripts of this file, by hash, and
nothing from the network but, to a page that is served, what served it. Text from the run reaches the page through
Jinja's escaping only.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reelign.files import write_text
from reelign.report import (
    caveats,
    clips,
    curves,
    facts,
    headline,
    looks,
    quantities,
    slices,
    standing,
    stations,
    strips,
    tables,
    words,
)
from reelign.report.load import load
from reelign.report.run import BASE, Run

PIXELATED_BELOW = 256
"""Videos narrower than this are enlarged without smoothing: they are small worlds, not small films."""
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Panel:
    """What the page shows of one view of a run."""

    run: Run
    table: tables.MeasureTable
    marks: dict[tuple[str, str], Markup]
    slices: list[slices.SliceTable]
    diversity: list[tuple[tables.Row, dict[str, float], dict[str, Markup]]]

    @classmethod
    def of(cls, view: Run) -> "Panel":
        """Compute it."""
        table = tables.measure_table(view)
        by_slice = [found for found in slices.slice_tables(view).values() if found.rows or found.crowded]
        return cls(view, table, _marks(table), by_slice, _diversity(table))


def write(run: Path) -> Path:
    """Build the report of a run folder; an earlier report is replaced in one piece.

    Args:
        run: the folder, finished or not.

    Returns:
        The path of `report.html`.

    Raises:
        UserError: the folder is no run, or its files do not read.
    """
    read = load(run)
    target = read.folder / "report.html"
    write_text(target, render(read))
    return target


def templates(folder: Path) -> Environment:
    """The templates of a folder; they escape what they are given, and a name that is not given is an error."""
    loader = FileSystemLoader(folder)
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for each in (words.title, words.plain, words.number, words.signed, words.seconds, words.shortened, words.count):
        found.filters[each.__name__] = each
    found.filters.update(clipped=words.clipped, json=json.dumps)
    found.globals.update(limits=words.limits, signed_limits=words.signed_limits)
    return found


def policy(style: str, *more: str) -> str:
    """A content security policy that allows this style, what `more` says, and nothing else."""
    own = f"style-src {_hash(style)}"
    return "; ".join(["default-src 'none'", own, *more, "base-uri 'none'", "form-action 'none'"])


def settings(config: Mapping[str, Any]) -> str:
    """Resolved settings as they stand in a file."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)


def render(run: Run, live: bool = False) -> str:
    """The page as text: of the run folder, and of whether a run under way still lives. A `live` one asks for newer."""
    panels = [Panel.of(view) for view in run.views]
    own = [panel.table for panel in panels]
    names = ("report.css", "report.js", *(["live.js"] if live else []))
    style, *scripts = (Markup((_TEMPLATES / name).read_text(encoding="utf-8")) for name in names)
    rows, no_room = clips.clip_rows(run)
    environment = templates(_TEMPLATES)
    environment.filters["named"] = partial(stations.named, run)
    return environment.get_template("report.html.j2").render(
        run=run,
        style=style,
        scripts=scripts,
        policy=policy(
            style,
            f"script-src {' '.join(map(_hash, scripts))}",
            *(["connect-src 'self'"] if live else []),
            "media-src data: blob:",
            "img-src data:",
        ),
        headline=headline.headline(run, *own),
        caveats=caveats.caveats(run, *own),
        facts=facts.facts(run),
        stations=stations.stations(run),
        total_s=facts.total_s(run),
        kinds=facts.KINDS,
        sample=curves.whisker(0.62, 0.48, 0.76, limits=(0.0, 1.0), reference=0.2),
        panels=panels,
        crowded=sorted({kind for panel in panels for found in panel.slices for kind in found.crowded}),
        rows=rows,
        no_room=no_room,
        members=sorted({row.member for row in rows}),
        filters=clips.filters(rows),
        charts=[(stage, *quantities.charts(run, stage), looks.charts(run, stage)) for stage in run.metrics],
        strips=strips.strips(run),
        standing=standing.said(run.status),
        described=run.measures,
        settings=settings(run.config),
        heat=_heat,
        least_effect=tables.LEAST_EFFECT,
        too_few=tables.TOO_FEW,
        fewest_prompts=tables.FEWEST_PROMPTS,
        most_values=slices.MOST_VALUES,
        pixelated_below=PIXELATED_BELOW,
    )


def _marks(table: tables.MeasureTable) -> dict[tuple[str, str], Markup]:
    """The dot with its interval for each cell of the table, by measure and label; one scale for a measure."""
    marks = {}
    for row in table.rows:
        cells = [cell for cell in row.cells if cell]
        limits = (0.0, 1.0) if row.rate else (min(c.low for c in cells), max(c.high for c in cells))
        start = row.at(BASE)
        for cell in cells:
            reference = start.mean if start and cell is not start else None
            marks[row.measure, cell.label] = curves.whisker(
                cell.mean, cell.low, cell.high, limits=limits, reference=reference
            )
    return marks


def _diversity(table: tables.MeasureTable) -> list[tuple[tables.Row, dict[str, float], dict[str, Markup]]]:
    """Rows of diversity measures, levels as multiples of the base's, and a bar of each level."""
    found = []
    for row in table.rows:
        if "divers" in row.measure:
            cells = [cell for cell in row.cells if cell]
            top = max(abs(cell.mean) for cell in cells) or 1.0
            found.append((row, tables.of_base(row), {cell.label: curves.bar(cell.mean / top) for cell in cells}))
    return found


def _heat(cell: slices.SliceCell) -> int:
    """Shade 0 (worst) to 8 (best)."""
    return round(8 * min(max(cell.goodness, 0.0), 1.0))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
