"""The report of a run under way, served to this machine's browsers and kept up to date there.

Only the loopback address listens, and only requests for this address that know the token of the URL are answered: other
users of the machine and pages in the browser do not get to see the run.
"""

import hashlib
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reelign.errors import BadConfig, UserError, sentence
from reelign.records import OVER
from reelign.report import page, standing
from reelign.report.load import load, status

HOST = "127.0.0.1"
SHOWN = ("*.json", "*.jsonl", "*.txt", "evaluations/*.json", "evaluations/steps/*.json")
"""What the page is made of, below the run folder."""
ALWAYS = ("run.json", "log.txt", "events.jsonl")
"""What changes all the time and moves nothing on the page but the sentence on top."""


class Live:
    """Owns the server and the page as it was last made."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Listen; `port` 0 is any that is free.

        Raises:
            UserError: the folder is no run, or its files do not read.
            BadConfig: the port is taken.
        """
        self.folder, self.token = folder, secrets.token_urlsafe(18)
        self._lock, self._stamp, self._page = threading.Lock(), "", b""
        self.page()
        try:
            self.server = _Server((HOST, port), _handler(self))
        except (OSError, OverflowError) as error:
            raise BadConfig(f"--port {port} cannot be used ({error}); give another one, or none for any.") from error
        self.port = self.server.server_address[1]

    @property
    def url(self) -> str:
        """Where to look."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    def serve(self) -> None:
        """Answer until `close`, or Ctrl-C."""
        self.server.serve_forever()

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()

    def page(self) -> bytes:
        """The report as the files are now; it is made anew only where one of them has changed."""
        with self._lock:
            stamp = self.stamp()
            if stamp != self._stamp:
                self._page, self._stamp = page.render(load(self.folder), live=True).encode(), stamp
            return self._page

    def state(self) -> dict[str, Any]:
        """What can be told without making the page."""
        now = status(self.folder)
        over = now is None or now.phase in OVER
        return {"stamp": self.stamp(), "standing": standing.said(now), "over": over}

    def stamp(self) -> str:
        """Changes when anything does that the page shows."""
        found = hashlib.sha256()
        for path in sorted(path for pattern in SHOWN for path in self.folder.glob(pattern)):
            if path.name not in ALWAYS:
                about = path.stat()
                found.update(f"{path.name} {about.st_size} {about.st_mtime_ns}\n".encode())
        return found.hexdigest()[:16]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves in the middle of an answer is no matter."""


def _handler(live: Live) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host") not in (f"{HOST}:{live.port}", f"localhost:{live.port}"):
                return self._answer(HTTPStatus.FORBIDDEN, b"another host was asked for")
            _, token, *rest = ("", *self.path.removeprefix("/").split("/"))
            if not secrets.compare_digest(token.encode(), live.token.encode()):
                return self._answer(HTTPStatus.FORBIDDEN, b"the address holds another token")
            try:
                if rest == [""]:
                    return self._answer(HTTPStatus.OK, live.page(), "text/html; charset=utf-8")
                if rest == ["state"]:
                    return self._answer(HTTPStatus.OK, json.dumps(live.state()).encode(), "application/json")
            except (UserError, OSError) as error:
                return self._answer(HTTPStatus.SERVICE_UNAVAILABLE, sentence(error).encode())
            return self._answer(HTTPStatus.NOT_FOUND, b"there is nothing here")

        def _answer(self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(content)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "same-origin",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """A terminal has other things to show."""

    return Handler
