"""What a run was: its model, machine and command, and each stage with its cost and its gate."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from reelign.report import curves, words
from reelign.report.load import BASE, Run
from reelign.report.records import FallenSlice, Gate, Stage, Target

KINDS = {
    "offline": "learned from clips or pairs that were there before",
    "online": "learned from clips of its own, scored by rewards",
    "collect": "let a script rank clips of its own into pairs; trained nothing",
    "evaluate": "only measured",
}
"""What each kind of stage did."""
_VERDICTS = {"passed": "Gate passed", "failed": "Gate failed", "ungated": "No gate"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of what the run was."""

    name: str
    text: str
    more: str = ""
    code: bool = False


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
class Step:
    """One station at the top of the page: where weights came from, what it cost, what its gate said."""

    label: str
    state: str
    what: str = ""
    used: str = ""
    cost: str = ""
    bar: Markup | None = None
    verdict: str = ""
    sentence: str = ""
    findings: tuple[Finding, ...] = ()


def facts(run: Run) -> tuple[Fact, ...]:
    """Base model, judging, device, command: those that the run folder tells."""
    found = [_model(run.config), _judged(run), _device(run), _command(run)]
    return tuple(fact for fact in found if fact)


def total_s(run: Run) -> float:
    """Wall-clock seconds of all stages."""
    return sum((stage.wall_s or 0.0 for stage in run.stages), start=0.0)


def steps(run: Run) -> tuple[Step, ...]:
    """The base, every stage of the ledger, and those still to come."""
    done = _steps_done(run)
    ahead = [Step(name, "pending", done if done and not k else "still to come") for k, name in enumerate(run.planned)]
    return (Step(BASE, "start", "as it came"), *(_step(run, stage) for stage in run.stages), *ahead)


def named(run: Run, label: str) -> str:
    """A stage where only plain text can stand, such as "DPO (not kept)"."""
    standing = run.standing(label)
    return words.title(label) + (f" ({standing})" if standing else "")


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


def _model(config: Mapping[str, Any]) -> Fact | None:
    model = config.get("model")
    if not isinstance(model, Mapping):
        return None
    name, weights, lora = model.get("name"), model.get("weights"), model.get("lora")
    text = f"{weights} ({name})" if weights else str(name)
    rank = lora.get("rank") if isinstance(lora, Mapping) else None
    trained = f"an adapter (LoRA, rank {rank}) was trained" if rank else "all weights were trained"
    return Fact("Base model", words.clipped(text, 200), trained)


def _judged(run: Run) -> Fact | None:
    if run.final is None:
        return None
    dataset = _at(run.config, "evaluate", "dataset", "path") or _at(run.config, "evaluate", "dataset", "name")
    text = f"{words.count(len(run.final.prompts), 'prompt')}, {words.count(run.final.members, 'clip')} each"
    return Fact("Judged on", text, words.clipped(f"from {dataset}", 200) if dataset else "")


def _device(run: Run) -> Fact | None:
    machine = run.stages[-1].machine if run.stages else {}
    device, threads, torch = (
        machine.get(key) or run.about.get(key) or _at(run.config, "runtime", key)
        for key in ("device", "threads", "torch")
    )
    if not device:
        return None
    also = [
        words.count(int(str(threads)[:9]), "CPU thread")
        if str(threads).isdecimal() and threads not in (0, "0")
        else "",
        f"PyTorch {torch}" if torch else "",
        f"Reelign {run.about['version']}" if run.about.get("version") else "",
    ]
    name = "the GPU where there is one, else the CPU" if device == "auto" else str(device)
    return Fact("Device", words.clipped(name, 200), words.clipped(", ".join(filter(None, also)), 200))


def _command(run: Run) -> Fact:
    given, seed = run.about.get("command"), _at(run.config, "run", "seed")
    more = f"seed {seed}" if seed is not None else ""
    if isinstance(given, list):
        given = shlex.join(str(word) for word in given)
    if isinstance(given, str) and given:
        return Fact("Command", words.clipped(given, 400), more, code=True)
    more = "; ".join(filter(None, ["with the recipe at the end of this page", more]))
    return Fact("Command", "reelign align recipe.yaml", more, code=True)


def _step(run: Run, stage: Stage) -> Step:
    gate = stage.gate
    state = gate.verdict if gate is not None and stage.decided else "ungated"
    share = (stage.wall_s or 0.0) / total_s(run) if total_s(run) > 0 else 0.0
    method = words.title(stage.method) if stage.method not in (stage.kind, stage.stage) else ""
    nouns = {"prompt": stage.prompts, "rollout": stage.rollouts, "pair": stage.pairs, "clip": stage.clips}
    used = [words.count(n, noun) for noun, n in {**nouns, "forward-unit": stage.forwards}.items() if n]
    part = "" if len(run.stages) < 2 or not stage.wall_s else words.number(share, True) if share >= 0.005 else "< 1 %"
    return Step(
        label=stage.stage,
        state=state,
        what=" · ".join(filter(None, [stage.kind, method, words.count(stage.steps, "step") if stage.steps else ""])),
        used=", ".join(used),
        cost=" · ".join(filter(None, [words.seconds(stage.wall_s), part])),
        bar=curves.bar(share) if part else None,
        verdict=_VERDICTS[state],
        sentence=_reason(stage, gate) if gate is not None and stage.decided else _unjudged(stage),
        findings=_findings(run, gate) if gate is not None else (),
    )


def _unjudged(stage: Stage) -> str:
    return "Its weights went on unjudged." if stage.kind in ("offline", "online") else "It trained nothing."


def _reason(stage: Stage, gate: Gate) -> str:
    """Why a gate passed or failed, in words; the numbers stand below."""
    flat = [words.plain(t.metric) for t in gate.targets if not t.rose and not t.low > 0]
    little = [words.plain(t.metric) for t in gate.targets if not t.rose and t.low > 0]
    rose = [words.plain(t.metric) for t in gate.targets if t.rose]
    if gate.verdict == "passed" and rose:
        return f"{words.sentence(words.join(rose))[:-1]} rose, and no slice fell."
    parts = [
        f"no gain beyond noise in {words.join(flat)}" if flat else "",
        f"{words.join(little)} rose by less than the gate asks for" if little else "",
        f"{words.count(len(gate.fallen_slices), 'slice')} fell" if gate.fallen_slices else "",
    ]
    if not any(parts):
        return words.sentence(gate.sentence)
    kept = " The weights that entered were kept." if gate.verdict == "failed" else ""
    return words.sentence("; ".join(filter(None, parts))) + kept


def _findings(run: Run, gate: Gate) -> tuple[Finding, ...]:
    return (*(_target(run, target) for target in gate.targets), *(_fallen(run, f) for f in gate.fallen_slices))


def _target(run: Run, target: Target) -> Finding:
    rate = target.metric in run.rates
    move = words.number(target.before, rate), words.number(target.after, rate)
    known = target.before is not None and target.after is not None
    shows = not known or words.differ(target.before or 0.0, target.after or 0.0, rate)
    tone = "better" if target.rose and shows else "none"
    about = "lower is better" if _lower(run, target.metric) else ""
    return Finding(words.plain(target.metric), move, *_own_sign(run, target, target.after), tone, about)


def _fallen(run: Run, fallen: FallenSlice) -> Finding:
    name = f"{words.plain(fallen.metric)} on {words.where(fallen.slice)}"
    summary = run.measures.get(fallen.metric)
    about = [_coverage(fallen.level), "lower is better" if _lower(run, fallen.metric) else ""]
    more = "; ".join(filter(None, about))
    return Finding(name, None, *_own_sign(run, fallen, summary and summary.mean), "worse", more)


def _coverage(level: float | None) -> str:
    """What is said of an interval that is not the usual one."""
    if level == 0.95:
        return ""
    covers = f"{100 * level:.4g} % interval" if level else "interval of more than 95 %"
    return f"{covers}, since many slices were judged"


def _own_sign(run: Run, found: Target | FallenSlice, like: float | None) -> tuple[str, str]:
    """A gate's difference and interval in the measure's own direction; gates count upwards as better."""
    rate, middle, low, high = found.metric in run.rates, found.difference, found.low, found.high
    if _lower(run, found.metric):
        middle, low, high = -middle, -high, -low
    return words.signed(middle, rate, like), words.signed_limits(low, high, rate, like)


def _lower(run: Run, measure: str) -> bool:
    """Whether lower is better."""
    return measure in run.measures and not run.measures[measure].higher_is_better


def _at(tree: Any, *path: str) -> Any:
    """What stands at a path of a recipe, or None."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
