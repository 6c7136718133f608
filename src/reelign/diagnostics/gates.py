"""Gates: a stage hands its weights on only if its targets rose and no slice fell, beyond noise and by enough to matter.

Both evaluations saw the same prompts, noise and sampler, so differences are paired by clip, and prompts are resampled
whole.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from reelign.core import stats
from reelign.core.stats import Interval
from reelign.errors import RunStopped
from reelign.records import Evaluation, FallenSlice, Gate, Target
from reelign.stage import GateConfig

SHARE, SPREAD, MEAN, ROUNDING = 0.005, 0.02, 0.001, 1e-6
"""The smallest difference that matters: of shares, in standard deviations, in means, and in any unit."""


def judge(before: Evaluation, after: Evaluation, gate: GateConfig) -> Gate:
    """Compare two evaluations under a gate: "passed" or "failed", and one sentence why.

    Raises:
        RunStopped: the evaluations are of other prompts, noise, sampler or measures, so that nothing can be paired.
    """
    pairs = _paired(before, after)
    for name in (*gate.targets, *gate.guards):
        _refuse_unmeasured(name, before, after)
    targets = [_target(name, before, after, pairs, gate) for name in gate.targets]
    fallen = sorted([*_fallen(after, pairs, gate), *_vanished(pairs, gate)], key=lambda fell: fell.difference)
    flat = [t for t in targets if not t.rose]
    verdict = "failed" if flat or fallen else "passed"
    sentence = _sentence(targets, flat, fallen)
    return Gate(verdict=verdict, sentence=sentence, targets=tuple(targets), fallen_slices=tuple(fallen))


def ungated(reason: str) -> Gate:
    """What stands in place of a verdict where there is no gate."""
    return Gate(verdict="ungated", sentence=reason)


def said(gate: Gate) -> str:
    """A verdict for people, such as "passed; rose: ..." or "done; no gate judged it."."""
    return f"{'done' if gate.verdict == 'ungated' else gate.verdict}; {gate.sentence}"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A clip before and after."""

    prompt: int
    slices: Mapping[str, str]
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]


def _paired(before: Evaluation, after: Evaluation) -> list[_Pair]:
    """Clips by prompt and member, whatever their order."""
    keys = ("prompt_id", "member", "prompt", "seed")
    old, new = before.by_key, after.by_key
    names = f"{before.label!r} and {after.label!r}"
    theirs, ours = before.sampler, after.sampler
    if any(theirs[k] != ours[k] for k in theirs.keys() & ours.keys()):
        raise RunStopped(f"the evaluations {names} were sampled with other settings; a gate needs the same for both.")
    for key in sorted({*old, *new}):
        one, other = ({k: getattr(clips[key], k) for k in keys} if key in clips else {} for clips in (old, new))
        differs = next((k for k in keys if one.get(k) != other.get(k)), None)
        if differs:
            raise RunStopped(
                f"the evaluations {names} differ in the {differs} of prompt {key[0]}, member {key[1]} "
                f"({one.get(differs, 'none')} and {other.get(differs, 'none')}); a gate needs the same clips for both."
            )
    return [_Pair(c.prompt_id, c.slices, old[key].measures, c.measures) for key, c in new.items()]


def _refuse_unmeasured(name: str, before: Evaluation, after: Evaluation) -> None:
    for evaluation in (before, after):
        if name not in evaluation.measures:
            measured = ", ".join(sorted(evaluation.measures))
            raise RunStopped(f"the evaluation {evaluation.label!r} has no {name!r}, but {measured}; measure it anew.")


def _both(name: str, pairs: list[_Pair]) -> list[tuple[int, float, float]]:
    """Prompt, value before and value after of the clips that a measure applies to both times."""
    values = [(p.prompt, p.before.get(name), p.after.get(name)) for p in pairs]
    return [(prompt, old, new) for prompt, old, new in values if old is not None and new is not None]


def _matters(name: str, pairs: list[_Pair]) -> float:
    """The smallest difference of a measure that a person would care for, where the recipe does not say."""
    both = _both(name, pairs)
    if both and {value for _, old, new in both for value in (old, new)} <= {0.0, 1.0}:
        return SHARE
    old = torch.tensor([value for _, value, _ in both], dtype=torch.float64)
    spread = old.std().item() if len(old) > 1 else 0.0
    return max(SPREAD * spread, MEAN * abs(old.mean().item()) if len(old) else 0.0, ROUNDING)


def _difference(name: str, pairs: list[_Pair], higher: bool, level: float = 0.95) -> Interval | None:
    """Paired difference, positive is better; None where nothing can be compared."""
    both = _both(name, pairs)
    if len(both) < 2:
        return None
    sign = 1.0 if higher else -1.0
    return stats.over_prompts([sign * (new - old) for _, old, new in both], [prompt for prompt, *_ in both], level)


def _target(name: str, before: Evaluation, after: Evaluation, pairs: list[_Pair], gate: GateConfig) -> Target:
    found = _difference(name, pairs, after.measures[name].higher_is_better)
    low, high, middle = (found.low, found.high, found.estimate) if found else (0.0, 0.0, 0.0)
    least = gate.min_gain.get(name, _matters(name, pairs))
    return Target(
        metric=name,
        before=before.measures[name].mean,
        after=after.measures[name].mean,
        difference=middle,
        low=low,
        high=high,
        min_gain=least,
        rose=low > 0 and middle >= least,
    )


def _fallen(after: Evaluation, pairs: list[_Pair], gate: GateConfig) -> list[FallenSlice]:
    """Slices, and the whole set, on which a guard got worse, beyond noise and by more than is tolerated.

    Their number widens the interval (Bonferroni): with thirty slices one would fall by chance in most runs.
    """
    slices = {"all": pairs}
    for key, value in sorted({item for pair in pairs for item in pair.slices.items()}):
        slices[f"{key}={value}"] = [pair for pair in pairs if pair.slices.get(key) == value]
    judged = {name: members for name, members in slices.items() if len(members) >= gate.min_slice}
    level = 1 - 0.05 / max(1, len(judged) * len(gate.guards))
    fallen = []
    for metric in gate.guards:
        higher, tolerated = after.measures[metric].higher_is_better, gate.tolerance.get(metric)
        if tolerated is None:
            tolerated = _matters(metric, pairs)
        for name, members in judged.items():
            found = _difference(metric, members, higher, level)
            if found and found.high < 0 and found.estimate < -tolerated:
                fallen.append(_fell(name, metric, found, level))
    return fallen


def _vanished(pairs: list[_Pair], gate: GateConfig) -> list[FallenSlice]:
    """Measures that apply to fewer clips than before, beyond noise: what cannot be measured any more has not held.

    Else a blank clip, which no measure of motion applies to, would pass every guard.
    """
    found, prompts = [], [p.prompt for p in pairs]
    for metric in dict.fromkeys((*gate.targets, *gate.guards)):
        change = [float(p.after.get(metric) is not None) - float(p.before.get(metric) is not None) for p in pairs]
        apart = stats.over_prompts(change, prompts)
        if apart.high < 0 and apart.estimate < -SHARE:
            found.append(_fell("all", f"clips that {metric} applies to", apart, 0.95))
    return found


def _fell(where: str, what: str, apart: Interval, level: float) -> FallenSlice:
    numbers = {"difference": apart.estimate, "low": apart.low, "high": apart.high}
    return FallenSlice(slice=where, metric=what, level=level, **numbers)


def _sentence(targets: list[Target], flat: list[Target], fallen: list[FallenSlice]) -> str:
    if not flat and not fallen:
        rises = [f"{t.metric} {' to '.join(_apart(t.before or 0.0, t.after or 0.0))}" for t in targets]
        return f"rose: {', '.join(rises)}; no slice fell."
    parts = []
    noise = [t.metric for t in flat if t.low <= 0]
    small = [f"{t.metric} ({_signed(t.difference)} of {t.min_gain or 0.0:.2g})" for t in flat if t.low > 0]
    if noise:
        parts.append(f"no gain beyond noise in {', '.join(noise)}")
    if small:
        parts.append(f"too small a gain in {', '.join(small)}")
    if fallen:
        worst = [f"{f.metric} on {f.slice} ({_signed(f.difference)})" for f in fallen[:4]]
        parts.append(f"worse beyond noise: {', '.join(worst)}")
    return "; ".join(parts) + ". The weights that entered the stage are kept."


def _apart(before: float, after: float) -> tuple[str, str]:
    """Two numbers with as many decimals as it takes to see their difference; at least three."""
    digits = _decimals(after - before, 1)
    return f"{before:.{digits}f}", f"{after:.{digits}f}"


def _signed(difference: float) -> str:
    return f"{difference:+.{_decimals(difference, 2)}f}"


def _decimals(value: float, shown: int) -> int:
    """How many show so many digits of a value; at least three."""
    return max(3, shown - 1 - math.floor(math.log10(abs(value)))) if value else 3
