"""The live page: who gets it, what it says of a run under way, and when it is made anew."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reelign import records
from reelign.errors import BadConfig, UserError
from reelign.report import live, load, page, standing

Make = Callable[..., Path]
NOW = 1_796_000_000.0


def _status(folder: Path, **changes: Any) -> records.Status:
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "phase": "training",
        "stage": "dpo",
        "step": 12,
        "of": 40,
    }
    about |= {"started": NOW - 90, "since": NOW - 60, "updated": NOW, "each_s": 5.0}
    status = records.Status.model_validate(about | changes)
    (folder / "run.json").write_text(json.dumps(status.dump()))
    return status


@pytest.fixture
def run(make_run: Make) -> Path:
    folder = make_run(videos=1, stages=("sft", "grpo"))
    _status(folder)
    return folder


@pytest.fixture
def served(run: Path) -> Iterator[live.Live]:
    found = live.Live(run)
    thread = threading.Thread(target=found.serve)
    thread.start()
    yield found
    found.close()
    thread.join()


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests talk to themselves."""
    monkeypatch.undo()


def _get(served: live.Live, path: str, verb: str = "GET", **headers: str) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection(live.HOST, served.port, timeout=20)
    connection.request(verb, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


def test_the_page_is_served_under_its_token_and_says_where_the_run_stands(served: live.Live) -> None:
    status, html, headers = _get(served, f"/{served.token}/")
    assert status == 200
    assert (
        "The run is under way: training DPO, step 12 of 40, about 2\N{NO-BREAK SPACE}min 20\N{NO-BREAK SPACE}s left."
        in html
    )
    assert "connect-src &#39;self&#39;" in html
    assert headers["Cache-Control"] == "no-store"
    _, state, _ = _get(served, f"/{served.token}/state")
    assert json.loads(state) == {
        "stamp": served.stamp(),
        "standing": standing.said(load.status(served.folder)),
        "over": False,
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 403), ("/wrong/", 403), ("/wrong/state", 403), ("//", 403), ("*", 403), ("/{token}x/", 403),
        ("/{token}", 404), ("/{token}/config.json", 404), ("/{token}/../config.json", 404), ("/{token}/state/", 404),
    ],
)  # fmt: skip
def test_no_other_address_gets_anything_of_the_run(served: live.Live, path: str, status: int) -> None:
    found, text, _ = _get(served, path.replace("{token}", served.token))
    assert found == status
    assert "<" not in text
    assert len(text) < 60


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_only_get_is_answered(served: live.Live, verb: str) -> None:
    assert _get(served, f"/{served.token}/", verb)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1"])
def test_a_page_that_comes_by_another_name_gets_nothing(served: live.Live, host: str) -> None:
    path = f"/{served.token}/"
    assert _get(served, path, Host=host.replace("{port}", str(served.port)))[0] == 403
    assert _get(served, path, Host=f"localhost:{served.port}")[0] == 200


def test_the_page_is_made_anew_once_something_on_it_has_changed_and_not_before(
    served: live.Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], page.render
    monkeypatch.setattr(page, "render", lambda *args, **more: made.append(1) or real(*args, **more))
    before = served.stamp()
    _status(served.folder, step=13)
    _get(served, f"/{served.token}/")
    assert (made, served.stamp()) == ([], before)
    with (served.folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "dpo", "step": 200, "offline/loss": 0.25}\n')
    html = _get(served, f"/{served.token}/")[1]
    _get(served, f"/{served.token}/")
    assert made == [1]
    assert "201 of 100 steps done" in html


def test_files_that_do_not_read_for_a_moment_are_said_and_the_page_comes_back(served: live.Live) -> None:
    path = served.folder / "ledger.jsonl"
    whole = path.read_text()
    path.write_text("{\n")
    status, text, _ = _get(served, f"/{served.token}/")
    assert (status, "is not JSON" in text) == (503, True)
    path.write_text(whole)
    assert _get(served, f"/{served.token}/")[0] == 200


def test_a_report_that_is_written_asks_nobody(run: Path) -> None:
    html = page.write(run).read_text()
    assert "connect-src" not in html
    assert "fetch(" not in html


def test_a_port_that_is_taken_is_said(served: live.Live) -> None:
    with pytest.raises(BadConfig, match=rf"^--port {served.port} cannot be used \(.*in use\); give another one"):
        live.Live(served.folder, served.port)


def test_what_is_no_run_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        live.Live(tmp_path)


def test_the_command_serves_until_ctrl_c_and_ends_well(run: Path) -> None:
    command = [sys.executable, "-m", "reelign.cli", "report", str(run), "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        host, _, path = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request("GET", f"/{path}")
        assert connection.getresponse().status == 200
        process.send_signal(2)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def _gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"phase": "done"}, ""),
        ({"phase": "saving"}, "The run is under way: saving."),
        (
            {"phase": "evaluating", "stage": "base", "each_s": None},
            "The run is under way: judging the base, clip 12 of 40.",
        ),
        ({"phase": "stopped", "why": "saved after step 3"}, "The run was stopped: saved after step 3."),
        ({"phase": "failed", "why": "the loss is nan"}, "The run failed: the loss is nan."),
        ({"host": "elsewhere", "updated": time.time()}, "The run is under way: training DPO, step 12 of 40, about"),
        ({"host": "elsewhere"}, "There has been no sign of life since 20"),
    ],
)
def test_where_a_run_stands_is_a_sentence(run: Path, changes: dict[str, Any], sentence: str) -> None:
    said = standing.said(_status(run, **changes))
    assert said.startswith(sentence)
    assert bool(said) == bool(sentence)


def test_a_killed_run_is_told_by_its_process(run: Path) -> None:
    _status(run, pid=_gone())
    html = page.write(run).read_text()
    assert "There has been no sign of life since" in html
    assert "the run was training DPO, step 12 of 40; go on with --resume." in html


def test_a_slow_run_elsewhere_is_not_taken_for_dead(run: Path) -> None:
    status = _status(run, host="elsewhere", each_s=120.0)
    assert standing.lives(status, NOW + 2000)
    assert not standing.lives(status, NOW + 3000)


def test_a_run_that_says_nothing_of_itself_is_shown_as_ever(run: Path) -> None:
    (run / "run.json").unlink()
    assert 'id="standing"' not in page.write(run).read_text()
