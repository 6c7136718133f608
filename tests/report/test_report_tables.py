"""Numbers, paired differences, slices."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reelign.core import stats
from reelign.diagnostics import gates
from reelign.errors import UserError
from reelign.records import Clip
from reelign.report import compare, headline, load, page, slices, stations, tables, words
from reelign.stage import GateConfig

Make = Callable[..., Path]


def clip(prompt_id: int, member: int, **measures: float | None) -> Clip:
    return Clip(prompt=f"prompt {prompt_id}", prompt_id=prompt_id, member=member, seed=0, measures=measures)


def by_key(*clips: Clip) -> dict[tuple[int, int], Clip]:
    return {c.key: c for c in clips}


def change_evaluation(run: Path, label: str, edit: Callable[[dict], None]) -> None:
    path = run / "evaluations" / f"{label}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def fail_gate(run: Path, stage: str) -> None:
    rows = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    for row in rows:
        if row["stage"] == stage:
            row["gate"] = {"verdict": "failed", "sentence": "no gain beyond noise in motion_right."}
    (run / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_paired_difference_is_the_mean_over_clips_that_both_have():
    ours = by_key(clip(0, 0, m=1.0), clip(0, 1, m=1.0), clip(1, 0, m=0.0), clip(2, 0, m=None), clip(9, 0, m=1.0))
    theirs = by_key(clip(0, 0, m=0.0), clip(0, 1, m=1.0), clip(1, 0, m=1.0), clip(2, 0, m=1.0), clip(8, 0, m=0.0))
    found = tables.paired(ours, theirs, "m", higher_is_better=True, rate=True)
    assert found is not None
    # clips (0, 0), (0, 1) and (1, 0): 1 - 0, 1 - 1, 0 - 1
    assert (found.n, found.prompts) == (3, 2)
    assert found.difference == pytest.approx(0.0)
    assert (found.before, found.after) == pytest.approx((2 / 3, 2 / 3))
    assert tables.paired(ours, theirs, "other", higher_is_better=True, rate=True) is None


def test_an_interval_resamples_whole_prompts():
    few = by_key(*(clip(p, m, x=float(p % 2)) for p in range(8) for m in range(16)))
    zero = by_key(*(clip(p, m, x=0.0) for p in range(8) for m in range(16)))
    many = {(16 * p + m, 0): c for (p, m), c in few.items()}
    none = {(16 * p + m, 0): c for (p, m), c in zero.items()}
    wide = tables.paired(few, zero, "x", higher_is_better=True, rate=True)
    narrow = tables.paired(many, none, "x", higher_is_better=True, rate=True)
    assert wide is not None
    assert narrow is not None
    # 16 members of a prompt agree, so that 8 prompts say four times less precisely what 128 would.
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize(
    ("low", "high", "higher", "prompts", "verdict"),
    [
        (0.1, 0.3, True, 40, "better"),
        (0.1, 0.3, False, 40, "worse"),
        (-0.3, -0.1, True, 40, "worse"),
        (-0.3, -0.1, False, 40, "better"),
        (-0.1, 0.3, True, 40, "no difference"),
        (0.0, 0.3, True, 40, "no difference"),
        (0.1, 0.3, True, 6, "better"),
        (0.1, 0.3, True, 5, "too few prompts to tell"),
        (-0.1, 0.3, True, 5, "too few prompts to tell"),
    ],
)
def test_a_difference_counts_only_outside_its_noise(low: float, high: float, higher: bool, prompts: int, verdict: str):
    levels = tables.Levels(0.4, 0.4 + (low + high) / 2, spread=0.5, rate=True)
    interval = stats.Interval((low + high) / 2, low, high)
    assert tables.judge(interval, levels, higher_is_better=higher, prompts=prompts) == verdict


def test_table_cells_are_the_evaluations_own_numbers_and_differences_are_paired(finished: Path):
    run = load.load(finished)
    table = tables.measure_table(run)
    assert table.labels == ("base", "sft", "grpo", "dpo")
    assert table.final == "dpo"
    raw = {label: json.loads((finished / "evaluations" / f"{label}.json").read_text()) for label in table.labels}
    for row in table.rows:
        for label, cell in zip(table.labels, row.cells, strict=True):
            assert cell is not None
            written = raw[label]["measures"][row.measure]
            assert (cell.mean, cell.low, cell.high, cell.n) == tuple(written[k] for k in ("mean", "low", "high", "n"))
        ours, theirs = ([c["measures"][row.measure] for c in raw[label]["clips"]] for label in ("dpo", "grpo"))
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
        last = row.at("dpo")
        assert last is not None
        assert last.to_previous is not None
        assert last.to_previous.difference == pytest.approx(sum(a - b for a, b in pairs) / len(pairs))
        assert last.to_previous.low <= last.to_previous.difference <= last.to_previous.high
    rises = next(row for row in table.rows if row.measure == "attributes_right").at("dpo")
    assert rises is not None
    assert rises.to_base is not None
    assert rises.to_base.verdict == "better"


def test_the_table_tells_the_interval_that_the_gate_judged_by(make_run: Make):
    folder = make_run(videos=0)
    evaluations = load.load(folder).evaluations
    names = ("attributes_right", "physics_violation", "order_right", "diversity")
    judged = gates.judge([evaluations["base"]], [evaluations["sft"]], GateConfig(targets=names))
    verdict = judged.model_dump(mode="json")
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    ledger[0]["gate"] = verdict
    (folder / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ledger))
    run = load.load(folder)
    rows = {row.measure: row for row in tables.measure_table(run).rows}
    findings = stations.stations(run)[1].findings
    for target, finding in zip(verdict["targets"], findings, strict=True):
        row = rows[target["metric"]]
        cell = row.at("sft")
        assert cell is not None
        found = cell.to_previous
        assert found is not None
        sign = 1 if row.higher_is_better else -1
        limits = sorted((sign * target["low"], sign * target["high"]))
        assert (found.difference, found.low, found.high) == pytest.approx((sign * target["difference"], *limits))
        assert finding.difference == words.signed(found.difference, row.rate, cell.mean)
        assert finding.interval == words.signed_limits(found.low, found.high, row.rate, cell.mean)


def test_a_comparison_tells_the_interval_of_the_table(make_run: Make):
    folder = make_run(stages=("sft",), videos=0)
    start = folder.parent / "start"
    shutil.copytree(folder, start)
    (start / "ledger.jsonl").unlink()
    (start / "evaluations" / "sft.json").unlink()
    row = tables.measure_table(load.load(folder)).rows[0]
    cell = row.at("sft")
    assert cell is not None
    assert cell.to_base is not None
    found = compare.compare(start, folder).measures[0]
    assert found.measure == row.measure
    assert (found.difference, found.low, found.high) == (cell.to_base.difference, cell.to_base.low, cell.to_base.high)


def test_a_measure_of_few_prompts_has_too_few_to_tell_wherever_it_is_compared(make_run: Make):
    folder = make_run(stages=("sft",), videos=0)

    def rare(content: dict) -> None:
        for clip in content["clips"]:
            clip["measures"]["motion_right"] = float(content["label"] == "sft") if clip["prompt_id"] < 5 else None
            clip["slices"] = {"half": "a" if clip["prompt_id"] < 4 else "b"}
        level = float(content["label"] == "sft")
        content["measures"]["motion_right"] |= {"mean": level, "low": level, "high": level, "n": 10}

    for label in ("base", "sft"):
        change_evaluation(folder, label, rare)
    run = load.load(folder)
    table = tables.measure_table(run)
    cell = next(row for row in table.rows if row.measure == "motion_right").at("sft")
    assert cell is not None
    assert cell.to_base is not None
    assert (cell.to_base.difference, cell.to_base.prompts, cell.to_base.verdict) == (1.0, 5, tables.TOO_FEW)
    small = slices.slice_tables(run)["sft"].rows[0]
    assert {found.to_base.verdict for found in small.cells if found and found.to_base} == {tables.TOO_FEW}
    said = " ".join(sentence.striptags() for sentence in headline.headline(run, table))
    assert "Too few prompts to tell whether motion failures (100 % → 0 %) moved." in said
    assert f'<span class="change none">{tables.TOO_FEW}</span> <span class="range by">+100' in page.render(run)
    shutil.copytree(folder, folder.parent / "other")
    found = {m.measure: m.verdict for m in compare.compare(folder, folder.parent / "other").measures}
    assert found["motion_right"] == tables.TOO_FEW
    assert found["attributes_right"] == "no difference"


def test_a_stage_that_was_not_kept_is_no_ones_predecessor(make_run: Make):
    folder = make_run()
    fail_gate(folder, "grpo")
    run = load.load(folder)
    row = next(row for row in tables.measure_table(run).rows if row.measure == "motion_right")
    cells = {cell.label: cell for cell in row.cells if cell}
    difference = cells["dpo"].to_previous
    assert difference is not None
    assert difference.difference == pytest.approx(cells["dpo"].mean - cells["sft"].mean)
    fail_gate(folder, "dpo")
    assert tables.measure_table(load.load(folder)).final == "sft"


def test_slices_hold_the_means_of_their_clips(finished: Path):
    run = load.load(finished)
    found = slices.slice_tables(run)
    table = found["dpo"]
    raw = json.loads((finished / "evaluations" / "dpo.json").read_text())["clips"]
    assert {(row.slice, row.value) for row in table.rows} == {(k, v) for c in raw for k, v in c["slices"].items()}
    for row in table.rows:
        members = [c for c in raw if c["slices"][row.slice] == row.value]
        assert row.n == len(members)
        for measure, cell in zip(table.measures, row.cells, strict=True):
            values = [c["measures"][measure] for c in members if c["measures"][measure] is not None]
            if not values:
                assert cell is None
                continue
            assert cell is not None
            assert cell.mean == pytest.approx(sum(values) / len(values))
            assert 0 <= cell.goodness <= 1
            assert cell.to_base is not None
    assert all(cell.to_base is None for row in found["base"].rows for cell in row.cells if cell)


def test_diversity_is_compared_with_the_base_as_a_ratio(finished: Path):
    row = next(row for row in tables.measure_table(load.load(finished)).rows if row.measure == "diversity")
    base, last = row.at("base"), row.at("dpo")
    assert base is not None
    assert last is not None
    assert tables.of_base(row)["dpo"] == pytest.approx(last.mean / base.mean)


def test_only_measures_of_zeros_and_ones_are_shares(finished: Path):
    run = load.load(finished)
    assert run.rates == set(run.measures) - {"diversity", "sharpness"}


def test_a_folder_that_is_no_run_says_so_in_one_sentence(tmp_path: Path, finished: Path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; give the path of a run"):
        load.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is not a run folder, since it has no config\.json; give one"):
        load.load(tmp_path)
    with pytest.raises(UserError, match=f"it holds runs, though: {finished.name}; give one"):
        load.load(finished.parent)


def test_damage_names_the_file_the_line_and_the_key(make_run: Make):
    folder = make_run()
    ledger = (folder / "ledger.jsonl").read_text()
    (folder / "ledger.jsonl").write_text(ledger.replace('"index": 1', '"index": "one"'))
    with pytest.raises(UserError, match=r"ledger\.jsonl, line 2: index: input should be a valid integer"):
        load.load(folder)
    (folder / "ledger.jsonl").write_text("{broken}\n" + ledger)
    with pytest.raises(UserError, match=r"ledger\.jsonl, line 1 is not JSON"):
        load.load(folder)


def test_a_line_cut_short_by_a_kill_is_dropped(make_run: Make):
    folder = make_run()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "dpo", "step": 80, "offline/lo')
    assert load.load(folder).metrics["dpo"]["offline/loss"].steps[-1] == 79


def test_videos_must_lie_inside_the_run(make_run: Make):
    folder = make_run(stages=())
    (folder.parent / "secret.mp4").write_bytes(b"secret")
    change_evaluation(folder, "base", lambda content: content["clips"][0].update(video="../secret.mp4"))
    run = load.load(folder)
    with pytest.raises(UserError, match="outside the run folder"):
        run.video(run.evaluations["base"].clips[0])
    (folder / "samples" / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    change_evaluation(folder, "base", lambda content: content["clips"][0].update(video="samples/link.mp4"))
    run = load.load(folder)
    with pytest.raises(UserError, match="outside the run folder"):
        run.video(run.evaluations["base"].clips[0])


@pytest.mark.parametrize(
    ("value", "rate", "text"),
    [
        (0.6249, True, "62 %"),
        (0.005, True, "0.5 %"),
        (1.0, True, "100 %"),
        (0.0, True, "0 %"),
        (12345.6, False, "12346"),
        (0.12345, False, "0.123"),
        (2e-7, False, "2.0e-7"),
        (-3.0, False, "\N{MINUS SIGN}3.00"),
    ],
)
def test_numbers_read_well(value: float, rate: bool, text: str):
    assert words.number(value, rate).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("before", "after", "rate", "told_apart"),
    [
        (0.0404, 0.0404002, False, False),  # print alike
        (0.040449, 0.040451, False, False),  # print 0.0404 and 0.0405, for a difference of 2e-6
        (0.0404, 0.0405, False, True),
        (9.96, 10.04, False, False),  # as 10.0, a step is 0.1
        (0.544, 0.546, True, False),  # 54 % and 55 %
        (0.54, 0.55, True, True),
        (0.031, 0.032, True, True),
        (0.0, 0.0, True, False),
        (0.0, 0.004, True, True),
        (1234.0, 1234.4, False, False),
    ],
)
def test_levels_can_be_told_apart_by_a_step_of_the_last_digit(
    before: float, after: float, rate: bool, told_apart: bool
):
    assert words.differ(before, after, rate) is told_apart
    assert words.differ(after, before, rate) is told_apart
    assert words.differ(-before, -after, rate) is told_apart


def sure(*levels: float, spread: float) -> str:
    """What is said of a difference whose interval is narrow."""
    step = levels[1] - levels[0]
    interval = stats.Interval(step, *sorted((0.9 * step, 1.1 * step)))
    found = tables.Levels(*levels, spread=spread, rate=False)
    return tables.judge(interval, found, higher_is_better=True, prompts=40)


def test_a_difference_that_is_sure_must_also_be_large_enough_to_matter():
    assert sure(0.0404, 0.0404002, spread=0.0) == "no difference that shows"
    assert sure(1e-5, 2e-5, spread=0.3) == "no difference that shows"  # twice the level, nothing beside the clips
    assert sure(0.500, 0.505, spread=0.3) == "no difference that shows"
    assert sure(0.500, 0.507, spread=0.3) == "better"
    assert sure(0.507, 0.500, spread=0.3) == "worse"
    assert sure(0.500, 0.501, spread=0.0) == "better"


def test_a_spread_is_taken_around_each_sides_own_mean():
    low, high = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([10.0, 11.0], dtype=torch.float64)
    assert tables.spread(low, high) == pytest.approx(0.5**0.5)
    assert tables.spread(low[:1], high[:1]) == 0.0


def test_the_same_noise_makes_no_difference_of_what_prints_alike(make_run: Make):
    folder = make_run(members=1, videos=0)
    level = [0.0404 + 0.001 * (p % 5) for p in range(24)]
    for label in ("base", "sft", "grpo", "dpo"):
        added = 0.0 if label == "base" else 2e-7

        def edit(content: dict, added: float = added) -> None:
            for clip, value in zip(content["clips"], level, strict=True):
                clip["measures"]["diversity"] = value + added
            content["measures"]["diversity"]["mean"] = sum(level) / len(level) + added

        change_evaluation(folder, label, edit)
    run = load.load(folder)
    table = tables.measure_table(run)
    cell = next(row for row in table.rows if row.measure == "diversity").at("dpo")
    assert cell is not None
    assert cell.to_base is not None
    assert 1e-7 < cell.to_base.low <= cell.to_base.high < 3e-7
    assert cell.to_base.verdict == "no difference that shows"
    said = " ".join(sentence.striptags() for sentence in headline.headline(run, table))
    assert "diversity (0.0423)" in said
    assert "diversity rose" not in said
    assert '<span class="change none">no difference that shows</span>' in page.render(run)
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    shutil.copy(folder / "evaluations" / "base.json", other / "evaluations" / "dpo.json")
    verdicts = {m.measure: m.verdict for m in compare.compare(other, folder).measures}
    assert verdicts["diversity"] == "no difference that shows"


def test_differences_have_one_decimal_more_than_their_level():
    assert words.signed(0.0065, like=0.494) == "+0.0065"
    assert words.signed_limits(-0.00175, 0.0147, like=0.494) == "[\N{MINUS SIGN}0.0018, +0.0147]"
    assert words.limits(0.0982, 0.102, like=0.1) == "[0.098, 0.102]"
    assert words.signed(2e-7, like=0.0404) == "0"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_values_without_end_have_words(value: float):
    for said in (words.number(value), words.number(value, True), words.signed(value), words.limits(value, value, True)):
        assert "\N{INFINITY}" in said or "not a number" in said
    assert words.seconds(value) == "\N{EN DASH}"


def test_levels_without_end_are_told_apart_by_their_words():
    assert words.differ(0.5, float("inf"))
    assert not words.differ(float("inf"), float("inf"))


def test_one_is_singular_and_thousands_are_grouped():
    assert [words.count(n, "step") for n in (0, 1, 2, 20_000)] == ["0 steps", "1 step", "2 steps", "20,000 steps"]


def test_a_label_of_ones_own_is_not_shouted():
    assert [words.title(name) for name in ("sft", "grpo-2", "cool", "my_run", "качество")] == [
        "SFT",
        "GRPO 2",
        "Cool",
        "My run",
        "Качество",
    ]


def test_slices_with_too_many_values_are_named_instead_of_shown(make_run: Make):
    many = slices.MOST_VALUES + 1
    prompts = [(f"prompt {i}", {"id": f"{i:03d}", "color": "rg"[i % 2]}) for i in range(many)]
    folder = make_run(prompts=prompts, stages=(), videos=0)
    run = load.load(folder)
    table = slices.slice_tables(run)["base"]
    assert {row.slice for row in table.rows} == {"color"}
    assert table.crowded == ("id",)
    assert f"Left out, with more than {slices.MOST_VALUES} values each: id." in page.render(run)
