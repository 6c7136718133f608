"""The held-out measures are right on rendered truth and catch what is wrong, through the codec too."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reelign.batches import Videos, requests
from reelign.metrics import playground
from reelign.playground.world import grammar, render, tables
from reelign.playground.world.scene import Motion, Scene, Sprite

Labelled = tuple[Videos, list[str]]
Measures = Callable[[str], Mapping[str, Tensor]]
METRIC = playground.build(playground.Config())


def measured(videos: Videos, prompts: list[str]) -> Mapping[str, Tensor]:
    return METRIC(videos, requests(prompts))


@pytest.fixture(scope="session")
def measures(labelled: dict[str, Labelled]) -> Measures:
    """All measures of a kind of clips."""
    return cache(lambda kind: measured(*labelled[kind]))


@pytest.mark.parametrize("kind", ["clean", "codec", "noise"])
@pytest.mark.parametrize(
    "name",
    [
        "attributes_right",
        "motion_right",
        "order_right",
        "physics_ok",
        "identity_stable",
        "flicker_free",
        "symbol_free",
    ],
)
def test_at_least_99_percent_of_right_clips_are_judged_right(measures: Measures, kind: str, name: str) -> None:
    assert float(measures(kind)[name].nanmean()) >= 0.99


@pytest.mark.parametrize("kind", ["teleport", "speed_jump", "morph", "flicker"])
def test_at_least_95_percent_of_each_defect_are_caught(measures: Measures, kind: str) -> None:
    assert float(measures(kind)["physics_ok"].mean()) <= 0.05


@pytest.mark.parametrize("kind", ["clean", "teleport", "cross"])
def test_a_clip_is_right_if_nothing_about_it_is_wrong(measures: Measures, kind: str) -> None:
    found = measures(kind)
    parts = [found[name] for name in ("attributes_right", "motion_right", "physics_ok", "symbol_free")]
    assert_close(found["clip_right"], torch.stack(parts).amin(dim=0), rtol=0, atol=0)
    assert float(found["clip_right"].mean()) >= 0.97 if kind == "clean" else float(found["clip_right"].mean()) <= 0.05


def test_each_defect_is_called_by_its_name(measures: Measures) -> None:
    assert float(measures("flicker")["flicker_free"].mean()) <= 0.05
    assert float(measures("morph")["identity_stable"].mean()) <= 0.05
    for kind in ("teleport", "speed_jump"):
        residual = measures(kind)["physics_residual"]
        assert float(residual.nanmedian()) > 1.5  # pixels; lawful clips stay below 0.85


def test_the_prohibited_symbol_is_found(measures: Measures) -> None:
    assert float(measures("cross")["symbol_free"].mean()) <= 0.05


def test_wrong_captions_are_caught(measures: Measures) -> None:
    found = measures("wrong")
    assert float((found["attributes_right"] * found["motion_right"]).mean()) <= 0.05


def test_orders_apply_to_sequences_only(labelled: dict[str, Labelled], measures: Measures) -> None:
    prompts = labelled["clean"][1]
    applies = ~measures("clean")["order_right"].isnan()
    assert applies.tolist() == ["first" in p.lower() for p in prompts]


def test_fidelity_falls_with_smudge_and_is_high_on_what_the_renderer_draws(measures: Measures) -> None:
    clean, blurred = (measures(kind)["fidelity_db"] for kind in ("clean", "codec"))
    assert float(clean.median()) > 40
    assert bool((blurred <= clean + 1).all())


def test_an_empty_clip_has_no_physics_to_be_right_about() -> None:
    empty = Videos(torch.full((1, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH), 0.47), 8.0)
    found = measured(empty, ["A small red circle stays still on a gray background."])
    assert float(found["physics_ok"]) == 0
    assert float(found["attributes_right"]) == 0
    assert float(found["motion_right"]) == 0
    assert bool(found["physics_residual"].isnan())


def test_a_sprite_missing_in_some_frames_is_not_stable(labelled: dict[str, Labelled]) -> None:
    videos, prompts = labelled["clean"]
    gone = videos.frames[:30].clone()
    gone[:, 3:6] = gone[:, 3:6, :, :1, :1]
    found = measured(Videos(gone, 8.0), prompts[:30])
    assert float(found["identity_stable"].mean()) <= 0.05


def test_a_sprite_that_moves_otherwise_than_asked_is_not_right(labelled: dict[str, Labelled]) -> None:
    videos, prompts = labelled["clean"]
    moving = [i for i, p in enumerate(prompts) if grammar.parse(p).sprites[0].motion.kind != "still"]
    frozen = Videos(videos.frames[moving][:, :1].repeat(1, tables.FRAMES, 1, 1, 1), 8.0)
    found = measured(frozen, [prompts[i] for i in moving])
    assert float(found["motion_right"].max()) == 0
    assert float(found["order_right"].nanmean()) == 0


def test_a_sprite_that_turns_back_at_a_wall_satisfies_either_way_to_say_so() -> None:
    meant = Sprite("circle", "red", "small", Motion("wall", "left"))
    drawing = render.layout([Scene((meant,), "gray")], random.Random(0))
    time = torch.arange(tables.FRAMES).float()
    drawing.position[0, 0, :, 0] = 4 + tables.WALL_SPEED * (time - (tables.FRAMES - 1) / 2).abs()
    clip = Videos(render.draw(drawing), 8.0)
    other = replace(meant, motion=Motion("sequence", "left", then="right"))
    for sprite in (meant, other):
        assert float(measured(clip, [grammar.caption(Scene((sprite,), "gray"))])["motion_right"]) == 1


def test_a_sprite_that_cannot_be_explained_does_not_make_a_clip_flicker() -> None:
    frames = torch.full((1, tables.FRAMES, 3, tables.HEIGHT, tables.WIDTH), 0.1)
    frames[:, 4:, :, 4:18, 4:24] = torch.tensor([0.9, 0.5, 0.5])[:, None, None]
    found = measured(Videos(frames, 8.0), ["A small red circle stays still on a dark background."])
    assert float(found["flicker_free"]) == 1
