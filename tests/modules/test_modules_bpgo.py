"""BPGO as a module: its two formulas worked out by hand, and where its priors come from."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist, fmean, variance
from typing import Any

import pytest
import torch
from tests.modules.rollouts import UNIT, advantages, build, configured, demand, never, scored, sigmoid, standard
from torch import Tensor
from torch.testing import assert_close

from reelign.batches import Prompts, Request, Videos, requests
from reelign.errors import BadConfig, BadData

TEXTS = ("a red ball", "a blue box")
FIRST = [[0.2, 0.4, 0.5, 0.9], [0.1, 0.6, 0.3, 0.2]]
SECOND = [[0.7, 0.1, 0.3, 0.5], [0.4, 0.5, 0.8, 0.2]]
PRIORS = {"first": [0.45, 0.25], "second": [0.3, 0.6]}
WEIGHTS = {"first": 1.0, "second": 0.5}


def _rewards() -> dict[str, Tensor]:
    return {"first": torch.tensor(FIRST), "second": torch.tensor(SECOND)}


def _bpgo(**settings: Any) -> dict[str, Any]:
    return {"name": "bpgo", **settings}


def _file(folder: Path, content: object) -> Path:
    path = folder / "priors.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def _both(folder: Path) -> Path:
    layout = {text: {name: PRIORS[name][p] for name in PRIORS} for p, text in enumerate(TEXTS)}
    return _file(folder, {**layout, "a prompt of another stage": {"first": 0.5, "second": 0.5}})


def _contrast(row: list[float], prior: float) -> list[float]:
    return [((r - prior) + (r > prior)) * math.exp(r) for r in row]


def _paper(alpha: float, slope: float, share: float) -> list[list[float]]:
    """Rewards and their contrasts compared one by one, added, compared again, and scaled by the group's reliability."""
    found = []
    for p in range(2):
        rows = {"first": FIRST[p], "second": SECOND[p]}
        total, scale = [0.0] * 4, 0.0
        for name, row in rows.items():
            prior = PRIORS[name][p]
            plain, apart = standard(row), standard(_contrast(row, prior))
            total = [t + WEIGHTS[name] * (a + share * c) for t, a, c in zip(total, plain, apart, strict=True)]
            reliable = 1 + alpha * (2 * sigmoid(slope * (fmean(row) - prior)) - 1)
            scale += WEIGHTS[name] / sum(WEIGHTS.values()) * reliable
        found.append([scale * a for a in standard(total)])
    return found


@pytest.mark.parametrize(
    ("alpha", "slope", "share"), [(0.5, 5.0, 0.2), (0.8, 1.0, 0.7), (0.0, 5.0, 0.3), (0.5, 2.0, 0.0)]
)
def test_the_papers_form_is_its_formula(tmp_path: Path, alpha: float, slope: float, share: float) -> None:
    settings = {"prior": "given", "file": _both(tmp_path), "alpha": alpha, "slope": slope, "share": share}
    method = build(_bpgo(**settings))
    method.begin(requests(TEXTS), never)
    found = advantages(method, scored(_rewards(), WEIGHTS, texts=TEXTS))
    assert_close(torch.tensor(found), torch.tensor(_paper(alpha, slope, share)), atol=2e-5, rtol=1e-4)


def test_the_released_form_is_its_formula_on_raw_rewards(tmp_path: Path) -> None:
    method = build(
        _bpgo(form="released", prior="given", file=_file(tmp_path, dict(zip(TEXTS, (0.45, 0.25), strict=True))))
    )
    method.begin(requests(TEXTS), never)
    found = advantages(method, scored({"first": torch.tensor(FIRST)}, texts=TEXTS))
    for p, prior in enumerate((0.45, 0.25)):
        row = FIRST[p]
        contrasted = [(50 * (r - prior) + (r > prior)) * r / (1 + math.exp(-r / 5)) for r in row]
        precision = len(row) / variance(row)
        middle = (precision * fmean(row) + prior) / (precision + 1)
        above = NormalDist().cdf((middle - prior) * math.sqrt(precision + 1))
        expected = [(0.5 + above) * a for a in standard(standard(contrasted))]
        assert_close(found[p], expected, atol=1e-4, rtol=1e-3)


def test_groups_above_their_prior_count_more_and_groups_below_it_less(tmp_path: Path) -> None:
    method = build(_bpgo(prior="given", file=_file(tmp_path, dict(zip(TEXTS, (0.1, 0.9), strict=True))), share=0.0))
    method.begin(requests(TEXTS), never)
    row = [0.3, 0.5, 0.6, 0.8]
    high, low = advantages(method, scored({"first": torch.tensor([row, row])}, texts=TEXTS))
    plain = standard(standard(row))
    assert all(abs(h) > abs(a) > abs(b) for h, a, b in zip(high, plain, low, strict=True))


def _reliability(row: Sequence[float], prior: float) -> float:
    return 1 + 0.5 * (2 * sigmoid(5 * (fmean(row) - prior)) - 1)


def test_a_moving_prior_starts_from_the_batch_and_goes_on_as_an_average() -> None:
    method = build(_bpgo(momentum=0.75, share=0.0))
    method.begin(requests(TEXTS), never)
    metrics = method.credit(scored({"first": torch.tensor(FIRST)}, texts=("a", "b"))).metrics
    usual = fmean(FIRST[0] + FIRST[1])
    assert metrics["reliability"] == pytest.approx(fmean(_reliability(row, usual) for row in FIRST), abs=1e-6)
    assert_close(method.state()["prior/of/first"], torch.tensor([fmean(row) for row in FIRST]))

    again = build(_bpgo(momentum=0.75, share=0.0))
    again.load({name: value.clone() for name, value in method.state().items()})
    # The second prompt comes again, with one that was never seen.
    rows = [SECOND[0], SECOND[1]]
    for one in (method, again):
        # Ids of a prompt file may be any numbers; prompts are known by their texts.
        metrics = one.credit(scored({"first": torch.tensor(rows)}, texts=("b", "c"), ids=(2**62, -5))).metrics
        expected = [_reliability(rows[0], fmean(FIRST[1])), _reliability(rows[1], fmean(rows[0] + rows[1]))]
        assert metrics["reliability"] == pytest.approx(fmean(expected), abs=1e-6)
        assert metrics["reliability_std"] == pytest.approx(abs(expected[0] - expected[1]) / 2, abs=1e-6)
        known = one.state()["prior/of/first"]
        moved = 0.75 * fmean(FIRST[1]) + 0.25 * fmean(rows[0])
        assert_close(known, torch.tensor([fmean(FIRST[0]), moved, fmean(rows[1])]))


@pytest.mark.parametrize("form", ["paper", "released"])
def test_a_moving_prior_is_on_the_scale_of_raw_rewards(form: str) -> None:
    method = build(_bpgo(form=form))
    for _ in range(3):
        method.credit(scored({"first": torch.tensor(FIRST)}))
    assert sorted(method.state()) == ["prior/of/first", "prior/texts"]
    assert_close(method.state()["prior/of/first"], torch.tensor([fmean(row) for row in FIRST]))


def test_own_priors_are_means_of_the_starting_policys_samples() -> None:
    asked: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def score(asking: Sequence[Request], seeds: Sequence[int]) -> dict[str, Tensor]:
        asked.append((tuple(request.text for request in asking), tuple(seeds)))
        return {"first": torch.tensor([0.1, 0.2, 0.6, 0.4, 0.5, 0.9]), "second": torch.arange(6) / 10}

    method = build(_bpgo(prior="own", samples=3))
    method.begin(requests(TEXTS), score)
    ((texts, seeds),) = asked
    assert texts == (TEXTS[0],) * 3 + (TEXTS[1],) * 3
    assert len(set(seeds)) == 6
    assert_close(method.state()["prior/of/first"], torch.tensor([0.3, 0.6]))
    assert_close(method.state()["prior/of/second"], torch.tensor([0.1, 0.4]))
    method.credit(scored(_rewards(), WEIGHTS, texts=TEXTS))
    assert_close(method.state()["prior/of/first"], torch.tensor([0.3, 0.6]))


def test_first_frame_priors_are_scores_of_the_groups_first_frames_held_still() -> None:
    frames = torch.rand(8, 3, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    asked: list[Tensor] = []

    def rescore(videos: Videos) -> dict[str, Tensor]:
        asked.append(videos.frames)
        return {"first": videos.frames.flatten(1).mean(dim=1)}

    method = build(_bpgo(prior="first_frame", share=0.0))
    seen = method.see(Videos(frames, 8.0), Prompts(requests(TEXTS), 4), torch.zeros(8, 1), rescore)
    metrics = method.credit(scored({"first": torch.tensor(FIRST)}, seen=seen)).metrics
    assert all(torch.equal(still, frames[:, :1].expand_as(frames)) for still in asked)
    assert asked
    priors = frames[:, 0].flatten(1).mean(dim=1).reshape(2, 4).mean(dim=1).tolist()
    expected = fmean(_reliability(row, prior) for row, prior in zip(FIRST, priors, strict=True))
    assert metrics["reliability"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("source", ["moving", "own", "given"])
def test_other_sources_look_at_no_videos(tmp_path: Path, source: str) -> None:
    settings = {"file": _both(tmp_path)} if source == "given" else {}
    assert not build(_bpgo(prior=source, **settings)).slots.sees


def test_given_priors_serve_all_rewards_or_each_its_own(tmp_path: Path) -> None:
    method = build(_bpgo(prior="given", file=_file(tmp_path, dict(zip(TEXTS, (0.3, 1), strict=True)))))
    method.begin(requests(TEXTS), never)
    assert_close(method.state()["prior/of/"], torch.tensor([0.3, 1.0]))
    method = build(_bpgo(prior="given", file=_both(tmp_path)))
    method.begin(requests(TEXTS), never)
    assert_close(method.state()["prior/of/first"], torch.tensor(PRIORS["first"]))
    assert_close(method.state()["prior/of/second"], torch.tensor(PRIORS["second"]))


def _begin(path: Path) -> None:
    build(_bpgo(prior="given", file=path)).begin(requests(TEXTS), never)


def test_a_prompt_without_a_given_prior_is_refused_by_name_before_any_rollout(tmp_path: Path) -> None:
    path = _file(tmp_path, {TEXTS[0]: 0.3})
    with pytest.raises(BadConfig, match=r"priors.json' has no prior for 'a blue box' \(1 of 2 prompts are missing\)"):
        _begin(path)
    path = _file(tmp_path, {TEXTS[0]: {"first": 0.3, "second": 0.1}, TEXTS[1]: {"first": 0.3}})
    with pytest.raises(BadConfig, match=r"has priors of 'second' for some prompts only"):
        _begin(path)


@pytest.mark.parametrize("content", ["{", "0.3", "[0.3, 0.4]", '"a red ball"'])
def test_a_file_that_holds_no_object_of_priors_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(BadData, match=r"bpgo's file '.*priors.json' (is no JSON|must hold an object of priors)"):
        _begin(_file(tmp_path, content))


@pytest.mark.parametrize("value", [True, "0.3", None, [0.3], {"first": False}, math.nan, math.inf, 10**400])
def test_a_prior_that_is_no_number_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(BadData, match=r"bpgo's prior of 'a red ball' is .*, but it must be a number"):
        _begin(_file(tmp_path, {TEXTS[0]: value, TEXTS[1]: 0.3}))


def test_a_file_that_is_not_there_or_not_text_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"bpgo's file '.*nothing.json' does not exist"):
        _begin(tmp_path / "nothing.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadData, match=r"bpgo's file '.*bytes.json' is no JSON"):
        _begin(tmp_path / "bytes.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("pipe.json", "."):
        with pytest.raises(BadData, match=r"bpgo's file .* is not a file; give a JSON of priors by prompt"):
            _begin(tmp_path / name)


@pytest.mark.parametrize("settings", [{"prior": "given"}, {"prior": "own", "file": "priors.json"}])
def test_a_file_and_prior_given_belong_together(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="prior: given and file belong together"):
        build(_bpgo(**settings))


def test_the_released_form_is_refused_for_rewards_declared_below_zero() -> None:
    with pytest.raises(BadConfig, match=r"released form turns the order .* 'taste' is declared from -1 to 1"):
        configured(_bpgo(form="released")).check(demand({"first": UNIT, "taste": (-1.0, 1.0)}))
    configured(_bpgo(form="released")).check(demand({"first": (0.0, 10.0)}))
    configured(_bpgo(form="paper")).check(demand({"taste": (-0.5, 0.5)}))


def test_the_contrast_is_refused_for_scales_longer_than_one() -> None:
    with pytest.raises(BadConfig, match=r"only as far as 1 below .* 'taste' is declared from 0 to 10"):
        configured(_bpgo()).check(demand({"first": UNIT, "taste": (0.0, 10.0)}))
    configured(_bpgo(share=0.0)).check(demand({"taste": (0.0, 10.0)}))


def test_priors_of_a_file_are_checked_before_any_compute(tmp_path: Path) -> None:
    """As soon as the stage's prompts are known: every prompt, every reward, every scale."""
    asked = demand({"first": UNIT, "second": UNIT})
    whole = configured(_bpgo(prior="given", file=_both(tmp_path)))
    whole.check(replace(asked, texts=TEXTS))
    with pytest.raises(BadConfig, match=r"has no prior for 'another' \(1 of 3 prompts are missing\)"):
        whole.check(replace(asked, texts=(*TEXTS, "another")))
    with pytest.raises(BadConfig, match=r"has no priors of the reward 'third'; it has first, second"):
        whole.check(replace(demand({"first": UNIT, "third": UNIT}), texts=TEXTS))
    high = configured(_bpgo(prior="given", file=_file(tmp_path, dict.fromkeys(TEXTS, 1.5))))
    with pytest.raises(BadConfig, match=r"has priors of 'first' outside its scale 0 to 1"):
        high.check(replace(asked, texts=TEXTS))
