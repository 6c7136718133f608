"""One self-contained, offline page of a run: `report.html` in its folder.

Everything is inline; the content security policy allows exactly the style and the script of this file, by hash, and
nothing from the network. Text from the run reaches the page through Jinja's escaping only.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reelign.files import write_text
from reelign.report import curves, headline, tables, words
from reelign.report.load import BASE, Clip, FallenSlice, Gate, Run, Stage, Target, load

EMBEDDED_MIB = 96
"""Most video that one page holds; browsers grow slow well before 200 MiB."""
PIXELATED_BELOW = 256
"""Videos narrower than this are enlarged without smoothing: they are small worlds, not small films."""
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Badge:
    """One measure of one clip: `tone` is right, wrong, plain (a score) or none (does not apply)."""

    measure: str
    name: str
    value: str
    tone: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One clip in the grid; without `src`, `absent` says why there is no video."""

    label: str
    src: str
    width: int
    height: int
    fps: float
    absent: str
    badges: tuple[Badge, ...]


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One prompt and member through all the stages. `change` compares right answers at the end with the base's."""

    number: int
    prompt: str
    member: int
    seed: int
    slices: dict[str, str]
    change: str
    clips: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One station of the stepper at the top."""

    name: str
    state: str
    stage: Stage | None
    gate: Gate | None


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
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(run: Run) -> str:
    """The page as text; a function of the run folder alone."""
    table = tables.measure_table(run)
    labels = tuple(run.evaluations)
    style, script = (Markup((_TEMPLATES / name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    rows, left_out = clip_rows(run)
    environment = templates(_TEMPLATES)
    environment.filters.update(
        title=words.title,
        plain=words.plain,
        number=words.number,
        signed=words.signed,
        seconds=words.seconds,
        shortened=words.shortened,
        json=json.dumps,
    )
    return environment.get_template("report.html.j2").render(
        run=run,
        style=style,
        script=script,
        policy=_policy(style, script),
        headline=headline.headline(run, table),
        caveats=headline.caveats(run, table),
        steps=_steps(run),
        table=table,
        marks=_marks(table),
        slices=[tables.slice_table(run, label) for label in labels if run.evaluations[label].clips],
        diversity=_diversity(table),
        rows=rows,
        left_out=left_out,
        members=sorted({row.member for row in rows}),
        filters=_filters(rows),
        charts=[(stage, drawn) for stage in _drawn_stages(run) if (drawn := curves.charts(run, stage))],
        rates=run.rates(),
        described=run.measures,
        settings=yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True, width=100),
        total_s=sum((stage.wall_s or 0.0 for stage in run.stages), start=0.0),
        heat=_heat,
        own_sign=_own_sign,
        words_limits=words.limits,
        pixelated_below=PIXELATED_BELOW,
    )


def clip_rows(run: Run) -> tuple[tuple[ClipRow, ...], int]:
    """Rows of the side-by-side grid, and how many more did not fit into the page.

    A row is there if any evaluation kept its video. Rows come in prompt order, the members of a prompt together.
    """
    keyed = {label: evaluation.by_key for label, evaluation in run.evaluations.items()}
    keys = sorted({key for clips in keyed.values() for key, clip in clips.items() if clip.video is not None})
    rates = run.rates()
    final = run.final.label if run.final else BASE
    rows: list[ClipRow] = []
    room = EMBEDDED_MIB * 2**20
    for position, key in enumerate(keys):
        clips = {label: found[key] for label, found in keyed.items() if key in found}
        paths = {label: run.video(clip) for label, clip in clips.items()}
        room -= sum(path.stat().st_size for path in paths.values() if path)
        if room < 0 and rows:
            return tuple(rows), len(keys) - position
        measured = [m for m in run.measures if any(c.measures.get(m) is not None for c in clips.values())]
        shown = tuple(
            _shown(label, clips.get(label), paths.get(label), _badges(run, clips.get(label), measured, rates))
            for label in keyed
        )
        some = next(iter(clips.values()))
        change = _change(run, final, clips, measured, rates)
        rows.append(ClipRow(len(rows), some.prompt, some.member, some.seed, dict(some.slices), change, shown))
    return tuple(rows), 0


def _shown(label: str, clip: Clip | None, path: Path | None, badges: tuple[Badge, ...]) -> Shown:
    if clip is None:
        return Shown(label, "", 1, 1, 0.0, "not evaluated", badges)
    if path is None:
        return Shown(label, "", 1, 1, 0.0, "no video kept" if clip.video is None else "video file missing", badges)
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            width, height, fps = stream.width, stream.height, float(stream.average_rate or 0)
    except (av.error.FFmpegError, IndexError):
        return Shown(label, "", 1, 1, 0.0, "video file damaged", badges)
    src = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return Shown(label, src, width, height, fps, "", badges)


def _badges(run: Run, clip: Clip | None, measured: Sequence[str], rates: frozenset[str]) -> tuple[Badge, ...]:
    if clip is None:
        return ()
    badges = []
    for name in measured:
        value = clip.measures.get(name)
        better_up = run.measures[name].higher_is_better
        if value is None:
            badges.append(Badge(name, words.badge(name, None), "does not apply", "none"))
        elif name in rates:
            right = (value == 1.0) == better_up
            verdict = "right" if right else "wrong"
            badges.append(Badge(name, words.badge(name, right, better_up), verdict, verdict))
        else:
            badges.append(Badge(name, words.badge(name, None), words.number(value), "plain"))
    return tuple(badges)


def _change(run: Run, final: str, clips: dict[str, Clip], measured: Sequence[str], rates: frozenset[str]) -> str:
    """Whether the final clip has more right answers than the base's ("gained"), fewer ("lost") or as many ("same")."""
    if BASE not in clips or final not in clips:
        return "same"
    first, last = clips[BASE], clips[final]
    balance = 0.0
    for name in measured:
        before, after = first.measures.get(name), last.measures.get(name)
        if name in rates and before is not None and after is not None:
            balance += (after - before) * (1 if run.measures[name].higher_is_better else -1)
    return "gained" if balance > 0 else "lost" if balance < 0 else "same"


def _filters(rows: Sequence[ClipRow]) -> dict[str, list[str]]:
    """Values of each kind of slice among the shown rows; a kind with one value filters nothing and is left out."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for kind, value in row.slices.items():
            values.setdefault(kind, set()).add(value)
    return {kind: sorted(found) for kind, found in values.items() if len(found) > 1}


def _steps(run: Run) -> list[Step]:
    done = [
        Step(stage.stage, stage.gate.verdict if stage.gate else "unjudged", stage, stage.gate) for stage in run.stages
    ]
    return [Step("base", "start", None, None), *done, *(Step(name, "pending", None, None) for name in run.planned)]


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
    """Rows of diversity measures, what each evaluation keeps of the base's level, and a bar of each level."""
    found = []
    for row in table.rows:
        if "divers" in row.measure:
            cells = [cell for cell in row.cells if cell]
            top = max(abs(cell.mean) for cell in cells) or 1.0
            found.append((row, tables.kept(row), {cell.label: curves.bar(cell.mean / top) for cell in cells}))
    return found


def _own_sign(run: Run, finding: Target | FallenSlice) -> tuple[float, float, float]:
    """A gate's (difference, low, high) in the measure's own direction; gates count upwards as better."""
    about = run.measures.get(finding.metric)
    if about is None or about.higher_is_better:
        return finding.difference, finding.low, finding.high
    return -finding.difference, -finding.high, -finding.low


def _drawn_stages(run: Run) -> list[str]:
    return list(dict.fromkeys(row.stage for row in run.metrics))


def _heat(cell: tables.SliceCell) -> int:
    """Shade 0 (worst) to 8 (best)."""
    return round(8 * min(max(cell.goodness, 0.0), 1.0))


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "media-src data: blob:; img-src data:; base-uri 'none'; form-action 'none'"
    )
