"""The samplers that an evaluation judges under: people use several, and what helps under one may not under another."""

from typing import Annotated

from pydantic import AfterValidator, Field

from reelign import names
from reelign.names import Label
from reelign.sampling import SamplerConfig


class Sampler(SamplerConfig):
    """How the clips that judge are sampled."""

    guidance: float = Field(default=3.0, ge=0, le=100)
    """Classifier-free guidance, 3 as people sample; without it (1) an evaluation takes half the time."""
    name: Label = ""
    """What it is called in files, gates and reports; by default told from its settings, such as s16g3."""
    prompts: int | None = Field(default=None, ge=1)
    """Only the first so many prompts judge under it, as each sampler costs an evaluation of its own; by default all."""

    @property
    def called(self) -> str:
        """Its name, or the one that its settings give it."""
        return self.name or f"s{self.steps}g{self.guidance:g}"

    def recorded(self) -> dict[str, object]:
        """What the record of an evaluation says of it."""
        return {"name": self.called, **self.model_dump(include=set(SamplerConfig.model_fields))}


def _different(samplers: tuple[Sampler, ...]) -> tuple[Sampler, ...]:
    known: set[str] = set()
    for sampler in samplers:
        name = names.same(sampler.called)
        if name in known:
            raise ValueError(f"two samplers are called {sampler.called!r}; give one of them another `name`")
        known.add(name)
    return samplers


Samplers = Annotated[tuple[Sampler, ...], Field(min_length=1), AfterValidator(_different)]
"""The main one first."""
