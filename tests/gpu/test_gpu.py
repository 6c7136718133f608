"""What only a CUDA device can show: the ratio in bfloat16, and a run from end to end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import replay

from reelign import config as configs
from reelign import driver, parts, rollouts, sampling
from reelign.batches import Prompts, requests
from reelign.core import transition
from reelign.models import wan as family
from reelign.rollouts import Exploration
from reelign.runtime import equip
from reelign.runtime.local import RuntimeConfig, device
from reelign.sampling import SamplerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PROMPTS = Prompts(requests(("A red circle moves right.", "A blue square.")), 4)


@pytest.mark.parametrize(
    "settings", [{"precision": "float32"}, {"precision": "bfloat16"}, {"adapter": "lora"}], ids=str
)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_rule_01_a_replay_of_a_fresh_rollout_has_ratio_one(settings: dict[str, str], guidance: float) -> None:
    model = family.build(family.Config.model_validate(settings), device(RuntimeConfig(device="cuda")))
    sampler = SamplerConfig(steps=6, shift=3.0, guidance=guidance)
    found = rollouts.rollout(model, PROMPTS, sampler, Exploration("flow", 0.7, (0, 2), 2), seed=1)
    for k in range(2):
        here = replay(model, found, k, slice(0, 8))
        ratio = (transition.log_prob(here, found.x_next[k]) - found.log_prob[k]).abs()
        # Kernels for training may differ from those for sampling; the rule's bound for bfloat16.
        assert ratio.max() < 1e-5
        assert ratio.mean() < 1e-6


def test_a_short_run_goes_from_the_generator_to_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"name": "playground", "size": 64, "prompts": 32}
    tree: dict[str, Any] = {
        "run": {"name": "gpu", "root": str(tmp_path)},
        "model": {"name": "wan", "adapter": {"name": "lora", "rank": 8}},
        "runtime": {"device": "cuda"},
        "stages": [
            {"name": "offline", "steps": 3, "dataset": data, "method": "sft"},
            {
                "name": "online", "steps": 3, "prompts": 2, "group": 4, "dataset": data,
                "sampler": {"steps": 6, "shift": 3.0},
                "method": {"name": "grpo", "kl": 0.01}, "rewards": ["playground_motion"],
            },
        ],
    }  # fmt: skip
    folder = driver.run(configs.validate(driver.Recipe, tree))
    assert (folder / "final" / "model_index.json").is_file()
    assert (folder / "final" / "lora" / "pytorch_lora_weights.safetensors").is_file()


def test_a_frozen_base_takes_half_the_memory() -> None:
    cuda = device(RuntimeConfig(device="cuda"))
    frozen, trained = (family.build(family.Config.model_validate(s), cuda).network for s in ({"adapter": "lora"}, {}))
    base = sum(p.nbytes for p in frozen.parameters() if not p.requires_grad)
    assert base < 0.55 * sum(p.nbytes for p in trained.parameters())
    assert {(p.dtype, p.device.type) for p in frozen.parameters() if p.requires_grad} == {(torch.float32, "cuda")}


def test_the_same_noise_on_every_device(wan: Callable[..., Any]) -> None:
    here, there = (
        wan(weights="playground", size=None, text_length=None),
        family.build(family.Config(), torch.device("cuda")),
    )
    assert torch.equal(
        sampling.initial_noise(here, [1, 2], here.geometry), sampling.initial_noise(there, [1, 2], there.geometry).cpu()
    )


def test_text_encoder_and_codec_are_in_main_memory_while_the_network_computes() -> None:
    config = parts.configure("model", "wan")
    leaving, staying = (equip.build(config, RuntimeConfig(device="cuda", offload=wish)) for wish in (True, False))
    seen: list[set[str]] = []
    leaving.network.register_forward_pre_hook(
        lambda *_: seen.append({tensor.device.type for guest in leaving.guests for _, tensor in guest._tensors()})
    )
    x, sigma = sampling.initial_noise(leaving, [1, 2], leaving.geometry), torch.tensor([0.9, 0.3], device="cuda")
    for _ in range(2):
        leaving.store = staying.store = type(staying.store)(0.0)  # so that texts are encoded again
        conditions = [model.encode(PROMPTS.requests) for model in (leaving, staying)]
        with torch.no_grad():
            found, expected = (m.velocity(x, sigma, c) for m, c in zip((leaving, staying), conditions, strict=True))
        assert torch.equal(found, expected)
        frames = [m.decode(x, c).frames for m, c in zip((leaving, staying), conditions, strict=True)]
        assert torch.equal(*frames)
    assert seen == [{"cpu"}, {"cpu"}]
