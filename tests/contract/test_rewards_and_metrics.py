"""Every reward and every metric keeps its protocol; a new file in either folder is tested by being there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign import judges, parts
from reelign.batches import Request, Videos, requests
from reelign.errors import MissingExtra
from reelign.playground.world import tables

ASKED = requests(
    (
        "A small red circle stays still on a gray background.",
        "A large blue square first moves left, then moves up on a dark background. The camera pans left.",
        "A small white triangle moves left slowly and a large green box moves right fast on a teal background.",
    )
)


def _videos() -> Videos:
    """A constant, a noise and a ramp video of the playground's size."""
    size = (tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH)
    noise = torch.rand(size, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, tables.WIDTH).expand(size)
    return Videos(torch.stack([torch.full(size, 0.3), noise, ramp.clone()]), 8.0)


def _build(kind: parts.Kind, name: str) -> Any:
    try:
        return parts.build(kind, parts.configure(kind, name))
    except MissingExtra as error:
        pytest.skip(str(error))


CASES = [(kind, name) for kind in ("reward", "metric") for name in parts.available(kind)]


@pytest.fixture(params=CASES, ids=["-".join(c) for c in CASES])
def part(request: pytest.FixtureRequest) -> Any:
    return _build(*request.param)


def _call(part: Any, videos: Videos, asked: tuple[Request, ...]) -> Mapping[str, Tensor]:
    return part(Videos(videos.frames.clone(), videos.fps), asked)


def test_it_gives_one_float32_number_a_video_under_each_name(part: Any) -> None:
    scores = _call(part, _videos(), ASKED)
    assert scores
    for value in scores.values():
        assert value.shape == (3,)
        assert value.dtype == torch.float32


def test_it_is_deterministic_and_leaves_the_videos_alone(part: Any) -> None:
    videos = _videos()
    first = part(videos, ASKED)
    assert_close(videos.frames, _videos().frames, rtol=0, atol=0)
    assert_close(dict(first), dict(_call(part, _videos(), ASKED)), rtol=0, atol=0, equal_nan=True)


def test_a_video_with_its_own_prompt_does_not_depend_on_its_neighbours(part: Any) -> None:
    together = _call(part, _videos(), ASKED)
    frames = _videos().frames
    for index in range(3):
        alone = _call(part, Videos(frames[index : index + 1], 8.0), ASKED[index : index + 1])
        for name, value in alone.items():  # batched matrix products may add up in another order
            assert_close(value[0], together[name][index], rtol=1e-4, atol=1e-4, equal_nan=True)


def test_a_reward_stays_in_its_range_and_has_a_version() -> None:
    for name in parts.available("reward"):
        reward = _build("reward", name)
        says = judges.named("reward", parts.configure("reward", name)).says
        for key, value in _call(reward, _videos(), ASKED).items():
            low, high = says.scales[key]
            assert bool(((value >= low) & (value <= high)).all()), name


def test_a_metric_says_of_each_name_what_it_is_and_which_way_is_better() -> None:
    for name in parts.available("metric"):
        metric = _build("metric", name)
        names = set(_call(metric, _videos(), ASKED))
        says = judges.named("metric", parts.configure("metric", name)).says
        assert names == set(says.higher_is_better) == set(says.description), name


def test_diversity_compares_the_videos_of_one_prompt_only() -> None:
    metric = _build("metric", "diversity")
    frames = torch.zeros(4, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH)
    frames[1] = 0.5
    found = metric(Videos(frames, 8.0), requests(["a", "a", "b", "c"]))["diversity"]
    assert_close(found, torch.tensor([0.5, 0.5, torch.nan, torch.nan]), equal_nan=True)
    asked = [Request("a", given={"first_frame": Path(name)}) for name in ("p", "p", "q", "q")]
    assert_close(metric(Videos(frames, 8.0), asked)["diversity"], torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert float(metric(Videos(frames[:1].repeat(3, 1, 1, 1, 1), 8.0), requests(["a"] * 3))["diversity"].sum()) == 0
