"""The page, the JSON and the command: complete, offline, inert, and honest about what is missing."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from reelign.bakeoff import chart, page, rank
from reelign.bakeoff.results import Sheet
from reelign.bakeoff.spec import Spec

Make = Callable[..., Any]
Call = Callable[..., tuple[int, str, str]]
LEVELS = {"plain": (0.0, 0.2, 0.4), "fast": (0.0, 0.4, 0.7), "lost": (0.0, -0.2, -0.4)}
HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\x00\ud800"


class Elements(HTMLParser):
    """Keeps elements, attributes and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parse(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    elements.close()
    return elements


@pytest.fixture
def wanted(spec: Callable[..., Spec]) -> Spec:
    """The spec of three entries, of which the plain one is the baseline."""
    entries = [{"label": label, "stage": {"learner": {"lr": (k + 1) / 100}}} for k, label in enumerate(LEVELS)]
    return spec(entries=entries, target={"measure": "level", "match": "plain"}, baseline="plain", budget=1000)


def _render(spec: Spec, sheet: Sheet) -> str:
    return page.render(spec, sheet, rank.analyse(spec, sheet))


def test_the_page_says_what_was_found(wanted: Spec, sheet: Callable[..., Sheet]) -> None:
    html = _render(wanted, sheet(LEVELS))
    text = " ".join(" ".join(_parse(html).text).split())
    assert "On level fast (0.6" in text
    assert "lost does not get to" in text
    assert "lost ends worse on level than it started" in text
    assert "not reached" in text
    for label in LEVELS:
        assert f">{label}<" in html
    sections = ("curves", "levels", "times", "negative", "differences", "seconds", "settings", "caveats", "runs")
    for section in sections:
        assert f'<section id="{section}"' in html
        assert f'href="#{section}"' in html
    assert "learner.lr" in html
    for part in ("rollout", "decode", "reward", "update"):
        assert part in text


def test_the_page_loads_nothing_and_runs_nothing(wanted: Spec, sheet: Callable[..., Sheet]) -> None:
    html = _render(wanted, sheet(LEVELS))
    elements = _parse(html)
    assert not {"script", "img", "iframe", "link", "video", "object"} & set(elements.tags)
    names = {name for name, _ in elements.attributes}
    assert not {"src", "style", "onclick", "onload", "srcset", "action"} & names
    assert all(value.startswith("#") for name, value in elements.attributes if name == "href")
    assert not re.search(r"https?://|@import|url\(", html)
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [value for name, value in elements.attributes if name == "content" and "default-src" in value]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_hostile_text_is_inert(wanted: Spec, sheet: Callable[..., Sheet], tmp_path: Path) -> None:
    made = sheet(LEVELS)
    made = replace(
        made,
        measures={"level": replace(made.measures["level"], description=HOSTILE, trained_on=True)},
        series={
            label: replace(
                s, runs=tuple((*run[:-1], run[-1].model_copy(update={"stopped": HOSTILE})) for run in s.runs)
            )
            for label, s in made.series.items()
        },
    )
    html = _render(wanted, made)
    elements = _parse(html)
    assert "script" not in elements.tags
    assert "img" not in elements.tags
    assert "alert(1)" in " ".join(elements.text)
    assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(\S\S)", html)
    assert "also trained on" in html


def test_a_page_of_one_entry_and_of_one_seed_says_so(
    wanted: Spec, spec: Callable[..., Spec], sheet: Callable[..., Sheet]
) -> None:
    one = sheet({"fast": (0.0, 0.4, 0.7)})
    html = _render(wanted, replace(one, missing=("plain", "lost")))
    assert "Only fast has been run" in html
    assert "which has not been run yet" in html
    assert "plain and lost: not run yet" in html
    few = _render(wanted, sheet(LEVELS, seeds=1))
    assert "Nothing is ranked" in few
    assert 'class="rank"' not in few
    assert 'class="change better"' not in few


def test_the_page_is_a_function_of_the_results(wanted: Spec, sheet: Callable[..., Sheet]) -> None:
    assert _render(wanted, sheet(LEVELS)) == _render(wanted, sheet(LEVELS))


def test_labels_at_the_ends_of_curves_do_not_cover_each_other() -> None:
    placed = chart.spaced({"a": 50.0, "b": 51.0, "c": 52.0, "d": 99.0}, 0.0, 100.0)
    heights = sorted(placed.values())
    assert all(second - first >= chart.LINE_HEIGHT for first, second in pairwise(heights))
    assert max(heights) <= 100
    assert [label for label, _ in sorted(placed.items(), key=lambda item: item[1])] == list("abcd")


def test_many_entries_can_still_be_told_apart(spec: Callable[..., Spec], sheet: Callable[..., Sheet]) -> None:
    levels = {f"e{k}": (0.0, k / 40, k / 20) for k in range(20)}
    entries = [{"label": label, "stage": {"learner": {"lr": (k + 1) / 100}}} for k, label in enumerate(levels)]
    many = spec(entries=entries, target={"measure": "level", "match": "e0"}, baseline="e0", budget=1000)
    html = _render(many, sheet(levels))
    assert "Point at a name" in html
    assert re.search(r" and \d+ more", html)
    (svg,) = re.findall(r'<svg class="chart crowded".*?</svg>', html, re.DOTALL)
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])  # type: ignore[index]
    names = sorted(float(y) for y in re.findall(r'class="name" x="\d+" y="([\d.]+)"', svg))
    assert len(names) == 20
    assert all(second - first >= chart.LINE_HEIGHT - 0.2 for first, second in pairwise(names))
    assert min(names) >= 0
    assert max(names) <= height
    ends = [float(y) for pair in re.findall(r'class="span".*?y1="([-\d.]+)" y2="([-\d.]+)"', svg) for y in pair]
    assert min(ends) >= chart.TOP  # intervals end where the chart does
    assert max(ends) <= height - chart.BOTTOM
    classes = list(chart.colours(list(levels)).values())
    assert len(set(classes[:16])) == 16
    assert "Point at a name" not in _render(
        many.model_copy(update={"entries": many.entries[:6]}), sheet(dict(list(levels.items())[:6]))
    )


@pytest.fixture
def file(spec_tree: Make, tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(spec_tree()))
    return path


def test_the_command_runs_compares_and_writes(reelign: Call, file: Path, tmp_path: Path) -> None:
    code, out, err = reelign("bakeoff", file)
    assert code == 0, err
    assert "fast" in out
    assert "page    " in out
    folder = tmp_path / "toy"
    html = (folder / "bakeoff.html").read_text()
    assert "<title>toy · Reelign bake-off</title>" in html
    written = json.loads((folder / "bakeoff.json").read_text())
    assert written["labels"] == ["fast", "slow"]
    assert written["seeds"] == [0, 1, 2]
    assert written["boards"][0]["pairs"][0]["change"]["verdict"] in ("better", "worse", "no difference")
    assert set(written) >= {"headline", "negative", "caveats", "reaches", "costs", "settings", "budget"}
    code, out, _ = reelign("bakeoff", file, "--json")
    assert code == 0
    assert json.loads(out) == written
    assert (folder / "bakeoff.html").read_text() == html


def test_the_command_refuses_in_one_sentence(reelign: Call, file: Path, tmp_path: Path) -> None:
    code, out, err = reelign("bakeoff", file, "--only", "quick")
    assert (code, out) == (2, "")
    assert err == "reelign: --only: there is no entry 'quick'; entries: fast, slow.\n"
    assert reelign("bakeoff", tmp_path / "nowhere.yaml")[0] == 2


def test_a_dry_run_computes_nothing(reelign: Call, file: Path, tmp_path: Path) -> None:
    code, out, _ = reelign("bakeoff", file, "--dry-run")
    assert code == 0
    assert "2 entries (fast, slow), 3 seeds, 6 runs of 700 forward-units" in out
    code, out, _ = reelign("bakeoff", file, "--dry-run", "--json")
    assert json.loads(out)["runs"] == 6
    assert not (tmp_path / "toy").exists()


def test_an_interrupted_command_says_how_to_go_on(reelign: Call, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reelign.bakeoff import run as runs

    def stop(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", stop)
    code, _, err = reelign("bakeoff", file)
    assert code == 130
    assert "stopped; 0 runs are finished, and the same command goes on" in err
