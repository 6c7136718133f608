"""Making the packaged tiny generator from nothing: first its autoencoder, then its transformer, then the folder.

Clips are drawn on the fly. Each phase's state is one safetensors and one JSON file, replaced by rename every
`save_every` steps, so a killed run goes on where it was: a batch is a function of (seed, step), so no data position is
lost.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from reelign.core import flow
from reelign.playground import codec, corpora, package, tiny

log = logging.getLogger(__name__)

Row = dict[str, float]


class AutoencoderConfig(BaseModel):
    """How the packaged autoencoder was made; the defaults are the shipped recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cycles: tuple[int, ...] = (3500,)
    """Steps at which the learning rate has come down to zero; the last one is the end."""
    batch: int = 16
    lr: float = 2e-3
    """Learning rate of Adam: linear warm-up, constant, and linear decay to zero."""
    warmup: int = 100
    decay: float = 0.7
    """Share of a cycle over which the rate decays."""
    ema: float = 0.99
    blur: float = 0.12
    """Largest noise added to the latents it learns to decode, so that a generator's small errors do not show."""
    save_every: int = 100


class PretrainConfig(BaseModel):
    """How the packaged generator was made; the defaults are the shipped recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    cycles: tuple[int, ...] = (8000, 24000)
    """Steps at which the learning rate has come down to zero; the last one is the end. Samples are worth looking at
    where a cycle ends, and a longer run only adds a cycle."""
    batch: int = 24
    lr: float = 1.2e-3
    """Learning rate of AdamW in each cycle: linear warm-up, constant, and linear decay to zero."""
    warmup: int = 100
    decay: float = 0.3
    """Share of a cycle over which the rate decays."""
    weight_decay: float = 0.01
    caption_dropout: float = 0.1
    """Fraction of captions replaced by the empty prompt, which classifier-free guidance needs."""
    ema: float = 0.998
    sigma_mean: float = 1.0
    sigma_std: float = 1.2
    """Noise levels are sigmoid(N(mean, std)): mostly high, where position, shape and motion are decided."""
    save_every: int = 100
    device: str = "cpu"
    autoencoder: AutoencoderConfig = AutoencoderConfig()


Phase = AutoencoderConfig | PretrainConfig


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


def learning_rate(config: Phase, step: int) -> float:
    """Warm-up, hold and decay of the cycle that a step belongs to."""
    start, end = next(cycle for cycle in pairwise((0, *config.cycles)) if step < cycle[1])
    warm = min(1.0, (step - start + 1) / config.warmup)
    left = (end - step) / (config.decay * (end - start))
    return config.lr * warm * min(1.0, left)


def transformer_loss(network: Network, target: codec.LinearCodec, config: PretrainConfig, step: int) -> Tensor:
    """The flow-matching loss of one fresh batch, a function of (seed, step) alone."""
    data = corpora.pretraining(config.batch, config.seed * 1_000_003 + step)
    source = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    x0 = target.encode(data.clips)
    noise = torch.randn(x0.shape, generator=source)
    sigma = torch.sigmoid(config.sigma_mean + config.sigma_std * torch.randn(len(x0), generator=source))
    dropped = torch.rand(len(x0), generator=source) < config.caption_dropout
    texts = ["" if drop else text for text, drop in zip(data.captions, dropped.tolist(), strict=True)]
    x0, noise, sigma = x0.to(config.device), noise.to(config.device), sigma.to(config.device)
    velocity = network(flow.interpolate(x0, noise, sigma), sigma, texts)
    return (velocity - flow.velocity_target(x0, noise)).square().mean()


def autoencoder_loss(vae: AutoencoderKLWan, target: codec.LinearCodec, config: PretrainConfig, step: int) -> Tensor:
    """Pixels from slightly noised target latents, and target latents from pixels, for one fresh batch."""
    own = config.autoencoder
    seed = (config.seed + 1) * 10_000_019 + step
    source = torch.Generator().manual_seed(seed)
    clips = corpora.pretraining(own.batch, seed).clips
    latents = target.encode(clips)
    blur = own.blur * torch.rand(len(latents), 1, 1, 1, 1, generator=source)
    noised = latents + blur * torch.randn(latents.shape, generator=source)
    video, latents, noised = (
        (2 * clips - 1).transpose(1, 2).to(config.device),
        *(t.to(config.device) for t in (latents, noised)),
    )
    decoded = vae.decode(noised, return_dict=False)[0]
    encoded = vae.encode(video, return_dict=False)[0].mode()
    return (decoded - video).square().mean() + 0.1 * (encoded - latents).square().mean()


def _save(
    stem: Path, step: int, module: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    tensors = {f"net.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"opt.{index}.{k}": v for k, v in state.items()}
    temporary = stem.with_suffix(".tmp")
    save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, temporary, metadata={"step": str(step)})
    temporary.replace(stem.with_suffix(".safetensors"))
    temporary.write_text(json.dumps({"step": step}))
    temporary.replace(stem.with_suffix(".json"))


def _load(stem: Path, module: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(stem.with_suffix(".safetensors"))
    module.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    for name in average:
        average[name].copy_(tensors[f"ema.{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("opt."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))["step"]


def _train(
    stem: Path, module: nn.Module, optimizer: torch.optim.Optimizer, config: Phase, loss: Callable[[int], Tensor]
) -> Iterator[Row]:
    """One phase: step, average, save; goes on from the last saved step and leaves the averaged weights in `module`."""
    average = {k: v.detach().clone() for k, v in module.state_dict().items()}
    start = 0
    if stem.with_suffix(".json").exists():
        start = _load(stem, module, average, optimizer)
        log.info("%s goes on from step %d", stem.name, start)
    for step in range(start, config.cycles[-1]):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for name, weight in module.state_dict().items():
                average[name].lerp_(weight, 1 - config.ema)
        done = step + 1
        yield {"step": done, "loss": value.item(), "grad_norm": float(norm), "wall_s": time.perf_counter() - began}
        if done % config.save_every == 0 or done == config.cycles[-1]:
            _save(stem, done, module, average, optimizer)
    module.load_state_dict(average)


def run(out: Path, config: PretrainConfig) -> Iterator[tuple[str, Row]]:
    """Make the generator in `out`, going on from its last saved step; yields (phase, metrics) a step.

    The autoencoder's latents are pinned to principal components (see `codec`), so both phases are independent.
    """
    out.mkdir(parents=True, exist_ok=True)
    target = codec.fit(corpora.pretraining(3000, config.seed + 77).clips, tiny.CHANNELS)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network, vae = Network().to(config.device), tiny.autoencoder()
        cast(nn.Module, vae).to(config.device)
    own = config.autoencoder
    adam = torch.optim.Adam(vae.parameters(), lr=own.lr, betas=(0.9, 0.99))
    rows = _train(out / "autoencoder", vae, adam, own, lambda step: autoencoder_loss(vae, target, config, step))
    yield from (("autoencoder", row) for row in rows)
    adamw = torch.optim.AdamW(network.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    rows = _train(
        out / "transformer", network, adamw, config, lambda step: transformer_loss(network, target, config, step)
    )
    yield from (("transformer", row) for row in rows)
    package.save(out / "pipeline", network.transformer.cpu(), network.text.cpu(), network.words, vae.cpu())
