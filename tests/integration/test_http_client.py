"""The HTTP client: Python's own server behind TLS, names, the gate, and hostile servers."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.static_resolver import StaticResolver
from waypost.dns.resolver import ResolverUnavailable, Trouble
from waypost.errors import ConnectForbidden
from waypost.http.client import HttpClient, HttpFailed, HttpResponse, ResponseTooBig
from waypost.net.gate import Gate, Origin
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks
from waypost.tls.authority import Authority, Subjects

NOW = datetime.datetime.now(datetime.UTC)
SECRET = "s3cret-query"


class Page(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(f"{self.command} {self.path}\n{self.headers}".encode())

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, octets: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(octets)))
        self.send_header("X-Kind", "page")
        self.end_headers()
        self.wfile.write(octets)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class Servers:
    """One server in clear and one behind TLS, which stands for 127.0.0.1 and web.test."""

    def __init__(self, directory: Path) -> None:
        subjects = Subjects(frozenset({ip_address("127.0.0.1")}), frozenset({"web.test"}))
        authority = Authority.create(directory, subjects, now=NOW)
        self.ca = directory / "ca.pem"
        leaf = authority.issue(subjects, is_rsa=False, now=NOW)
        pair = directory / "leaf.pem"
        pair.write_bytes(leaf.key + leaf.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        self.clear = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.secure = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        # In the thread of the connection, so that a refused handshake ends nothing else.
        self.secure.socket = context.wrap_socket(
            self.secure.socket, server_side=True, do_handshake_on_connect=False
        )


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    made = Servers(tmp_path_factory.mktemp("web"))
    with contextlib.ExitStack() as stack:
        for server in (made.clear, made.secure):
            server.handle_error = lambda *_: None  # type: ignore[method-assign]
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        yield made


def client(
    resolver: StaticResolver | None = None, origin: Origin = Origin.OPERATOR, trusted: str = "any"
) -> HttpClient:
    own = OwnAddresses(follow_interfaces=False, extra=())
    gate = Gate(trusted=Networks((trusted,)), own=own, listening=frozenset)
    return HttpClient(gate, resolver or StaticResolver(), origin)


def fetch(url: str, **options: object) -> HttpResponse:
    made = client()
    return asyncio.run(made.fetch("GET", url, allows_clear=True, **options))  # type: ignore[arg-type]


def test_a_request_and_its_response(servers: Servers) -> None:
    url = f"http://127.0.0.1:{servers.clear.server_port}/a?{SECRET}#rest"
    response = fetch(url, headers={"X-Asked": "yes"})
    assert response.status == 200
    assert response.headers["x-kind"] == "page"
    text = response.body.decode()
    assert text.startswith(f"GET /a?{SECRET}\n")
    assert f"host: 127.0.0.1:{servers.clear.server_port}\n" in text.lower()
    assert "x-asked: yes" in text.lower()
    assert SECRET not in repr(response)


def test_a_body_goes_and_comes(servers: Servers) -> None:
    octets = bytes(range(256)) * 1_000
    url = f"https://127.0.0.1:{servers.secure.server_port}/"
    response = asyncio.run(client().fetch("POST", url, body=octets, ca=servers.ca))
    assert response.body == octets


def test_a_redirect_is_not_followed(servers: Servers) -> None:
    response = fetch(f"http://127.0.0.1:{servers.clear.server_port}/away")
    assert response.status == 302
    assert response.headers["location"] == "http://127.0.0.1:1/elsewhere"


def test_a_name_is_resolved_and_proven(servers: Servers) -> None:
    resolver = StaticResolver(
        {
            ("web.test", "A"): ["127.0.0.1"],
            ("web.test", "AAAA"): ["::1"],  # nobody answers there
            ("other.test", "A"): ["127.0.0.1"],
            ("empty.test", "TXT"): ["x"],
        },
        troubles={"down.test": Trouble.TIMEOUT},
    )
    made = client(resolver)
    port = servers.secure.server_port

    async def ask(name: str) -> HttpResponse:
        return await made.fetch("GET", f"https://{name}:{port}/?{SECRET}", ca=servers.ca)

    assert asyncio.run(ask("web.test")).status == 200
    with pytest.raises(HttpFailed, match="Hostname mismatch") as caught:
        asyncio.run(ask("other.test"))
    assert SECRET not in str(caught.value)
    with pytest.raises(HttpFailed, match=r"empty\.test has no address"):
        asyncio.run(ask("empty.test"))
    with pytest.raises(ResolverUnavailable, match="timeout"):
        asyncio.run(ask("down.test"))


def test_an_unknown_authority_vouches_for_nobody(servers: Servers) -> None:
    url = f"https://127.0.0.1:{servers.secure.server_port}/"
    with pytest.raises(HttpFailed, match="self-signed certificate in certificate chain"):
        asyncio.run(client().fetch("GET", url))


def test_clear_is_refused_unless_allowed(servers: Servers) -> None:
    with pytest.raises(ValueError, match="https://"):
        asyncio.run(client().fetch("GET", f"http://127.0.0.1:{servers.clear.server_port}/"))


def test_the_gate_is_asked_about_each_address(servers: Servers) -> None:
    resolver = StaticResolver({("web.test", "A"): ["127.0.0.1"]})
    made = client(resolver, Origin.STRANGER, "198.51.100.0/24")
    for host in ("127.0.0.1", "web.test"):
        url = f"http://{host}:{servers.clear.server_port}/"
        with pytest.raises(ConnectForbidden, match="loopback"):
            asyncio.run(made.fetch("GET", url, allows_clear=True))


def test_nobody_listens() -> None:
    with pytest.raises(HttpFailed, match="Connection refused"):
        fetch(f"http://127.0.0.1:{free_port()}/")


# Hostile servers.


@contextlib.contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that talks to one client: its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connected, _ = listening.accept()
            with connected, contextlib.suppress(OSError):
                connected.settimeout(20)
                connected.recv(65_536)
                talk(connected)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/token?{SECRET}"
        thread.join(20)
        assert not thread.is_alive()


def says(*pieces: bytes) -> Callable[[socket.socket], None]:
    def talk(connected: socket.socket) -> None:
        for piece in pieces:
            connected.sendall(piece)

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
HOSTILE = {
    "not HTTP": (b"220 mail.example ESMTP\r\n\r\n", "no HTTP response"),
    "cut head": (OK + b"X: ", "no HTTP response"),
    "cut body": (OK + b"Content-Length: 10\r\n\r\nabc", "no HTTP response"),
    "cut chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc", "no HTTP response"),
    "bad chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc", "no HTTP response"),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "no HTTP response"),
    "nothing": (b"", "no HTTP response"),
    "long line": (OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n", "no HTTP response"),
    "many fields": (OK + b"X: y\r\n" * 20_000 + b"\r\n", "no HTTP response"),
    "endless 1xx": (b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n" * 20_000, "has no end"),
    "big": (OK + b"\r\n" + b"x" * 5_000, "larger than 4096 bytes"),
    "big, announced": (OK + b"Content-Length: 5000\r\n\r\n" + b"x" * 5_000, "larger than"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_attack_69_a_hostile_server_is_an_error_in_words(name: str) -> None:
    octets, expected = HOSTILE[name]
    with peer(says(octets)) as url:
        with pytest.raises(HttpFailed, match=expected) as caught:
            fetch(url, limit_bytes=4_096)
        assert SECRET not in str(caught.value)
        assert str(caught.value).startswith("http://127.0.0.1:")
        assert isinstance(caught.value, ResponseTooBig) == ("larger" in expected)


def test_interim_responses_are_no_response() -> None:
    with peer(says(b"HTTP/1.1 103 Early\r\n\r\n", OK + b"\r\nbody")) as url:
        assert fetch(url).body == b"body"


def test_a_server_that_dawdles_is_given_up() -> None:
    def dawdle(connected: socket.socket) -> None:
        for _ in range(200):
            connected.sendall(b"x")
            time.sleep(0.05)

    def talk(connected: socket.socket) -> None:
        connected.sendall(OK + b"\r\n")
        dawdle(connected)

    with peer(talk) as url, pytest.raises(HttpFailed, match="no whole response in 1 s"):
        fetch(url, timeout_s=1.0)
