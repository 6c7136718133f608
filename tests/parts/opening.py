"""A reward and a metric from outside the package: does a video begin as the frame that it was given?"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from reelign import video
from reelign.batches import Request, Videos
from reelign.errors import BadData
from reelign.parts import PartConfig


class Opening(PartConfig):
    def check_requests(self, requests: Sequence[Request]) -> None:
        bare = next((request for request in requests if "first_frame" not in request.given), None)
        if bare is not None:
            raise BadData(f"{bare.text!r} gives no first_frame; add one.")


class Reward(Opening):
    scores: ClassVar = {"opening": (0.0, 1.0)}
    version: ClassVar = "1"

    def build(self) -> "Near":
        return Near("opening")


class Metric(Opening):
    higher_is_better: ClassVar = {"begins": True}
    description: ClassVar = {"begins": "1 less the mean distance of the first frame from the given one"}

    def build(self) -> "Near":
        return Near("begins")


class Near:
    def __init__(self, measure: str) -> None:
        self.measure = measure

    def __call__(self, videos: Videos, requests: Sequence[Request]) -> dict[str, Tensor]:
        given = torch.stack([video.read(request.given["first_frame"])[0][0] for request in requests])
        return {self.measure: 1 - (videos.frames[:, 0] - given).abs().mean(dim=(1, 2, 3))}
