"""An uninterrupted run that many tests compare with."""

from pathlib import Path

import pytest
from tests.driver.toys import Watcher, recipe_in

from reelign import driver


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of an uninterrupted run, and what it told its watcher; tests read it and do not change it."""
    watcher = Watcher()
    return driver.run(recipe_in(tmp_path_factory.mktemp("whole")), watcher), watcher.events
