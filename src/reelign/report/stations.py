"""The stations at the top of the page: each stage with its cost and its gate, and those still to come."""

from dataclasses import dataclass

from markupsafe import Markup

from reelign.records import FallenSlice, Gate, Stage, Target
from reelign.report import curves, words
from reelign.report.facts import total_s
from reelign.report.run import BASE, Run

_VERDICTS = {"passed": "Gate passed", "failed": "Gate failed", "ungated": "No gate"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a gate found about one measure.

    `move` is empty for a slice; `tone` is better, worse or none; `about` says what a reader of the numbers must know.
    """

    name: str
    move: tuple[str, str] | None
    difference: str
    interval: str
    tone: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Station:
    """One station at the top of the page: where weights came from, what it cost, what its gate said."""

    label: str
    state: str
    what: str = ""
    used: str = ""
    cost: str = ""
    bar: Markup | None = None
    kept: str = ""
    verdict: str = ""
    sentence: str = ""
    findings: tuple[Finding, ...] = ()


def stations(run: Run) -> tuple[Station, ...]:
    """The base, every stage of the ledger, and those still to come."""
    done = _steps_done(run)
    ahead = [
        Station(name, "pending", done if done and not k else "still to come") for k, name in enumerate(run.planned)
    ]
    return (Station(BASE, "start", "as it came"), *(_station(run, stage) for stage in run.stages), *ahead)


def named(run: Run, label: str) -> str:
    """A stage where only plain text can stand, such as "DPO (not kept)"."""
    standing = run.standing(label)
    return words.title(label) + (f" ({standing})" if standing else "")


def fell(run: Run, fallen: FallenSlice) -> str:
    """Which clips got worse at what: than what entered or than the base, and under which of several samplers."""
    told = f"{words.plain(fallen.metric)} on {words.where(fallen.slice)}"
    told += f" with {run.titles[fallen.sampler]}" if fallen.sampler in run.titles else ""
    return f"{told} (worse than the base)" if fallen.against else told


def unfinished(run: Run) -> str:
    """A clause on the stages that a run has not finished, and how far it is in the first; empty for a finished run."""
    names = [words.title(name) for name in run.planned]
    if done := _steps_done(run):
        names[0] += f" ({done})"
    return f"{words.join(names)} {'are' if len(names) > 1 else 'is'} still to come" if names else ""


def _steps_done(run: Run) -> str:
    done, asked = run.begun
    steps = f"{done:,} of {words.count(asked, 'step')}" if asked else words.count(done, "step")
    return f"{steps} done" if done else ""


def _station(run: Run, stage: Stage) -> Station:
    gate = stage.gate
    state = gate.verdict if gate is not None and stage.decided else "ungated"
    share = (stage.wall_s or 0.0) / total_s(run) if total_s(run) > 0 else 0.0
    method = words.title(stage.method) if stage.method not in (stage.kind, stage.stage) else ""
    nouns = {"prompt": stage.prompts, "rollout": stage.rollouts, "pair": stage.pairs, "clip": stage.clips}
    used = [words.count(n, noun) for noun, n in {**nouns, "forward-unit": stage.forwards}.items() if n]
    part = "" if len(run.stages) < 2 or not stage.wall_s else words.number(share, True) if share >= 0.005 else "< 1 %"
    return Station(
        label=stage.stage,
        state=state,
        what=" · ".join(filter(None, [stage.kind, method, words.count(stage.steps, "step") if stage.steps else ""])),
        used=", ".join(used),
        cost=" · ".join(filter(None, [words.seconds(stage.wall_s), part])),
        bar=curves.bar(share) if part else None,
        kept=_kept(stage),
        verdict=_VERDICTS[state],
        sentence=_reason(stage, gate) if gate is not None and stage.decided else _unjudged(stage),
        findings=_findings(run, gate) if gate is not None else (),
    )


def _kept(stage: Stage) -> str:
    """Which of its weights a stage left, where that need not be the last ones."""
    if stage.best is None:
        return ""
    return f"left step {stage.best.step:,}, the best by {words.plain(stage.best.measure)}"


def _unjudged(stage: Stage) -> str:
    return "Its weights went on unjudged." if stage.kind in ("offline", "online") else "It trained nothing."


def _reason(stage: Stage, gate: Gate) -> str:
    """Why a gate passed or failed, in words; the numbers stand below."""
    note = f" What entered is from {words.title(gate.unjudged)}, which no gate judged." if gate.unjudged else ""
    flat = [words.plain(t.metric) for t in gate.targets if not t.rose and not t.low > 0]
    little = [words.plain(t.metric) for t in gate.targets if not t.rose and t.low > 0]
    better = [words.plain(t.metric) for t in gate.targets if t.rose]
    if gate.verdict == "passed" and better:
        return f"{words.sentence(words.join(better))[:-1]} got better, and no slice got worse.{note}"
    parts = [
        f"no gain beyond noise in {words.join(flat)}" if flat else "",
        f"{words.join(little)} got better by less than the gate asks for" if little else "",
        f"{words.count(len(gate.fallen_slices), 'slice')} got worse" if gate.fallen_slices else "",
    ]
    if not any(parts):
        return words.sentence(gate.sentence)
    kept = " The weights that entered were kept." if gate.verdict == "failed" else ""
    return words.sentence("; ".join(filter(None, parts))) + kept + note


def _findings(run: Run, gate: Gate) -> tuple[Finding, ...]:
    return (*(_target(run, target, gate) for target in gate.targets), *(_fallen(run, f) for f in gate.fallen_slices))


def _target(run: Run, target: Target, gate: Gate) -> Finding:
    rate = target.metric in run.rates
    move = words.number(target.before, rate), words.number(target.after, rate)
    known = target.before is not None and target.after is not None
    shows = not known or words.differ(target.before or 0.0, target.after or 0.0, rate)
    tone = "better" if target.rose and shows else "none"
    said = [run.titles.get(gate.sampler, ""), "lower is better" if _lower(run, target.metric) else ""]
    about = "; ".join(filter(None, said))
    return Finding(words.plain(target.metric), move, *_own_sign(run, target, target.after), tone, about)


def _fallen(run: Run, fallen: FallenSlice) -> Finding:
    name = fell(run, fallen)
    summary = run.measures.get(fallen.metric)
    about = [_coverage(fallen.level), "lower is better" if _lower(run, fallen.metric) else ""]
    more = "; ".join(filter(None, about))
    return Finding(name, None, *_own_sign(run, fallen, summary and summary.mean), "worse", more)


def _coverage(level: float | None) -> str:
    """What is said of an interval that is not the usual one."""
    if level == 0.95:
        return ""
    covers = f"{100 * level:.6g} % interval" if level else "interval of more than 95 %"
    return f"{covers}, since more than one comparison was made"


def _own_sign(run: Run, found: Target | FallenSlice, like: float | None) -> tuple[str, str]:
    """A gate's difference and interval in the measure's own direction; gates count upwards as better."""
    rate, middle, low, high = found.metric in run.rates, found.difference, found.low, found.high
    if _lower(run, found.metric):
        middle, low, high = -middle, -high, -low
    return words.signed(middle, rate, like), words.signed_limits(low, high, rate, like)


def _lower(run: Run, measure: str) -> bool:
    """Whether lower is better."""
    return measure in run.measures and not run.measures[measure].higher_is_better
