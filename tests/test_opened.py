"""The datasets of a run: opened once, shared, and let go of."""

from typing import Any

import pytest
from tests.parts import gaussian_data

from reelign import parts
from reelign.errors import BadData
from reelign.opened import Datasets

DATA = "tests.parts.gaussian_data"


def _config(**settings: Any) -> parts.PartConfig:
    return parts.configure("dataset", {"name": DATA, **settings})


def test_datasets_of_the_same_settings_are_one_and_others_are_not() -> None:
    opened = Datasets()
    first, other = opened(_config(size=4)), opened(_config(size=5))
    assert opened(_config(size=4)) is first is not other
    assert opened(parts.configure("dataset", DATA)) is opened(_config(size=8, mean=0.0))  # said or left at its default
    assert Datasets()(_config(size=4)) is not first


def test_those_that_nobody_will_read_are_let_go_of() -> None:
    opened = Datasets()
    kept, gone = opened(_config(size=4)), opened(_config(size=5))
    opened.keep([_config(size=4), _config(size=6)])
    assert opened(_config(size=4)) is kept
    assert opened(_config(size=5)) is not gone


def test_one_that_could_not_be_opened_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Datasets()

    def fails(config: object) -> Any:
        raise BadData("no such folder.")

    with monkeypatch.context() as patch:
        patch.setattr(gaussian_data, "build", fails)
        with pytest.raises(BadData, match="no such folder"):
            opened(_config())
    assert opened(_config()) is opened(_config())
