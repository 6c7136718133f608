"""The playground as a data set: prompts with their slices, and clips rendered when they are asked for."""

from typing import Literal

import torch
from pydantic import Field

from reelign.batches import Clips, Prompts, Request, Videos, requests
from reelign.core import rng
from reelign.datasets._draw import Source, digest, order
from reelign.datasets._latents import Latents
from reelign.errors import BadConfig, BadData
from reelign.parts import PartConfig
from reelign.playground.world import corpora, tables
from reelign.playground.world.slices import slices
from reelign.protocols import Geometry, VideoModel

CHUNK = 64
"""Clips that are rendered and encoded together; a clip depends on the seed and its number only."""
DRAWN = 1
"""Raised whenever the same seed and number give another clip."""


class Config(PartConfig):
    """Which corpus, how much of it, and which prompts."""

    name: str = "playground"
    what: Literal["instruction", "pretraining"] = "instruction"
    """instruction: clean clips, right captions. pretraining: as found in the wild, with wrong captions and defects."""
    size: int = Field(default=1024, ge=1, le=10**6)
    """Number of clips; a larger corpus begins with the smaller one."""
    prompts: int = Field(default=256, ge=1, le=10**5)
    """Number of prompts, all different."""
    held_out: bool = False
    """Prompts of colour-shape pairs and motion orders that training never shows; then there are no clips."""
    seed: int = 0
    """Of scenes, prompts and shuffles."""

    @property
    def gives(self) -> frozenset[str]:
        """Prompts, and clips unless they are held out."""
        return frozenset({"prompts"} if self.held_out else {"prompts", "clips"})


class Playground(Source):
    """Rendered clips and prompts. Remembers the captions of the clips that were drawn."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, "the playground")
        texts = corpora.prompts(config.prompts, rng.seed_for(config.seed, "prompts"), config.held_out)
        self._prompts = Prompts(tuple(Request(text, i, slices=slices(text)) for i, text in enumerate(texts)))
        self._latents = Latents()
        self._captions: dict[int, tuple[str, ...]] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many prompts and clips there are."""
        return {"prompts": self._config.prompts, "clips": 0 if self._config.held_out else self._config.size}

    @property
    def notes(self) -> tuple[str, ...]:
        """How many prompts and clips there are."""
        return (f"{self.counts['prompts']} prompts and {self.counts['clips']} clips, rendered as they are asked for.",)

    def fit(self, geometry: Geometry) -> None:
        """Refuse models that make other frames than the playground's.

        Raises:
            BadData: in one sentence.
        """
        own = (tables.FRAMES, tables.HEIGHT, tables.WIDTH)
        if self.counts["clips"] and (geometry.frames, geometry.height, geometry.width) != own:
            raise BadData(
                f"the playground's clips have {own[0]} frames of {own[2]}x{own[1]} pixels, but the model makes "
                f"{geometry.frames} of {geometry.width}x{geometry.height}; use the playground's model, or other clips."
            )

    def identity(self) -> dict[str, str | int]:
        """Counts, and a digest of the prompts and of what the clips are drawn from."""
        texts = zip(self._prompts.texts, self._prompts.ids, strict=True)
        return {**self.counts, "sha256": digest([[self._config.what, self._config.seed], *texts])}

    def all_prompts(self) -> Prompts:
        """Every prompt, in a fixed order."""
        return self._prompts

    def clips(self, n: int, seed: int, model: VideoModel) -> Clips:
        """Draw number `seed` of `n` clips; consecutive numbers show every clip once an epoch.

        Raises:
            BadConfig: the data set is the held-out one.
            BadData: the model makes other frames than the playground's.
        """
        if self._config.held_out:
            raise BadConfig(
                "playground with held_out gives prompts only; for clips to train on set dataset.held_out to false."
            )
        self.fit(model.geometry)
        chosen = order(self._config.size, n, seed, self._config.seed)
        chosen = [chosen[k % len(chosen)] for k in range(n)]
        latents, texts = [], []
        for index in chosen:
            chunk, row = divmod(index, CHUNK)
            content = f"playground {DRAWN} {self._config.what} {self._config.seed} {chunk} {CHUNK}"
            latents.append(self._latents.get(content, model, lambda chunk=chunk: self._videos(chunk))[row])
            texts.append(self._said(chunk)[row])
        x0 = torch.stack(latents).to(model.device)
        return Clips(x0, requests(texts), torch.ones(n, device=x0.device))

    def _draw(self, chunk: int) -> corpora.Captioned:
        corpus = corpora.pretraining if self._config.what == "pretraining" else corpora.instruction
        drawing = corpus(CHUNK, rng.seed_for(self._config.seed, "clips", chunk))
        self._captions[chunk] = drawing.captions
        return drawing

    def _videos(self, chunk: int) -> Videos:
        return Videos(self._draw(chunk).clips, float(tables.FPS))

    def _said(self, chunk: int) -> tuple[str, ...]:
        """Captions; drawn once more where only the latents are known, from an earlier run."""
        return self._captions[chunk] if chunk in self._captions else self._draw(chunk).captions


def build(config: Config) -> Playground:
    """Open the playground."""
    return Playground(config)
