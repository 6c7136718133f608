"""Gates on synthetic evaluations: a target must rise beyond noise, and no slice may fall beyond noise."""

from typing import Any

import pytest
import torch

from reelign.core import rng
from reelign.diagnostics import gates
from reelign.errors import RunStopped
from reelign.records import Evaluation
from reelign.stage import GateConfig

N, MEMBERS = 60, 2
COLORS, MOTIONS = ("red", "green", "blue"), ("left", "right")
UNSAID = {"low": None, "high": None, "n": N}


def _evaluation(
    values: torch.Tensor, *, higher: bool = True, name: str = "level", label: str = "sft"
) -> dict[str, Any]:
    """`values` [prompts members], NaN where the measure does not apply."""
    clips = []
    for p, row in enumerate(values.tolist()):
        slices = {"color": COLORS[p % 3], "motion": MOTIONS[p % 2]}
        for m, value in enumerate(row):
            clip = {"prompt": f"prompt {p}", "prompt_id": p, "member": m, "seed": 7 * p + m, "slices": slices}
            clips.append({**clip, "measures": {name: None if value != value else value}})
    measures = {name: {**UNSAID, "mean": values.nanmean().item(), "higher_is_better": higher}}
    return {"label": label, "sampler": {"steps": 4, "guidance": 3.0}, "measures": measures, "clips": clips}


def _noise(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * rng.normal((N, MEMBERS), seed=seed)


def _judge(before: torch.Tensor, after: torch.Tensor, *, higher: bool = True, **gate: Any) -> dict[str, Any]:
    config = GateConfig.model_validate({"targets": ("level",), **gate})
    old, new = _evaluation(before, higher=higher, label="base"), _evaluation(after, higher=higher)
    return _compared(old, new, config)


def _compared(before: dict[str, Any], after: dict[str, Any], gate: GateConfig) -> dict[str, Any]:
    old, new = Evaluation.model_validate(before), Evaluation.model_validate(after)
    return gates.judge([old], [new], gate).model_dump(mode="json")


def test_a_target_that_rose_passes_and_the_sentence_says_from_where_to_where() -> None:
    before = _noise(1)
    found = _judge(before, before + 0.5 + _noise(2, 0.2))
    assert found["verdict"] == "passed"
    target = found["targets"][0]
    assert target["rose"]
    assert target["low"] < target["difference"] < target["high"]
    assert target["difference"] == pytest.approx(0.5, abs=0.1)
    assert found["sentence"] == f"rose: level {target['before']:.3f} to {target['after']:.3f}; no slice fell."


@pytest.mark.parametrize("shift", [0.0, -0.5])
def test_a_target_that_did_not_rise_beyond_noise_fails(shift: float) -> None:
    before = _noise(1)
    found = _judge(before, before + shift + _noise(4, 0.2))
    assert found["verdict"] == "failed"
    assert found["sentence"] == "no gain beyond noise in level. The weights that entered the stage are kept."


def test_for_a_measure_that_should_be_low_a_fall_is_a_gain() -> None:
    before = _noise(1)
    assert _judge(before, before - 0.5, higher=False)["verdict"] == "passed"
    assert _judge(before, before + 0.5, higher=False)["verdict"] == "failed"


def test_differences_are_paired_so_that_hard_prompts_do_not_hide_a_small_gain() -> None:
    before = 10 * _noise(1)
    assert _judge(before, before + 0.5 + _noise(2, 0.05))["verdict"] == "passed"


def test_whole_prompts_are_resampled_so_that_members_do_not_count_as_evidence() -> None:
    """A gain on 8 of 60 prompts is real or not by prompts; thirty copies of each would make any noise significant."""
    change = torch.zeros(N, 1)
    change[::8] = rng.normal((len(change[::8]), 1), seed=8)
    few = _judge(torch.zeros(N, 1), change)["targets"][0]
    many = _judge(torch.zeros(N, 30), change.expand(-1, 30))["targets"][0]
    assert many["high"] - many["low"] == pytest.approx(few["high"] - few["low"], rel=0.01)


def test_a_slice_that_fell_beyond_noise_fails_the_gate_by_name() -> None:
    before = _noise(1)
    after = before + 0.6 + _noise(2, 0.1)
    after[0::3] -= 1.2  # red
    found = _judge(before, after, guards=("level",))
    assert found["verdict"] == "failed"
    assert [row["slice"] for row in found["fallen_slices"]] == ["color=red"]
    assert found["fallen_slices"][0]["high"] < 0
    assert found["fallen_slices"][0]["level"] == pytest.approx(1 - 0.05 / 6)  # all, three colours, two motions
    assert "worse beyond noise: level on color=red (-0." in found["sentence"]
    assert found["targets"][0]["rose"]


def test_a_measure_that_guards_nothing_may_fall_on_a_slice() -> None:
    before = _noise(1)
    after = before + 0.6
    after[0::3] -= 1.2
    assert _judge(before, after)["verdict"] == "passed"


def test_slices_with_too_few_clips_are_not_judged() -> None:
    before = _noise(1)
    after = before + 0.6
    after[0::3] -= 1.2
    assert _judge(before, after, guards=("level",), min_slice=41)["fallen_slices"] == []
    assert _judge(before, after, guards=("level",), min_slice=40)["fallen_slices"] != []


def test_many_slices_widen_the_interval_so_that_chance_does_not_fail_a_stage() -> None:
    """On pure noise, sixty slices without a correction would fail most gates; with it, one in twenty."""
    failed = 0
    config = GateConfig(targets=("level",), guards=("level",), min_slice=2, tolerance={"level": 0.0})
    for trial in range(20):
        before, after = (
            _evaluation(rng.normal((N, MEMBERS), seed=rng.seed_for(trial, w))) for w in ("before", "after")
        )
        for evaluation in (before, after):
            for clip in evaluation["clips"]:
                clip["slices"] = {f"question {q}": str((clip["prompt_id"] >> q) % 2) for q in range(6)}
                clip["slices"] |= {f"shifted {q}": str((clip["prompt_id"] * 7 >> q) % 2) for q in range(6)}
        failed += bool(_compared(before, after, config)["fallen_slices"])
    assert failed <= 3


def test_clips_to_which_a_measure_does_not_apply_are_left_out() -> None:
    before = _noise(1)
    after = before + 0.5
    before[::4, 0] = float("nan")
    after[::5, 1] = float("nan")
    assert _judge(before, after)["targets"][0]["difference"] == pytest.approx(0.5, abs=1e-5)


def test_a_measure_that_applies_nowhere_is_no_gain() -> None:
    nowhere = torch.full((N, MEMBERS), float("nan"))
    found = _judge(nowhere, nowhere, guards=("level",))
    assert found["verdict"] == "failed"
    assert found["targets"][0]["rose"] is False


def test_a_stage_without_a_gate_is_done_and_says_that_none_judged_it() -> None:
    found = gates.ungated("no gate judged it.")
    assert found.model_dump(mode="json") == {
        "verdict": "ungated",
        "sentence": "no gate judged it.",
        "sampler": "",
        "unjudged": "",
        "targets": [],
        "fallen_slices": [],
    }
    assert gates.said(found) == "done; no gate judged it."
    assert gates.said(found.model_copy(update={"verdict": "passed", "sentence": "rose."})) == "passed; rose."


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_a_difference_that_no_one_would_care_for_is_no_gain_and_no_loss(scale: float) -> None:
    """With the same noise on both sides any difference lies beyond noise, such as one in the sixth digit."""
    before = scale * (40 + _noise(1))
    for sign in (1, -1):
        after = before + sign * 5e-6 * scale + _noise(2, 1e-7 * scale)
        found = _judge(before, after, guards=("level",))
        assert found["verdict"] == "failed"
        assert not found["targets"][0]["rose"]
        assert found["fallen_slices"] == []
    assert _judge(before, before + 0.2 * scale, guards=("level",))["verdict"] == "passed"


def test_rounding_is_no_difference_even_where_all_clips_are_alike() -> None:
    alike = torch.zeros(N, MEMBERS)
    found = _judge(alike, alike + 2e-7, guards=("level",))
    assert "too small a gain in level (+0.00000020; what counts is 1e-06)" in found["sentence"]
    assert _judge(alike, alike - 2e-7, guards=("level",))["fallen_slices"] == []


def test_a_share_must_rise_by_half_a_point() -> None:
    before = torch.zeros(400, 1)
    before[:200] = 1
    few, enough = before.clone(), before.clone()
    few[200:201], enough[200:208] = 1, 1
    assert not _judge(before, few)["targets"][0]["rose"]
    found = _judge(before, enough)
    assert found["targets"][0] == {**found["targets"][0], "rose": True, "min_gain": 0.005}
    assert found["sentence"] == "rose: level 0.500 to 0.520; no slice fell."


def test_a_recipe_says_what_gain_and_what_loss_matter() -> None:
    before = _noise(1)
    after = before + 0.1
    assert _judge(before, after, min_gain={"level": 0.09})["verdict"] == "passed"
    found = _judge(before, after, min_gain={"level": 0.2})
    assert (
        found["sentence"]
        == "too small a gain in level (+0.100; what counts is 0.2). The weights that entered the stage are kept."
    )
    assert _judge(before, before - 0.1, guards=("level",), tolerance={"level": 0.2})["fallen_slices"] == []
    assert _judge(before, before - 0.1, guards=("level",), tolerance={"level": 0.05})["fallen_slices"] != []


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        ({"min_gain": {"other": 0.1}}, "min_gain has 'other', which is none of targets"),
        ({"tolerance": {"level": 0.1}}, "tolerance has 'level', which is none of guards"),
        ({"min_gain": {"level": -0.1}}, "greater than or equal to 0"),
    ],
)
def test_a_gain_or_loss_that_no_measure_has_is_refused(gate: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        GateConfig.model_validate({"targets": ("level",), **gate})


def test_numbers_in_a_sentence_can_be_told_apart() -> None:
    before = 0.0404 + 1e-4 * _noise(1)
    found = _judge(before, before + 2e-4)
    assert found["sentence"] == "rose: level 0.0404 to 0.0406; no slice fell."
    fell = _judge(before, before - 2e-4, guards=("level",))
    assert "level on all (-0.00020)" in fell["sentence"]


def test_clips_are_paired_by_prompt_and_member_whatever_their_order() -> None:
    before = 10 * _noise(1)
    old, new = _evaluation(before, label="base"), _evaluation(before + 0.5)
    gate = GateConfig(targets=("level",), guards=("level",))
    straight = _compared(old, new, gate)
    old["clips"].reverse()
    assert _compared(old, new, gate) == straight
    assert straight["targets"][0]["difference"] == pytest.approx(0.5)


def _changed(evaluation: dict[str, Any], **values: Any) -> dict[str, Any]:
    clips = [dict(clip) for clip in evaluation["clips"]]
    clips[5] |= values
    return {**evaluation, "clips": clips}


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (lambda e: _changed(e, seed=99), r"differ in the seed of prompt 2, member 1 \(15 and 99\)"),
        (
            lambda e: _changed(e, prompt="another"),
            r"differ in the prompt of prompt 2, member 1 \(prompt 2 and another\)",
        ),
        (lambda e: {**e, "clips": e["clips"][:-1]}, r"differ in the prompt_id of prompt 59, member 1 \(59 and none\)"),
        (lambda e: {**e, "sampler": {"steps": 5}}, "were sampled with other settings"),
        (lambda e: {**e, "measures": {}}, "the evaluation 'sft' has no 'level'"),
    ],
)
def test_evaluations_of_other_clips_are_not_compared(other: Any, sentence: str) -> None:
    base, found = _evaluation(_noise(1), label="base"), _evaluation(_noise(1) + 1)
    with pytest.raises(RunStopped, match=sentence):
        _compared(base, other(found), GateConfig(targets=("level",)))


@pytest.mark.parametrize("left", [0, 30])
def test_a_guard_that_applies_to_fewer_clips_has_not_held(left: int) -> None:
    before = _noise(1)
    old, new = _evaluation(before, label="base"), _evaluation(before + 0.5 + _noise(2, 0.2))
    for evaluation in (old, new):
        evaluation["measures"]["alive"] = {**UNSAID, "mean": 1.0}
        for index, clip in enumerate(evaluation["clips"]):
            clip["measures"]["alive"] = 1.0 if evaluation is old or index < left else None
    found = _compared(old, new, GateConfig(targets=("level",), guards=("alive",)))
    assert found["verdict"] == "failed"
    assert found["sentence"].startswith("worse beyond noise: clips that alive applies to on all (-")
    assert found["fallen_slices"][0]["difference"] == pytest.approx(left / (N * MEMBERS) - 1)


def test_a_guard_that_applies_to_some_clips_only_holds_if_it_still_does() -> None:
    before = _noise(1)
    before[::3] = torch.nan
    assert _judge(before, before + 0.5, guards=("level",))["verdict"] == "passed"


def _under(values: torch.Tensor, sampler: str, label: str) -> Evaluation:
    """An evaluation under a sampler of that name."""
    found = _evaluation(values, label=label)
    return Evaluation.model_validate({**found, "sampler": {"name": sampler, "steps": 4, "guidance": 3.0}})


def _pair(plain: torch.Tensor, guided: torch.Tensor, label: str) -> list[Evaluation]:
    """What was judged under the main sampler and under a further one."""
    return [_under(plain, "plain", label), _under(guided, "guided", label)]


GUARDED = GateConfig(targets=("level",), guards=("level",))


def test_targets_rise_under_the_sampler_that_the_gate_names_and_by_default_under_the_main_one() -> None:
    before = _noise(1)
    old, new = _pair(before, before, "base"), _pair(before, before + 0.5 + _noise(2, 0.2), "sft")
    flat = gates.judge(old, new, GateConfig(targets=("level",)))
    assert (flat.verdict, flat.sampler) == ("failed", "plain")
    risen = gates.judge(old, new, GateConfig(targets=("level",), sampler="guided"))
    assert (risen.verdict, risen.sampler) == ("passed", "guided")
    assert risen.targets[0].difference == pytest.approx(0.5, abs=0.1)
    assert risen.sentence.endswith("; no slice fell under any sampler.")


@pytest.mark.parametrize("named", ["", "plain", "guided"])
def test_a_guard_holds_under_every_sampler_whichever_the_targets_are_of(named: str) -> None:
    """Under one sampler all rises; under the other the red prompts fall."""
    before, better = _noise(1), _noise(1) + 0.6 + _noise(2, 0.1)
    worse = better.clone()
    worse[0::3] -= 1.2
    for plain, guided, where in ((better, worse, "guided"), (worse, better, "plain")):
        gate = GateConfig(targets=("level",), guards=("level",), sampler=named)
        found = gates.judge(_pair(before, before, "base"), _pair(plain, guided, "sft"), gate)
        assert found.verdict == "failed"
        assert [(fell.slice, fell.sampler, fell.against) for fell in found.fallen_slices] == [("color=red", where, "")]
        assert found.fallen_slices[0].level == pytest.approx(1 - 0.05 / 12)  # six slices under two samplers
        assert f"worse beyond noise: level on color=red under {where} (-0." in found.sentence


def test_a_guard_that_applies_to_fewer_clips_under_another_sampler_has_not_held() -> None:
    before = _noise(1)
    blank = before + 0.5
    blank[:30] = torch.nan
    found = gates.judge(_pair(before, before, "base"), _pair(before + 0.5, blank, "sft"), GUARDED)
    assert [(fell.metric, fell.sampler) for fell in found.fallen_slices] == [("clips that level applies to", "guided")]
    assert found.verdict == "failed"


def test_stages_that_lose_a_little_each_fail_once_the_base_is_lost() -> None:
    """Each step is below what matters between two stages, but not from the base on; the target is another measure."""
    gate = GateConfig(targets=("level",), guards=("kept",), tolerance={"kept": 0.15})
    kept, levels = [0.0, -0.1, -0.2], [_noise(1) + k for k in range(3)]

    def judged(stage: int, label: str) -> list[Evaluation]:
        found = _evaluation(levels[stage], label=label)
        found["measures"]["kept"] = {**UNSAID, "mean": kept[stage]}
        for index, clip in enumerate(found["clips"]):
            clip["measures"]["kept"] = kept[stage] + 0.01 * (index % 7)
        return [Evaluation.model_validate(found)]

    base, first, second = judged(0, "base"), judged(1, "sft"), judged(2, "grpo")
    assert gates.judge(base, first, gate, base).verdict == "passed"
    assert gates.judge(first, second, gate).verdict == "passed"
    found = gates.judge(first, second, gate, base)
    assert found.verdict == "failed"
    assert {fell.against for fell in found.fallen_slices} == {"base"}
    assert found.fallen_slices[0].difference == pytest.approx(-0.2)
    assert found.sentence.startswith("worse than the base beyond noise: kept on ")
    assert found.targets[0].rose


def test_targets_need_only_rise_against_what_entered() -> None:
    """A stage that mends half of what an ungated one has lost has its target, and no guard asks for more."""
    base, low = _noise(1), _noise(1) - 2
    entered, after, start = _evaluation(low, label="sft"), _evaluation(low + 1), _evaluation(base, label="base")
    rounds = [[Evaluation.model_validate(each)] for each in (entered, after, start)]
    assert gates.judge(*rounds[:2], GateConfig(targets=("level",)), rounds[2]).verdict == "passed"
    assert gates.judge(*rounds[:2], GUARDED, rounds[2]).verdict == "failed"


@pytest.mark.parametrize("rise", [0.5, -0.5])
def test_weights_that_entered_unjudged_are_said_to_be_so(rise: float) -> None:
    before = _noise(1)
    old, new = (
        Evaluation.model_validate(_evaluation(before, label="sft")),
        Evaluation.model_validate(_evaluation(before + rise, label="grpo")),
    )
    found = gates.judge([old], [new], GateConfig(targets=("level",)), unjudged="sft")
    assert found.unjudged == "sft"
    assert found.sentence.endswith(" What entered is from sft, which no gate judged.")
