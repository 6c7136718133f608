"""The rewards of a stage and the metrics of an evaluation: named together, then built and asked together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from jaxtyping import Float
from pydantic import BeforeValidator, Field, model_serializer, model_validator
from torch import Tensor

from reelign import judges, parts
from reelign.batches import Request, Videos
from reelign.errors import BadConfig, shown
from reelign.judges import Judge, Named
from reelign.parts import AnyReward, PartConfig, Settings

Scale = tuple[float, float]


class WeightedReward(Settings):
    """A reward and how much it counts: `{name: videoalign, weight: 0.5, ...}`."""

    weight: Annotated[float, Field(gt=0, le=1e6)] | Mapping[str, float] = 1.0
    """Of each of its scores; or by score, as in {VQ: 1, MQ: 0.5}. Scores that are left out are measured only."""
    reward: AnyReward

    @property
    def weights(self) -> dict[str, float]:
        """By score; 0 where one is measured only."""
        names = judges.named("reward", self.reward).names
        given = self.weight if isinstance(self.weight, Mapping) else dict.fromkeys(names, self.weight)
        return {name: given.get(name, 0.0) for name in names}

    @model_validator(mode="after")
    def _of_its_scores(self) -> "WeightedReward":
        if isinstance(self.weight, Mapping):
            names = self.weights
            other = sorted(self.weight.keys() - names.keys())
            if other:
                raise BadConfig(
                    f"weight has {shown(other[0])}, which {self.reward.name!r} does not give; it gives "
                    f"{', '.join(names)}."
                )
            wrong = next((f"{name}: {w:g}" for name, w in self.weight.items() if not 0 <= w <= 1e6), None)
            if wrong:
                raise BadConfig(f"weight has {{{wrong}}}; give each score a number from 0 to 1e6.")
            if not any(names.values()):
                raise BadConfig(f"weight leaves nothing of {self.reward.name!r} to train on; raise one above 0.")
        return self

    @model_serializer
    def _side_by_side(self) -> dict[str, Any]:
        weight = dict(self.weight) if isinstance(self.weight, Mapping) else self.weight
        return {**self.reward.model_dump(mode="json"), "weight": weight}


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


def names(configs: Sequence[WeightedReward]) -> frozenset[str]:
    """Names of rewards, whole and without a path before them."""
    full = {config.reward.name for config in configs}
    return frozenset(full | {name.partition(":")[0].rpartition(".")[2] for name in full})


def rewards(configs: Sequence[WeightedReward]) -> tuple[Named, ...]:
    """What the rewards of a stage say of themselves.

    Raises:
        BadConfig: one that is no reward, or two of one score, of which one would be lost.
    """
    return _named("reward", [config.reward for config in configs])


def metrics(configs: Sequence[PartConfig]) -> tuple[Named, ...]:
    """What the metrics of an evaluation say of themselves.

    Raises:
        BadConfig: one that is no metric, or two of one measure, of which one would be lost.
    """
    return _named("metric", configs)


def _named(kind: judges.Kind, configs: Sequence[PartConfig]) -> tuple[Named, ...]:
    found = tuple(judges.named(kind, config) for config in configs)
    judges.refuse_twice(found)
    return found


def built(asked: Sequence[Named]) -> tuple[Judge, ...]:
    """Those that say of themselves what they are, built.

    Raises:
        BadConfig: building one raised.
    """
    return tuple(judges.build(each.kind, each.config) for each in asked)


def versions(asked: Sequence[Named]) -> dict[str, str]:
    """By score or measure."""
    return {name: each.says.version for each in asked for name in each.names}


def describe(configs: Sequence[WeightedReward]) -> dict[str, dict[str, Any]]:
    """For the ledger: weight and version of each reward, by its part's name; a second one is "degraded (2)"."""
    found: dict[str, dict[str, Any]] = {}
    for named, config in zip(rewards(configs), configs, strict=True):
        again = sum(earlier.partition(" (")[0] == named.name for earlier in found)
        name = f"{named.name} ({again + 1})" if again else named.name
        weight = dict(config.weight) if isinstance(config.weight, Mapping) else config.weight
        found[name] = {"weight": weight, "version": named.says.version}
    return found


def trained(configs: Sequence[WeightedReward]) -> dict[str, Scale]:
    """The scales of all scores that train: those with a weight above 0."""
    pairs = zip(configs, rewards(configs), strict=True)
    return {name: named.says.scales[name] for config, named in pairs for name, w in config.weights.items() if w}


@dataclass(frozen=True, slots=True)
class Panel:
    """The rewards of a stage, with their weights."""

    asked: tuple[Judge, ...]
    configs: tuple[WeightedReward, ...]

    @classmethod
    def build(cls, configs: Sequence[WeightedReward]) -> "Panel":
        """Build each reward.

        Raises:
            BadConfig: see `rewards`; or building one raised.
        """
        return cls(built(rewards(configs)), tuple(configs))

    @property
    def weights(self) -> dict[str, float]:
        """By score; 0 for those that are measured only."""
        return {name: weight for config in self.configs for name, weight in config.weights.items()}

    def score(self, videos: Videos, requests: Sequence[Request], where: str = "") -> dict[str, Float[Tensor, " b"]]:
        """All scores by name.

        Raises:
            PartFailed: a reward that misbehaved; see `judges.Judge`. `where` is named in the message.
        """
        return judges.ask(self.asked, videos, requests, where)
