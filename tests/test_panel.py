"""The rewards of a stage and the metrics of an evaluation, together."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from reelign import judges, panel, parts
from reelign.batches import Videos, requests
from reelign.errors import BadConfig, PartFailed
from reelign.panel import Panel, Weighted, WeightedReward

LINEAR, LEVEL = "tests.parts.linear_reward:build", "tests.parts.mean_level:build"
VIDEOS = Videos(torch.tensor([0.25, 0.5])[:, None, None, None, None].expand(2, 9, 3, 32, 32).contiguous(), 8.0)
ASKED = requests(["A large red circle stays still on a gray background."] * 2)


def _weighted(given: Any) -> WeightedReward:
    return TypeAdapter(Weighted).validate_python(given)


@pytest.mark.parametrize(
    ("given", "weight"),
    [(LINEAR, 1.0), ({"name": LINEAR, "k": 2.0}, 1.0), ({"name": LINEAR, "k": 2.0, "weight": 0.5}, 0.5)],
)
def test_a_reward_is_written_with_its_weight_beside_its_settings(given: Any, weight: float) -> None:
    found = _weighted(given)
    assert found.weight == weight
    assert found.reward.name == LINEAR
    assert _weighted(found.model_dump(mode="json")) == found


@pytest.mark.parametrize("weight", [0, -1, 1e308, float("inf")])
def test_a_weight_out_of_sense_is_refused(weight: float) -> None:
    with pytest.raises(ValidationError):
        _weighted({"name": LINEAR, "weight": weight})


def test_scores_come_with_their_weights_and_scales() -> None:
    configs = [_weighted({"name": LINEAR, "k": 2.0}), _weighted({"name": "playground_clarity", "weight": 0.5})]
    found = Panel.build(configs)
    scores = found.score(VIDEOS, ASKED)
    assert scores["linear"].tolist() == [0.5, 1.0]
    assert set(scores) == {"linear", "playground_clarity"}
    assert found.weights == {"linear": 1.0, "playground_clarity": 0.5}
    assert panel.trained(configs) == {"linear": (-100.0, 100.0), "playground_clarity": (0.0, 1.0)}
    assert panel.describe(configs) == {
        LINEAR: {"weight": 1.0, "version": "1"},
        "playground_clarity": {"weight": 0.5, "version": "1"},
    }


def test_two_rewards_of_one_part_are_both_described() -> None:
    degraded = {"name": "degraded", "noise": 0.1}
    of = "playground_clarity", LINEAR
    configs = [_weighted({**degraded, "of": inner, "weight": n}) for n, inner in enumerate(of, start=1)]
    assert panel.describe(configs) == {
        "degraded": {"weight": 1.0, "version": "degraded-0.1-1-1"},
        "degraded (2)": {"weight": 2.0, "version": "degraded-0.1-1-1"},
    }


def test_two_rewards_of_one_score_are_refused_before_they_are_built() -> None:
    with pytest.raises(BadConfig, match=r"^two rewards give 'linear': "):
        panel.rewards([_weighted(LINEAR), _weighted({"name": LINEAR, "k": 2.0})])
    with pytest.raises(BadConfig, match=r"^two rewards give 'playground_motion': 'playground_motion' and 'degraded'"):
        panel.rewards([_weighted("playground_motion"), _weighted("degraded")])


def test_a_reward_that_misbehaves_inside_another_is_named() -> None:
    found = Panel.build([_weighted({"name": "degraded", "of": {"name": LINEAR, "limit": 0.1}})])
    with pytest.raises(PartFailed, match=r"the reward 'linear' gave 0\.25 for .*, outside its scale -0\.1 to 0\.1"):
        found.score(VIDEOS, ASKED)


def test_measures_come_with_the_metric_that_gives_them() -> None:
    metrics = panel.built(panel.metrics([parts.configure("metric", name) for name in (LEVEL, "diversity")]))
    assert [metric.names for metric in metrics] == [("level",), ("diversity",)]
    assert metrics[0].says.higher_is_better == {"level": True}
    found = judges.ask(metrics, VIDEOS, ASKED)
    assert found["level"].tolist() == [0.25, 0.5]
    assert found["diversity"].tolist() == pytest.approx([0.25, 0.25])


def test_two_metrics_of_one_measure_or_a_reward_among_them_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"^two metrics give 'diversity'"):
        panel.metrics(
            [parts.configure("metric", "diversity"), parts.configure("metric", {"name": "diversity", "side": 4})]
        )
    with pytest.raises(
        BadConfig, match=r"^the metric 'tests.parts.linear_reward:build' is a reward, not a metric; the Config"
    ):
        panel.metrics([parts.configure("metric", LINEAR)])


def test_rewards_that_share_their_eyes_look_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from reelign.playground.detector import detect

    calls = []
    whole = detect._even_out
    monkeypatch.setattr(detect, "_even_out", lambda frames: calls.append(len(frames)) or whole(frames))
    names = ("playground_motion", "playground_physics", "playground_safety", "playground_clarity")
    Panel.build([_weighted(name) for name in names]).score(VIDEOS, ASKED)
    assert sum(calls) == len(VIDEOS)
