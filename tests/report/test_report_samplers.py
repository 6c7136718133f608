"""A run that was judged under two samplers: each has its numbers, its title and its clips, and none is mixed up."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_run import change_ledger, judge_guided

from reelign.report import caveats, clips, facts, headline, load, page, slices, stations, tables
from reelign.report.compare import compare

Make = Callable[..., Path]
PLAIN, GUIDED = "10 steps, guidance 3 (s10g3)", "16 steps, guidance 3"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with both; tests read it and do not change it."""
    from synthetic_run import write_run

    folder = write_run(tmp_path_factory.mktemp("runs") / "both")
    judge_guided(folder)
    return folder


def test_a_run_has_a_view_for_each_sampler_with_a_plain_title(both: Path, finished: Path):
    run = load.load(both)
    assert list(run.evaluations) == ["base", "sft", "grpo", "dpo"]
    assert {name: list(found) for name, found in run.others.items()} == {"guided": ["base", "sft", "grpo", "dpo"]}
    assert [(view.sampler, view.title) for view in run.views] == [("", "10 steps, guidance 3"), ("guided", GUIDED)]
    assert {view.final.under for view in run.views if view.final} == {"s10g3", "guided"}
    assert [len(view.final.prompts) for view in run.views if view.final] == [24, 12]
    alone = load.load(finished)
    assert alone.views == (alone,)
    assert alone.title == ""


def test_samplers_of_one_title_are_told_apart_by_their_names(make_run: Make):
    folder = make_run(videos=0)
    judge_guided(folder)
    for path in (folder / "evaluations").glob("*@guided.json"):
        content = json.loads(path.read_text())
        content["sampler"] |= {"steps": 10, "shift": 5.0}
        path.write_text(json.dumps(content))
    assert load.load(folder).titles == {"s10g3": PLAIN, "guided": "10 steps, guidance 3 (guided)"}


def test_numbers_of_a_view_are_those_of_its_evaluations(both: Path):
    run = load.load(both)
    for view, name in zip(run.views, ("dpo", "dpo@guided"), strict=True):
        written = json.loads((both / "evaluations" / f"{name}.json").read_text())
        row = next(row for row in tables.measure_table(view).rows if row.measure == "attributes_right")
        cell = row.at("dpo")
        assert cell is not None
        assert cell.mean == written["measures"]["attributes_right"]["mean"]
        assert cell.n == written["measures"]["attributes_right"]["n"]
        by_slice = slices.slice_tables(view)["dpo"].rows
        reds = [clip for clip in written["clips"] if clip["slices"]["color"] == "red"]
        assert next(row.n for row in by_slice if row.value == "red") == len(reds)


def test_the_headline_compares_base_and_end_under_each_sampler(both: Path):
    run = load.load(both)
    said = [s.striptags() for s in headline.headline(run, *map(tables.measure_table, run.views))]
    assert said[0].startswith("10 steps, guidance 3. Through SFT, GRPO and DPO, attribute failures fell from ")
    other = next(sentence for sentence in said if sentence.startswith(f"{GUIDED}. "))
    assert other.startswith(f"{GUIDED}. Through SFT, GRPO and DPO, no held-out measure moved beyond its noise")


def test_clips_of_both_samplers_stand_below_one_another(both: Path):
    rows, no_room = clips.clip_rows(load.load(both))
    assert no_room == 0
    assert [line.title for line in rows[0].lines] == ["10 steps, guidance 3", GUIDED]
    assert [[clip.label for clip in line.clips] for line in rows[0].lines] == [["base", "sft", "grpo", "dpo"]] * 2
    assert all(clip.src for line in rows[0].lines for clip in line.clips)


def test_the_page_has_a_section_for_each_sampler(both: Path):
    html = page.write(both).read_text()
    for where in ("measures", "slices", "diversity", "settings"):
        section = html[html.index(f'<section id="{where}"') :].split("</section>")[0]
        assert section.count(f'<h3 class="under"><bdi>{GUIDED}</bdi>') == 1
        assert section.count('<h3 class="under"><bdi>10 steps, guidance 3</bdi>') == 1
    assert 'data-tab="slices-1-3"' in html
    assert html.count('id="slices-1-3"') == 1


def test_a_page_of_one_sampler_names_none(finished: Path):
    assert 'class="under"' not in page.write(finished).read_text()


def test_what_fell_is_said_with_its_sampler_and_with_what_it_is_worse_than(make_run: Make):
    folder = make_run(videos=0)
    judge_guided(folder)
    fell = {"slice": "color=red", "metric": "physics_ok", "difference": -0.1, "low": -0.2, "high": -0.01, "level": 0.95}
    rose = {"metric": "motion_right", "before": 0.4, "after": 0.5, "difference": 0.1, "low": 0.05, "high": 0.2}
    gate = {
        "verdict": "failed",
        "sentence": "",
        "sampler": "guided",
        "unjudged": "sft",
        "targets": [rose | {"rose": True}],
        "fallen_slices": [fell | {"sampler": "guided", "against": "base"}, fell | {"sampler": "s10g3"}],
    }
    change_ledger(folder, "grpo", gate=gate)
    run = load.load(folder)
    station = next(station for station in stations.stations(run) if station.label == "grpo")
    assert [finding.name for finding in station.findings] == [
        "motion right",
        f"physics ok on color red with {GUIDED} (worse than the base)",
        "physics ok on color red with 10 steps, guidance 3",
    ]
    assert station.findings[0].about == GUIDED
    assert station.sentence.endswith("What entered is from SFT, which no gate judged.")
    said = " ".join(c.text for c in caveats.caveats(run, *map(tables.measure_table, run.views)))
    assert f"physics ok on color red with {GUIDED} (worse than the base)" in said


def test_a_missing_evaluation_of_a_further_sampler_is_named(make_run: Make):
    folder = make_run(videos=0)
    judge_guided(folder)
    (folder / "evaluations" / "grpo@guided.json").unlink()
    run = load.load(folder)
    said = [c.text for c in caveats.caveats(run, *map(tables.measure_table, run.views)) if c.grave]
    assert any(text.startswith(f"{GUIDED}: evaluations/grpo@guided.json is missing") for text in said)


def test_the_facts_say_which_samplers_judged_and_how_many_prompts(both: Path):
    judged = next(fact for fact in facts.facts(load.load(both)) if fact.name == "Judged on")
    assert judged.more == f"with 10 steps, guidance 3; with {GUIDED}, the first 12 prompts only"


def test_runs_are_compared_under_each_sampler_that_both_know(make_run: Make, both: Path, finished: Path):
    found = compare(both, both)
    assert list(dict.fromkeys(m.sampler for m in found.measures)) == ["10 steps, guidance 3", GUIDED]
    left_out = "left out, since A and B trained on sharpness."
    assert found.notes == (f"10 steps, guidance 3: {left_out}", f"{GUIDED}: {left_out}")
    text = found.table()
    assert text.index("10 steps, guidance 3:") < text.index(f"{GUIDED}:")
    with_one = compare(both, finished)
    assert {m.sampler for m in with_one.measures} == {"10 steps, guidance 3"}
    assert with_one.notes[-1] == f"only both was judged with {GUIDED}."
    # One that is further in one run may be the main one of the other.
    other = make_run(videos=0)
    judge_guided(other, prompts=24)
    for path in sorted((other / "evaluations").glob("*@guided.json")):
        path.rename(path.with_name(path.name.replace("@guided", "")))
    crossed = compare(both, other)
    assert {m.sampler for m in crossed.measures} == {GUIDED}


def test_an_evaluation_called_with_an_at_is_that_of_a_stage_of_its_own(make_run: Make):
    """Only the record says whether what stands behind the @ is a sampler."""
    folder = make_run(stages=("sft",), videos=0)
    path = folder / "evaluations" / "sft.json"
    content = json.loads(path.read_text())
    path.with_name("sft@guided.json").write_text(json.dumps({**content, "label": "sft@guided"}))
    run = load.load(folder)
    assert list(run.evaluations) == ["base", "sft", "sft@guided"]
    assert run.others == {}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.1, 0.02, "no difference beyond noise"), (-0.1, -0.01, "worse"), (0.01, 0.1, "better")],
)
def test_the_headline_compares_best_with_best_where_that_was_searched(
    make_run: Make, low: float, high: float, verdict: str
):
    folder = make_run(videos=0)
    level = {"before": 0.7, "after": 0.7 + (low + high) / 2, "difference": (low + high) / 2, "low": low, "high": high}
    ends = [("base", {"steps": 16, "guidance": 3.0}), ("demo", {"steps": 32, "guidance": 1.0})]
    found = {
        "by": "attributes_right",
        "chosen_on": 80,
        "judged_on": 80,
        "chosen": [
            {"model": name, "forwards": 32, "sampler": sampler, "tried": [], "measures": {}} for name, sampler in ends
        ],
        "contests": [{"forwards": 32, "first": "base", "other": "demo", "measures": {"attributes_right": level}}],
    }
    (folder / "best.json").write_text(json.dumps(found))
    run = load.load(folder)
    said = [s.striptags() for s in headline.headline(run, tables.measure_table(run))]
    text = next(sentence for sentence in said if sentence.startswith("Best against best at 32 forwards a clip. "))
    assert "Base with 16 steps, guidance 3, Demo with 32 steps, guidance 1: attributes right from 70" in text
    assert f"), {verdict}. The settings were chosen on 80 prompts and judged on 80 others." in text


def test_a_sampler_of_an_evaluation_aside_is_shown_and_nothing_is_missed_under_it(make_run: Make):
    folder = make_run(videos=0)
    judge_guided(folder)
    for label in ("base", "sft", "dpo"):
        (folder / "evaluations" / f"{label}@guided.json").unlink()
    change_ledger(folder, "grpo", kind="evaluate", gate=None, judged=False)
    run = load.load(folder)
    shown = list(map(tables.measure_table, run.views))
    assert shown[1].labels == ("grpo",)
    assert not any(GUIDED in s.striptags() for s in headline.headline(run, *shown))
    assert not any("is missing" in caveat.text for caveat in caveats.caveats(run, *shown))
    judged = next(fact for fact in facts.facts(run) if fact.name == "Judged on")
    assert GUIDED not in judged.more
    assert GUIDED in page.write(folder).read_text()
