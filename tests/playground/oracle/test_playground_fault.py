"""The oracle finds nothing wrong in right clips, and finds what is wrong where it is."""

import copy
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign.batches import Videos
from reelign.errors import BadData
from reelign.playground.oracle.fault import fault, pooled
from reelign.playground.world import grammar, render, tables
from reelign.playground.world.defects import Defect, add_cross, break_clip
from reelign.playground.world.grammar import UnknownCaption
from reelign.playground.world.scene import Motion, Scene, Sprite, sample

N = 100
VISIBLE = 0.05
"""Colour difference, summed over channels, from which a pixel counts as different."""
Break = Callable[[render.Drawing, int, random.Random], None]


def _faults(clips: Tensor, prompts: list[str]) -> Tensor:
    return fault(Videos(clips, float(tables.FPS)), prompts)


def _broken(change: Break, seed: int = 1) -> tuple[Tensor, Tensor, list[str]]:
    """Right clips, the same with one change each, and their prompts."""
    rng = random.Random(seed)
    scenes = [sample(rng, None) for _ in range(N)]
    drawing = render.layout(scenes, rng)
    right = render.draw(drawing)
    for index in range(N):
        change(drawing, index, rng)
    return right, render.draw(drawing), [grammar.caption(scene, rng) for scene in scenes]


def _within(faults: Tensor, region: Tensor) -> Tensor:
    """Share of each clip's faults that lie in a region."""
    return (faults * region).sum(dim=(1, 2, 3)) / faults.sum(dim=(1, 2, 3)).clamp_min(1e-6)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b).abs().sum(dim=2) > VISIBLE).float()


def _recolor(drawing: render.Drawing, index: int, rng: random.Random) -> None:
    others = [c for c in render.COLOR_TABLE if not any(torch.equal(c, own) for own in drawing.color[index, :, 0])]
    drawing.color[index, 0] = rng.choice(others)


def _reshape(drawing: render.Drawing, index: int, rng: random.Random) -> None:
    drawing.shape[index, 0] = (drawing.shape[index, 0] + rng.choice((1, 2))) % len(tables.SHAPES)


def _resize(drawing: render.Drawing, index: int, rng: random.Random) -> None:
    small, large = tables.RADII.values()
    drawing.radius[index, 0] = small if float(drawing.radius[index, 0, 0]) == large else large


def _remove(drawing: render.Drawing, index: int, rng: random.Random) -> None:
    drawing.radius[index, 0] = 0


@pytest.fixture(scope="module")
def one() -> Callable[..., tuple[render.Drawing, list[str]]]:
    """`one(motion=..., ...)`: a scene of one sprite, laid out, and its prompt."""

    def make(
        motion: Motion | None = None, background: str = "gray", camera: str = "still", size: str = "small"
    ) -> tuple[render.Drawing, list[str]]:
        scene = Scene((Sprite("circle", "red", size, motion or Motion("still")),), background, camera)
        return render.layout([scene], random.Random(3)), [grammar.caption(scene)]

    return make


def test_right_clips_have_next_to_no_fault() -> None:
    right, _, prompts = _broken(_remove, seed=2)
    found = _faults(right, prompts)
    assert float(found.mean(dim=(1, 2, 3)).max()) < 1e-3  # fast falls are drawn between the half pixels searched
    assert float((found > VISIBLE).float().mean()) < 1e-4


def test_ordinary_blur_is_no_fault(through_codec: Callable[[Tensor], Tensor]) -> None:
    """This linear codec blurs five times as much as the packaged one."""
    right, _, prompts = _broken(_remove, seed=2)
    clear, blurred = (float(_faults(clips, prompts).mean()) for clips in (right, through_codec(right)))
    assert clear < 1e-4
    assert blurred < 4e-3


@pytest.mark.parametrize("defect", ["speed_jump", "morph", "flicker"])
def test_a_defect_is_found_where_it_is(defect: Defect, through_codec: Callable[[Tensor], Tensor]) -> None:
    right, wrong, prompts = _broken(lambda d, i, rng: break_clip(d, i, defect, rng))
    region = _apart(right, wrong)
    assert float((_within(_faults(wrong, prompts), region) > 0.9).float().mean()) >= 0.95
    assert float((_within(_faults(through_codec(wrong), prompts), region) > 0.5).float().mean()) >= 0.9


def test_of_a_teleport_one_side_is_wrong_and_the_other_right() -> None:
    offsets = {}

    def jump(drawing: render.Drawing, index: int, rng: random.Random) -> None:
        before = drawing.position[index].clone()
        break_clip(drawing, index, "teleport", rng)
        offsets[index] = (drawing.position[index] - before)[:, -1:]

    right, wrong, prompts = _broken(jump)
    rng = random.Random(1)
    late = render.layout([sample(rng, None) for _ in range(N)], rng)
    for index, offset in offsets.items():
        late.position[index] += offset
    found = _faults(wrong, prompts)
    either = torch.maximum(_within(found, _apart(right, wrong)), _within(found, _apart(render.draw(late), wrong)))
    assert float((either > 0.5).float().mean()) >= 0.95


@pytest.mark.parametrize("change", [_recolor, _reshape, _resize, add_cross])
def test_what_is_wrong_all_along_is_found_where_it_is(change: Break) -> None:
    right, wrong, prompts = _broken(change)
    found, region = _faults(wrong, prompts), _apart(right, wrong)
    assert float((_within(found, region) > 0.5).float().mean()) >= 0.9  # a small sprite fits anywhere in a large one
    assert float(found.mean(dim=(1, 2, 3)).min()) > 1e-3


def test_a_wrong_color_is_a_fault_of_the_whole_sprite(one: Callable[..., tuple[render.Drawing, list[str]]]) -> None:
    drawing, prompts = one(Motion("move", "left", "slowly"))
    sprite = _apart(render.draw(drawing), render.background(drawing))
    drawing.color[0, 0] = torch.tensor(tables.COLORS["blue"])
    found = _faults(render.draw(drawing), prompts)
    assert float(_within(found, sprite)) > 0.999
    assert float(found[sprite > 0].mean()) > 0.8


def test_the_fault_of_a_sprite_that_is_nowhere_is_that_of_one_sprite_spread_over_its_paths(
    one: Callable[..., tuple[render.Drawing, list[str]]],
) -> None:
    drawing, prompts = one(Motion("move", "left", "slowly"))
    area = float(render.coverage(drawing.shape, drawing.radius, *_offsets(drawing))[0, 0, 0].sum())
    drawing.radius[0, 0] = 0
    found = _faults(render.draw(drawing), prompts)[0]
    assert 0.5 * area < float(found[0].sum()) < area
    assert float(found.max()) < 0.5
    assert float((found[4] > 0.01).float().mean()) > 0.5
    assert float(found[0, :, :6].sum()) < float(found[8, :, :6].sum())  # those who go left do not start there


def _offsets(drawing: render.Drawing) -> tuple[Tensor, Tensor]:
    x = torch.arange(tables.WIDTH) + 0.5
    return x - drawing.position[..., 0, None, None], x[:, None] - drawing.position[..., 1, None, None]


def test_a_sprite_gone_for_some_frames_is_missed_there_where_it_should_be(
    one: Callable[..., tuple[render.Drawing, list[str]]],
) -> None:
    drawing, prompts = one(Motion("move", "down", "slowly"))
    right = render.draw(drawing)
    drawing.radius[0, 0, 4:7] = 0
    wrong = render.draw(drawing)
    found = _faults(wrong, prompts)
    assert float(_within(found, _apart(right, wrong))) > 0.99
    assert_close(found[0, :4], torch.zeros_like(found[0, :4]))


def test_an_extra_sprite_is_wrong_as_it_stands(one: Callable[..., tuple[render.Drawing, list[str]]]) -> None:
    drawing, prompts = one(size="large")
    drawing.position[0, 0] = torch.tensor([8.0, 8.0])
    right = render.draw(drawing)
    drawing.position[0, 1], drawing.radius[0, 1] = torch.tensor([26.0, 26.0]), 4.0
    drawing.color[0, 1] = drawing.color[0, 0]
    wrong = render.draw(drawing)
    assert float(_within(_faults(wrong, prompts), _apart(right, wrong))) > 0.99


def test_a_frame_that_flickers_is_wrong_all_over(one: Callable[..., tuple[render.Drawing, list[str]]]) -> None:
    drawing, prompts = one()
    drawing.gain[0, 5] = 0.5
    found = _faults(render.draw(drawing), prompts)[0]
    assert float(found[5].min()) > 0.2
    assert float(found[[0, 1, 2, 3, 4, 6, 7, 8]].max()) == 0


def test_a_wrong_motion_is_wrong_where_the_sprite_is_and_where_it_should_be(
    one: Callable[..., tuple[render.Drawing, list[str]]],
) -> None:
    drawing, _ = one(Motion("move", "left", "quickly"))
    drawing.position[0, 0] = torch.stack([24 - 2 * torch.arange(9.0), torch.full((9,), 16.0)], dim=1)
    prompts = one(Motion("move", "right", "quickly"))[1]
    clip = render.draw(drawing)
    found = _faults(clip, prompts)[0]
    sprite = _apart(clip, render.background(drawing))[0]
    areas = found.sum(dim=(1, 2)) / sprite.sum(dim=(1, 2))
    assert float(areas.min()) < 0.1  # the two paths meet
    assert float(areas[[0, 8]].min()) > 1.2  # and part: the sprite itself, and the gap where it should be


@pytest.mark.parametrize(("drawn", "said"), [("still", "left"), ("left", "still"), ("left", "right")])
def test_a_wrong_camera_is_a_fault_of_the_stripes(
    drawn: str, said: str, one: Callable[..., tuple[render.Drawing, list[str]]]
) -> None:
    drawing, _ = one(camera=drawn)
    sprite = _apart(render.draw(drawing), render.background(drawing))
    found = _faults(render.draw(drawing), one(camera=said)[1])
    assert float(_within(found, 1 - sprite)) > 0.95
    assert float(found.mean()) > 0.01


def test_a_wrong_background_is_a_fault_of_all_but_the_sprite(
    one: Callable[..., tuple[render.Drawing, list[str]]],
) -> None:
    drawing, _ = one(background="teal")
    clip = render.draw(drawing)
    sprite = _apart(clip, render.background(drawing))
    found = _faults(clip, one(background="gray")[1])
    assert float(found[sprite == 0].min()) > 0.2
    assert float(found[sprite > 0].median()) == 0


def test_two_sprites_that_swap_colors_are_both_wrong() -> None:
    still, small = Motion("still"), "small"
    first, second = Sprite("circle", "red", small, still), Sprite("square", "blue", small, still)
    scene = Scene((first, second), "dark")
    drawing = render.layout([scene], random.Random(0))
    drawing.color = drawing.color.flip(1)
    found = _faults(render.draw(drawing), [grammar.caption(scene)])
    swapped = Scene((replace(first, color="blue"), replace(second, color="red")), "dark")
    assert float(found.mean()) > 5e-3
    assert float(_faults(render.draw(drawing), [grammar.caption(swapped)]).max()) == 0


def test_a_clip_does_not_depend_on_its_neighbours() -> None:
    _, wrong, prompts = _broken(_resize)
    prompts = prompts[1:] + prompts[:1]  # prompts of other clips leave many equally good places
    alone = torch.cat([_faults(wrong[i : i + 1], prompts[i : i + 1]) for i in range(40)])
    assert_close(_faults(wrong, prompts)[:40], alone, atol=0, rtol=0)


def test_the_clips_themselves_stay_as_they_are() -> None:
    _, wrong, prompts = _broken(_recolor)
    before = copy.deepcopy(wrong)
    found = _faults(wrong, prompts)
    assert found.shape == (N, tables.FRAMES, tables.HEIGHT, tables.WIDTH)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert_close(wrong, before, atol=0, rtol=0)


def test_every_pixel_and_frame_counts_in_the_latent_that_stands_for_it() -> None:
    maps = torch.zeros(1, 9, 32, 32)
    maps[0, 0, 31, 0] = 1
    maps[0, 8, 8:16, 24:] = 1
    found = pooled(maps, (3, 4, 4))[0]
    expected = torch.zeros(3, 4, 4)
    expected[0, 3, 0] = 1 / 64  # the first frame stands alone
    expected[2, 1, 3] = 1 / 4  # one of four frames
    assert_close(found, expected)
    assert_close(pooled(maps[:, :1], (1, 4, 4))[0], expected[:1])


def test_no_clips_have_no_faults_and_other_clips_are_refused() -> None:
    empty = torch.zeros(0, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH)
    assert _faults(empty, []).shape == (0, tables.FRAMES, tables.HEIGHT, tables.WIDTH)
    with pytest.raises(BadData, match="given videos of shape"):
        _faults(torch.zeros(1, 5, 3, 32, 32), ["A small red circle stays still on a gray background."])
    with pytest.raises(UnknownCaption):
        _faults(torch.zeros(1, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH), ["A whale."])
