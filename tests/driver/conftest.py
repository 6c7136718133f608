"""An uninterrupted run that many tests compare with."""

import shutil
from pathlib import Path

import pytest
from tests.driver.toys import Watcher, go, interrupt, recipe_in

from reelign import driver


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of an uninterrupted run, and what it told its watcher; tests read it and do not change it."""
    watcher = Watcher()
    return go(recipe_in(tmp_path_factory.mktemp("whole")), watcher), watcher.events


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the same run, stopped in its second stage after an uneven step; tests copy it."""
    root = tmp_path_factory.mktemp("stopped")
    with pytest.raises(driver.Interrupted, match="saved after step 3 of stage grpo"):
        go(recipe_in(root), Watcher("grpo 3", interrupt))
    return root


@pytest.fixture
def again(stopped: Path, tmp_path: Path) -> Path:
    """A copy of that root of one's own."""
    return shutil.copytree(stopped, tmp_path / "again")


@pytest.fixture
def finished(whole: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of the whole run's root of one's own."""
    return shutil.copytree(whole[0].parent, tmp_path / "finished")
