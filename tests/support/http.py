"""A hub with an HTTP port, and its clients: one that is polite, and octets as they are."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.hub import Hub
from tests.support.ports import free_port

LIMIT_S = 20.0
# Of [api_token.tests].
TOKEN = "a-token-of-the-tests-0123456789"


class WebHub(Hub):
    """A hub with an HTTP port; `patch` is Python that is run in its process before it begins."""

    def __init__(self, directory: Path, config: str = "", *, patch: str = "") -> None:
        self.web = free_port()
        self._patch = patch
        super().__init__(
            directory,
            f'[http]\nbind = ["127.0.0.1:{self.web}"]\n'
            f'[api_token.tests]\ntoken = "{TOKEN}"\n{config}',
        )

    def command(self, *arguments: str) -> list[str]:
        """See Hub."""
        if not self._patch:
            return super().command(*arguments)
        code = f"import sys\n{self._patch}\nfrom waypost.cli import main\nsys.exit(main())"
        return [sys.executable, "-c", code, *arguments]


class Got(NamedTuple):
    """A response."""

    status: int
    headers: dict[str, str]  # lower-case names
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    source: str = "127.0.0.1",
) -> Got:
    """One request on a connection of its own; a `body` that is no bytes is sent as JSON."""
    fields = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        fields.setdefault("Content-Type", "application/json")
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.request(method, path, body, fields)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Got(response.status, found, response.read())


@contextlib.contextmanager
def connected(port: int, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A connection for octets as they are."""
    with socket.create_connection(("127.0.0.1", port), LIMIT_S, (source, 0)) as client:
        yield client


def exchange(port: int, octets: bytes) -> bytes:
    """All that is answered until the server ends the connection, or has no more to say."""
    with connected(port) as client:
        client.sendall(octets)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """All that comes until the end of a connection, however it ends."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65_536):
            pieces.append(piece)
    return b"".join(pieces)


def statuses(octets: bytes) -> list[int]:
    """The status codes of all responses in there; no body holds what looks like one."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", octets)]


def lasts_s(client: socket.socket, piece: bytes, every_s: float) -> float:
    """For how long a client that sends a piece now and then is suffered, in seconds."""
    began_at = time.monotonic()
    client.settimeout(every_s)
    while time.monotonic() - began_at < LIMIT_S:
        try:
            client.sendall(piece)
            if not client.recv(65_536):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began_at
