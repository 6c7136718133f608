"""Properties that hold for whatever comes: sequences of faults, bytes as recipes, words as overrides."""

import signal
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.faults import chain, mutate
from tests.faults.conftest import Chain
from tests.faults.counts import Counts
from tests.faults.operations import Deed, Fail, Full, Kill, PowerLoss, Signals
from tests.faults.verdicts import LONGEST, wrong_with

from reelign import config as configs
from reelign.errors import BadConfig

MOMENTS = st.integers(0, 450)
"""Operations of one start; a start that is over before does not meet its fault."""
FAULTS = st.one_of(
    st.builds(Kill, MOMENTS),
    st.builds(lambda at, code: Fail(at, int(code)), MOMENTS, st.sampled_from([5, 13, 28])),
    st.builds(Full, MOMENTS),
    st.builds(lambda at: Signals({at: signal.SIGTERM}), MOMENTS),
    st.builds(lambda at: PowerLoss(at, Path()), MOMENTS),
)
COSTLY = settings(deadline=None, database=None, derandomize=True)
"""A failing example is shrunk; the same examples in every run."""


def test_a_run_survives_one_fault_after_another(
    undisturbed: Chain, counts: Callable[[str], Counts], pytestconfig: pytest.Config
) -> None:
    found = counts("two to five faults, one after another")

    @settings(COSTLY, max_examples=100 if pytestconfig.getoption("--whole") else 1)
    @given(st.lists(FAULTS, min_size=2, max_size=5))
    def survives(faults: list[Deed]) -> None:
        with undisturbed.folder() as folder:
            for fault in faults:
                met = undisturbed.run(folder, PowerLoss(fault.at, folder) if isinstance(fault, PowerLoss) else fault)
                wrong = wrong_with(met, also=(130, -signal.SIGKILL, -signal.SIGTERM))
                assert not wrong, wrong
            after = undisturbed.goes_on(folder)
        assert after == "same", after
        found.note(str(faults), after)

    survives()
    found.settle()


def _is_sentence(error: BadConfig) -> None:
    text = str(error)
    assert "\n" not in text
    assert 0 < len(text) <= LONGEST


YAML = st.lists(st.one_of(st.sampled_from(mutate.TOKENS), st.text(max_size=8)), max_size=40).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=200), YAML.map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes_are_a_recipe_or_refused_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(configs.read(path), dict)
    except BadConfig as error:
        _is_sentence(error)


KEYS = st.sampled_from(["run", "stages", "0", "9", "-1", "learner", "lr", "name", "method", "", "x" * 500])
WORDS = st.builds(
    lambda keys, between, value: ".".join(keys) + between + value,
    st.lists(KEYS, max_size=6), st.sampled_from(["=", "", "==", ".="]), YAML,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(WORDS, st.text(max_size=20)), min_size=1, max_size=3))
def test_any_override_changes_a_copy_or_is_refused_in_one_sentence(words: list[str]) -> None:
    tree: dict[str, Any] = chain.tree()
    before = deepcopy(tree)
    try:
        assert isinstance(configs.override(tree, words), dict)
    except BadConfig as error:
        _is_sentence(error)
    assert tree == before
