"""PROXY headers against a running hub: HAProxy before it, forged ones, and ones in pieces."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.haproxy import Front, HAProxy
from tests.support.hub import Hub
from tests.support.mail import fields_of, submit
from tests.support.netns import Namespace, joined_namespaces
from tests.support.ports import free_port
from tests.support.waiting import wait_until

V1 = b"PROXY TCP4 %b 198.51.100.1 40000 25\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2_LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
STRANGER, DEVICE = b"203.0.113.7", b"10.1.2.3"


def v2(client: str, local: str) -> bytes:
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    block = socket.inet_pton(family, client) + socket.inet_pton(family, local) + b"\x9c\x40\x00\x19"
    kind = b"\x21" if family is socket.AF_INET6 else b"\x11"
    return SIGNATURE + b"\x21" + kind + len(block).to_bytes(2, "big") + block


class ProxiedHub:
    """A hub that believes proxies on 127.0.0.1 and ::1, on a listener of each kind."""

    def __init__(self, directory: Path) -> None:
        self.ports = {name: free_port() for name in ("plain", "implicit", "open")}
        listeners = ""
        for name, more in (
            ("plain", 'proxy_protocol = ["127.0.0.1", "::1"]\n'),
            ("implicit", 'proxy_protocol = ["127.0.0.1", "::1"]\ntls = "implicit"\n'),
            ("open", ""),
        ):
            port = self.ports[name]
            listeners += (
                f'[[listener]]\nname = "{name}"\n{more}'
                f'bind = ["127.0.0.1:{port}", "[::1]:{port}"]\n'
            )
        self.hub = Hub(
            directory,
            'hostname = "hub.test"\n[networks]\naccept_from_strangers = true\n'
            '[limits]\ngreet_delay_s = 0\n[[mailbox]]\nname = "ann"\n',
            listener=listeners,
        )

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.hub.data / "tls" / "ca.pem")
        return context

    def connect(self, kind: str, host: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection((host, self.ports[kind]), timeout=20)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedHub]:
    running = ProxiedHub(tmp_path_factory.mktemp("proxied") / "hub")
    with running.hub:
        yield running
        assert " bug " not in running.hub.log_text()


def converse(connection: socket.socket, *lines: bytes) -> list[bytes]:
    """The last line of each reply, the greeting first."""
    with connection, connection.makefile("rb") as file:
        said = []
        for line in (b"", *lines):
            if line:
                connection.sendall(line + b"\r\n")
            reply = file.readline()
            while reply[3:4] == b"-":
                reply = file.readline()
            said.append(reply)
        return said


ENVELOPE = (b"EHLO c.example", b"MAIL FROM:<>", b"RCPT TO:<far@elsewhere.example>")


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("kind", ["plain", "implicit"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_haproxy(proxied: ProxiedHub, version: str, kind: str, host: str) -> None:
    """What counts is the client's address, not the proxy's."""
    address = f"[{host}]" if ":" in host else host
    front = Front(f"{address}:{free_port(host)}", f"{address}:{proxied.ports[kind]}", version)
    # The client comes from another address than the proxy where there is one.
    source = ("127.0.0.9", 0) if host == "127.0.0.1" else None
    user = f"ha-{version}-{kind}-{'six' if source is None else 'four'}"
    port = int(front.bind.rpartition(":")[2])
    with HAProxy([front]):
        if kind == "implicit":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                *(host, port, "client.test"),
                context=proxied.context(),
                source_address=source,
                timeout=20,
            )
        else:
            smtp = smtplib.SMTP(host, port, "client.test", source_address=source, timeout=20)
            smtp.starttls(context=proxied.context())
        with smtp:
            submit(smtp, f"{user}@[127.0.0.1]")
    (stored,) = proxied.hub.wait_for_mail(user)
    received = fields_of(stored, "received")[0]
    assert ("[127.0.0.9]" if source else "[IPv6:::1]") in received
    assert "(using TLSv1.3 with cipher TLS_" in received
    (entry,) = proxied.hub.json("trace", "--address", user)
    assert entry["client_ip"] == ("127.0.0.9" if source else "::1")
    assert entry["tls"].startswith("TLSv1.3 TLS_")


@pytest.mark.parametrize(
    ("header", "trusted"),
    [
        (V1 % DEVICE, True),
        (V1 % STRANGER, False),
        (v2("10.1.2.3", "10.1.2.1"), True),
        (v2("203.0.113.7", "198.51.100.1"), False),
        (v2("fd00::7", "fd00::1"), True),
        (v2("2001:db8::7", "2001:db8::1"), False),
        # Of these nothing is known, and what the proxy may do is not theirs.
        (b"PROXY UNKNOWN\r\n", False),
        (V2_LOCAL, False),
    ],
    ids=["v1", "v1-s", "v2", "v2-s", "v2-6", "v2-6-s", "unknown", "local"],
)
@pytest.mark.parametrize("pieces", [1, 1_000], ids=["at once", "octet by octet"])
def test_trust_is_the_clients(
    proxied: ProxiedHub, header: bytes, trusted: bool, pieces: int
) -> None:
    """A trusted client makes a mailbox by mailing it, a stranger does not."""
    connection = proxied.connect("plain")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if pieces == 1:
        connection.sendall(header)
    else:
        for octet in header:
            connection.sendall(bytes([octet]))
            time.sleep(0.001)
    said = converse(connection, *ENVELOPE[:2], b"RCPT TO:<new-box@[127.0.0.1]>")
    assert said[0].startswith(b"220 ")
    assert said[3].startswith(b"250 " if trusted else b"550 ")


def test_the_header_and_the_first_command_may_come_together(proxied: ProxiedHub) -> None:
    connection = proxied.connect("plain")
    connection.sendall(V1 % DEVICE + b"EHLO early.test\r\n")
    with connection, connection.makefile("rb") as file:
        assert file.readline().startswith(b"220 ")
        assert file.readline().startswith(b"250-")


def test_the_header_and_the_tls_hello_may_come_together(proxied: ProxiedHub) -> None:
    """Also where TLS does not come first but the client thinks so."""
    for kind in ("implicit", "plain"):
        to_hub, from_hub = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = proxied.context().wrap_bio(from_hub, to_hub, server_hostname="127.0.0.1")
        with proxied.connect(kind) as connection:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            connection.sendall(V1 % b"10.1.2.4" + to_hub.read())
            said = b""
            while not said:
                octets = connection.recv(65_536)
                assert octets
                from_hub.write(octets)
                try:
                    said = tls.read(100)
                except ssl.SSLWantReadError:
                    connection.sendall(to_hub.read())
            assert said.startswith(b"220 "), kind


@pytest.mark.parametrize("kind", ["plain", "implicit"])
@pytest.mark.parametrize(
    "octets",
    [b"EHLO x\r\n", b"\x16\x03\x01\x00", b"PROXY TCP4 1.2.3\r\n", b"PROXY " + b"x" * 200],
    ids=["smtp", "tls", "broken", "long"],
)
def test_a_proxy_has_to_send_its_header_first(
    proxied: ProxiedHub, kind: str, octets: bytes
) -> None:
    before = proxied.hub.log_text().count("proxy-refused")
    with proxied.connect(kind) as connection:
        connection.sendall(octets)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(100) == b""
    wait_until(
        lambda: proxied.hub.log_text().count("proxy-refused") == before + 1, proxied.hub.log_text
    )


def test_a_header_from_anybody_else_is_a_bad_command(proxied: ProxiedHub) -> None:
    """Neither where no proxy is named, nor from an address that is not one of those named."""
    with proxied.connect("open") as connection:
        said = converse(connection, (V1 % DEVICE).strip())
    assert [reply[:4] for reply in said] == [b"220 ", b"500 "]
    other = socket.create_connection(
        ("127.0.0.1", proxied.ports["plain"]), timeout=20, source_address=("127.0.0.8", 0)
    )
    said = converse(other, (V1 % STRANGER).strip(), *ENVELOPE[:2], b"RCPT TO:<self@[127.0.0.1]>")
    assert [reply[:4] for reply in said] == [b"220 ", b"500 ", b"250 ", b"250 ", b"250 "]


def test_the_address_connected_to_is_the_headers(proxied: ProxiedHub) -> None:
    connection = proxied.connect("plain")
    connection.sendall(V1 % DEVICE)
    said = converse(connection, *ENVELOPE[:2], b"RCPT TO:<there@[198.51.100.1]>", b"DATA", b".")
    assert said[-1].startswith(b"250 ")
    (stored,) = proxied.hub.wait_for_mail("there")
    assert "[10.1.2.3]" in fields_of(stored, "received")[0]


def test_limits_count_the_clients_behind_a_proxy(proxied: ProxiedHub) -> None:
    with contextlib.ExitStack() as crowd:
        for number in range(51):
            connection = crowd.enter_context(proxied.connect("plain"))
            connection.sendall(V1 % b"203.0.113.99")
            said = connection.makefile("rb").readline()
            assert said.startswith(b"220 " if number < 50 else b"421 4.7.0 "), number
        other = proxied.connect("plain")
        other.sendall(V1 % b"203.0.113.98")
        assert converse(other)[0].startswith(b"220 ")


def test_haproxys_own_checks_succeed(tmp_path: Path, hosts: tuple[Namespace, Namespace]) -> None:
    """It says LOCAL, and must not wait as a stranger has to."""
    hub_host, proxy_host = hosts
    listener = (
        '[[listener]]\nname = "smtp"\nbind = ["10.9.0.1:25"]\nproxy_protocol = ["10.9.0.2"]\n'
    )
    config = "[networks]\ntrusted = []\n[limits]\ngreet_delay_s = 10\n"
    options = "send-proxy-v2 check check-send-proxy inter 200ms"
    front = Front("10.9.0.2:25", "10.9.0.1:25", f"{options}\n  option smtpchk EHLO check.test")
    with (
        Hub(tmp_path, config, listener=listener, namespace=hub_host.name) as hub,
        HAProxy([front], namespace=proxy_host.name),
    ):
        with proxy_host.entered():
            time.sleep(1.5)  # some checks have been made by then
            client = socket.create_connection(("10.9.0.2", 25), timeout=30)
        # Its client is a stranger and has to wait; but there is a server, so it is not cut off.
        assert converse(client)[0].startswith(b"220 ")
        assert "proxy-refused" not in hub.log_text()


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    with joined_namespaces(("10.9.0.1/24",), ("10.9.0.2/24",)) as namespaces:
        yield namespaces
