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
from tests.parts import linear_reward, mean_level

from reelign import declared, judges
from reelign.batches import Videos
from reelign.errors import BadConfig, BadData, PartFailed
from reelign.parts import PartConfig

VIDEOS = Videos(torch.linspace(0, 1, 3 * 2 * 3 * 4 * 4).reshape(3, 2, 3, 4, 4), 8.0)
TEXTS = ("a red circle", "a blue square", "a green box")


class Config(PartConfig):
    name: str = "mine"


class Reward:
    names: Any = ("own",)
    range: Any = (0.0, 1.0)
    version: Any = "1"

    def __init__(self, does: Callable[[Videos, Sequence[str]], object]) -> None:
        self.does = does

    def __call__(self, videos: Videos, prompts: Sequence[str]) -> Any:
        return self.does(videos, prompts)


class Metric(Reward):
    names = range = property()  # none of a reward's
    version: Any = None
    higher_is_better: Any = {"own": True}
    description: Any = {"own": "of one's own"}


def _built(part: Any, monkeypatch: pytest.MonkeyPatch, kind: judges.Kind = "reward") -> judges.Judge:
    module = ModuleType("mine.part")
    module.Config, module.build = Config, lambda config: part() if isinstance(part, type(_built)) else part
    monkeypatch.setitem(sys.modules, "mine", ModuleType("mine"))
    monkeypatch.setitem(sys.modules, "mine.part", module)
    return judges.build(kind, Config(name="mine.part"))


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Build a reward (or metric) that does something, call it, and give its numbers."""

    def call(
        does: Callable[[Videos, Sequence[str]], object], kind: judges.Kind = "reward", where: str = ""
    ) -> list[float]:
        part = Reward(does) if kind == "reward" else Metric(does)
        found = _built(part, monkeypatch, kind)(VIDEOS, TEXTS, where)["own"]
        assert (found.dtype, found.shape, found.requires_grad) == (torch.float32, (3,), False)
        return found.tolist()

    return call


WEIGHT = torch.nn.Parameter(torch.tensor([0.0, 0.25, 1.0]))
GOOD: dict[str, Any] = {
    "tensor": lambda v, p: WEIGHT.detach(),
    "with a graph": lambda v, p: WEIGHT * 1,
    "a parameter": lambda v, p: WEIGHT,
    "column": lambda v, p: WEIGHT[:, None],
    "double": lambda v, p: WEIGHT.double(),
    "half": lambda v, p: WEIGHT.half(),
    "bfloat16": lambda v, p: WEIGHT.bfloat16(),
    "inference": lambda v, p: torch.inference_mode()(lambda: WEIGHT * 1)(),
    "numpy": lambda v, p: np.array([0.0, 0.25, 1.0]),
    "numpy turned": lambda v, p: np.array([1.0, 0.25, 0.0])[::-1],
    "numpy read-only": lambda v, p: np.broadcast_to(np.array([0.0, 0.25, 1.0], dtype=np.float16), (3,)),
    "list": lambda v, p: [0, 0.25, True],
    "tuple": lambda v, p: (0.0, 0.25, 1.0),
    "list of tensors": lambda v, p: [torch.tensor(0), torch.tensor(0.25), torch.tensor([1.0])[0]],
    "list of numpy": lambda v, p: [np.float32(0), np.float64(0.25), np.int64(1)],
    "nothing masked": lambda v, p: np.ma.array([0.0, 0.25, 1.0], mask=[0, 0, 0]),
}


@pytest.mark.parametrize("give", GOOD.values(), ids=GOOD)
def test_what_is_one_number_a_clip_is_taken(ask: Any, give: Any) -> None:
    assert ask(lambda v, p: {"own": give(v, p)}) == [0.0, 0.25, 1.0]


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64])
def test_whole_numbers_and_truths_are_taken(ask: Any, kind: torch.dtype) -> None:
    assert ask(lambda v, p: {"own": torch.tensor([0, 1, 1], dtype=kind)}) == [0, 1, 1]


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
        ask(lambda v, p: {"own": value()})


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
    values = ask(lambda v, p: {"own": given}, "metric")
    assert math.isnan(values[1])
    assert values[::2] == [0.0, 1.0]
    with pytest.raises(PartFailed, match="gave nan for 'a blue square', which is not finite"):
        ask(lambda v, p: {"own": given})


@pytest.mark.parametrize("given", [torch.zeros(3), None, [("own", torch.zeros(3))]], ids=str)
def test_numbers_without_their_names_are_refused(ask: Any, given: Any) -> None:
    with pytest.raises(PartFailed, match=r"^the reward 'mine.part' gave .*; give {'own': one number a clip}\.$"):
        ask(lambda v, p: given)


@pytest.mark.parametrize("names", [(), ("other",), ("own", "other"), ("own", 3)], ids=str)
def test_other_names_than_declared_are_refused(ask: Any, names: Any) -> None:
    with pytest.raises(
        PartFailed, match=r"^the reward 'mine.part' declares \['own'\] but gave \[.*\]; mend its names\.$"
    ):
        ask(lambda v, p: {name: torch.zeros(3) for name in names})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_stops_with_its_name_and_prompt(ask: Any, value: float) -> None:
    sentence = r"the reward 'own' gave (nan|inf|-inf) for 'a blue square', which is not finite.*mend the reward"
    with pytest.raises(PartFailed, match=sentence):
        ask(lambda v, p: {"own": [0.5, value, 0.5]})


@pytest.mark.parametrize("value", [1.5, -0.1])
def test_a_reward_off_its_scale_stops(ask: Any, value: float) -> None:
    sentence = rf"gave {value:g} for 'a red circle', outside its scale 0 to 1. Nothing was trained"
    with pytest.raises(PartFailed, match=sentence):
        ask(lambda v, p: {"own": [value, 0.5, 0.5]})


def test_a_measure_may_not_apply_but_is_never_infinite(ask: Any) -> None:
    assert math.isnan(ask(lambda v, p: {"own": [math.nan, -5.0, 5.0]}, "metric")[0])
    with pytest.raises(
        PartFailed, match=r"the metric 'own' gave inf for 'a blue square'; give a finite number, or NaN"
    ):
        ask(lambda v, p: {"own": [math.nan, math.inf, 0.0]}, "metric")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no frame\n is sharp enough."), r"raised ValueError: no frame is sharp enough \("),
        (MemoryError(), r"raised MemoryError \("),
        (torch.OutOfMemoryError("CUDA out of memory"), "raised OutOfMemoryError: CUDA out of memory"),
        (SystemExit(0), "raised SystemExit: 0"),
        (KeyError("x" * 1000), r"raised KeyError: 'xxx.{296}…"),
        (StopIteration(), "raised StopIteration"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_judge_raises_is_named_with_its_line_and_the_step(ask: Any, error: BaseException, words: str) -> None:
    def fails(videos: Videos, prompts: Sequence[str]) -> Any:
        raise error

    with pytest.raises(PartFailed, match=f"^the reward 'mine.part' {words}") as stopped:
        ask(fails, where="step 3 of stage grpo")
    line = fails.__code__.co_firstlineno + 1
    assert f"(line {line} of {__file__}), at step 3 of stage grpo; mend it or leave it out." in str(stopped.value)
    assert stopped.value.__cause__ is error


def test_a_sentence_of_a_judges_own_is_kept_with_its_name_and_ctrl_c_goes_through(ask: Any) -> None:
    def refuses(videos: Videos, prompts: Sequence[str]) -> Any:
        raise BadData("videos of another size.")

    def interrupted(videos: Videos, prompts: Sequence[str]) -> Any:
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
    def fails(videos: Videos, prompts: Sequence[str]) -> Any:
        raise Speechless

    for does, words in (
        (fails, r"raised Speechless: <exception str\(\) failed>"),
        (lambda v, p: Odd(), "raised OSError: the numbers are gone"),
        (lambda v, p: {"own": NoArray()}, "raised OSError: the array is gone"),
        (lambda v, p: {"own": torch.ones(3).to_sparse()}, "raised RuntimeError: .*sparse"),
        (lambda v, p: {"own": torch.ones(3, device="meta")}, "raised NotImplementedError: .*meta"),
    ):
        with pytest.raises(PartFailed, match=rf"^the reward 'mine.part' {words}.*; mend it or leave it out\.$"):
            ask(does)


def test_what_a_judge_declares_is_what_it_said_when_it_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changes(Reward):
        def __call__(self, videos: Videos, prompts: Sequence[str]) -> Any:
            self.range = self.names = self.version = None
            return {"own": [0.5, 0.5, 1.5]}

    judge = _built(Changes(len), monkeypatch)
    for _ in range(2):
        with pytest.raises(PartFailed, match=r"gave 1\.5 for 'a green box', outside its scale 0 to 1"):
            judge(VIDEOS, TEXTS)
    assert (judge.names, judge.says.scale, judge.says.version) == (("own",), (0.0, 1.0), "1")


def test_a_metric_without_a_version_has_that_of_the_files_of_its_module_and_its_class(tmp_path: Path) -> None:
    def version(built: str, own: str) -> str:
        files = tmp_path / built, tmp_path / own
        for file, text in zip(files, (built, own), strict=True):
            file.write_text(text)
        module, of = (ModuleType(file.stem) for file in files)
        module.__file__ = str(files[0])
        part = _metric()
        type(part).__module__, of.__file__ = of.__name__, str(files[1])
        with pytest.MonkeyPatch.context() as loaded:
            loaded.setitem(sys.modules, of.__name__, of)
            return declared.read("metric", part, module).version

    same = hashlib.sha256(Path(linear_reward.__file__).read_bytes()).hexdigest()[:12]
    level = judges.build("metric", Config(name="tests.parts.mean_level"))
    assert level.says.version == hashlib.sha256(Path(mean_level.__file__).read_bytes()).hexdigest()[:12] != same
    found = [version("a.py", "b.py"), version("a.py", "c.py"), version("d.py", "b.py")]
    assert len({*found}) == 3


def test_a_judge_made_in_a_notebook_has_no_version_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    part = _metric()
    type(part).__module__ = "__main__"
    judge = _built(part, monkeypatch, "metric")
    assert judge.says.version == ""
    with pytest.raises(PartFailed, match=r"^the metric 'mine\.part' declares \['own'\] but gave \[\]"):
        judge(VIDEOS, TEXTS)


def test_a_version_that_is_declared_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _built(_metric(version="7"), monkeypatch, "metric").says.version == "7"
    assert _built(_reward(version="7"), monkeypatch).says.version == "7"


def test_a_judge_is_called_without_gradients_and_leaves_them_on(ask: Any) -> None:
    seen = []

    def off(videos: Videos, prompts: Sequence[str]) -> Any:
        seen.append(torch.is_grad_enabled())
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float16)
        return {"own": torch.rand(3).tolist()}

    assert ask(off) == ask(off)  # the random state is put back, too
    assert ask(lambda v, p: (torch.set_default_dtype(torch.float16), {"own": [0.1, 0.2, 0.3]})[1]) == pytest.approx(
        [0.1, 0.2, 0.3], rel=1e-6
    )
    assert seen == [False, False]  # gradients are off within
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_what_one_judge_writes_another_does_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoils(videos: Videos, prompts: Sequence[str]) -> Any:
        videos.frames.sub_(0.5).div_(0.5)
        videos.frames.numpy()[:] = 0
        return {"own": [0.0] * 3}

    def looks(videos: Videos, prompts: Sequence[str]) -> Any:
        return {"own": videos.frames.mean(dim=(1, 2, 3, 4))}

    writer, reader = (_built(Reward(does), monkeypatch) for does in (spoils, looks))
    true = VIDEOS.frames.mean(dim=(1, 2, 3, 4))
    for asked in ((writer, reader), (reader, writer, reader)):
        assert torch.equal(judges.ask(asked, VIDEOS, TEXTS)["own"], true)
    assert VIDEOS.frames.max() == 1


def _reward(**attributes: Any) -> Any:
    return type("Part", (Reward,), attributes)(lambda v, p: {})


def _metric(**attributes: Any) -> Any:
    return type("Part", (Metric,), attributes)(lambda v, p: {})


@pytest.mark.parametrize(
    ("kind", "part", "sentence"),
    [
        ("reward", lambda videos, prompts: {}, "has no names and no range and no version; a reward is called with"),
        ("reward", None, "has no names and no range and no version"),
        ("reward", type("Part", (), {"names": ("a",), "range": (0, 1), "version": "1"})(), "cannot be called"),
        ("reward", _metric(), "is a metric, not a reward"),
        ("reward", _reward(names="own"), "declares names as 'own'"),
        ("reward", _reward(names=()), r"declares names as \(\)"),
        ("reward", _reward(names=("a", "a")), r"declares names as \('a', 'a'\)"),
        ("reward", _reward(names=("clip/score",)), "calls a score 'clip/score', but names are printable text"),
        ("reward", _reward(names=("a\u2028b",)), "calls a score"),
        ("reward", _reward(names=("\ud83d",)), "calls a score"),
        ("reward", _reward(names=(" a",)), "calls a score ' a'"),
        ("reward", _reward(names=("",)), "calls a score ''"),
        ("reward", _reward(names=("x" * 81,)), "calls a score"),
        ("reward", _reward(names=(3,)), "calls a score 3"),
        ("reward", _reward(range=(1.0, 0.0)), r"declares the range \(1.0, 0.0\)"),
        ("reward", _reward(range=(0.0, math.nan)), "declares the range"),
        ("reward", _reward(range=1.0), "declares the range 1.0"),
        ("reward", _reward(range=("low", "high")), "declares the range"),
        ("reward", _reward(version=2), "declares the version 2, which is no text"),
        ("metric", _reward(), "is a reward, not a metric; a metric is called with .* and has `higher_is_better`"),
        ("metric", _metric(version=2), "declares the version 2, which is no text"),
        ("metric", _metric(higher_is_better={}), "declares higher_is_better as {}"),
        ("metric", _metric(higher_is_better=("own",)), "declares higher_is_better as"),
        ("metric", _metric(higher_is_better={"own": 1}), "declares higher_is_better as {'own': 1}"),
        ("metric", _metric(higher_is_better={"a/b": True}), "calls a score 'a/b'"),
        ("metric", _metric(description={}), "does not describe each of its measures"),
        ("metric", _metric(description={"own": None}), "does not describe each of its measures"),
    ],
)
def test_what_is_no_judge_of_its_kind_is_refused_when_it_is_built(
    monkeypatch: pytest.MonkeyPatch, kind: judges.Kind, part: Any, sentence: str
) -> None:
    with pytest.raises(BadConfig, match=f"^the {kind} 'mine.part' {sentence}"):
        _built(part if not callable(part) or isinstance(part, Reward) else (lambda: part), monkeypatch, kind)


@pytest.mark.parametrize(
    ("raised", "kind", "sentence"),
    [
        (BadData("'a box' is no circle."), BadData, "cannot judge by a prompt: 'a box' is no circle."),
        (
            KeyError("box"),
            PartFailed,
            r"raised KeyError: 'box' \(line \d+ of .*\) when it was shown prompts; mend it or leave it out\.",
        ),
    ],
)
def test_a_judge_may_refuse_prompts_before_anything_is_made_of_them(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[Exception], sentence: str
) -> None:
    shown: list[Sequence[str]] = []

    def check(prompts: Sequence[str]) -> None:
        shown.append(prompts)
        raise raised

    part = _reward()
    _built(part, monkeypatch).check_prompts(TEXTS)  # takes any
    monkeypatch.setattr(part, "check_prompts", check, raising=False)
    with pytest.raises(kind, match=f"^the reward 'mine.part' {sentence}"):
        _built(part, monkeypatch).check_prompts(TEXTS)
    assert shown == [TEXTS]


def test_what_declaring_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Computed(Reward):
        @property
        def names(self) -> tuple[str, ...]:
            raise RuntimeError("no head was loaded")

    with pytest.raises(BadConfig, match=r"'mine.part' does not say what it is: it raised RuntimeError: no head was"):
        _built(lambda: Computed(len), monkeypatch)


def test_what_building_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> Any:
        torch.set_grad_enabled(False)
        raise FileNotFoundError("weights/judge.safetensors")

    with pytest.raises(
        BadConfig, match=r"^the reward 'mine.part' could not be built: FileNotFoundError: weights/judge.safetensors \("
    ):
        _built(build, monkeypatch)
    assert torch.is_grad_enabled()


def test_two_judges_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (_built(_reward(), monkeypatch) for _ in range(2))
    with pytest.raises(BadConfig, match=r"^two rewards give 'own': 'mine.part' and 'mine.part'; keep one of them, or"):
        judges.refuse_twice([one, other])
    judges.refuse_twice([one])
