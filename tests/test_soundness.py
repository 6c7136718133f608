"""A broken model is told from a sound one, and the first broken weight is named."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from reelign import rollouts, sampling, soundness
from reelign.batches import Prompts, Videos, requests
from reelign.errors import RunStopped
from reelign.rollouts import Exploration
from reelign.sampling import SamplerConfig

Make = Callable[..., Any]
SAMPLER = SamplerConfig(steps=4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_value_in_a_thousand_is_found(bad: float, dtype: torch.dtype) -> None:
    values = torch.ones(1000, dtype=dtype)
    assert soundness.finite(values)
    values[517] = bad
    assert not soundness.finite(values)


def test_infinities_that_cancel_are_found_and_large_sums_are_not() -> None:
    assert not soundness.finite(torch.tensor([math.inf, -math.inf]))
    assert soundness.finite(torch.full((10,), torch.finfo(torch.float32).max))


def _break(model: Any, name: str, value: float) -> None:
    with torch.no_grad():
        dict(model.network.named_parameters())[name].view(-1)[3] = value


@pytest.mark.parametrize("adapter", [None, {"name": "lora", "rank": 2}])
@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinity")])
def test_sampling_with_a_broken_weight_names_it_as_the_model_folder_does(
    wan: Make, adapter: Any, value: float, word: str
) -> None:
    model = wan(adapter=adapter)
    _break(model, f"blocks.0.ffn.net.2{'.base_layer' if adapter else ''}.weight", value)
    sentence = (
        rf"^the model's weights hold {word} in 'blocks\.0\.ffn\.net\.2\.weight', so nothing it makes can be used;"
    )
    with pytest.raises(RunStopped, match=sentence):
        sampling.sample(model, model.encode(requests(["a"])), [0], SAMPLER)
    with pytest.raises(RunStopped, match=sentence):
        rollouts.rollout(model, Prompts(requests(("a",)), 2), SAMPLER, Exploration("flow", 0.7, (0,), 1), 1)


def test_latents_that_break_with_sound_weights_are_called_so(gaussian: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gaussian(side=2)
    monkeypatch.setattr(model, "velocity", lambda x, sigma, condition, guidance=1.0: x * math.nan)
    with pytest.raises(
        RunStopped, match=r"^the sampled latents hold NaN, although all weights of the network are finite"
    ):
        sampling.sample(model, model.encode(requests(["a"])), [0], SAMPLER)


def test_frames_that_break_after_sound_latents_are_called_so(gaussian: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gaussian(side=2)
    x0, condition = torch.zeros(3, *model.geometry.latent), model.encode(requests("abc"))
    assert torch.equal(sampling.decode(model, x0, condition, 2).frames, model.decode(x0, condition).frames)
    monkeypatch.setattr(model, "decode", lambda x0, condition: Videos(x0.transpose(1, 2) / 0 * 0, 8.0))
    with pytest.raises(
        RunStopped, match=r"^the decoded frames hold NaN, although .*; look at the weights of the VAE\.$"
    ):
        sampling.decode(model, x0, condition, 2)
