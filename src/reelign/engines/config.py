"""What the configs of online methods share: settings, and what a stage asks of a method before it is built."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from reelign.batches import Credited
from reelign.core import schedule
from reelign.engines import combine, forward, policy, select
from reelign.engines.slots import After, AnyModule, Check, Demand, Losses, Select, Slots, assemble
from reelign.forward_process import LevelConfig
from reelign.parts import PartConfig

Kind = Literal["flow", "dance", "flash", "longcat", "cps"]


class OnlineConfig(PartConfig):
    """Any online method."""

    consumes: ClassVar = Credited
    limit: float = Field(default=5.0, ge=0.01, le=1e4)
    """Advantages are cut to [-limit, limit]."""
    modules: tuple[AnyModule, ...] = ()
    """What else fills its slots, in this order, such as `[{name: bpgo}, {name: vipo}]`."""

    def slots(self) -> Slots:
        """Those that the method itself fills."""
        raise NotImplementedError

    def losses(self) -> Losses:
        """Those of a rollout, by an engine that reads the slots."""
        raise NotImplementedError

    def filled(self) -> Slots:
        """The method's slots and those of its modules.

        Raises:
            BadConfig: modules that do not go together, or not with the method.
        """
        return assemble(self.slots(), self.modules)

    @property
    def needs(self) -> frozenset[str]:
        """What its slots use beside the policy; see `declared.needs`."""
        return self.filled().needs

    def check(self, demand: Demand) -> None:
        """Refuse what a stage asks for, before any compute.

        Raises:
            BadConfig: in one sentence.
        """
        slots = self.filled()
        windows = slots.select.windows(demand.sampler.steps)
        if demand.boundary is not None:
            table = schedule.sigmas(demand.sampler.steps, demand.sampler.shift)
            select.refuse_boundary(windows, table, demand.boundary)
        for check in slots.checks:
            check(demand)


class PolicyConfig(OnlineConfig):
    """Any policy-gradient method."""

    kind: Kind = "flow"
    """Transition of the stochastic steps."""
    eta: float = Field(default=0.7, ge=0.001, le=10)
    """Strength of their noise."""
    clip: float = Field(default=1e-4, gt=0, le=1e3)
    """Half-width of the trust region around ratio 1. Small, because log-ratios are means over elements."""

    def usual(self, choice: Select, unit: str = "global") -> Slots:
        """Rewards compared one by one, in a unit, on the steps of a choice; with these settings' limit and clip."""
        return Slots(choice, combine.gdpo(unit), limit=self.limit, clip=self.clip)

    def losses(self) -> Losses:
        """A clip on plain log-ratios, all steps alike."""
        return policy.losses()

    @model_validator(mode="after")
    def _within_a_quarter_turn(self) -> "PolicyConfig":
        if self.kind == "cps" and self.eta > 1:
            raise ValueError(f"eta is {self.eta:g}, but cps turns by at most a quarter; give 1 or less")
        return self


class WindowConfig(PolicyConfig):
    """Any policy-gradient method with a window of stochastic steps."""

    window: int = Field(default=2, ge=1)
    """Neighbouring stochastic steps of each rollout."""
    among: int = Field(default=6, ge=1)
    """The window lies within this many first steps, at a place drawn for each prompt."""

    def slots(self) -> Slots:
        """The usual ones on the window."""
        return self.usual(select.window(self.kind, self.eta, self.window, self.among))


class ForwardConfig(OnlineConfig):
    """Any forward-process method."""

    levels: LevelConfig = LevelConfig(law="uniform")
    """How noise levels are drawn."""
    draws: int = Field(default=2, ge=1, le=64)
    """Times that each sample is noised in an update."""

    def usual(self, *after: After, checks: tuple[Check, ...] = ()) -> Slots:
        """A deterministic rollout by older weights, and rewards compared one by one in the batch's unit."""
        own = {"limit": self.limit, "after": after, "checks": checks, "needs": frozenset({"sampled"})}
        return Slots(select.nowhere(), combine.gdpo(), **own)

    def filled(self) -> Slots:
        """The method's slots and those of its modules, none of which may need recorded steps."""
        return forward.refuse_steps(super().filled(), self.name)
