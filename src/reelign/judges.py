"""The one place that builds and calls a reward or a metric: whatever it does, what comes back is one number a clip."""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reelign import declared, guard, parts
from reelign.batches import Request, Videos
from reelign.declared import Declaration, Kind
from reelign.errors import BadConfig, BadData, PartFailed, UserError, raised, shown
from reelign.parts import PartConfig

_MEND = "mend it or leave it out"


@dataclass(frozen=True, slots=True)
class Named:
    """A reward or a metric as a recipe names it: what its `Config` says of it; nothing is built."""

    kind: Kind
    config: PartConfig
    says: Declaration

    @property
    def name(self) -> str:
        """Of the part, as in the recipe."""
        return self.config.name

    @property
    def names(self) -> tuple[str, ...]:
        """Of its scores or measures."""
        return tuple(self.says.scales)

    def check_requests(self, requests: Sequence[Request]) -> None:
        """Let it refuse requests that it cannot judge by, before anything is made of them; most take any.

        Raises:
            BadData: in its own words.
            PartFailed: it raised something else.
        """
        try:
            check = getattr(self.config, "check_requests", None)
            if check:
                check(tuple(requests))
        except UserError as error:
            raise BadData(f"the {self.kind} {self.name!r} cannot judge by a prompt: {_text(error)}") from error
        except (Exception, SystemExit) as error:
            what = f"the {self.kind} {self.name!r} raised {raised(error)} when it was shown prompts"
            raise PartFailed(f"{what}; {_MEND}.") from error


@dataclass(frozen=True, slots=True)
class Judge(Named):
    """A reward or a metric, built."""

    part: Any

    def __call__(self, videos: Videos, requests: Sequence[Request], where: str = "") -> dict[str, Float[Tensor, " b"]]:
        """Its numbers by name, float32 on the host, without a graph.

        A metric may give NaN for a clip to which a measure does not apply; a reward may not.

        Args:
            videos: to judge; see `guard.Lent` for a judge that writes into them.
            requests: one a video.
            where: "step 3 of stage grpo", for messages.

        Raises:
            PartFailed: it raised, or gave something else than one number a clip for each of its names, a number that is
                not finite, or one off its declared scale.
        """
        values = self._answer(videos, requests, f", at {where}" if where else "")
        if set(values) != set(self.names):
            raise PartFailed(
                f"the {self.kind} {self.name!r} declares {shown(sorted(self.names))} but gave "
                f"{shown(sorted(map(str, values)))}; mend its names."
            )
        found = {name: self._taken(name, *values[name], len(requests)) for name in values}
        for name, numbers in found.items():
            self._refuse_off_scale(name, numbers, requests)
        return found

    def _answer(self, videos: Videos, requests: Sequence[Request], at: str) -> dict[Any, tuple[Tensor | None, object]]:
        """What it gives by name, as one number a clip where it is that, and as it was given."""
        try:
            with guard.restored(), torch.no_grad():
                given = self.part(videos, tuple(requests))
            # Its settings end with the call. Reading what it gave may run code of the part's, too.
            with guard.restored():
                items = list(given.items()) if isinstance(given, Mapping) else []
                values = {name: (_numbers(value, len(requests)), value) for name, value in items}
        except UserError as error:
            raise PartFailed(f"the {self.kind} {self.name!r} refuses{at}: {_text(error)}") from error
        except (Exception, SystemExit) as error:
            raise PartFailed(f"the {self.kind} {self.name!r} raised {raised(error)}{at}; {_MEND}.") from error
        if not isinstance(given, Mapping):
            wanted = ", ".join(f"{name!r}: one number a clip" for name in self.names)
            raise PartFailed(f"the {self.kind} {self.name!r} gave {_shown(given)}; give {{{wanted}}}.")
        return values

    def _taken(self, name: str, found: Tensor | None, given: object, n: int) -> Float[Tensor, " b"]:
        if found is None:
            raise PartFailed(
                f"the {self.kind} {self.name!r} gave {name!r} as {_shown(given)}; give one number for each of the {n} "
                "clips."
            )
        return found

    def _refuse_off_scale(self, name: str, values: Float[Tensor, " b"], requests: Sequence[Request]) -> None:
        reward = self.kind == "reward"
        low, high = self.says.scales[name]
        infinite = ~torch.isfinite(values) if reward else torch.isinf(values)
        wrong = infinite | (values < low) | (values > high)
        if not bool(wrong.any()):
            return
        i = int(wrong.nonzero()[0])
        given = f"the {self.kind} {name!r} gave {values[i].item():g} for {shown(requests[i].text)}"
        if not reward:
            raise PartFailed(f"{given}; give a finite number, or NaN where it does not apply.")
        problem = "which is not finite" if bool(infinite[i]) else f"outside its scale {low:g} to {high:g}"
        raise PartFailed(f"{given}, {problem}. Nothing was trained on it; mend the reward or leave it out.")


def named(kind: Kind, config: PartConfig) -> Named:
    """What a reward or a metric says of itself, from its settings alone.

    Raises:
        BadConfig: it is none, or what it says is missing or cannot be used.
    """
    with guard.restored():
        try:
            problem = declared.problem(kind, config)
            says = None if problem else declared.read(kind, config, *parts.code(kind, config.name))
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # what it says may be computed
            problem, says = f"does not say what it is: it raised {raised(error)}", None
    if says is None:
        has = " and ".join(f"`{name}` ({what})" for name, what in declared.WANTED[kind].items())
        raise BadConfig(f"the {kind} {config.name!r} {problem}; the Config of a {kind} has {has}.")
    return Named(kind, config, says)


def build(kind: Kind, config: PartConfig) -> Judge:
    """Build a reward or a metric, and see that it is one.

    Raises:
        BadConfig: see `named`; or building it raised, as when its weights are missing.
    """
    says = named(kind, config).says
    with guard.restored():
        return Judge(kind, config, says, parts.build(kind, config))


def ask(asked: Sequence[Judge], videos: Videos, requests: Sequence[Request], where: str = "") -> dict[str, Tensor]:
    """What several judges give, by name `[b]`; none sees what another one wrote into the videos."""
    lent = guard.Lent(videos)
    found: dict[str, Tensor] = {}
    for judge in asked:
        found |= judge(lent.videos(), requests, where)
    return found


def refuse_twice(asked: Sequence[Named]) -> None:
    """Refuse two judges of one name, of whose numbers one would be lost.

    Raises:
        BadConfig: naming it.
    """
    owner: dict[str, Named] = {}
    for judge in asked:
        for name in judge.names:
            if name in owner:
                raise BadConfig(
                    f"two {judge.kind}s give {name!r}: {owner[name].name!r} and {judge.name!r}; keep one of them, or "
                    "give them names of their own."
                )
            owner[name] = judge


def _numbers(values: object, n: int) -> Float[Tensor, " n"] | None:
    """What a judge gave for one name, float32 on the host; None if it is not one number for each of `n` clips."""
    found = _tensor(values)
    if found is None or found.ndim == 0 or len(found) != n or found.numel() != n or found.is_complex():
        return None
    # A copy: what the judge keeps is not what we go on with, nor is a tensor of an inference mode.
    return found.detach().to("cpu", torch.float32, copy=True).reshape(n)


def _tensor(values: object) -> Tensor | None:
    """As a tensor; None if it is nothing of numbers. What is masked out is NaN."""
    if isinstance(values, Tensor):
        return values
    try:
        if isinstance(values, list | tuple):
            return torch.stack([torch.as_tensor(_unmasked(value)) for value in values])
        return torch.from_numpy(np.array(_unmasked(values)))
    except (TypeError, ValueError, RuntimeError):
        return None


def _unmasked(value: Any) -> Any:
    return np.ma.filled(value.astype(np.float64), np.nan) if isinstance(value, np.ma.MaskedArray) else value


def _shown(values: object) -> str:
    """What was given, in a few words."""
    if isinstance(values, Tensor | np.ndarray):
        return f"{str(values.dtype).removeprefix('torch.')} values of shape {list(values.shape)}"
    if isinstance(values, list | tuple):
        odd = next((f" with {shown(value)} in it" for value in values if _tensor([value]) is None), "")
        return f"a {type(values).__name__} of {len(values)}{odd}"
    return shown(values)


def _text(error: BaseException) -> str:
    """An error's own words, also where giving them fails; that is code of the part's as well."""
    return str(traceback.TracebackException(type(error), error, None))
