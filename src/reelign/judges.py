"""The one place that builds and calls a reward or a metric: whatever it does, what comes back is one number a clip."""

import numbers
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import Repr
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from reelign import guard, parts
from reelign.batches import Videos
from reelign.errors import BadConfig, BadData, PartFailed, UserError
from reelign.parts import PartConfig

Kind = Literal["reward", "metric"]
DECLARES: dict[Kind, dict[str, str]] = {
    "reward": {"names": "of its scores", "range": "their scale, (low, high)", "version": "text that changes with them"},
    "metric": {"higher_is_better": "true or false by measure", "description": "what each measure is"},
}
LONGEST_NAME = 80
_MEND = "mend it or leave it out"
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 120


@dataclass(frozen=True, slots=True)
class Judge:
    """A reward or a metric, built, with what it declares."""

    kind: Kind
    name: str
    """Of the part, as in the recipe."""
    part: Any
    names: tuple[str, ...]
    """Of its scores or measures."""

    def __call__(self, videos: Videos, prompts: Sequence[str], where: str = "") -> dict[str, Float[Tensor, " b"]]:
        """Its numbers by name, float32 on the host, without a graph.

        A metric may give NaN for a clip to which a measure does not apply; a reward may not.

        Args:
            videos: to judge; see `guard.Lent` for a judge that writes into them.
            prompts: one a video.
            where: "step 3 of stage grpo", for messages.

        Raises:
            PartFailed: it raised, or gave something else than one number a clip for each of its names, a number that is
                not finite, or one off its declared scale.
        """
        try:
            with guard.restored(), torch.no_grad():
                given = self.part(videos, tuple(prompts))
            found = {name: self._taken(name, values, len(prompts)) for name, values in self._named(given).items()}
        except UserError as error:
            raise PartFailed(str(error)) from error
        except (Exception, SystemExit) as error:
            at = f", at {where}" if where else ""
            what = _raised(error, getattr(self.part, "__module__", ""))
            raise PartFailed(f"the {self.kind} {self.name!r} {what}{at}; {_MEND}.") from error
        for name, values in found.items():
            self._refuse_off_scale(name, values, prompts)
        return found

    @property
    def reads(self) -> tuple[int, int, int] | None:
        """Frames, height and width of the only videos that it reads; None where it reads any."""
        return getattr(self.part, "reads", None)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Let it refuse prompts that it cannot judge by, before anything is made of them; most take any.

        Raises:
            BadData: in its own words.
            PartFailed: it raised something else.
        """
        try:
            if hasattr(self.part, "check_prompts"):
                self.part.check_prompts(tuple(prompts))
        except UserError as error:
            raise BadData(f"the {self.kind} {self.name!r} cannot judge by a prompt: {error}") from error
        except (Exception, SystemExit) as error:
            what = _raised(error, getattr(self.part, "__module__", ""))
            raise PartFailed(f"the {self.kind} {self.name!r} {what} when it was shown prompts; {_MEND}.") from error

    def _named(self, given: object) -> Mapping[str, object]:
        if not isinstance(given, Mapping):
            wanted = ", ".join(f"{name!r}: one number a clip" for name in self.names)
            raise PartFailed(f"the {self.kind} {self.name!r} gave {_shown(given)}; give {{{wanted}}}.")
        if set(given) != set(self.names):
            raise PartFailed(
                f"the {self.kind} {self.name!r} declares {_SHORT.repr(sorted(self.names))} but gave "
                f"{_SHORT.repr(sorted(map(str, given)))}; mend its names."
            )
        return given

    def _taken(self, name: str, values: object, n: int) -> Float[Tensor, " b"]:
        found = _tensor(values)
        if found is None or found.ndim == 0 or len(found) != n or found.numel() != n or found.is_complex():
            raise PartFailed(
                f"the {self.kind} {self.name!r} gave {name!r} as {_shown(values)}; give one number for each of the {n} "
                "clips."
            )
        # A copy: what the judge keeps is not what we go on with, nor is a tensor of an inference mode.
        return found.detach().to("cpu", torch.float32, copy=True).reshape(n)

    def _refuse_off_scale(self, name: str, values: Float[Tensor, " b"], prompts: Sequence[str]) -> None:
        reward = self.kind == "reward"
        low, high = self.part.range if reward else (-torch.inf, torch.inf)
        infinite = ~torch.isfinite(values) if reward else torch.isinf(values)
        wrong = infinite | (values < low) | (values > high)
        if not bool(wrong.any()):
            return
        i = int(wrong.nonzero()[0])
        given = f"the {self.kind} {name!r} gave {values[i].item():g} for {_SHORT.repr(prompts[i])}"
        if not reward:
            raise PartFailed(f"{given}; give a finite number, or NaN where it does not apply.")
        problem = "which is not finite" if bool(infinite[i]) else f"outside its scale {low:g} to {high:g}"
        raise PartFailed(f"{given}, {problem}. Nothing was trained on it; mend the reward or leave it out.")


def build(kind: Kind, config: PartConfig) -> Judge:
    """Build a reward or a metric, and see that it is one.

    Raises:
        BadConfig: building it raised, as when its weights are missing, or what it declares is missing or cannot be
            used.
    """
    with guard.restored():
        part = parts.build(kind, config)
        try:
            problem = _problem(kind, part)
        except (Exception, SystemExit) as error:  # what it declares may be computed
            problem = f"does not say what it is: it {_raised(error, getattr(part, '__module__', ''))}"
    if problem:
        has = ", ".join(f"`{name}` ({what})" for name, what in DECLARES[kind].items())
        raise BadConfig(
            f"the {kind} {config.name!r} {problem}; a {kind} is called with (videos, prompts) and has {has}."
        )
    return Judge(kind, config.name, part, tuple(part.names if kind == "reward" else part.higher_is_better))


def ask(asked: Sequence[Judge], videos: Videos, prompts: Sequence[str], where: str = "") -> dict[str, Tensor]:
    """What several judges give, by name `[b]`; none sees what another one wrote into the videos."""
    lent = guard.Lent(videos)
    found: dict[str, Tensor] = {}
    for judge in asked:
        found |= judge(lent.videos(), prompts, where)
    return found


def refuse_twice(asked: Sequence[Judge]) -> None:
    """Refuse two judges of one name, of whose numbers one would be lost.

    Raises:
        BadConfig: naming it.
    """
    owner: dict[str, Judge] = {}
    for judge in asked:
        for name in judge.names:
            if name in owner:
                raise BadConfig(
                    f"two {judge.kind}s give {name!r}: {owner[name].name!r} and {judge.name!r}; keep one of them, or "
                    "give them names of their own."
                )
            owner[name] = judge


def _problem(kind: Kind, part: Any) -> str | None:
    """What keeps a built part from being a judge of that kind."""
    missing = [name for name in DECLARES[kind] if not hasattr(part, name)]
    other: Kind = "metric" if kind == "reward" else "reward"
    if missing and all(hasattr(part, name) for name in DECLARES[other]):
        return f"is a {other}, not a {kind}"
    if missing:
        return f"has no {' and no '.join(missing)}"
    if not callable(part):
        return "cannot be called"
    names = part.names if kind == "reward" else part.higher_is_better
    wanted = list | tuple if kind == "reward" else Mapping
    if not isinstance(names, wanted) or not names or len(set(names)) < len(names):
        return f"declares {'names' if kind == 'reward' else 'higher_is_better'} as {_SHORT.repr(names)}"
    wrong = next((name for name in names if not _is_name(name)), None)
    if wrong is not None:
        return (
            f"calls a score {_SHORT.repr(wrong)}, but names are printable text of at most {LONGEST_NAME} letters "
            "without '/', which has a meaning of its own"
        )
    return _reward_problem(part) if kind == "reward" else _metric_problem(part)


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        return False
    return name.isprintable() and name == name.strip() and "/" not in name


def _reward_problem(part: Any) -> str | None:
    scale = part.range
    numeric = isinstance(scale, list | tuple) and len(scale) == 2 and all(isinstance(v, numbers.Real) for v in scale)
    if not numeric or not scale[0] < scale[1]:
        return f"declares the range {_SHORT.repr(scale)}"
    return (
        None if isinstance(part.version, str) else f"declares the version {_SHORT.repr(part.version)}, which is no text"
    )


def _metric_problem(part: Any) -> str | None:
    if not all(isinstance(better, bool) for better in part.higher_is_better.values()):
        return f"declares higher_is_better as {_SHORT.repr(part.higher_is_better)}"
    described = isinstance(part.description, Mapping) and set(part.description) == set(part.higher_is_better)
    if not described or not all(isinstance(text, str) for text in part.description.values()):
        return "does not describe each of its measures"
    return None


def _tensor(values: object) -> Tensor | None:
    """What a judge gave for one name, as a tensor; None if it is nothing of numbers."""
    if isinstance(values, Tensor):
        return values
    try:
        if isinstance(values, list | tuple):
            return torch.stack([torch.as_tensor(value) for value in values])
        return torch.from_numpy(np.array(values))
    except (TypeError, ValueError, RuntimeError):
        return None


def _shown(values: object) -> str:
    """What was given, in a few words."""
    if isinstance(values, Tensor | np.ndarray):
        return f"{str(values.dtype).removeprefix('torch.')} values of shape {list(values.shape)}"
    if isinstance(values, list | tuple):
        return f"a {type(values).__name__} of {len(values)}"
    return _SHORT.repr(values)


def _raised(error: BaseException, module: str) -> str:
    """What an error says, as in "raised ValueError: no frame is sharp enough (line 21 of mine/raises.py)"; one line."""
    text = " ".join(str(error).split()).rstrip(".")
    text = f": {text[:300]}…" if len(text) > 300 else f": {text}" if text else ""
    file = getattr(sys.modules.get(module), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"raised {type(error).__name__}{text}" + (f" (line {lines[-1]} of {file})" if lines else "")
