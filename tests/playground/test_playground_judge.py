"""The held-out measures are right on rendered truth and catch what is wrong, through the codec too."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from reelign.batches import Videos
from reelign.metrics import playground_adherence, playground_fidelity, playground_physics, playground_safety
from reelign.playground import tables

Labelled = tuple[Videos, list[str]]
METRICS = tuple(m.build(m.Config()) for m in (playground_adherence, playground_physics, playground_safety))


def measure(videos: Videos, prompts: list[str]) -> Mapping[str, Tensor]:
    return {name: value for metric in METRICS for name, value in metric(videos, prompts).items()}


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
def test_at_least_99_percent_of_right_clips_are_judged_right(
    labelled: dict[str, Labelled], kind: str, name: str
) -> None:
    assert float(measure(*labelled[kind])[name].nanmean()) >= 0.99


@pytest.mark.parametrize("kind", ["teleport", "speed_jump", "morph", "flicker"])
def test_at_least_95_percent_of_each_defect_are_caught(labelled: dict[str, Labelled], kind: str) -> None:
    assert float(measure(*labelled[kind])["physics_ok"].mean()) <= 0.05


def test_each_defect_is_called_by_its_name(labelled: dict[str, Labelled]) -> None:
    assert float(measure(*labelled["flicker"])["flicker_free"].mean()) <= 0.05
    assert float(measure(*labelled["morph"])["identity_stable"].mean()) <= 0.05
    for kind in ("teleport", "speed_jump"):
        residual = measure(*labelled[kind])["physics_residual"]
        assert float(residual.nanmedian()) > 1.5  # pixels; lawful clips stay below 0.95


def test_the_prohibited_symbol_is_found(labelled: dict[str, Labelled]) -> None:
    assert float(measure(*labelled["cross"])["symbol_free"].mean()) <= 0.05


def test_wrong_captions_are_caught(labelled: dict[str, Labelled]) -> None:
    found = measure(*labelled["wrong"])
    assert float((found["attributes_right"] * found["motion_right"]).mean()) <= 0.05


def test_orders_apply_to_sequences_only(labelled: dict[str, Labelled]) -> None:
    videos, prompts = labelled["clean"]
    applies = ~measure(videos, prompts)["order_right"].isnan()
    assert applies.tolist() == ["first" in p.lower() for p in prompts]


def test_fidelity_falls_with_smudge_and_is_high_on_what_the_renderer_draws(labelled: dict[str, Labelled]) -> None:
    metric = playground_fidelity.build(playground_fidelity.Config())
    clean, blurred = (metric(*labelled[kind])["fidelity_db"] for kind in ("clean", "codec"))
    assert float(clean.median()) > 40
    assert bool((blurred <= clean + 1).all())


def test_an_empty_clip_has_no_physics_to_be_right_about() -> None:
    empty = Videos(torch.full((1, tables.FRAMES, 3, 32, 32), 0.47), 8.0)
    found = measure(empty, ["A small red circle stays still on a gray background."])
    assert float(found["physics_ok"]) == 0
    assert float(found["attributes_right"]) == 0
    assert float(found["motion_right"]) == 0
    assert bool(found["physics_residual"].isnan())


def test_a_sprite_missing_in_some_frames_is_not_stable(labelled: dict[str, Labelled]) -> None:
    videos, prompts = labelled["clean"]
    gone = videos.frames[:30].clone()
    gone[:, 4:8] = gone[:, 4:8, :, :1, :1]
    found = measure(Videos(gone, 8.0), prompts[:30])
    assert float(found["identity_stable"].mean()) <= 0.05
