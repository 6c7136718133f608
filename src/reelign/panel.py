"""The rewards of a stage and the metrics of an evaluation, built and asked together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from jaxtyping import Float
from pydantic import BeforeValidator, Field, model_serializer
from torch import Tensor

from reelign import judges, parts
from reelign.batches import Videos
from reelign.judges import Judge
from reelign.parts import AnyReward, PartConfig, Settings


class WeightedReward(Settings):
    """A reward and how much it counts: `{name: videoalign, weight: 0.5, ...}`."""

    weight: float = Field(default=1.0, gt=0, le=1e6)
    reward: AnyReward

    @model_serializer
    def _side_by_side(self) -> dict[str, Any]:
        return {**self.reward.model_dump(mode="json"), "weight": self.weight}


def _split(value: object) -> object:
    """Take `weight` out of `{name, weight, ...}`; the rest configures the reward."""
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, Mapping) and "reward" not in value:
        # Configured here, so that an error's path is the one in the recipe: rewards.0.key, not rewards.0.reward.key.
        rest = parts.configure("reward", {k: v for k, v in value.items() if k != "weight"})
        return {"reward": rest, **({"weight": value["weight"]} if "weight" in value else {})}
    return value


Weighted = Annotated[WeightedReward, BeforeValidator(_split)]


@dataclass(frozen=True, slots=True)
class Panel:
    """The rewards of a stage, with their weights."""

    asked: tuple[Judge, ...]
    factors: tuple[float, ...]

    @classmethod
    def build(cls, configs: Sequence[WeightedReward]) -> "Panel":
        """Build each reward.

        Raises:
            BadConfig: one that is no reward, or two of one score, of which one would be lost.
            PartFailed: building one raised.
        """
        built = tuple(judges.build("reward", c.reward) for c in configs)
        judges.refuse_twice(built)
        return cls(built, tuple(c.weight for c in configs))

    @property
    def weights(self) -> dict[str, float]:
        """By score."""
        pairs = zip(self.asked, self.factors, strict=True)
        return {name: factor for judge, factor in pairs for name in judge.names}

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """Declared, by score."""
        return {name: judge.says.scale for judge in self.asked for name in judge.names}

    def describe(self) -> dict[str, dict[str, Any]]:
        """For the ledger: weight and version of each reward, by its part's name; a second one is "degraded (2)"."""
        found: dict[str, dict[str, Any]] = {}
        for judge, factor in zip(self.asked, self.factors, strict=True):
            again = sum(earlier.partition(" (")[0] == judge.name for earlier in found)
            name = f"{judge.name} ({again + 1})" if again else judge.name
            found[name] = {"weight": factor, "version": judge.says.version}
        return found

    def score(self, videos: Videos, texts: Sequence[str], where: str = "") -> dict[str, Float[Tensor, " b"]]:
        """All scores by name.

        Raises:
            PartFailed: a reward that misbehaved; see `judges.Judge`. `where` is named in the message.
        """
        return judges.ask(self.asked, videos, texts, where)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of an evaluation."""

    asked: tuple[Judge, ...]

    @classmethod
    def build(cls, configs: Sequence[PartConfig]) -> "Metrics":
        """Build each metric.

        Raises:
            BadConfig: one that is no metric, or two of one measure, of which one would be lost.
            PartFailed: building one raised.
        """
        built = tuple(judges.build("metric", config) for config in configs)
        judges.refuse_twice(built)
        return cls(built)

    @property
    def of(self) -> dict[str, Judge]:
        """The metric that gives each measure."""
        return {name: judge for judge in self.asked for name in judge.names}

    @property
    def versions(self) -> dict[str, str]:
        """By measure."""
        return {name: judge.says.version for judge in self.asked for name in judge.names}

    def measure(self, videos: Videos, texts: Sequence[str], where: str = "") -> dict[str, Float[Tensor, " b"]]:
        """All measures by name; NaN where one does not apply.

        Raises:
            PartFailed: a metric that misbehaved; see `judges.Judge`. `where` is named in the message.
        """
        return judges.ask(self.asked, videos, texts, where)
