"""An adapter from outside the package trains, is saved, taken up again, referred to and exported as one of ours."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.driver.toys import Watcher, go, interrupt
from torch import Tensor
from torch.testing import assert_close

from reelign import config as configs
from reelign import driver, video
from reelign.batches import requests
from reelign.core import rng
from reelign.errors import BadConfig
from reelign.models import wan as family
from reelign.weights import trainable

Make = Callable[..., Any]
GAIN = {"name": "tests.parts.gain_adapter"}
VALUES = "blocks.0.attn1.to_v"


def _velocity(model: Any) -> Tensor:
    x = rng.normals([1, 2], model.geometry.latent)
    with torch.no_grad():
        return model.velocity(x, torch.tensor([0.8, 0.3]), model.encode(requests(["red", "blue"])))


def _stirred(model: Any) -> Any:
    with torch.no_grad():
        for i, p in enumerate(trainable(model.network).values()):
            p += 0.3 * rng.normal(p.shape, seed=i)
    return model


def test_only_it_trains_and_a_fresh_one_is_the_base(wan: Make) -> None:
    model, base = wan(adapter=GAIN), wan()
    assert set(trainable(model.network)) == {f"blocks.{i}.attn{k}.to_v.gain" for i in range(2) for k in (1, 2)}
    assert torch.equal(_velocity(model), _velocity(base))
    assert not torch.equal(_velocity(_stirred(model)), _velocity(base))


def test_its_reference_is_the_base_while_it_adds_nothing_and_a_copy_after(wan: Make) -> None:
    model, base = wan(adapter=GAIN), _velocity(wan())
    model.reference.start()
    assert model.reference.adapter_off == ("reference",)
    moved = _velocity(_stirred(model))
    model.reference.start("sampled")
    _stirred(model)
    with model.reference.on("sampled"):
        assert torch.equal(_velocity(model), moved)
        with model.reference.on():
            assert torch.equal(_velocity(model), base)
        assert torch.equal(_velocity(model), moved)
    model.reference.follow(0.75)
    kept, own = model.reference.state(), trainable(model.network)[f"{VALUES}.gain"]
    assert_close(kept[f"reference/{VALUES}.gain"], 0.25 * own.detach())


def test_what_does_not_fit_is_refused_before_a_weight_is_read(tiny_wan21: Path) -> None:
    size = {"frames": 5, "height": 32, "width": 32}
    tree = {"weights": str(tiny_wan21), "size": size, "adapter": {**GAIN, "target": "to_z"}}
    with pytest.raises(BadConfig, match=r"model\.adapter\.target: no layer ends in 'to_z'"):
        family.check(family.Config.model_validate(tree))


def test_it_is_merged_into_the_exported_pipeline_and_lies_beside_it(wan: Make, tmp_path: Path) -> None:
    model = _stirred(wan(adapter=GAIN))
    model.export(tmp_path / "final")
    assert_close(_velocity(wan(weights=str(tmp_path / "final"))), _velocity(model), atol=1e-5, rtol=0)
    again = wan(adapter={**GAIN, "start": str(tmp_path / "final" / "adapter")})
    assert torch.equal(_velocity(again), _velocity(model))


def test_one_that_cannot_be_merged_leaves_the_base_and_says_so(
    wan: Make, tiny_wan21: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = _stirred(wan(adapter={"name": "tests.parts.gain_adapter:apart"}))
    with caplog.at_level(logging.WARNING, "reelign"):
        model.export(tmp_path / "final")
    assert "is not merged, so the exported pipeline is the base; what it learnt is in adapter/" in caplog.text
    file = "transformer/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "final" / file).read_bytes() == (tiny_wan21 / file).read_bytes()
    kept = load_file(tmp_path / "final" / "adapter" / "gains.safetensors")
    assert torch.equal(kept[VALUES], model.network.get_submodule(VALUES).gain)


def _recipe(root: Path, wan21: Path) -> driver.Recipe:
    """SFT, which starts from the base, then GRPO, whose reference is what SFT left."""
    size = {"frames": 5, "height": 32, "width": 32, "fps": 8}
    video.write(root / "clips" / "a.mp4", torch.linspace(0, 1, 5 * 3 * 32 * 32).view(5, 3, 32, 32), 8, lossless=True)
    (root / "clips" / "a.txt").write_text("a red circle")
    clips = {"name": "clip_folder", "path": str(root / "clips")}
    learner = {"lr": 0.01}
    sft = {"name": "offline", "steps": 2, "batch": 1, "method": "sft", "learner": learner, "dataset": clips}
    online = {
        "name": "online", "steps": 2, "prompts": 1, "group": 2, "learner": learner,
        "dataset": {"name": "tests.parts.gaussian_data"}, "sampler": {"steps": 4},
        "method": {"name": "grpo", "window": 1, "among": 2, "kl": 0.1},
        "rewards": [{"name": "tests.parts.linear_reward", "k": 5.0}],
    }  # fmt: skip
    tree = {
        "run": {"name": "toy", "root": str(root), "save_every": 1},
        "model": {"name": "wan", "weights": str(wan21), "size": size, "text_length": 16, "adapter": GAIN},
        "stages": [sft, online],
    }
    return configs.validate(driver.Recipe, tree)


def _final(root: Path) -> dict[str, str]:
    files = [path for path in sorted((root / "toy" / "final").rglob("*")) if path.is_file()]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_run_that_was_interrupted_ends_with_the_bits_of_one_that_was_not(tiny_wan21: Path, tmp_path: Path) -> None:
    whole, own = tmp_path / "whole", tmp_path / "own"
    go(_recipe(whole, tiny_wan21), Watcher())
    with pytest.raises(driver.Interrupted):
        go(_recipe(own, tiny_wan21), Watcher("grpo 1", interrupt))
    go(_recipe(own, tiny_wan21), Watcher(), resume=True)
    assert _final(own) == _final(whole)
    gains = load_file(whole / "toy" / "final" / "adapter" / "gains.safetensors")
    assert all(bool(value.any()) for value in gains.values())
