"""Making the packaged tiny generator from nothing: first its autoencoder, then its transformer, then the folder.

Clips are drawn on the fly. Each phase's state is one safetensors file, replaced by rename every `save_every` steps, so
a killed run goes on where it was: a batch is a function of (seed, step), so no data position is lost.
"""

import logging
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from reelign import bfloat16
from reelign.core import flow
from reelign.files import replacing
from reelign.parts import Settings
from reelign.playground.make import codec, tiny
from reelign.playground.world import corpora

log = logging.getLogger(__name__)

Row = dict[str, float]
MATRIX_DIMS = 2


class Phase(Settings):
    """How long a phase trains, and how fast."""

    cycles: tuple[int, ...]
    """Steps at which the learning rate has come down to zero; the last one is the end. Samples are worth looking at
    where a cycle ends, and a longer run only adds a cycle."""
    batch: int
    lr: float
    """Learning rate in each cycle: linear warm-up, constant, and linear decay to zero."""
    warmup: int = 100
    decay: float
    """Share of a cycle over which the rate decays."""
    ema: float
    save_every: int = 100


class AutoencoderConfig(Phase):
    """How the packaged autoencoder was made, with Adam; the defaults are the shipped recipe."""

    cycles: tuple[int, ...] = (3500,)
    batch: int = 16
    lr: float = 2e-3
    decay: float = 0.7
    ema: float = 0.99
    blur: float = 0.12
    """Largest noise added to the latents it learns to decode, so that a generator's small errors do not show."""


class PretrainConfig(Phase):
    """How the packaged generator was made, its transformer with Muon; the defaults are the shipped recipe."""

    seed: int = 0
    cycles: tuple[int, ...] = (3000, 10000, 14000, 20000)
    couples: tuple[float, ...] = Field(default=(0.25, 0.25, 0.5), min_length=1)
    """Share of clips with two sprites, cycle by cycle, the last for all beyond; they are what it learns last."""
    batch: int = 48
    lr: float = 4e-3
    """Muon's learning rate, for the matrices inside the transformer's blocks, in AdamW's unit."""
    adamw_lr: float = 1.2e-3
    """AdamW's learning rate, for everything else."""
    decay: float = 0.6
    weight_decay: float = 0.01
    channel_power: float = 0.5
    """The error of a latent channel counts by its variance to minus this power. What is best for each channel stays the
    same; but where a sprite is, which is all chance at high noise, drowns its shape less."""
    bf16: bool = True
    """Matrix products in bfloat16; twice as fast on a CPU that has it."""
    caption_dropout: float = 0.1
    """Fraction of captions replaced by the empty prompt, which classifier-free guidance needs."""
    ema: float = 0.998
    sigma_mean: float = 1.0
    sigma_std: float = 1.2
    """Noise levels are sigmoid(N(mean, std)): mostly high, where position, shape and motion are decided."""
    device: str = "cpu"
    autoencoder: AutoencoderConfig = AutoencoderConfig()


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

    def optimizers(self, config: PretrainConfig) -> list[torch.optim.Optimizer]:
        """Muon (Jordan et al. 2024) for the blocks' matrices, AdamW for the rest."""
        inside = {
            n: p for n, p in self.named_parameters() if n.startswith("transformer.blocks.") and p.ndim == MATRIX_DIMS
        }
        rest = [p for n, p in self.named_parameters() if n not in inside]
        return [
            torch.optim.Muon(list(inside.values()), config.lr, config.weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, config.adamw_lr, betas=(0.9, 0.98), weight_decay=config.weight_decay),
        ]


def rate(config: Phase, step: int) -> float:
    """Share of the learning rate: warm-up, hold and decay of the cycle that a step belongs to."""
    start, end = next(cycle for cycle in pairwise((0, *config.cycles)) if step < cycle[1])
    warm = min(1.0, (step - start + 1) / config.warmup)
    left = (end - step) / (config.decay * (end - start))
    return warm * min(1.0, left)


def transformer_loss(network: Network, target: codec.LinearCodec, config: PretrainConfig, step: int) -> Tensor:
    """The flow-matching loss of one fresh batch, a function of (seed, step) alone."""
    cycle = bisect(config.cycles, step)
    data = corpora.pretraining(config.batch, config.seed * 1_000_003 + step, config.couples[: cycle + 1][-1])
    source = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    x0 = target.encode(data.clips)
    noise = torch.randn(x0.shape, generator=source)
    sigma = torch.sigmoid(config.sigma_mean + config.sigma_std * torch.randn(len(x0), generator=source))
    dropped = torch.rand(len(x0), generator=source) < config.caption_dropout
    texts = ["" if drop else text for text, drop in zip(data.captions, dropped.tolist(), strict=True)]
    x0, noise, sigma = x0.to(config.device), noise.to(config.device), sigma.to(config.device)
    with bfloat16.products(config.device) if config.bf16 else nullcontext():
        velocity = network(flow.interpolate(x0, noise, sigma), sigma, texts)
    error = (velocity.float() - flow.velocity_target(x0, noise)).square()
    weight = target.variance.pow(-config.channel_power).to(config.device)
    return (error * (weight / weight.mean())[:, None, None, None]).mean()


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


Optimizers = Sequence[torch.optim.Optimizer]


def _save(file: Path, step: int, module: nn.Module, average: dict[str, Tensor], optimizers: Optimizers) -> None:
    tensors = {f"net.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in average.items()}
    for which, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"opt.{which}.{index}.{k}": v for k, v in state.items()}
    with replacing(file) as temporary:
        save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, temporary, metadata={"step": str(step)})


def _load(file: Path, module: nn.Module, average: dict[str, Tensor], optimizers: Optimizers) -> int:
    with safe_open(file, framework="pt") as opened:
        step = int(opened.metadata()["step"])
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (it is no mapping)
    module.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net.")})
    for name in average:
        average[name].copy_(tensors[f"ema.{name}"])
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        if key.startswith("opt."):
            _, which, index, name = key.split(".", 3)
            states[int(which)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return step


def _train(
    file: Path, module: nn.Module, optimizers: Optimizers, config: Phase, loss: Callable[[int], Tensor]
) -> Iterator[Row]:
    """One phase: step, average, save; goes on from the last saved step and leaves the averaged weights in `module`."""
    average = {k: v.detach().clone() for k, v in module.state_dict().items()}
    full = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    start = 0
    if file.exists():
        start = _load(file, module, average, optimizers)
        log.info("%s goes on from step %d", file.stem, start)
    for step in range(start, config.cycles[-1]):
        began = time.perf_counter()
        for optimizer, lr in zip(optimizers, full, strict=True):
            optimizer.param_groups[0]["lr"] = lr * rate(config, step)
        value = loss(step)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            for name, weight in module.state_dict().items():
                average[name].lerp_(weight, 1 - config.ema)
        done = step + 1
        yield {"step": done, "loss": value.item(), "grad_norm": float(norm), "wall_s": time.perf_counter() - began}
        if done % config.save_every == 0 or done == config.cycles[-1]:
            _save(file, done, module, average, optimizers)
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
    muon = network.optimizers(config)
    for phase, settings, loss in (
        ("autoencoder", (vae, [adam], own), lambda step: autoencoder_loss(vae, target, config, step)),
        ("transformer", (network, muon, config), lambda step: transformer_loss(network, target, config, step)),
    ):
        yield from ((phase, row) for row in _train(out / f"{phase}.safetensors", *settings, loss))
    tiny.save(out / "pipeline", network.transformer.cpu(), network.text.cpu(), network.words, vae.cpu())
