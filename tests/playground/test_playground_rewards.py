"""The rewards rank right above wrong, smoothly, and agree with the held-out measures on clean data."""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from reelign.batches import Videos, requests
from reelign.errors import BadData
from reelign.metrics import playground
from reelign.playground.detector import credit
from reelign.playground.detector.detect import detect
from reelign.playground.judge.explain import explain
from reelign.playground.world import grammar, render, scene, tables
from reelign.playground.world.wanted import wanted
from reelign.rewards import (
    playground_attributes,
    playground_clarity,
    playground_motion,
    playground_physics,
    playground_safety,
)

Labelled = tuple[Videos, list[str]]
REWARDS = tuple(
    r.build(r.Config())
    for r in (playground_attributes, playground_clarity, playground_motion, playground_physics, playground_safety)
)
LEAST = {
    "playground_clarity": 0.6,
    "playground_attributes": 0.83,
    "playground_motion": 0.7,
    "playground_physics": 0.62,
    "playground_safety": 0.9,
}
"""What 99 % of right clips score at least (98 % of those through the codec)."""


def score(videos: Videos, prompts: list[str]) -> Mapping[str, Tensor]:
    return {name: value for reward in REWARDS for name, value in reward(videos, requests(prompts)).items()}


@pytest.mark.parametrize("kind", ["clean", "codec", "noise"])
@pytest.mark.parametrize("name", sorted(LEAST))
def test_right_clips_score_high(labelled: dict[str, Labelled], kind: str, name: str) -> None:
    scores = score(*labelled[kind])[name]
    # The codec smears long falls: of 1500 clips 99.5 % keep their physics, but 420 hold few falls.
    assert float((scores >= LEAST[name]).float().mean()) >= (0.98 if kind == "codec" else 0.99)
    assert float(scores.min()) >= 0
    assert float(scores.max()) <= 1


@pytest.mark.parametrize("kind", ["teleport", "speed_jump", "morph", "flicker"])
def test_at_least_95_percent_of_each_defect_score_lower_in_physics_than_right_clips(
    labelled: dict[str, Labelled], kind: str
) -> None:
    scores = score(*labelled[kind])["playground_physics"]
    assert float((scores < LEAST["playground_physics"]).float().mean()) >= 0.95


def test_the_prohibited_symbol_costs_safety(labelled: dict[str, Labelled]) -> None:
    assert float((score(*labelled["cross"])["playground_safety"] < 0.5).float().mean()) >= 0.95


def test_a_wrong_caption_scores_lower_than_the_right_one(labelled: dict[str, Labelled]) -> None:
    videos, wrong = labelled["wrong"]
    right = labelled["clean"][1][: len(wrong)]
    lost = [score(videos, right)[n] - score(videos, wrong)[n] for n in ("playground_attributes", "playground_motion")]
    assert float((lost[0] + lost[1] > 0.08).float().mean()) >= 0.95


def test_attributes_fall_with_every_further_wrong_word() -> None:
    rng = random.Random(0)
    scenes = [scene.sample(rng) for _ in range(40)]
    clips = Videos(render.clips(scenes, rng), 8.0)

    def other(options: tuple[str, ...], now: str) -> str:
        return next(o for o in options if o != now)

    def spoil(meant: scene.Scene, count: int) -> scene.Scene:
        first = meant.sprites[0]
        taken = {s.color for s in meant.sprites}
        if count >= 1:
            meant = replace(meant, camera=other(tuple(tables.CAMERAS), meant.camera))
        if count >= 2:
            meant = replace(meant, background=other(tuple(tables.BACKGROUNDS), meant.background))
        if count >= 3:
            first = replace(first, size=other(tuple(tables.RADII), first.size))
        if count >= 4:
            first = replace(first, shape=other(tables.SHAPES, first.shape))
        if count >= 5:
            first = replace(first, color=next(c for c in tables.COLORS if c not in taken))
        return replace(meant, sprites=(first, *meant.sprites[1:]))

    steps = [
        score(clips, [grammar.caption(spoil(s, count)) for s in scenes])["playground_attributes"] for count in range(6)
    ]
    falls = torch.stack(steps).diff(dim=0)
    assert float(falls[:4].max()) < -0.05
    assert float(falls[4].max()) < 0


def _one_mover(strength: Tensor, kind: str) -> tuple[Videos, list[str]]:
    """A sprite that should move quickly to the right: moved by a share of it, or with a jump on the way."""
    meant = scene.Scene((scene.Sprite("circle", "red", "small", scene.Motion("move", "right", "quickly")),), "gray")
    drawing = render.layout([meant] * len(strength), random.Random(0))
    way = tables.SPEEDS["quickly"] * torch.arange(tables.FRAMES).float()
    drawing.position[:, 0, :, 1] = 10.0
    share = strength[:, None] if kind == "share" else 1.0
    drawing.position[:, 0, :, 0] = 12 + way * share
    if kind == "jump":
        drawing.position[:, 0, tables.FRAMES // 2 + 1 :, 1] += strength[:, None]
    return Videos(render.draw(drawing), 8.0), [grammar.caption(meant)] * len(strength)


def test_motion_rises_smoothly_as_a_group_of_eight_comes_nearer_to_what_was_asked() -> None:
    scores = score(*_one_mover(torch.linspace(-0.5, 1, 8), "share"))["playground_motion"]
    assert float(scores.diff().min()) > 0.01
    assert float(scores.diff().max()) < 0.45


def test_physics_falls_smoothly_as_a_jump_grows() -> None:
    scores = score(*_one_mover(torch.linspace(0, 10, 8), "jump"))["playground_physics"]
    assert float(scores.diff().max()) < -0.001
    assert float(scores.diff().min()) > -0.45


def _moving(n: int) -> tuple[Tensor, Tensor, list[str]]:
    """Clips in which everything moves, their backgrounds alone, and their captions."""
    rng = random.Random(5)
    scenes = [s for s in (scene.sample(rng) for _ in range(n)) if all(p.motion.kind != "still" for p in s.sprites)]
    drawing = render.layout(scenes, rng)
    clips = render.draw(drawing)
    return clips, render.background(drawing).clamp(0, 1), [grammar.caption(s) for s in scenes]


def test_an_empty_clip_earns_next_to_nothing() -> None:
    clips, empty, captions = _moving(60)
    full, none = score(Videos(clips, 8.0), captions), score(Videos(empty, 8.0), captions)
    assert float(none["playground_motion"].max()) < 0.01
    assert float(none["playground_physics"].max()) < 0.01
    assert bool((none["playground_attributes"] < full["playground_attributes"] - 0.5).all())


def test_standing_still_earns_little_where_a_motion_is_asked_for() -> None:
    clips, _, captions = _moving(200)
    frozen = clips[:, :1].repeat(1, tables.FRAMES, 1, 1, 1)
    assert float(score(Videos(frozen, 8.0), captions)["playground_motion"].max()) < 0.25


def test_physics_rises_when_either_of_two_defects_is_mended() -> None:
    videos, captions = _one_mover(torch.tensor([8.0, 0.0, 8.0, 0.0]), "jump")
    videos.frames[:2, 3] *= 0.4
    both, dark, jump, none = score(videos, captions)["playground_physics"].tolist()
    assert both + 0.02 < min(dark, jump)
    assert max(dark, jump) < 0.5 < 0.9 < none


def test_safety_falls_as_the_symbol_appears() -> None:
    rng = random.Random(1)
    drawing = render.layout([scene.sample(rng)] * 8, rng)
    plain = render.draw(drawing)
    drawing.has_cross[:] = True
    drawing.cross[:] = torch.tensor([16.0, 4.6])
    shown = torch.linspace(0, 1, 8)[:, None, None, None, None]
    clips = Videos(torch.lerp(plain[:1], render.draw(drawing)[:1], shown), 8.0)
    scores = score(clips, ["A small red circle stays still on a gray background."] * 8)
    assert float(scores["playground_safety"].diff().max()) <= 0
    assert float(scores["playground_safety"][0]) > 0.95
    assert float(scores["playground_safety"][-1]) < 0.2


def test_a_little_noise_changes_rewards_a_little(labelled: dict[str, Labelled]) -> None:
    videos, prompts = labelled["codec"]
    noise = 0.004 * torch.randn(videos.frames.shape, generator=torch.Generator().manual_seed(3))
    before = score(videos, prompts)
    after = score(Videos((videos.frames + noise).clamp(0, 1), 8.0), prompts)
    for name, value in before.items():
        assert float((after[name] - value).abs().quantile(0.98)) < 0.1, name


def test_both_implementations_agree_on_attributes_and_on_paths(labelled: dict[str, Labelled]) -> None:
    metric = playground.build(playground.Config())
    agreed = []
    for kind in ("clean", "wrong"):
        videos, prompts = labelled[kind]
        trained = score(videos, prompts)["playground_attributes"] > 0.92
        agreed.append(trained == (metric(videos, requests(prompts))["attributes_right"] > 0))
    assert float(torch.cat(agreed).float().mean()) >= 0.97
    videos, prompts = labelled["clean"]
    asked = wanted(prompts)
    one = ~asked.asked[:, 1]
    seen = credit.of(credit.centers(detect(videos)), asked.color)[one, 0]
    apart = (seen - explain(videos).path[one, 0]).norm(dim=-1)
    assert float(apart.quantile(0.99)) < 0.6  # pixels


def test_frames_changed_in_place_are_seen_anew_and_clones_score_alike(labelled: dict[str, Labelled]) -> None:
    videos, prompts = labelled["clean"]
    mine = Videos(videos.frames[:4].clone(), 8.0)
    before = score(mine, prompts[:4])["playground_attributes"]
    mine.frames.zero_()
    assert bool((score(mine, prompts[:4])["playground_attributes"] < before).all())


@pytest.mark.parametrize("shape", [(1, tables.FRAMES - 1, 3, 32, 32), (1, tables.FRAMES, 3, 64, 64)])
def test_videos_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadData, match="playground"):
        score(Videos(torch.zeros(shape), 8.0), ["A small red circle stays still on a gray background."])


def test_pixels_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadData, match="finite"):
        score(Videos(torch.full((1, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH), torch.nan), 8.0), ["A red circle"])


def test_clarity_falls_with_every_further_bit_of_tint_and_of_noise(labelled: dict[str, Labelled]) -> None:
    videos, prompts = labelled["clean"]
    clips = videos.frames[:64]
    tint = torch.tensor([-1.0, 0.5, 0.5])[:, None, None]
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    reward = playground_clarity.build(playground_clarity.Config())

    def mean(change: Tensor) -> float:
        found = Videos((clips + change).clamp(0, 1), videos.fps)
        return float(reward(found, requests(prompts[:64]))["playground_clarity"].mean())

    for direction, sizes in ((tint, (0.0, 0.03, 0.06, 0.1)), (noise, (0.0, 0.02, 0.05, 0.1))):
        scores = [mean(size * direction) for size in sizes]
        assert all(a - b > 0.03 for a, b in pairwise(scores))


def test_clarity_is_a_half_at_its_half() -> None:
    """A flat clip of a background colour, moved by `half` in every colour."""
    flat = torch.tensor(tables.BACKGROUNDS["gray"])[:, None, None].expand(
        1, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH
    )
    reward = playground_clarity.build(playground_clarity.Config(half=0.05))
    for off, expected in ((0.0, 1.0), (0.05, 0.5), (0.1, 0.2)):
        found = reward(Videos(flat + off, float(tables.FPS)), requests([""]))
        assert found["playground_clarity"].item() == pytest.approx(expected, abs=1e-3)
