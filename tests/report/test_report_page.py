"""The page: complete, offline, inert against hostile text, and there for unfinished runs."""

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic_run

from reelign.errors import RunStopped, UserError
from reelign.report import caveats, clips, headline, load, page, tables, words

Make = Callable[..., Path]
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- --><style>*{display:none}</style>]]>",
    "\u202eevil right to left \u200f\u200b\ufeff",
    "NUL \x00 and \x1b[31m escape \ud800 surrogate",
    "x" * 1_000_000,
)


class Elements(HTMLParser):
    """Counts elements and attributes, and keeps the text of each kind of element."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.values: list[tuple[str, str, str]] = []
        self.text: dict[str, str] = {}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        self.values += [(tag, name, value or "") for name, value in attrs]
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.text[self._open] = self.text.get(self._open, "") + data


def parse(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    elements.close()
    return elements


@pytest.fixture(scope="module")
def html(finished: Path) -> str:
    path = page.write(finished)
    assert path == finished / "report.html"
    return path.read_text(encoding="utf-8")


def test_the_page_names_every_stage_measure_and_section(html: str, finished: Path):
    text = " ".join(parse(html).text.values())
    for name in ("Base", "SFT", "GRPO", "DPO"):
        assert name in text
    for measure in load.load(finished).measures:
        assert words.plain(measure) in text
    for label in ("held-out", "no difference", "Gate passed", "also trained on", "simulated by a scripted annotator"):
        assert label in text
    for section in ("stages", "clips", "measures", "slices", "diversity", "curves", "caveats", "ledger", "settings"):
        assert f'<section id="{section}"' in html


def test_the_page_loads_nothing_from_anywhere(html: str):
    elements = parse(html)
    assert not elements.tags.keys() & {"link", "iframe", "object", "embed", "img", "base", "form"}
    for tag, name, value in elements.values:
        if name in ("src", "href", "poster", "action", "data", "srcset", "xlink:href"):
            assert value.startswith(("#", "data:video/mp4;base64,")), (tag, name, value[:80])
    assert not re.search(r"url\(|@import|https?://", elements.text["style"] + elements.text["script"])


def test_the_policy_allows_exactly_this_style_and_this_script(html: str):
    elements = parse(html)
    policy = next(value for tag, name, value in elements.values if tag == "meta" and "default-src" in value and name)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        assert elements.tags[tag] == 1
        found = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    # The policy forbids these, so that a page with one of them would look or work wrong.
    assert not [name for name in elements.attributes if name == "style" or name.startswith("on")]


def test_embedded_videos_are_the_files(html: str, finished: Path):
    sources = [value for tag, name, value in parse(html).values if tag == "video" and name == "src"]
    files = sorted((finished / "samples").rglob("*.mp4"))
    assert len(sources) == len(files) == 4 * 2 * 4
    decoded = {base64.b64decode(s.partition(",")[2]) for s in sources}
    assert decoded == {path.read_bytes() for path in files}


def test_every_control_has_a_name(html: str):
    elements = parse(html)
    videos = [value for tag, name, value in elements.values if tag == "video" and name == "aria-label"]
    assert len(videos) == elements.tags["video"]
    charts = [value for tag, name, value in elements.values if tag == "svg" and name == "role"]
    labels = [value for tag, name, value in elements.values if tag == "svg" and name == "aria-label"]
    assert len(charts) == len(labels) > 0
    ids = [value for _, name, value in elements.values if name == "id"]
    assert len(ids) == len(set(ids))


def test_hostile_text_adds_no_element_and_no_attribute(tmp_path: Path):
    tame = [(f"prompt {i}", {"color": f"c{i % 3}"}) for i in range(len(HOSTILE))]
    wild = [(text, {"color": HOSTILE[i % 3]}) for i, text in enumerate(HOSTILE)]
    expected = parse(page.write(synthetic_run.write_run(tmp_path / "tame", prompts=tame, videos=9)).read_text())
    path = page.write(synthetic_run.write_run(tmp_path / "wild", prompts=wild, videos=9))
    found = parse(path.read_text())
    assert found.tags == expected.tags
    assert found.attributes == expected.attributes
    assert "alert(1)" not in found.text["script"]
    # A prompt of a megabyte is shown shortened, once a row.
    assert path.stat().st_size < 2 * (tmp_path / "tame" / "report.html").stat().st_size
    assert "1,000,000 characters" in found.text["bdi"]


def test_hostile_names_in_ledger_metrics_and_config_are_inert(make_run: Make):
    folder = make_run("wild", stages=("sft",))
    bad = HOSTILE[0]
    row = synthetic_run.ledger_row(0, "sft") | {
        "note": bad,
        "method": bad,
        "leaving": bad,
        "rewards": {bad: {"version": bad}},
    }
    row["gate"]["sentence"] = bad
    row["gate"]["fallen_slices"] = [{"slice": bad, "metric": bad, "difference": -0.1, "low": -0.2, "high": -0.01}]
    (folder / "ledger.jsonl").write_text(json.dumps(row) + "\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"stage": "sft", "step": 999, f"online/{bad}": 1.0}) + "\n")
    config = json.loads((folder / "config.json").read_text())
    config["config"][bad] = bad
    config["config"]["model"] = {"name": bad, "weights": bad, "adapter": {"name": "lora", "rank": bad}}
    config |= dict.fromkeys(("command", "device", "torch", "id", "hash", "version"), bad) | {"notes": [bad]}
    (folder / "left_out.txt").write_text(bad)
    (folder / "config.json").write_text(json.dumps(config))
    elements = parse(page.write(folder).read_text())
    assert elements.tags["script"] == 1
    assert "alert" not in elements.text["script"]


def test_names_of_measures_are_words_outside_of_settings(html: str):
    shown = html[: html.index('<section id="settings"')]
    elements = parse(shown)
    assert "attributes right" in elements.text["th"]
    for kind, text in elements.text.items():
        if kind not in ("code", "script", "style"):
            assert "attributes_right" not in text


def test_a_table_fits_a_phone_or_says_that_it_goes_on(html: str):
    elements = parse(html)
    labels = [value for tag, name, value in elements.values if tag == "td" and name == "data-label"]
    measures = len(synthetic_run.MEASURES)
    assert Counter(labels) == dict.fromkeys(("Base", "SFT", "GRPO", "DPO", "Since base"), measures)
    wide = [tag for tag, name, _ in elements.values if name == "data-scroll"]
    assert len(wide) == html.count('class="scroll"') > 0
    assert "scroll it sideways" in elements.text["script"]


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path):
    synthetic_run.write_config(tmp_path / "begun")
    elements = parse(page.write(tmp_path / "begun").read_text())
    text = " ".join(elements.text.values())
    assert "Nothing has been evaluated yet." in text
    assert "SFT, GRPO and DPO are still to come" in text
    assert elements.tags["video"] == 0


def test_an_unfinished_run_shows_what_there_is(make_run: Make):
    folder = make_run(stages=("sft",))
    text = " ".join(parse(page.write(folder).read_text()).text.values())
    assert "The run is unfinished: GRPO and DPO are still to come." in text
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "grpo", "index": 1, "step": 0, "online/reward": 0.5}\n')
    text = " ".join(parse(page.write(folder).read_text()).text.values())
    assert "The run is unfinished: GRPO (1 of 100 steps done) and DPO are still to come." in text
    assert "Through SFT, " in text
    shutil.rmtree(folder / "samples" / "sft")
    assert "video file missing" in page.write(folder).read_text()
    next((folder / "samples" / "base").iterdir()).write_bytes(b"not a video")
    assert "video file damaged" in page.write(folder).read_text()


def test_only_the_base_has_nothing_to_compare_with(make_run: Make):
    text = " ".join(parse(page.write(make_run(stages=())).read_text()).text.values())
    assert "there is nothing to compare it with yet" in text


def test_a_folder_that_is_no_run_is_refused_and_left_alone(tmp_path: Path):
    with pytest.raises(UserError, match="not a run folder"):
        page.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_replaced_in_one_piece(make_run: Make, monkeypatch: pytest.MonkeyPatch):
    folder = make_run(stages=(), videos=0)
    first = page.write(folder).read_text()
    assert page.write(folder).read_text() == first  # the same run, the same page

    def broken(source: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(RunStopped, match="No space"):
        page.write(folder)
    assert (folder / "report.html").read_text() == first
    assert not list(folder.glob(".report*"))


def test_too_much_video_is_left_out_and_said(make_run: Make, monkeypatch: pytest.MonkeyPatch):
    folder = make_run(stages=())
    size = sum(path.stat().st_size for path in (folder / "samples").rglob("0000-0.mp4"))
    monkeypatch.setattr(clips, "EMBEDDED_MIB", size / 2**20)
    rows, no_room = clips.clip_rows(load.load(folder))
    assert (len(rows), no_room) == (1, 7)
    assert "7 more are in" in page.write(folder).read_text()
    monkeypatch.setattr(clips, "EMBEDDED_MIB", (size - 1) / 2**20)
    assert clips.clip_rows(load.load(folder)) == ((), 8)
    assert "they are too large for one page" in page.write(folder).read_text()


def test_the_headline_tells_failures_with_numbers(finished: Path):
    run = load.load(finished)
    table = tables.measure_table(run)
    said = " ".join(sentence.striptags() for sentence in headline.headline(run, table))
    row = next(row for row in table.rows if row.measure == "attributes_right")
    first, last = row.at("base"), row.at("dpo")
    assert first is not None
    assert last is not None
    before, after = words.number(1 - first.mean, True), words.number(1 - last.mean, True)
    # striptags turns no-break spaces into spaces
    assert f"attribute failures fell from {before} to {after}".replace("\N{NO-BREAK SPACE}", " ") in said
    assert "sharpness" not in said  # it was trained on


def test_a_failed_gate_leads_to_the_weights_before_it(make_run: Make):
    folder = make_run()
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    rows[2]["gate"]["verdict"] = "failed"
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = " ".join(parse(page.write(folder).read_text()).text.values())
    run = load.load(folder)
    said = " ".join(s.striptags() for s in headline.headline(run, tables.measure_table(run)))
    assert "Through SFT and GRPO, " in said
    assert "The DPO gate failed: the weights were not kept, and the result is that of GRPO." in said
    assert "not kept" in text


def test_a_stage_whose_weights_were_not_kept_is_marked_wherever_it_is_shown(make_run: Make):
    folder = make_run()
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    rows[2]["gate"]["verdict"] = "failed"
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    html = page.write(folder).read_text()
    marked = r'DPO <span class="flag">not kept</span>'
    assert re.search(rf"<h3>{marked}</h3>", html)  # its card
    assert len(re.findall(rf"<figcaption>{marked}</figcaption>", html)) == 8  # its clips
    assert html.count('aria-label="Clip of DPO (not kept)"') == 8
    assert re.search(rf'<th scope="col" class="dropped">{marked}</th>', html)  # measures, and on a phone:
    assert html.count('<td class="dropped" data-label="DPO (not kept)">') == len(synthetic_run.MEASURES)
    assert re.search(rf'<button [^>]*data-tab="slices-0-3">{marked}</button>', html)
    assert re.search(rf"<caption>{marked}</caption>", html)
    assert re.search(rf'<tr class="dropped"><th scope="row">{marked}</th><td class="wide">', html)  # diversity
    assert re.search(rf'<h3 class="stage">{marked}</h3>', html)  # curves
    assert re.search(rf'<th scope="row">{marked}</th>\s*<td>offline', html)  # ledger
    for tag in ("h3", "figcaption", "caption", "button", "th"):
        assert not re.search(rf"<{tag}\b[^>]*>DPO</{tag}>", html), tag
    assert "GRPO <span" not in html


def test_a_run_that_kept_no_stage_ends_with_its_base(make_run: Make):
    folder = make_run(stages=("sft",), videos=0)
    row = json.loads((folder / "ledger.jsonl").read_text())
    row["gate"]["verdict"] = "failed"
    (folder / "ledger.jsonl").write_text(json.dumps(row) + "\n")
    run = load.load(folder)
    said = [sentence.striptags() for sentence in headline.headline(run, tables.measure_table(run))]
    assert said[0].endswith("no stage was kept, so there is nothing to compare it with.")
    assert said[1] == "The SFT gate failed: the weights were not kept, and the result is that of Base."


def test_a_green_arrow_that_points_down_is_explained(html: str):
    legend = html[html.index('id="legend"') : html.index("</details>")]
    assert '<span class="change better">▼' in legend
    assert "Where lower is better" in legend
    shown = re.findall(r'<span class="change better" title="([^"]*)"><span aria-hidden="true">(.)</span>', html)
    assert ("better: lower is better; 95 % interval in brackets", "▼") in shown
    assert ("better; 95 % interval in brackets", "▲") in shown
    heat = html[html.index('<table class="heat">') : html.index("</thead>", html.index('<table class="heat">'))]
    assert heat.count("lower is better") == 2


@pytest.mark.parametrize("verdict", ["ungated", "skipped"])  # the second is what earlier versions wrote
def test_a_stage_without_a_gate_says_so_and_not_that_it_was_skipped(make_run: Make, verdict: str):
    folder = make_run()
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    rows[1]["gate"] = {"verdict": verdict, "sentence": "no gate judged it."}
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = page.write(folder).read_text()
    assert '<p class="verdict">No gate</p>' in text
    assert "skipped" not in text.lower()


def test_a_reward_that_rises_while_held_out_measures_fall_is_flagged(make_run: Make):
    folder = make_run()
    content = json.loads((folder / "evaluations" / "grpo.json").read_text())
    for clip in content["clips"]:
        clip["measures"]["motion_right"] = 0.0
    synthetic_run.write_evaluation(folder, content)
    run = load.load(folder)
    found = caveats.caveats(run, tables.measure_table(run))
    assert found[0].grave
    assert "In GRPO the reward rose" in found[0].text
    assert "motion right" in found[0].text
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "grpo", "step": 999, "online/reward": Infinity}\n')
    assert caveats.caveats(load.load(folder), tables.measure_table(run))[0] == found[0]


def test_evaluations_with_other_settings_or_noise_are_flagged(make_run: Make):
    folder = make_run()
    content = json.loads((folder / "evaluations" / "sft.json").read_text())
    content["sampler"]["steps"] = 50
    content["clips"][0]["seed"] += 1
    synthetic_run.write_evaluation(folder, content)
    run = load.load(folder)
    said = " ".join(c.text for c in caveats.caveats(run, tables.measure_table(run)))
    assert "SFT was sampled with other settings than the base" in said
    assert "SFT was sampled from other noise than the base" in said
    assert "not how much another training seed could" in said


def test_reading_a_run_needs_no_model_code():
    import subprocess
    import sys

    code = "import sys, reelign.report; assert not {'diffusers', 'transformers', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
