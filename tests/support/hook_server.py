"""A web server in a process of its own, for webhooks and notifications: it keeps what it is asked.

The path says how it answers: `/503,503,200` the first time so, then so, and the last from then on;
`/slow` never, `/endless` without an end. `?after=N` sends Retry-After, `?says=TEXT` a body.
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.waiting import wait_until

CONNECTED = "connected"


class Asked(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]  # lower-case names
    body: bytes
    at: float  # UTC epoch seconds

    @property
    def json(self) -> dict[str, Any]:
        """The body, as an object."""
        found: dict[str, Any] = json.loads(self.body)
        return found


class HookServer:
    """The process; `pem` is a file with key and certificate, for https."""

    def __init__(self, directory: Path, *, pem: Path | None = None, host: str = "0.0.0.0") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "asked.ndjson"
        self._log.touch()
        self._words = [str(self._log), host, *([] if pem is None else [str(pem)])]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    def __enter__(self) -> HookServer:
        command = [sys.executable, "-m", "tests.support.hook_server", *self._words, str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def url(self, path: str, *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        """A URL here."""
        return f"{scheme}://{host}:{self.port}{path}"

    def _lines(self) -> list[Any]:
        # What follows the last line end is being written.
        return [json.loads(line) for line in self._log.read_text().split("\n")[:-1]]

    def asked(self, path: str = "") -> list[Asked]:
        """The requests so far, of those whose path begins so."""
        found = [Asked(*line) for line in self._lines() if line != CONNECTED]
        return [
            one._replace(body=base64.b64decode(one.body))
            for one in found
            if one.path.startswith(path)
        ]

    def connections(self) -> int:
        """How many connections there were."""
        return self._lines().count(CONNECTED)

    def wait_for(self, count: int, path: str = "") -> list[Asked]:
        """As `asked`, once there are so many."""
        return wait_until(lambda: found if len(found := self.asked(path)) >= count else [])


def main(log: Path, host: str, pem: str | None, port: int) -> None:
    """Serve until killed."""
    asked: Counter[str] = Counter()
    writing = threading.Lock()

    def write(entry: object) -> None:
        with writing, log.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    class Page(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            write(CONNECTED)
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            encoded = base64.b64encode(body).decode()
            write(Asked(unquote(self.path), headers, encoded, time.time()))  # type: ignore[arg-type]
            place = urlsplit(unquote(self.path))
            first = place.path.split("/")[1]
            asked[self.path] += 1
            if first == "slow":
                time.sleep(600)
            if first == "endless":
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(b"more " * 10_000)
            codes = first.split(",")
            code = int(codes[min(asked[self.path], len(codes)) - 1])
            query = parse_qs(place.query)
            words = query.get("says", [""])[0].encode()
            self.send_response(code)
            if code // 100 == 3:
                self.send_header("Location", "/200/elsewhere")
            if "after" in query:
                self.send_header("Retry-After", query["after"][0])
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(words)))
            self.end_headers()
            self.wfile.write(words)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer((host, port), Page)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if pem is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _, log_, host_, *pem_, port_ = sys.argv
    main(Path(log_), host_, pem_[0] if pem_ else None, int(port_))
