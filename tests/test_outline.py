"""What is told of a network from its form is what the network with weights holds and needs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reelign.batches import requests
from reelign.models import _network
from reelign.models import wan as family
from reelign.outline import Outline, measured, passes, size

CPU = torch.device("cpu")
FORMS: list[dict[str, Any]] = [
    {},
    {"checkpointing": True},
    {"precision": "bfloat16"},
    {"adapter": {"name": "lora", "rank": 4}},
    {"adapter": {"name": "lora", "rank": 4}, "checkpointing": True, "precision": "bfloat16"},
]


def _cases() -> list[Any]:
    """All forms of a tiny pipeline of the real layout; of the packaged generator the first and the last each time."""
    cases = []
    for kind in ("wan21", "packaged"):
        for form in FORMS:
            marks = pytest.mark.whole if kind == "packaged" and form in FORMS[1:-1] else ()
            cases.append(pytest.param(kind, form, marks=marks, id="-".join((kind, *form))))
    return cases


@pytest.mark.parametrize(("kind", "form"), _cases())
def test_sizes_and_passes_are_those_of_the_model_with_weights(
    kind: str, form: dict[str, Any], tiny_wan21: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_of_tiny = {"frames": 5, "height": 32, "width": 32}
    tiny = {"weights": str(tiny_wan21), "size": size_of_tiny, "text_length": 16}
    weights: dict[str, Any] = tiny if kind == "wan21" else {}
    # On CPUs the network fills its batches up to whole tiles, which no other device does.
    monkeypatch.setattr(_network, "fill_tiles", lambda network: None)
    config = family.Config.model_validate({**weights, **form})
    told = family.outline(config, CPU)
    model = family.build(config, CPU)
    assert size(told.network.parameters()) == size(model.network.parameters())
    trains = [name for name, p in told.network.named_parameters() if p.requires_grad]
    assert trains == [name for name, p in model.network.named_parameters() if p.requires_grad]
    assert told.beside["text encoder"] == model.text.encoder.nbytes
    assert told.beside["autoencoder"] == model.codec.vae.nbytes
    assert told.text == model.encode(requests(["red " * 99])).values["text"][0].nbytes
    shapes = told.inputs(3)
    assert shapes[0] == (3, *model.geometry.latent)
    real = measured(model.network, [torch.randn(shape) for shape in shapes], told.bfloat16)
    assert passes(told, 3) == real


def test_no_weight_is_there() -> None:
    told = family.outline(family.Config(), CPU)
    passes(told, 1)
    assert all(p.is_meta for p in told.network.parameters())


def test_on_another_device_what_stands_beside_is_half_as_large() -> None:
    here, there = (family.outline(family.Config(), torch.device(name)) for name in ("cpu", "cuda"))
    assert {name: 2 * held for name, held in there.beside.items()} == dict(here.beside)
    assert (here.bfloat16, there.bfloat16) == (False, True)


def test_a_linear_layer_keeps_its_input_and_needs_its_gradients() -> None:
    layer = nn.Linear(1000, 10, bias=False)
    told = Outline(layer.to("meta"), lambda n: ((n, 1000),), {}, 0)
    kept, most = passes(told, 8)
    assert kept == 4 * 8 * 1000
    # Beside it the gradient of the weights, as large as they are, and outputs, which are small.
    assert 4 * 1000 * 10 <= most <= 4 * 1000 * 10 + 10 * 4 * 8 * 10


def test_checkpointing_keeps_less_and_more_samples_need_more() -> None:
    plain, thrifty = (passes(family.outline(family.Config(checkpointing=c), CPU), 8) for c in (False, True))
    assert thrifty[0] < plain[0] / 5
    assert thrifty[1] < plain[1]
    twice = passes(family.outline(family.Config(), CPU), 16)
    assert twice[0] == pytest.approx(2 * plain[0], rel=0.01)
