"""Closed, full and broken streams: a sensible exit code, and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent / "reelign"


def _shell(line: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("reelign", str(BIN), 1)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("reelign parts reward | head -1", 0, ""),
        ("reelign parts reward >&-", 0, ""),
        ("reelign parts reward >&- 2>&- <&-", 0, ""),
        ("reelign parts nonsense 2>&-", 2, ""),
        ("reelign parts nonsense 2>/dev/full", 2, ""),
        ("reelign parts reward >/dev/full", 2, "the results cannot be written to stdout: No space left on device"),
        (
            "reelign --help >/dev/full",
            2,
            "cannot read or write: No space left on device; `reelign --debug` shows where.",
        ),
    ],
)
def test_streams_that_cannot_be_written(line: str, code: int, said: str) -> None:
    found, err = _shell(line)
    assert found == code, err
    assert said in err
    assert err.count("\n") == bool(said)


def test_a_file_opened_while_stderr_is_closed_does_not_become_stderr() -> None:
    program = (
        "import sys\nfrom reelign.cli import _console\n_console.open_streams()\n"
        "with open('/dev/null') as file: sys.exit(file.fileno())"
    )
    done = subprocess.run(["bash", "-c", f'"{sys.executable}" -c "{program}" >&- 2>&-'], check=False)
    assert done.returncode >= 3


def test_the_last_lines_of_a_run_may_go_nowhere() -> None:
    program = (
        "import sys\nfrom reelign.cli._console import complain, say\nsay('report  here')\nsay('model   there')\n"
        "complain('and more')"
    )
    for ends in (">/dev/full", ">&-", "2>/dev/full >/dev/full", ">&- 2>&-"):
        done = subprocess.run(
            ["bash", "-c", f'"{sys.executable}" -c "{program}" {ends}'], capture_output=True, text=True, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (0, False)
