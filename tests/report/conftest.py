"""Run folders to look at."""

from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_run import write_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests read it and do not change it."""
    return write_run(tmp_path_factory.mktemp("runs") / "tiny-demo")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run of one's own: `make_run(name, **options of write_run)`."""
    return lambda name="own", **options: write_run(tmp_path / name, **options)
