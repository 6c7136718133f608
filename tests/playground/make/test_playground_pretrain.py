"""Making the tiny generator: what is optimised how, what a step learns from, and that a stopped run goes on exactly."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reelign.playground.make import codec, pretrain, tiny
from reelign.playground.world import corpora

SHORT = pretrain.PretrainConfig(
    cycles=(4,), batch=2, warmup=2, save_every=2, bf16=False,
    autoencoder=pretrain.AutoencoderConfig(cycles=(4,), batch=2, warmup=2, save_every=2),
)  # fmt: skip


@pytest.fixture
def small_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Principal components of fewer clips than the recipe's, for speed."""
    whole = corpora.pretraining
    monkeypatch.setattr(corpora, "pretraining", lambda n, seed, *more: whole(min(n, 100), seed, *more))


def _tensors(out: Path) -> dict[str, torch.Tensor]:
    files = sorted((out / "pipeline").rglob("*.safetensors"))
    assert len(files) == 3
    return {f"{file.parent.name}/{name}": value for file in files for name, value in load_file(file).items()}


@pytest.mark.usefixtures("small_fit")
def test_a_run_that_was_stopped_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole = list(pretrain.run(tmp_path / "whole", SHORT))
    assert [(phase, row["step"]) for phase, row in whole] == [
        (phase, step) for phase in ("autoencoder", "transformer") for step in (1, 2, 3, 4)
    ]
    for steps in (3, 5):  # in the middle of each phase, one step after it saved
        list(islice(pretrain.run(tmp_path / "broken", SHORT), steps))
    rest = list(pretrain.run(tmp_path / "broken", SHORT))
    assert [(phase, row["step"]) for phase, row in rest] == [("transformer", 3), ("transformer", 4)]
    found, expected = _tensors(tmp_path / "broken"), _tensors(tmp_path / "whole")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_rate_warms_up_holds_and_comes_down_in_each_cycle() -> None:
    config = pretrain.PretrainConfig(cycles=(100, 300), warmup=10, decay=0.5)
    rates = [pretrain.rate(config, step) for step in (0, 9, 40, 75, 99, 100, 150, 250, 299)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.02, 0.1, 1.0, 0.5, 0.01])


def test_muon_gets_the_blocks_matrices_and_adamw_every_other_weight() -> None:
    network = pretrain.Network()
    muon, adamw = network.optimizers(SHORT)
    names = {id(p): name for name, p in network.named_parameters()}
    inside = {names[id(p)] for p in muon.param_groups[0]["params"]}
    outside = {names[id(p)] for p in adamw.param_groups[0]["params"]}
    assert inside | outside == set(names.values())
    assert not inside & outside
    assert "transformer.blocks.0.attn1.to_q.weight" in inside
    assert {"transformer.proj_out.weight", "transformer.blocks.0.attn1.to_q.bias", "text.shared.weight"} <= outside


def test_an_untrained_network_has_the_loss_of_velocity_zero_weighed_by_channel() -> None:
    target = codec.fit(corpora.pretraining(60, 1).clips, tiny.CHANNELS)
    config = SHORT.model_copy(update={"caption_dropout": 0.0, "batch": 3})
    step = 5
    found = pretrain.transformer_loss(pretrain.Network(), target, config, step)
    x0 = target.encode(corpora.pretraining(3, step).clips)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(step))
    weight = target.variance**-0.5
    per_channel = (noise - x0).square().mean(dim=(0, 2, 3, 4))
    assert found.item() == pytest.approx(float((per_channel * weight).sum() / weight.sum()), rel=1e-5)


def test_the_codec_knows_its_channels_variance() -> None:
    clips = corpora.pretraining(200, 1).clips
    target = codec.fit(clips, tiny.CHANNELS)
    latents = target.encode(clips).transpose(0, 1).flatten(1)
    torch.testing.assert_close(latents.var(dim=1), target.variance, rtol=1e-3, atol=1e-5)
    assert target.variance.mean().item() == pytest.approx(1.0, rel=1e-4)


def test_half_precision_gives_nearly_the_same_loss_and_gradient() -> None:
    target = codec.fit(corpora.pretraining(60, 1).clips, tiny.CHANNELS)
    torch.manual_seed(0)
    network = pretrain.Network()
    torch.nn.init.normal_(network.transformer.proj_out.weight, std=0.02)
    found = {}
    for bf16 in (False, True):
        network.zero_grad()
        loss = pretrain.transformer_loss(network, target, SHORT.model_copy(update={"bf16": bf16}), 5)
        loss.backward()
        found[bf16] = (loss.detach(), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert found[True][0].item() == pytest.approx(found[False][0].item(), rel=1e-2)
    assert float(torch.cosine_similarity(found[True][1], found[False][1], dim=0)) > 0.99
