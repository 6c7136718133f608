"""Self-paced rewards as a module: weights that hand over, their calibration, and what they leave alone."""

from typing import Any

import pytest
import torch
from tests.modules.rollouts import UNIT, advantages, build, configured, demand, scored, sigmoid
from torch import Tensor
from torch.testing import assert_close

from reelign.core import pacing
from reelign.errors import BadConfig

ORDER = ["looks", "moves", "means"]
RANGES = dict.fromkeys(ORDER, UNIT)
GOLDEN = {"looks": [0.7, 0.75, 0.8, 0.85], "moves": [0.1, 0.4, 0.7, 0.9], "means": [0.5, 0.5, 0.5, 0.9]}


def _paced(**settings: Any) -> dict[str, Any]:
    return {"name": "self_paced", "order": ORDER, **settings}


def _weights(method: Any, rewards: dict[str, Tensor], weights: dict[str, float] | None = None) -> dict[str, Tensor]:
    """Each reward's weight [p]; rewards stand by name in alphabetical order."""
    found = method.slots.weigh(scored(rewards, weights), method.notes)
    return dict(zip(sorted(rewards), found, strict=True))


def _groups(means: dict[str, list[float]]) -> dict[str, Tensor]:
    """Groups of four around these means, one for each prompt."""
    apart = torch.tensor([-0.02, -0.01, 0.01, 0.02])
    return {name: torch.tensor(values)[:, None] + apart for name, values in means.items()}


def test_raising_the_first_rewards_mean_moves_weight_to_the_later_ones() -> None:
    method = build(_paced(thresholds=[0.5, 0.6, 0.7], keep=0.1))
    levels = [i / 10 for i in range(1, 10)]
    # One prompt a level; the others' means stay.
    rest = {"moves": [0.5] * 9, "means": [0.4] * 9}
    found = _weights(method, _groups({"looks": levels, **rest}))
    assert bool((found["looks"].diff() < 0).all())
    later = found["moves"] + found["means"]
    assert bool((later.diff() > 0).all())
    assert bool((found["moves"].diff() > 0).all())
    assert bool((found["means"].diff() > 0).all())
    assert float(found["looks"][0]) > 0.9 * 3
    assert float(later[-1]) > 0.9 * 3


def test_each_later_reward_hands_over_too_and_leaves_the_earlier_ones_alone() -> None:
    method = build(_paced(thresholds=[0.5, 0.6, 0.7]))
    levels = [i / 10 for i in range(1, 10)]
    found = _weights(method, _groups({"looks": [0.6] * 9, "moves": levels, "means": [0.4] * 9}))
    assert bool((found["means"].diff() > 0).all())
    assert_close(found["looks"], found["looks"][:1].expand(9))
    last = _weights(method, _groups({"looks": [0.6] * 9, "moves": [0.6] * 9, "means": levels}))
    for name in ORDER:
        assert_close(last[name], last[name][:1].expand(9))


def test_each_prompt_has_a_pace_of_its_own() -> None:
    method = build(_paced(thresholds=[0.5, 0.5, 0.5]))
    means = {"looks": [0.2, 0.8, 0.8], "moves": [0.2, 0.2, 0.8], "means": [0.2, 0.2, 0.2]}
    together = _weights(method, _groups(means))
    for p in range(3):
        alone = _weights(method, _groups({name: [values[p]] for name, values in means.items()}))
        for name in ORDER:
            assert_close(together[name][p], alone[name][0])
    assert [max(ORDER, key=lambda name: float(together[name][p])) for p in range(3)] == ORDER


@pytest.mark.parametrize(("settings", "keep"), [({}, 0.5), ({"keep": 0.1}, 0.1), ({"keep": 0.0}, 0.0)])
def test_gated_weights_are_products_of_what_has_been_passed(settings: dict[str, float], keep: float) -> None:
    method = build(_paced(thresholds=[0.5, 0.6, 0.7], slope=8.0, **settings))
    rewards = _groups({"looks": [0.55], "moves": [0.5], "means": [0.9]})
    first, second = sigmoid(8 * 0.05), sigmoid(8 * -0.1)
    expected = {"looks": 1 - first, "moves": first * (1 - second), "means": first * second}
    for name, weight in _weights(method, rewards).items():
        # A share stays spread evenly; three user weights of 1 make the sum.
        assert float(weight[0]) == pytest.approx(3 * (keep / 3 + (1 - keep) * expected[name]), rel=1e-5)


def test_the_weights_sum_stays_what_the_user_set_and_other_rewards_keep_theirs() -> None:
    user = {"looks": 2.0, "moves": 0.5, "means": 1.0, "safe": 0.7}
    method = build(_paced(thresholds=[0.5, 0.6, 0.7], slope=8.0))
    rewards = torch.rand(4, 16, 6, generator=torch.Generator().manual_seed(0))
    given = dict(zip([*ORDER, "safe"], rewards, strict=True))
    found = _weights(method, given, user)
    assert_close(found["looks"] + found["moves"] + found["means"], torch.full((16,), 3.5))
    assert_close(found["safe"], torch.full((16,), 0.7))
    # Each keeps its own factor beside the pace.
    alike = _weights(build(_paced(thresholds=[0.5, 0.6, 0.7], slope=8.0)), given, dict.fromkeys(user, 1.0))
    assert_close(found["looks"] / found["moves"], 4 * alike["looks"] / alike["moves"], atol=0, rtol=1e-4)


def test_literal_weights_are_the_printed_ones() -> None:
    rewards = {name: torch.tensor([row]) for name, row in GOLDEN.items()}
    third = dict.fromkeys(ORDER, 1 / 3)
    method = build(_paced(mode="literal", thresholds=[0.75, 0.75, 0.75]), {"name": "combine", "form": "sum"})
    found = _weights(method, rewards, third)
    assert [float(found[name]) for name in ORDER] == pytest.approx([0.31881454, 0.34310003, 0.33808543], abs=1e-6)
    own = pacing.literal(torch.stack([rewards[name] for name in ORDER]), torch.full((3,), 0.75))
    assert_close(torch.stack([found[name] for name in ORDER]), own)
    # The mixed rewards' deviations, in units of a std that has 1e-4 beside it.
    ((*score,),) = advantages(method, scored(rewards, third))
    assert score == pytest.approx([-1.04283762, -0.43379462, 0.17524839, 1.30138385], rel=1e-3)


def test_literal_settings_reach_the_formula() -> None:
    rewards = {name: torch.tensor([row]) for name, row in GOLDEN.items()}
    settings = {"sparsity": 0.5, "slope": 3.0, "temperature": 0.2}
    found = _weights(build(_paced(mode="literal", thresholds=[0.7, 0.5, 0.6], **settings)), rewards)
    own = pacing.literal(torch.stack([rewards[name] for name in ORDER]), torch.tensor([0.7, 0.5, 0.6]), **settings)
    assert_close(torch.stack([found[name] for name in ORDER]), 3 * own)


def test_all_weigh_alike_until_thresholds_are_calibrated_from_the_first_groups() -> None:
    method = build(_paced(history=8, quantile=0.6))
    means = torch.rand(3, 10, generator=torch.Generator().manual_seed(0))
    batches = [_groups({n: row[i : i + 2].tolist() for n, row in zip(ORDER, means, strict=True)}) for i in (0, 2, 4, 6)]
    for given in batches:
        for weight in _weights(method, given).values():
            assert_close(weight, torch.ones(2))
    last = _groups({n: row[8:].tolist() for n, row in zip(ORDER, means, strict=True)})
    found = _weights(method, last)
    # Known from eight groups, whose means are `means`: two of them above the 0.6 quantile at positions 4.2.
    past = means[:, :8].sort(dim=1).values
    threshold = past[:, 4] + 0.2 * (past[:, 5] - past[:, 4])
    quarter, three = past[:, 1] + 0.75 * (past[:, 2] - past[:, 1]), past[:, 5] + 0.25 * (past[:, 6] - past[:, 5])
    # From 0.1 to 0.9 over the middle half: a sigmoid does that within 2 ln 9 of its argument.
    slope = 2 * torch.tensor(9.0).log() / (three - quarter)
    passed = torch.sigmoid(slope[:, None] * (means[:, 8:] - threshold[:, None]))
    expected = torch.stack([1 - passed[0], passed[0] * (1 - passed[1]), passed[0] * passed[1]])
    for name, row in zip(ORDER, expected, strict=True):
        assert_close(found[name], 3 * (0.5 / 3 + 0.5 * row), atol=1e-4, rtol=1e-3)


def test_a_calibration_stays_and_is_remembered() -> None:
    method = build(_paced(history=4))
    for i in range(3):
        _weights(method, _groups({name: [0.2 + 0.1 * i, 0.5 + 0.1 * i] for name in ORDER}))
    again = build(_paced(history=4))
    again.load({name: value.clone() for name, value in method.state().items()})
    given = _groups({"looks": [0.3, 0.7], "moves": [0.4, 0.6], "means": [0.5, 0.5]})
    first = _weights(method, given)
    _weights(method, _groups({name: [0.9, 0.95] for name in ORDER}))
    for other in (method, again):
        for name, weight in _weights(other, given).items():
            assert_close(weight, first[name])
    assert not torch.equal(first["looks"], torch.ones(2))


def test_the_weights_act_on_advantages_and_are_reported() -> None:
    method = build(_paced(thresholds=[0.5, 0.5, 0.5], slope=1000.0, keep=0.1))
    rewards = _groups({"looks": [0.9], "moves": [0.1], "means": [0.1]})
    rewards["looks"] = rewards["looks"].flip(1)
    credited = method.credit(scored(rewards))
    # What remains for the others is a thirtieth each: the second reward alone orders the group.
    assert credited.advantage.argsort().tolist() == [0, 1, 2, 3]
    assert [credited.metrics[f"pace/{name}"] for name in ORDER] == pytest.approx([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])


@pytest.mark.parametrize("mode", ["gated", "literal"])
def test_the_pace_is_that_of_rewards_as_scored_whatever_a_module_makes_of_them(mode: str) -> None:
    pace = _paced(thresholds=[0.6, 0.5, 0.7], mode=mode)
    given = scored({name: torch.tensor([row]) for name, row in GOLDEN.items()})
    plain = build(pace).credit(given).metrics
    for modules in ([{"name": "bpgo", "form": "released"}, pace], [pace, {"name": "bpgo", "form": "released"}]):
        found = build(*modules).credit(given).metrics
        for name in ORDER:
            assert found[f"pace/{name}"] == plain[f"pace/{name}"]


def test_an_ordered_reward_that_the_stage_does_not_have_is_refused() -> None:
    with pytest.raises(
        BadConfig, match=r"self_paced orders 'moves', which is no reward of the stage; it has looks, me"
    ):
        configured(_paced()).check(demand({"looks": UNIT, "means": UNIT}))
    configured(_paced()).check(demand({**RANGES, "other": (-1.0, 1.0)}))


@pytest.mark.parametrize("scale", [(-1.0, 1.0), (0.0, float("inf"))])
def test_an_ordered_reward_without_a_scale_from_zero_up_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(BadConfig, match=r"a fixed scale from 0 up, but 'moves' is declared from"):
        configured(_paced()).check(demand({**RANGES, "moves": scale}))


def test_a_wrong_number_of_thresholds_or_a_single_reward_is_refused() -> None:
    with pytest.raises(ValueError, match=r"there are 2 thresholds for 3 rewards; give one for each, or none"):
        build(_paced(thresholds=[0.5, 0.6]))
    with pytest.raises(ValueError, match=r"at least 2 items"):
        build({"name": "self_paced", "order": ["looks"]})
