"""What only a CUDA device can show: the ratio in bfloat16, and a run from end to end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import replay

from reelign import config as configs
from reelign import driver, sampling
from reelign.batches import Prompts, requests
from reelign.core import transition
from reelign.models import wan as family
from reelign.runtime.local import RuntimeConfig, device
from reelign.sampling import Exploration, SamplerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PROMPTS = Prompts(requests(("A red circle moves right.", "A blue square."), (0, 1)), 4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_rule_01_a_replay_of_a_fresh_rollout_has_ratio_one(precision: str, guidance: float) -> None:
    model = family.build(family.Config.model_validate({"precision": precision}), device(RuntimeConfig(device="cuda")))
    sampler = SamplerConfig(steps=6, shift=3.0, guidance=guidance)
    found = sampling.rollout(model, PROMPTS, sampler, Exploration("flow", 0.7, (0, 2), 2), seed=1)
    for k in range(2):
        here = replay(model, found, k, slice(0, 8))
        ratio = (transition.log_prob(here, found.x_next[k]) - found.log_prob[k]).abs()
        # Kernels for training may differ from those for sampling; the rule's bound for bfloat16.
        assert ratio.max() < 1e-5
        assert ratio.mean() < 1e-6


def test_a_short_run_goes_from_the_generator_to_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet:
        def begin(self, label: str, total: int, done: int) -> None: ...
        def step(self, done: int, metrics: dict[str, float]) -> None: ...
        def say(self, sentence: str) -> None: ...

    data = {"name": "playground", "size": 64, "prompts": 32}
    tree: dict[str, Any] = {
        "run": {"name": "gpu", "root": str(tmp_path)},
        "model": {"name": "wan", "lora": {"rank": 8}},
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
    folder = driver.run(configs.validate(driver.Recipe, tree), Quiet())
    assert (folder / "final" / "model_index.json").is_file()
    assert (folder / "final" / "lora" / "pytorch_lora_weights.safetensors").is_file()


def test_the_same_noise_on_every_device(wan: Callable[..., Any]) -> None:
    here, there = (
        wan(weights="playground", size=None, text_length=None),
        family.build(family.Config(), torch.device("cuda")),
    )
    assert torch.equal(
        sampling.initial_noise(here, [1, 2], here.geometry), sampling.initial_noise(there, [1, 2], there.geometry).cpu()
    )
