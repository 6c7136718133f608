"""The world obeys its own rules: motion, drawing, defects and corpora."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from reelign.playground.world import corpora, defects, grammar, motion, render, scene, tables


def _layout(n: int, seed: int) -> tuple[list[scene.Scene], render.Drawing, random.Random]:
    rng = random.Random(seed)
    scenes = [scene.sample(rng, held_out=(True, False, None)[index % 3]) for index in range(n)]
    return scenes, render.layout(scenes, rng), rng


def test_every_path_stays_inside_the_frame() -> None:
    _, drawing, _ = _layout(3000, 0)
    there = (drawing.radius > 0)[..., None]
    low, high = drawing.position - drawing.radius[..., None], drawing.position + drawing.radius[..., None]
    assert bool(((low > -1e-4) & (high < tables.WIDTH + 1e-4) | ~there).all())


def test_two_sprites_never_meet() -> None:
    _, drawing, _ = _layout(3000, 1)
    two = drawing.radius[:, 1, 0] > 0
    gap = (drawing.position[two, 0] - drawing.position[two, 1]).abs() - drawing.radius[two].sum(dim=1)[..., None]
    assert bool((gap.amax(dim=-1) > -1e-4).all())


@pytest.mark.parametrize("radius", tables.RADII.values())
def test_a_falling_sprite_obeys_gravity_and_the_floor_and_never_rises_as_high_again(radius: float) -> None:
    start = radius + 2
    heights = motion.fall(start, radius, frames=40)
    floor = motion.FLOOR - radius
    assert heights.max() <= floor + 1e-9
    first_hit = int(np.sqrt(2 * (floor - start) / tables.GRAVITY))
    np.testing.assert_allclose(np.diff(heights[: first_hit + 1], n=2), tables.GRAVITY)
    rebound = heights[first_hit + 1 :].min()
    assert floor - rebound <= tables.RESTITUTION**2 * (floor - start) + 1e-9
    assert floor - rebound >= 0.8 * tables.RESTITUTION**2 * (floor - start)  # sampled near, not at, the top


def test_a_wall_bounce_keeps_its_speed() -> None:
    sprite = scene.Sprite("circle", "red", "small", scene.Motion("wall", "left"))
    path = motion.path(sprite, (0.0, 0.0, 32.0, 32.0), random.Random(0))
    steps = np.abs(np.diff(path[:, 0]))
    assert np.sum(~np.isclose(steps, tables.WALL_SPEED)) <= 1  # the frame that holds the bounce


@pytest.mark.parametrize(("shape", "area"), [(0, np.pi), (1, 4.0), (2, 2.0)])
@pytest.mark.parametrize("radius", tables.RADII.values())
def test_a_shape_covers_its_area_wherever_it_stands(shape: int, area: float, radius: float) -> None:
    grid = torch.arange(32) + 0.5
    places = 16 + torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    dx = (grid - places[:, 0, None, None]).expand(-1, 32, -1)
    dy = (grid[:, None] - places[:, 1, None, None]).expand(-1, -1, 32)
    full = torch.full((20,), shape), torch.full((20,), radius)
    covered = render.coverage(*full, dx, dy).sum(dim=(1, 2))
    assert_close(covered, torch.full((20,), area * radius**2, dtype=torch.float32), rtol=0.05, atol=0)


def test_an_empty_slot_draws_nothing_and_a_panned_camera_moves_the_stripes() -> None:
    _, drawing, _ = _layout(40, 2)
    drawing.radius.zero_()
    clips = render.draw(drawing)
    assert_close(clips, render.background(drawing).clamp(0, 1))
    moves = (clips[:, 1:] - clips[:, :-1]).abs().amax(dim=(1, 2, 3, 4)) > 0.01
    assert moves.equal(drawing.panned)


def test_every_teleport_is_a_jump_of_five_pixels_or_more() -> None:
    scenes, drawing, rng = _layout(600, 3)
    before = drawing.position.clone()
    for index in range(len(scenes)):
        defects.break_clip(drawing, index, "teleport", rng)
    jump = (drawing.position - before).diff(dim=2).norm(dim=-1).amax(dim=(1, 2))
    assert bool((jump >= 5).all())


def test_every_speed_jump_leaves_its_path_by_three_pixels_or_more_and_comes_back() -> None:
    scenes, drawing, rng = _layout(600, 4)
    before = drawing.position.clone()
    for index in range(len(scenes)):
        defects.break_clip(drawing, index, "speed_jump", rng)
    away = (drawing.position - before).norm(dim=-1).amax(dim=1)
    assert bool((away.amax(dim=1) >= 3).all())
    assert bool(((away > 1e-4).sum(dim=1) <= 3).all())


def test_every_morph_changes_the_picture_and_every_flicker_darkens_two_to_four_frames() -> None:
    scenes, drawing, rng = _layout(300, 5)
    before = render.draw(drawing)
    for index in range(len(scenes)):
        defects.break_clip(drawing, index, "morph", rng)
    changed = (render.draw(drawing) - before).abs().amax(dim=2).gt(0.1).sum(dim=(2, 3)).gt(15)  # pixels
    assert bool((changed[:, -3:].all(dim=1) & ~changed[:, :3].any(dim=1)).all())
    scenes, drawing, rng = _layout(300, 6)
    for index in range(len(scenes)):
        defects.break_clip(drawing, index, "flicker", rng)
    dark = (drawing.gain < 0.7).sum(dim=1)
    assert bool(((dark >= 2) & (dark <= 4)).all())


def test_pretraining_has_the_stated_rates_of_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"broken": 0, "cross": 0}

    def counting(kind: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: object) -> None:
            counts[kind] += 1
            real(*args)

        return call

    monkeypatch.setattr(corpora, "break_clip", counting("broken", corpora.break_clip))
    monkeypatch.setattr(corpora, "add_cross", counting("cross", corpora.add_cross))
    n = 2000
    data = corpora.pretraining(n, 9)
    wrong = sum(grammar.parse(c) != s for c, s in zip(data.captions, data.scenes, strict=True))
    for found, rate in ((wrong, 0.15), (counts["broken"], 0.20), (counts["cross"], 0.05)):
        assert abs(found - n * rate) < 4 * (n * rate * (1 - rate)) ** 0.5  # four standard deviations


def test_instruction_captions_are_right_and_prompts_are_different_and_of_the_asked_kind() -> None:
    data = corpora.instruction(50, 0)
    assert tuple(map(grammar.parse, data.captions)) == data.scenes
    for held_out in (False, True):
        texts = corpora.prompts(100, 0, held_out)
        assert len(set(texts)) == 100
        assert all(scene.is_held_out(grammar.parse(t)) == held_out for t in texts)
