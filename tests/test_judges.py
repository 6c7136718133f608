"""Whatever a reward or a metric does, what comes back is one number a clip, or a sentence with its name."""

import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.parts import mean_level

from reelign import declared, judges, parts
from reelign.batches import Request, Videos, requests
from reelign.errors import BadConfig, BadData, PartFailed
from reelign.parts import PartConfig

VIDEOS = Videos(torch.linspace(0, 1, 3 * 2 * 3 * 4 * 4).reshape(3, 2, 3, 4, 4), 8.0)
ASKED = requests(("a red circle", "a blue square", "a green box"))


SAYS: dict[judges.Kind, dict[str, Any]] = {
    "reward": {"scores": {"own": (0.0, 1.0)}, "version": "1"},
    "metric": {"higher_is_better": {"own": True}, "description": {"own": "of one's own"}},
}
Named = Callable[..., PartConfig]


def _said(value: Any) -> Any:
    """What a Config says, as a property where it is no code itself."""
    return value if callable(value) or isinstance(value, property) else property(lambda _: value)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Named:
    """The Config of a judge that says the usual and more, or `bare` only that; `part` is what it builds."""

    def make(kind: judges.Kind = "reward", part: Any = len, bare: bool = False, **says: Any) -> PartConfig:
        said = {"__module__": __name__, **({} if bare else SAYS[kind]), **says}
        own = type("Config", (PartConfig,), {k: v if k[0] == "_" else _said(v) for k, v in said.items()})
        module = ModuleType("mine.part")
        module.Config, module.build = own, lambda config: part  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "mine", ModuleType("mine"))
        monkeypatch.setitem(sys.modules, "mine.part", module)
        return own(name="mine.part")

    return make


@pytest.fixture
def ask(config: Named) -> Callable[..., list[float]]:
    """Build a reward (or metric) that does something, call it, and give its numbers."""

    def call(
        does: Callable[[Videos, Sequence[Request]], object], kind: judges.Kind = "reward", where: str = ""
    ) -> list[float]:
        found = judges.build(kind, config(kind, does))(VIDEOS, ASKED, where)["own"]
        assert (found.dtype, found.shape, found.requires_grad) == (torch.float32, (3,), False)
        return found.tolist()

    return call


WEIGHT = torch.nn.Parameter(torch.tensor([0.0, 0.25, 1.0]))
GOOD: dict[str, Any] = {
    "tensor": lambda v, r: WEIGHT.detach(),
    "with a graph": lambda v, r: WEIGHT * 1,
    "a parameter": lambda v, r: WEIGHT,
    "column": lambda v, r: WEIGHT[:, None],
    "double": lambda v, r: WEIGHT.double(),
    "half": lambda v, r: WEIGHT.half(),
    "bfloat16": lambda v, r: WEIGHT.bfloat16(),
    "inference": lambda v, r: torch.inference_mode()(lambda: WEIGHT * 1)(),
    "numpy": lambda v, r: np.array([0.0, 0.25, 1.0]),
    "numpy turned": lambda v, r: np.array([1.0, 0.25, 0.0])[::-1],
    "numpy read-only": lambda v, r: np.broadcast_to(np.array([0.0, 0.25, 1.0], dtype=np.float16), (3,)),
    "list": lambda v, r: [0, 0.25, True],
    "tuple": lambda v, r: (0.0, 0.25, 1.0),
    "list of tensors": lambda v, r: [torch.tensor(0), torch.tensor(0.25), torch.tensor([1.0])[0]],
    "list of numpy": lambda v, r: [np.float32(0), np.float64(0.25), np.int64(1)],
    "nothing masked": lambda v, r: np.ma.array([0.0, 0.25, 1.0], mask=[0, 0, 0]),
}


@pytest.mark.parametrize("give", GOOD.values(), ids=GOOD)
def test_what_is_one_number_a_clip_is_taken(ask: Any, give: Any) -> None:
    assert ask(lambda v, r: {"own": give(v, r)}) == [0.0, 0.25, 1.0]


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64])
def test_whole_numbers_and_truths_are_taken(ask: Any, kind: torch.dtype) -> None:
    assert ask(lambda v, r: {"own": torch.tensor([0, 1, 1], dtype=kind)}) == [0, 1, 1]


BAD: dict[str, tuple[Any, str]] = {
    "nothing": (lambda: None, r"gave 'own' as None; give one number for each of the 3 clips\.$"),
    "one float": (lambda: 0.5, "gave 'own' as 0.5;"),
    "scalar": (lambda: torch.tensor(0.5), r"gave 'own' as float32 values of shape \[\];"),
    "one of three": (lambda: torch.zeros(1), r"float32 values of shape \[1\];"),
    "too few": (lambda: torch.zeros(2), r"shape \[2\];"),
    "two a clip": (lambda: torch.zeros(3, 2), r"shape \[3, 2\];"),
    "turned": (lambda: torch.zeros(1, 3), r"shape \[1, 3\];"),
    "complex": (lambda: torch.zeros(3, dtype=torch.complex64), r"complex64 values of shape \[3\];"),
    "a short list": (lambda: [0.1, 0.2], "a list of 2;"),
    "no list of numbers": (lambda: [0.1, None, 0.3], "a list of 3 with None in it;"),
    "ragged": (lambda: [[0.1], [0.2, 0.3], 0.1], "a list of 3;"),
    "words": (lambda: ["good", "bad", "good"], "a list of 3 with 'good' in it;"),
    "text": (lambda: "good", "gave 'own' as 'good';"),
    "objects": (lambda: np.array([None, 1, 2]), r"object values of shape \[3\];"),
    "a mapping": (lambda: {"a": 1}, "gave 'own' as {'a': 1};"),
    "numbers to come": (lambda: (x for x in range(3)), "generator object"),
}


@pytest.mark.parametrize(("value", "sentence"), BAD.values(), ids=BAD)
def test_what_is_not_is_refused_with_what_was_given(ask: Any, value: Any, sentence: str) -> None:
    with pytest.raises(PartFailed, match=f"^the reward 'mine.part' .*{sentence}"):
        ask(lambda v, r: {"own": value()})


@pytest.mark.parametrize(
    "given",
    [
        np.ma.array([0.0, 0.25, 1.0], mask=[0, 1, 0]),
        np.ma.array([0, 7, 1], mask=[0, 1, 0]),
        [0.0, np.ma.masked, 1.0],
    ],
    ids=["floats", "whole numbers", "a list"],
)
def test_what_is_masked_out_is_no_number(ask: Any, given: Any) -> None:
    values = ask(lambda v, r: {"own": given}, "metric")
    assert math.isnan(values[1])
    assert values[::2] == [0.0, 1.0]
    with pytest.raises(PartFailed, match="gave nan for 'a blue square', which is not finite"):
        ask(lambda v, r: {"own": given})


@pytest.mark.parametrize("given", [torch.zeros(3), None, [("own", torch.zeros(3))]], ids=str)
def test_numbers_without_their_names_are_refused(ask: Any, given: Any) -> None:
    with pytest.raises(PartFailed, match=r"^the reward 'mine.part' gave .*; give {'own': one number a clip}\.$"):
        ask(lambda v, r: given)


@pytest.mark.parametrize("names", [(), ("other",), ("own", "other"), ("own", 3)], ids=str)
def test_other_names_than_declared_are_refused(ask: Any, names: Any) -> None:
    with pytest.raises(
        PartFailed, match=r"^the reward 'mine.part' declares \['own'\] but gave \[.*\]; mend its names\.$"
    ):
        ask(lambda v, r: {name: torch.zeros(3) for name in names})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_stops_with_its_name_and_prompt(ask: Any, value: float) -> None:
    sentence = r"the reward 'own' gave (nan|inf|-inf) for 'a blue square', which is not finite.*mend the reward"
    with pytest.raises(PartFailed, match=sentence):
        ask(lambda v, r: {"own": [0.5, value, 0.5]})


@pytest.mark.parametrize("value", [1.5, -0.1])
def test_a_reward_off_its_scale_stops(ask: Any, value: float) -> None:
    sentence = rf"gave {value:g} for 'a red circle', outside its scale 0 to 1. Nothing was trained"
    with pytest.raises(PartFailed, match=sentence):
        ask(lambda v, r: {"own": [value, 0.5, 0.5]})


def test_a_measure_may_not_apply_but_is_never_infinite(ask: Any) -> None:
    assert math.isnan(ask(lambda v, r: {"own": [math.nan, -5.0, 5.0]}, "metric")[0])
    with pytest.raises(
        PartFailed, match=r"the metric 'own' gave inf for 'a blue square'; give a finite number, or NaN"
    ):
        ask(lambda v, r: {"own": [math.nan, math.inf, 0.0]}, "metric")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no frame\n is sharp enough."), r"raised ValueError: no frame is sharp enough \("),
        (MemoryError(), r"raised MemoryError \("),
        (torch.OutOfMemoryError("CUDA out of memory"), r"raised torch\.OutOfMemoryError: CUDA out of memory"),
        (SystemExit(0), "raised SystemExit: 0"),
        (KeyError("x" * 1000), r"raised KeyError: 'x{145} \.\.\. x{78}' \("),
        (StopIteration(), "raised StopIteration"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_judge_raises_is_named_with_its_line_and_the_step(ask: Any, error: BaseException, words: str) -> None:
    def fails(videos: Videos, requests: Sequence[Request]) -> Any:
        raise error

    with pytest.raises(PartFailed, match=f"^the reward 'mine.part' {words}") as stopped:
        ask(fails, where="step 3 of stage grpo")
    line = fails.__code__.co_firstlineno + 1
    assert f"({__file__!r}, line {line}), at step 3 of stage grpo; mend it or leave it out." in str(stopped.value)
    assert stopped.value.__cause__ is error


def test_a_sentence_of_a_judges_own_is_kept_with_its_name_and_ctrl_c_goes_through(ask: Any) -> None:
    def refuses(videos: Videos, requests: Sequence[Request]) -> Any:
        raise BadData("videos of another size.")

    def interrupted(videos: Videos, requests: Sequence[Request]) -> Any:
        raise KeyboardInterrupt

    sentence = r"^the reward 'mine.part' refuses, at step 3 of stage grpo: videos of another size\.$"
    with pytest.raises(PartFailed, match=sentence):
        ask(refuses, where="step 3 of stage grpo")
    with pytest.raises(KeyboardInterrupt):
        ask(interrupted)


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Odd(dict[str, object]):
    def items(self) -> Any:
        raise OSError("the numbers are gone")


class NoArray:
    def __array__(self, dtype: object = None, copy: object = None) -> Any:
        raise OSError("the array is gone")


def test_what_fails_when_it_is_read_is_named_too(ask: Any) -> None:
    def fails(videos: Videos, requests: Sequence[Request]) -> Any:
        raise Speechless

    for does, words in (
        (fails, rf"raised {__name__}\.Speechless: <exception str\(\) failed>"),
        (lambda v, r: Odd(), "raised OSError: the numbers are gone"),
        (lambda v, r: {"own": NoArray()}, "raised OSError: the array is gone"),
        (lambda v, r: {"own": torch.ones(3).to_sparse()}, "raised RuntimeError: .*sparse"),
        (lambda v, r: {"own": torch.ones(3, device="meta")}, "raised NotImplementedError: .*meta"),
    ):
        with pytest.raises(PartFailed, match=rf"^the reward 'mine.part' {words}.*; mend it or leave it out\.$"):
            ask(does)


def test_what_a_judge_says_does_not_change_while_it_is_used(config: Named) -> None:
    scales = {"own": (0.0, 1.0)}

    def changes(videos: Videos, requests: Sequence[Request]) -> Any:
        scales["own"] = (0.0, 2.0)
        return {"own": [0.5, 0.5, 1.5]}

    judge = judges.build("reward", config(part=changes, scores=property(lambda self: scales)))
    for _ in range(2):
        with pytest.raises(PartFailed, match=r"gave 1\.5 for 'a green box', outside its scale 0 to 1"):
            judge(VIDEOS, ASKED)
    assert (judge.names, judge.says.scales, judge.says.version) == (("own",), {"own": (0.0, 1.0)}, "1")


def test_each_score_has_a_scale_of_its_own(config: Named) -> None:
    scores = {"own": (0.0, 1.0), "far": (-9.0, 9.0)}
    judge = judges.build("reward", config(part=lambda v, r: {"own": [0.5] * 3, "far": [5.0, -5.0, 9.5]}, scores=scores))
    with pytest.raises(PartFailed, match=r"the reward 'far' gave 9\.5 for 'a green box', outside its scale -9 to 9"):
        judge(VIDEOS, ASKED)


def test_a_metric_without_a_version_has_that_of_the_files_of_its_config_its_module_and_its_build(
    config: Named, tmp_path: Path
) -> None:
    def version(*names: str) -> str:
        files = [tmp_path / name for name in names]
        for file in files:
            file.write_text(file.name)
        modules = [ModuleType(file.stem) for file in files]
        for module, file in zip(modules, files, strict=True):
            module.__file__ = str(file)
        return declared.read("metric", config("metric"), *modules).version

    level = judges.named("metric", parts.configure("metric", mean_level.__name__))
    assert level.says.version == hashlib.sha256(Path(mean_level.__file__).read_bytes()).hexdigest()[:12]
    found = [version("a.py", "b.py"), version("a.py", "c.py"), version("d.py", "b.py")]
    assert len({*found, level.says.version}) == 4


def test_a_judge_made_in_a_notebook_has_no_version_of_its_own(config: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    own = config("metric", __module__="__main__")
    assert declared.read("metric", own).version == ""


def test_a_version_that_is_declared_is_taken(config: Named) -> None:
    assert judges.named("metric", config("metric", version="7")).says.version == "7"
    assert judges.named("reward", config("reward", version="7")).says.version == "7"


def test_a_judge_is_called_without_gradients_and_leaves_them_on(ask: Any) -> None:
    seen = []

    def off(videos: Videos, requests: Sequence[Request]) -> Any:
        seen.append(torch.is_grad_enabled())
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float16)
        return {"own": torch.rand(3).tolist()}

    assert ask(off) == ask(off)  # the random state is put back, too
    assert ask(lambda v, r: (torch.set_default_dtype(torch.float16), {"own": [0.1, 0.2, 0.3]})[1]) == pytest.approx(
        [0.1, 0.2, 0.3], rel=1e-6
    )
    assert seen == [False, False]  # gradients are off within
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_what_one_judge_writes_another_does_not_see(config: Named) -> None:
    def spoils(videos: Videos, requests: Sequence[Request]) -> Any:
        videos.frames.sub_(0.5).div_(0.5)
        videos.frames.numpy()[:] = 0
        return {"own": [0.0] * 3}

    def looks(videos: Videos, requests: Sequence[Request]) -> Any:
        return {"own": videos.frames.mean(dim=(1, 2, 3, 4))}

    writer, reader = (judges.build("reward", config(part=does)) for does in (spoils, looks))
    true = VIDEOS.frames.mean(dim=(1, 2, 3, 4))
    for asked in ((writer, reader), (reader, writer, reader)):
        assert torch.equal(judges.ask(asked, VIDEOS, ASKED)["own"], true)
    assert VIDEOS.frames.max() == 1


@pytest.mark.parametrize(
    ("kind", "says", "sentence"),
    [
        ("reward", None, r"has no scores and no version; the Config of a reward has `scores` \(their scales"),
        ("metric", None, "has no higher_is_better and no description; the Config of a metric has `higher_is_better`"),
        ("reward", SAYS["metric"], "is a metric, not a reward"),
        ("metric", SAYS["reward"], "is a reward, not a metric; the Config of a metric has `higher_is_better`"),
        ("reward", {"scores": "own"}, "declares scores as 'own'"),
        ("reward", {"scores": ("own",)}, r"declares scores as \('own',\)"),
        ("reward", {"scores": {}}, "declares scores as {}"),
        ("reward", {"scores": {"clip/score": (0, 1)}}, "calls a score 'clip/score', but names are printable text"),
        ("reward", {"scores": {"a\u2028b": (0, 1)}}, "calls a score"),
        ("reward", {"scores": {"\ud83d": (0, 1)}}, "calls a score"),
        ("reward", {"scores": {" a": (0, 1)}}, "calls a score ' a'"),
        ("reward", {"scores": {"": (0, 1)}}, "calls a score ''"),
        ("reward", {"scores": {"x" * 81: (0, 1)}}, "calls a score"),
        ("reward", {"scores": {3: (0, 1)}}, "calls a score 3"),
        ("reward", {"scores": {"own": (1.0, 0.0)}}, r"declares the scale of 'own' as \(1.0, 0.0\)"),
        ("reward", {"scores": {"own": (0.0, math.nan)}}, "declares the scale of 'own'"),
        ("reward", {"scores": {"own": 1.0}}, "declares the scale of 'own' as 1.0"),
        ("reward", {"scores": {"own": ("low", "high")}}, "declares the scale of 'own'"),
        ("reward", {"version": 2}, "declares the version 2, which is no text"),
        ("reward", {"version": None}, "declares no version"),
        ("reward", {"reads": (9, 32)}, r"reads \(9, 32\), which is no \(frames, height, width\)"),
        ("metric", {"version": 2}, "declares the version 2, which is no text"),
        ("metric", {"higher_is_better": {}}, "declares higher_is_better as {}"),
        ("metric", {"higher_is_better": ("own",)}, "declares higher_is_better as"),
        ("metric", {"higher_is_better": {"own": 1}}, "declares higher_is_better as {'own': 1}"),
        ("metric", {"higher_is_better": {"a/b": True}}, "calls a score 'a/b'"),
        ("metric", {"description": {}}, "does not describe each of its measures"),
        ("metric", {"description": {"own": None}}, "does not describe each of its measures"),
    ],
)
def test_what_is_no_judge_of_its_kind_is_refused_before_it_is_built(
    config: Named, kind: judges.Kind, says: dict[str, Any] | None, sentence: str
) -> None:
    other = says in SAYS.values()
    with pytest.raises(BadConfig, match=f"^the {kind} 'mine.part' {sentence}"):
        judges.named(kind, config(kind, bare=says is None or other, **(says or {})))


@pytest.mark.parametrize("part", [None, 3, object()], ids=["none", "number", "object"])
def test_what_cannot_be_called_is_no_judge(config: Named, part: Any) -> None:
    with pytest.raises(BadConfig, match=r"^'mine.part' is no reward: what it builds, a \w+, has no __call__\.$"):
        judges.build("reward", config(part=part))


@pytest.mark.parametrize(
    ("raised", "kind", "sentence"),
    [
        (BadData("'a box' is no circle."), BadData, "cannot judge by a prompt: 'a box' is no circle."),
        (
            KeyError("box"),
            PartFailed,
            r"raised KeyError: 'box' \('.*', line \d+\) when it was shown prompts; mend it or leave it out\.",
        ),
    ],
)
def test_a_judge_may_refuse_requests_before_anything_is_built(
    config: Named, raised: Exception, kind: type[Exception], sentence: str
) -> None:
    shown: list[Sequence[Request]] = []

    def check(self: PartConfig, requests: Sequence[Request]) -> None:
        shown.append(requests)
        raise raised

    judges.named("reward", config()).check_requests(ASKED)  # takes any
    with pytest.raises(kind, match=f"^the reward 'mine.part' {sentence}"):
        judges.named("reward", config(check_requests=check)).check_requests(ASKED)
    assert shown == [ASKED]


def test_what_saying_raises_is_named(config: Named) -> None:
    def fails(self: PartConfig) -> Any:
        raise RuntimeError("no head was loaded")

    with pytest.raises(BadConfig, match=r"'mine.part' does not say what it is: it raised RuntimeError: no head was"):
        judges.named("reward", config(scores=property(fails)))


def test_what_building_raises_is_named(config: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(config: PartConfig) -> Any:
        torch.set_grad_enabled(False)
        raise FileNotFoundError("weights/judge.safetensors")

    own = config()
    monkeypatch.setattr(sys.modules["mine.part"], "build", build)
    with pytest.raises(
        BadConfig, match=r"^the reward 'mine.part' could not be built: FileNotFoundError: weights/judge.safetensors \("
    ):
        judges.build("reward", own)
    assert torch.is_grad_enabled()


def test_two_judges_of_one_name_are_refused(config: Named) -> None:
    one, other = (judges.named("reward", config()) for _ in range(2))
    with pytest.raises(BadConfig, match=r"^two rewards give 'own': 'mine.part' and 'mine.part'; keep one of them, or"):
        judges.refuse_twice([one, other])
    judges.refuse_twice([one])
