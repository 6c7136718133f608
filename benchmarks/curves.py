"""Small curves for the methods' pages: each entry of finished bake-offs beside its baseline, over forward-units.

    python benchmarks/curves.py runs/bakeoff/methods/bakeoff.json [...] [--out docs/images/methods]

One SVG an entry, named after its label with `-` as `_`: the mean of the target measure at each check, its interval as a
band, and the baseline's mean dashed. Prints what each entry came to. Of a label in several results the first counts.
"""

import argparse
import html
import json
from pathlib import Path
from typing import Any

from reelign.report.frame import ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 520, 220, 46, 120, 14, 34
MUTED, OWN, OTHER = "#8b949e", "#3b5bdb", "#8b949e"

OPPOSITE = {"better": "worse", "worse": "better"}

Json = dict[str, Any]


def svg(board: Json, label: str, baseline: str, budget: float) -> str:
    """The picture of one entry."""
    rows, other = board["curves"][label], board["curves"][baseline]
    values = [row["level"][k] for row in (*rows, *other) for k in ("estimate", "low", "high")]
    low, high = min(values), max(values)
    pad = 0.05 * (high - low or 1)
    low, high = low - pad, high + pad

    def x(units: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(units / budget, 1.02)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    def path(points: list[tuple[float, float]]) -> str:
        return " ".join(f"{'L' if i else 'M'}{a:.1f},{b:.1f}" for i, (a, b) in enumerate(points))

    own = [(x(row["units"]), y(row["level"]["estimate"])) for row in rows]
    against = [(x(row["units"]), y(row["level"]["estimate"])) for row in other]
    band = [(x(row["units"]), y(row["level"]["high"])) for row in rows]
    band += [(x(row["units"]), y(row["level"]["low"])) for row in reversed(rows)]
    name, rate = board["measure"]["name"].replace("_", " "), board["measure"]["rate"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f"<title>{html.escape(label)}: {html.escape(name)} over forward-units</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for level in ticks(low, high, 4):
        shown = f"{100 * level:.0f} %" if rate else f"{level:.3g}"
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(level):.1f}" y2="{y(level):.1f}" stroke="#e6e8eb"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{y(level) + 4:.1f}" text-anchor="end" fill="{MUTED}">{shown}</text>')
    for share in (0, 0.5, 1):
        at = f"{share * budget / 1000:g}k" if share else "0"
        parts.append(
            f'<text x="{x(share * budget):.1f}" y="{HEIGHT - 14}" text-anchor="middle" fill="{MUTED}">{at}</text>'
        )
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 2}" fill="{MUTED}">forward-units</text>')
    parts.append(f'<path d="{path(band)} Z" fill="{OWN}" opacity="0.15"/>')
    if label != baseline:
        parts.append(
            f'<path d="{path(against)}" fill="none" stroke="{OTHER}" stroke-width="1.5" stroke-dasharray="4 3"/>'
        )
    parts.append(f'<path d="{path(own)}" fill="none" stroke="{OWN}" stroke-width="2"/>')
    apart = own[-1][1] - against[-1][1]
    shift = 0 if abs(apart) >= 12 or label == baseline else (6 - abs(apart) / 2) * (1 if apart >= 0 else -1)
    parts.append(_end(own[-1], label, OWN, shift))
    if label != baseline:
        parts.append(_end(against[-1], baseline, OTHER, -shift))
    return "\n".join([*parts, "</svg>", ""])


def _end(point: tuple[float, float], label: str, colour: str, shift: float) -> str:
    return f'<text x="{point[0] + 6:.1f}" y="{point[1] + 4 + shift:.1f}" fill="{colour}">{html.escape(label)}</text>'


def sentence(found: Json, board: Json, label: str) -> str:
    """What an entry came to, and whether the baseline came to something else."""
    rate, baseline = board["measure"]["rate"], found["baseline"]
    (end,) = (s["final"] for s in board["standings"] if s["label"] == label)
    start = board["curves"][label][0]["level"]["estimate"]
    text = f"{label}: {_number(start, rate)} to {_number(end['estimate'], rate)} ({_limits(end, rate)})"
    for pair in board["pairs"]:
        if {pair["first"], pair["second"]} == {label, baseline}:
            sign, change = (1 if pair["first"] == label else -1), pair["change"]
            gap = sign * change["difference"]["estimate"]
            ends = sorted(sign * change["difference"][k] for k in ("low", "high"))
            limits = _limits({"low": ends[0], "high": ends[1]}, rate)
            verdict = change["verdict"] if sign > 0 else OPPOSITE.get(change["verdict"], change["verdict"])
            text += f"; against {baseline} {_number(gap, rate, '+')} ({limits}), {verdict}"
    return text


def _number(value: float, rate: bool, sign: str = "") -> str:
    return f"{100 * value:{sign}.0f} %" if rate else f"{value:{sign}.3g}"


def _limits(span: Json, rate: bool) -> str:
    low, high = (f"{100 * span[k]:.0f}" if rate else f"{span[k]:.3g}" for k in ("low", "high"))
    return f"{low} to {high}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/methods"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    done: set[str] = set()
    for path in given.results:
        found = json.loads(path.read_text(encoding="utf-8"))
        board = next(b for b in found["boards"] if b["measure"]["name"] == found["target_measure"])
        for label in [label for label in found["labels"] if label not in done]:
            done.add(label)
            target = given.out / f"{label.replace('-', '_')}.svg"
            target.write_text(svg(board, label, found["baseline"], found["budget"]), encoding="utf-8")
            print(f"{target}: {sentence(found, board, label)}")


if __name__ == "__main__":
    main()
