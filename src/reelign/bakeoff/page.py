"""What a bake-off leaves for readers: `bakeoff.json` for programs, `bakeoff.html` for people.

The page is one file that loads nothing: its content security policy allows the style of this file, by hash, and nothing
else. Text from the spec and the runs reaches it through Jinja's escaping only.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

import reelign
from reelign import config as configs
from reelign.bakeoff import caveats, chart, headline, results
from reelign.bakeoff.one import folder_of
from reelign.bakeoff.rank import Analysis, Board, analyse
from reelign.bakeoff.results import Sheet
from reelign.bakeoff.spec import Spec, differences, stage_tree
from reelign.files import write_text
from reelign.report import curves
from reelign.report.page import policy, settings, templates

_TEMPLATES = Path(__file__).parent / "templates"
_STYLES = (Path(curves.__file__).parent / "templates" / "report.css", _TEMPLATES / "bakeoff.css")


@dataclass(frozen=True, slots=True)
class Written:
    """Where the page lies, and what it says."""

    page: Path
    analysis: Analysis
    content: dict[str, Any]
    """As in `bakeoff.json`."""


def write(spec: Spec) -> Written:
    """Compare what has been run so far; earlier files are replaced, each in one piece.

    Raises:
        UserError: no run is finished, or a file does not read.
    """
    sheet = results.load(spec)
    analysis = analyse(spec, sheet)
    folder = folder_of(spec)
    content = {
        "name": spec.name,
        "version": reelign.__version__,
        "headline": headline.headline(analysis),
        "negative": list(headline.negative(analysis)),
        "caveats": [caveat.text for caveat in caveats.caveats(analysis, spec.budget)],
        "budget": spec.budget,
        "target_measure": spec.target.measure,
        **plain(analysis),
        "settings": configs.dump(spec),
    }
    content = plain(content)
    write_text(folder / "bakeoff.json", json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    page = folder / "bakeoff.html"
    write_text(page, render(spec, sheet, analysis))
    return Written(page, analysis, content)


def plain(value: Any) -> Any:
    """Values for JSON: named fields as objects, numbers that are not finite as null."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())  # type: ignore[attr-defined]
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render(spec: Spec, sheet: Sheet, analysis: Analysis) -> str:
    """The page as text; a function of the spec and the finished runs alone."""
    style = Markup("\n".join(path.read_text(encoding="utf-8") for path in _STYLES))
    environment = templates(_TEMPLATES)
    colour = chart.colours(analysis.labels)
    target = analysis.target.estimate if math.isfinite(analysis.target.estimate) else None
    trees = {entry.label: stage_tree(entry) for entry in spec.entries if entry.label in analysis.labels}
    return environment.get_template("bakeoff.html.j2").render(
        spec=spec,
        analysis=analysis,
        sheet=sheet,
        style=style,
        policy=policy(style),
        headline=headline.headline(analysis),
        negative=list(headline.negative(analysis)),
        caveats=list(caveats.caveats(analysis, spec.budget)),
        colour=colour,
        crowded=len(analysis.labels) > chart.CROWDED,
        charts=[
            (board, chart.curves(board, colour, target if index == 0 else None))
            for index, board in enumerate(analysis.boards)
        ],
        standings={(s.label, board.measure.name): s for board in analysis.boards for s in board.standings},
        marks={board.measure.name: _marks(board) for board in analysis.boards},
        order=[standing.label for standing in analysis.boards[0].standings],
        reaches={reach.label: reach for reach in analysis.reaches},
        costs={cost.label: cost for cost in analysis.costs},
        bars={cost.label: chart.split(cost, max(c.seconds for c in analysis.costs)) for cost in analysis.costs},
        parts=chart.PARTS,
        differing=differences(trees) if len(trees) > 1 else {},
        settings=settings(configs.dump(spec)),
        between=headline.between,
        finite=math.isfinite,
        version=reelign.__version__,
    )


def _marks(board: Board) -> dict[str, Markup]:
    """A dot with its interval for each entry, on one scale, with a mark where all started."""
    finals = {s.label: s.final for s in board.standings}
    start = next(iter(board.curves.values()))[0].level.estimate
    ends = [*(f.low for f in finals.values()), *(f.high for f in finals.values()), start]
    scale = min(ends), max(ends)
    return {
        label: curves.whisker(f.estimate, f.low, f.high, limits=scale, reference=start) for label, f in finals.items()
    }
