"""Pretraining the packaged tiny generator, from nothing, on noisy playground clips drawn on the fly.

The state is one safetensors file and one JSON file, replaced by rename every `save_every` steps, so a killed run goes on
where it was: batches are a function of (seed, step) and the noise has a named seed, so no data position is lost.
"""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from reelign.playground import codec, corpora, package, tiny

log = logging.getLogger(__name__)


class PretrainConfig(BaseModel):
    """How the packaged generator was made; the defaults are the shipped recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    steps: int = 12000
    batch: int = 24
    lr: float = 1.2e-3
    """Learning rate of AdamW: linear warm-up, constant, and linear decay to zero at the end."""
    warmup: int = 100
    decay: float = 0.3
    """Share of the steps over which the rate decays; a run can be shortened by fewer steps before it begins."""
    weight_decay: float = 0.01
    caption_dropout: float = 0.1
    """Fraction of captions replaced by the empty prompt, which classifier-free guidance needs."""
    ema: float = 0.998
    sigma_mean: float = 1.0
    sigma_std: float = 1.2
    """Noise levels are sigmoid(N(mean, std))."""
    save_every: int = 100
    device: str = "cpu"


class Network(nn.Module):
    """Transformer and text encoder, trained together; the text encoder is frozen ever after."""

    def __init__(self) -> None:
        """Draw fresh weights from torch's global generator."""
        super().__init__()
        self.words: PreTrainedTokenizerFast = tiny.tokenizer()
        self.text: UMT5EncoderModel = tiny.text_encoder(len(self.words))
        self.transformer: WanTransformer3DModel = tiny.transformer().float()
        # Start at velocity 0: a random output layer only adds noise that the first steps have to unlearn.
        nn.init.zeros_(self.transformer.proj_out.weight)
        nn.init.zeros_(self.transformer.proj_out.bias)

    def forward(self, x: Tensor, sigma: Tensor, texts: list[str]) -> Tensor:
        """Velocity of latents [b c t h w] at noise levels [b]."""
        features = tiny.embed(self.text, self.words, texts, tiny.TEXT_LENGTH)
        return self.transformer(x, 1000 * sigma, features, return_dict=False)[0]


def learning_rate(config: PretrainConfig, step: int) -> float:
    """Warm-up, hold, decay."""
    warm = min(1.0, (step + 1) / config.warmup)
    left = (config.steps - step) / (config.decay * config.steps)
    return config.lr * warm * min(1.0, left)


def loss(network: Network, blocks: codec.LinearCodec, config: PretrainConfig, step: int) -> Tensor:
    """The flow-matching loss of one fresh batch, a function of (seed, step) alone."""
    data = corpora.pretraining(config.batch, config.seed * 1_000_003 + step)
    noise_source = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    x0 = blocks.encode(data.clips)
    noise = torch.randn(x0.shape, generator=noise_source)
    sigma = torch.sigmoid(config.sigma_mean + config.sigma_std * torch.randn(len(x0), generator=noise_source))
    dropped = torch.rand(len(x0), generator=noise_source) < config.caption_dropout
    texts = ["" if drop else text for text, drop in zip(data.captions, dropped.tolist(), strict=True)]
    x0, noise, sigma = x0.to(config.device), noise.to(config.device), sigma.to(config.device)
    mix = sigma[:, None, None, None, None]
    return (network((1 - mix) * x0 + mix * noise, sigma, texts) - (noise - x0)).square().mean()


def _state_path(out: Path) -> Path:
    return out / "pretrain.safetensors"


def _save(out: Path, step: int, network: Network, average: dict[str, Tensor], optimizer: torch.optim.AdamW) -> None:
    tensors = {f"net.{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"opt.{index}.{k}": v for k, v in state.items()}
    temporary = _state_path(out).with_suffix(".tmp")
    save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, temporary, metadata={"step": str(step)})
    temporary.replace(_state_path(out))


def _load(out: Path, network: Network, average: dict[str, Tensor], optimizer: torch.optim.AdamW) -> None:
    tensors = load_file(_state_path(out))
    network.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    for name in average:
        average[name].copy_(tensors[f"ema.{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("opt."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def run(out: Path, config: PretrainConfig) -> Iterator[dict[str, float]]:
    """Pretrain into `out`, going on from its last saved step; yields one metrics row a step and packages at the end."""
    out.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = Network().to(config.device)
    blocks = codec.fit(corpora.pretraining(3000, config.seed + 77).clips, tiny.CHANNELS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    progress = out / "pretrain.json"
    start = 0
    if progress.exists():
        start = json.loads(progress.read_text())["step"]
        _load(out, network, average, optimizer)
        log.info("going on from step %d", start)
    for step in range(start, config.steps):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        value = loss(network, blocks, config, step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for name, weight in network.state_dict().items():
                average[name].lerp_(weight, 1 - config.ema)
        done = step + 1
        yield {"step": done, "loss": value.item(), "grad_norm": float(norm), "wall_s": time.perf_counter() - began}
        if done % config.save_every == 0 or done == config.steps:
            _save(out, done, network, average, optimizer)
            temporary = progress.with_suffix(".tmp")
            temporary.write_text(json.dumps({"step": done, "config": config.model_dump()}))
            temporary.replace(progress)
    network.load_state_dict(average)
    package.save(out / "pipeline", network.transformer.cpu(), network.text.cpu(), network.words, blocks)
