"""A reward made worse on purpose is worse in exactly the way that is asked for."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from reelign import judges, parts
from reelign.batches import Request, Videos, requests
from reelign.core import rng

LINEAR = {"name": "tests.parts.linear_reward:build", "limit": 1.0}


def _worn(**settings: Any) -> Any:
    return parts.build("reward", parts.configure("reward", {"name": "degraded", "of": LINEAR, **settings}))


def _videos(n: int = 4000) -> Videos:
    """Their linear rewards are 0 with tiny differences that make them different clips."""
    return Videos((torch.arange(n * 3) / (3 * n)).reshape(n, 1, 3, 1, 1) / 10, 8.0)


def test_without_noise_and_ceiling_nothing_changes() -> None:
    videos = _videos(50)
    inner = parts.build("reward", parts.configure("reward", LINEAR))
    asked = requests(["a"] * 50)
    assert torch.equal(_worn(noise=0.0)(videos, asked)["linear"], inner(videos, asked)["linear"])
    config = parts.configure("reward", {"name": "degraded", "of": LINEAR})
    assert judges.named("reward", config).says.scales == {"linear": (-1.0, 1.0)}


def test_noise_has_the_size_asked_for_and_belongs_to_the_clip_and_its_prompt() -> None:
    videos = Videos(rng.normal((400, 1, 3, 4, 4), seed=0).abs().clamp(0, 1), 8.0)
    asked = requests(f"prompt {i}" for i in range(400))
    plain, noisy = _worn(noise=0.0)(videos, asked)["linear"], _worn(noise=0.05)(videos, asked)["linear"]
    error = noisy - plain
    # A scale of -1 to 1 is 2 long.
    assert float(error.std()) == pytest.approx(0.1, rel=0.1)
    assert float(error.mean()) == pytest.approx(0, abs=0.02)
    few = Videos(videos.frames[7:9].clone(), 8.0)
    assert_close(_worn(noise=0.05)(few, asked[7:9])["linear"], noisy[7:9], atol=0, rtol=0)
    other = _worn(noise=0.05)(few, [Request("another"), asked[8]])["linear"]
    assert other[0] != noisy[7]
    assert other[1] == noisy[8]


def test_above_the_ceiling_all_are_alike() -> None:
    videos = Videos(torch.linspace(-1, 1, 9).reshape(9, 1, 1, 1, 1).expand(9, 1, 3, 2, 2), 8.0)
    found = _worn(noise=0.0, ceiling=0.75)(videos, requests(["a"] * 9))["linear"]
    assert_close(found, torch.linspace(-1, 1, 9).clamp(max=0.5))


def test_scores_stay_on_the_declared_scale() -> None:
    found = _worn(noise=5.0)(_videos(60), requests(["a"] * 60))["linear"]
    assert float(found.abs().max()) <= 1
