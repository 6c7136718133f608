"""A model family from outside: videos of any size that begin from a given first frame, which never flows.

A latent is the video without its first frame, channels first. The network scales and shifts what it is given.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reelign import video
from reelign.batches import Condition, Geometry, Request, Size, Videos
from reelign.core import schedule
from reelign.errors import BadData
from reelign.parts import PartConfig
from reelign.protocols import Card, SamplerConfig
from reelign.weights import Reference

FRAME = frozenset({"first_frame"})


class Config(PartConfig):
    name: str = "tests.parts.framed_model"
    frames: int = 3
    side: int = 4


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.given, self.bias = (nn.Parameter(torch.zeros(())) for _ in range(3))

    def forward(self, x: Tensor, frame: Tensor) -> Tensor:
        return self.own * x + self.given * frame.unsqueeze(2) + self.bias


def _geometry(frames: int, height: int, width: int) -> Geometry:
    return Geometry(frames, height, width, 8.0, (3, frames - 1, height, width))


class Framed:
    takes = FRAME

    def __init__(self, config: Config, device: torch.device) -> None:
        self.device, self.network = device, Scaled().to(device)
        self.geometry = _geometry(config.frames, config.side, config.side)
        self.experts = {"": self.network}
        self.reference = Reference(self.experts, None)

    def sized(self, size: Size) -> Geometry:
        return _geometry(*size)

    def encode(self, requests: Sequence[Request], geometry: Geometry | None = None) -> Condition:
        frames = []
        for request in requests:
            if "first_frame" not in request.given:
                raise BadData(f"the prompt {request.text!r} gives no first_frame; add one.")
            frames.append(video.read(request.given["first_frame"])[0][0])
        return Condition(geometry or self.geometry, {"frame": tuple(frame.to(self.device) for frame in frames)})

    def levels(self, sampler: SamplerConfig, geometry: Geometry) -> Tensor:
        return schedule.sigmas(sampler.steps, sampler.shift)

    def velocity(self, x: Tensor, sigma: Tensor, condition: Condition, guidance: float = 1.0) -> Tensor:
        return self.reference.call(x, torch.stack(condition.values["frame"]))

    def decode(self, x0: Tensor, condition: Condition) -> Videos:
        return Videos(
            torch.cat([torch.stack(condition.values["frame"])[:, None], x0.transpose(1, 2).clamp(0, 1)], dim=1),
            condition.geometry.fps,
        )

    def encode_video(self, videos: Videos, condition: Condition | None = None) -> Tensor:
        return videos.frames[:, 1:].transpose(1, 2).contiguous()

    def export(self, folder: Path, shift: float | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: p.detach().clone() for name, p in self.network.named_parameters()}, folder / "w.safetensors")


def check(config: Config) -> None:
    pass


def describe(config: Config) -> Card:
    return Card(_geometry(config.frames, config.side, config.side), 0, takes=FRAME)


def build(config: Config, device: torch.device) -> Framed:
    return Framed(config, device)
