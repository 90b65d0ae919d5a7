"""Before a session begins: TLS hellos on plain ports, early talkers, limits by client, gateways."""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub import Hub
from tests.support.mail import fields_of, submit
from tests.support.netns import Namespace, joined_namespaces
from tests.support.waiting import wait_until

from .conftest import StartHub

STRANGER, DEVICE = "203.0.113.7", "10.9.0.2"
DELAY_S = 1.5
PORTS = {"smtp": 25, "off": 26, "submission": 587, "implicit": 465}
# Stranger after stranger, so that no test meets the habits of another one's.
CROWD = [f"203.0.113.{host}" for host in range(100, 140)]
CROWD_6 = [f"2001:db8::{host}" for host in range(7, 12)]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """The hub's host, and that of strangers and a device."""
    with joined_namespaces(
        ("203.0.113.1/24", "10.9.0.1/24", "2001:db8::1/64"),
        (f"{STRANGER}/24", f"{DEVICE}/24", "10.9.0.3/24", "10.9.0.4/24"),
    ) as namespaces:
        for address in CROWD:
            namespaces[1].add_address(f"{address}/24")
        for address in CROWD_6:
            namespaces[1].add_address(f"{address}/64")
        yield namespaces


@pytest.fixture(scope="module")
def hub(
    hosts: tuple[Namespace, Namespace], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hub]:
    listeners = ""
    for name, more in (
        ("smtp", ""),
        ("off", 'tls = "off"\n'),
        ("submission", 'role = "submission"\n'),
        ("implicit", 'tls = "implicit"\n'),
    ):
        port = PORTS[name]
        listeners += f'[[listener]]\nname = "{name}"\nbind = ["0.0.0.0:{port}", "[::]:{port}"]\n'
        listeners += more
    config = (
        "[networks]\naccept_from_strangers = true\n"
        f"[limits]\ngreet_delay_s = {DELAY_S}\nconnections_per_client = 5\n"
        "messages_per_minute = 3\nrecipients_per_minute = 6\n"
        '[[mailbox]]\nname = "ann"\n'
    )
    with Hub(
        tmp_path_factory.mktemp("doorway") / "hub",
        config,
        listener=listeners,
        namespace=hosts[0].name,
    ) as running:
        yield running
        assert " bug " not in running.log_text()


@pytest.fixture
def stranger() -> str:
    """One that has never been here."""
    return CROWD.pop()


class Clients:
    """Connections from the second host."""

    def __init__(self, host: Namespace) -> None:
        self._host = host

    def connect(self, listener: str, source: str) -> socket.socket:
        to = "2001:db8::1" if ":" in source else "10.9.0.1" if source[:3] == "10." else None
        with self._host.entered():
            return socket.create_connection(
                (to or "203.0.113.1", PORTS[listener]), timeout=20, source_address=(source, 0)
            )


@pytest.fixture
def clients(hosts: tuple[Namespace, Namespace]) -> Clients:
    return Clients(hosts[1])


def line_of(connection: socket.socket) -> bytes:
    """The next line, and nothing behind it is read."""
    line = b""
    while not line.endswith(b"\n") and (octet := connection.recv(1)):
        line += octet
    return line


def say(connection: socket.socket, line: bytes) -> bytes:
    connection.sendall(line + b"\r\n")
    while (reply := line_of(connection))[3:4] == b"-":
        pass
    return reply


def secured(connection: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


# A TLS hello on a plain port.


@pytest.mark.parametrize("listener", ["smtp", "submission"])
def test_a_tls_hello_on_a_plain_port_is_served(hub: Hub, clients: Clients, listener: str) -> None:
    """By foreign software: smtplib waits for the greeting, inside TLS."""
    for number in range(3):
        with secured(clients.connect(listener, DEVICE)) as tls, smtplib.SMTP() as smtp:
            smtp.sock = tls
            assert smtp.getreply()[0] == 220
            smtp.ehlo("device.test")
            assert not smtp.has_extn("starttls")
            submit(smtp, f"hello-{listener}-{number}@[10.9.0.1]")
        (stored,) = hub.wait_for_mail(f"hello-{listener}-{number}")
        received = fields_of(stored, "received")[0]
        assert re.search(r"\(using TLSv1\.3 with cipher TLS_\w+\)\s+by .* with ESMTPS id", received)


def test_the_trace_says_what_was_negotiated(hub: Hub, clients: Clients) -> None:
    with secured(clients.connect("implicit", DEVICE)) as tls, smtplib.SMTP() as smtp:
        smtp.sock = tls
        smtp.getreply()
        submit(smtp, "traced@[10.9.0.1]")
    hub.wait_for_mail("traced")
    (entry,) = hub.json("trace", "--address", "traced")
    assert re.fullmatch(r"TLSv1\.3 TLS_\w+", entry["tls"])
    assert entry["tls"] in hub.run("trace", "--address", "traced").stdout.decode()


def test_a_client_known_to_speak_plain_is_answered_at_once_and_may_learn_tls(
    hub: Hub, clients: Clients
) -> None:
    device = "10.9.0.3"
    with clients.connect("smtp", device) as connection:
        assert line_of(connection).startswith(b"220 ")
    # Now it wants TLS, behind the greeting: that fails, once.
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(clients.connect("smtp", device))
        with pytest.raises(ssl.SSLError):
            stack.enter_context(secured(connection))
    wait_until(lambda: f"tls-hello client={device}" in hub.log_text(), hub.log_text)
    with secured(clients.connect("smtp", device)) as tls:
        assert line_of(tls).startswith(b"220 ")
    # And it can still speak plain.
    for _ in range(2):
        with clients.connect("smtp", device) as connection:
            assert line_of(connection).startswith(b"220 ")


def test_where_tls_is_off_a_hello_ends_the_connection_and_the_log_says_why(
    hub: Hub, clients: Clients, stranger: str
) -> None:
    for source in (DEVICE, stranger):
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(clients.connect("off", source))
            with pytest.raises((ssl.SSLError, ConnectionError)):
                stack.enter_context(secured(connection))
        hub.wait_for_log(f"tls-hello client={source} listener=off")
    assert "set the device to no TLS" in hub.log_text()


def test_a_trusted_client_may_speak_before_the_greeting(hub: Hub, clients: Clients) -> None:
    with clients.connect("smtp", "10.9.0.4") as connection:
        connection.sendall(b"EHLO device.test\r\nMAIL FROM:<>\r\n")
        assert line_of(connection).startswith(b"220 ")
        assert line_of(connection).startswith(b"250-")


def test_a_failed_handshake_says_what_was_offered(hub: Hub, clients: Clients) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA256")  # which the hub does not know
    for listener in ("implicit", "smtp"):
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(clients.connect(listener, DEVICE))
            with pytest.raises(ssl.SSLError):
                stack.enter_context(context.wrap_socket(connection))
        hub.wait_for_log(f"tls-failed client={DEVICE} listener={listener}")
    lines = [line for line in hub.log_text().splitlines() if "tls-failed" in line]
    assert len(lines) == 2
    assert all(line.endswith('offered="up to 1.2"') for line in lines)


@pytest.mark.parametrize("listener", ["implicit", "smtp", "STARTTLS"])
def test_what_is_too_old_is_told_what_would_help(hub: Hub, clients: Clients, listener: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    before = hub.log_text().count("tls-failed")
    with contextlib.ExitStack() as stack:
        place = "implicit" if listener == "implicit" else "smtp"
        connection = stack.enter_context(clients.connect(place, DEVICE))
        if listener == "STARTTLS":
            line_of(connection)
            assert say(connection, b"STARTTLS").startswith(b"220 ")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            stack.enter_context(context.wrap_socket(connection))
    wait_until(lambda: hub.log_text().count("tls-failed") > before)
    lines = [line for line in hub.log_text().splitlines() if "tls-failed" in line]
    assert len(lines) == before + 1
    assert lines[-1].endswith('offered="up to 1.0"')
    said = hub.run("device", "show", DEVICE, "--dialogue").stdout.decode()
    assert "the client offers TLS up to 1.0; a listener with tls_profile" in said


@pytest.mark.parametrize("who", ["the client", "the hub"])
def test_who_goes_before_the_handshake_leaves_nothing(start_hub: StartHub, who: str) -> None:
    hub = start_hub()
    with socket.create_connection(("127.0.0.1", hub.port), timeout=20) as connection:
        line_of(connection)
        assert say(connection, b"STARTTLS").startswith(b"220 ")
        if who == "the hub":
            hub.stop()
            assert connection.recv(1) == b""
    hub.wait_for_log("tls-failed client=127.0.0.1")
    assert " bug " not in hub.log_text()


# Strangers' first words.


@pytest.mark.parametrize("listener", ["smtp", "implicit"])
def test_a_stranger_waits_for_its_greeting_once(
    hub: Hub, clients: Clients, stranger: str, listener: str
) -> None:
    took_s = []
    for _ in range(2):
        connection = clients.connect(listener, stranger)
        with secured(connection) if listener == "implicit" else connection as open_one:
            began_at = time.monotonic()
            assert line_of(open_one).startswith(b"220 ")
            took_s.append(time.monotonic() - began_at)
    assert took_s[0] > DELAY_S - 0.2
    assert took_s[1] < took_s[0] / 2


def test_a_trusted_client_does_not_wait_so_long(hub: Hub, clients: Clients) -> None:
    for listener in ("smtp", "submission", "off"):
        began_at = time.monotonic()
        with clients.connect(listener, DEVICE) as connection:
            assert line_of(connection).startswith(b"220 ")
        assert time.monotonic() - began_at < DELAY_S


@pytest.mark.parametrize("listener", ["smtp", "implicit"])
def test_attack_15_a_stranger_that_speaks_first_is_sent_away(
    hub: Hub, clients: Clients, stranger: str, listener: str
) -> None:
    for _ in range(3):
        connection = clients.connect(listener, stranger)
        with secured(connection) if listener == "implicit" else connection as open_one:
            open_one.sendall(b"EHLO spam.example\r\nMAIL FROM:<>\r\n")
            assert line_of(open_one).startswith(b"554 5.5.1 You spoke before the greeting")
            assert open_one.recv(100) == b""
    hub.wait_for_log(f"client={stranger} ")
    lines = [line for line in hub.log_text().splitlines() if f"client={stranger} " in line]
    assert len(lines) == 1
    assert "turned-away" in lines[0]


def test_a_stranger_with_a_hello_gets_tls_and_then_has_to_wait(
    hub: Hub, clients: Clients, stranger: str
) -> None:
    began_at = time.monotonic()
    with secured(clients.connect("smtp", stranger)) as tls:
        assert line_of(tls).startswith(b"220 ")
    assert time.monotonic() - began_at > DELAY_S - 0.2


def test_attack_16_a_stranger_that_goes_on_too_soon_is_sent_away(
    hub: Hub, clients: Clients, stranger: str
) -> None:
    with clients.connect("smtp", stranger) as connection:
        line_of(connection)
        assert say(connection, b"HELO x").startswith(b"250 ")
        assert say(connection, b"MAIL FROM:<>\r\nRCPT TO:<ann@[10.9.0.1]>").startswith(
            b"554 5.5.1 You went on"
        )
        assert connection.recv(100) == b""
    wait_until(lambda: re.search(f"turned-away client={stranger} .*You went on", hub.log_text()))
    with clients.connect("smtp", DEVICE) as connection:
        line_of(connection)
        assert say(connection, b"HELO x").startswith(b"250 ")
        assert say(connection, b"MAIL FROM:<>\r\nRCPT TO:<ann@[10.9.0.1]>").startswith(b"250 ")


# Limits by client.


@pytest.mark.parametrize("sources", [CROWD[:1] * 6, [*CROWD_6, CROWD_6[0]]], ids=["v4", "v6-64"])
def test_attack_60_connections_of_one_stranger(
    hub: Hub, clients: Clients, sources: list[str]
) -> None:
    """Of each listener they count together, and a /64 is one client."""
    with contextlib.ExitStack() as crowd:
        for source in sources[:4]:
            line_of(crowd.enter_context(clients.connect("smtp", source)))
        crowd.enter_context(secured(clients.connect("implicit", sources[4])))
        refused = crowd.enter_context(clients.connect("smtp", sources[5]))
        assert line_of(refused).startswith(b"421 4.7.0 Too many connections from your address")
        assert refused.recv(100) == b""
        refused = crowd.enter_context(clients.connect("implicit", sources[5]))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            crowd.enter_context(secured(refused))
        # Others do not notice.
        for source in (DEVICE, STRANGER):
            assert line_of(crowd.enter_context(clients.connect("smtp", source)))[:3] == b"220"
        # Trusted clients are not counted.
        for _ in range(20):
            assert line_of(crowd.enter_context(clients.connect("smtp", DEVICE)))[:3] == b"220"

    def is_let_in() -> bool:
        with clients.connect("smtp", sources[0]) as connection:
            return line_of(connection).startswith(b"220 ")

    wait_until(is_let_in)


def test_messages_and_recipients_of_one_stranger(hub: Hub, clients: Clients, stranger: str) -> None:
    for source, limited in ((stranger, True), (DEVICE, False)):
        with clients.connect("smtp", source) as connection:
            line_of(connection)
            say(connection, b"EHLO client.test")
            said = []
            for _ in range(4):
                said.append(say(connection, b"MAIL FROM:<>"))
                say(connection, b"RSET")
            assert all(reply[:4] == b"250 " for reply in said[:3])
            assert said[3].startswith(b"450 4.7.1 Too many messages" if limited else b"250 ")
    other = CROWD.pop()
    with clients.connect("smtp", other) as connection:
        line_of(connection)
        say(connection, b"EHLO client.test")
        say(connection, b"MAIL FROM:<>")
        said = [say(connection, b"RCPT TO:<ann@[203.0.113.1]>") for _ in range(7)]
    assert all(reply[:4] == b"250 " for reply in said[:6])
    assert said[6].startswith(b"450 4.7.1 Too many recipients")


# In a container.


def contained(*, podman: bool = True) -> tuple[str, ...]:
    """A prefix that has a command find itself in a container."""
    mark = "mount -t tmpfs none /run && touch /run/.containerenv && " if podman else ""
    return ("unshare", "-m", "sh", "-c", f'{mark}exec "$@"', "sh")


@pytest.fixture
def behind_gateway(hosts: tuple[Namespace, Namespace]) -> Iterator[tuple[Namespace, Namespace]]:
    """The hub's host with a default gateway, which clients from anywhere hide behind."""
    with joined_namespaces(
        ("172.30.0.2/24", "fd00:30::2/64"), ("172.30.0.1/24", "172.30.0.9/24", "fd00:30::1/64")
    ) as namespaces:
        namespaces[0].run("ip", "route", "add", "default", "via", "172.30.0.1")
        namespaces[0].run("ip", "-6", "route", "add", "default", "via", "fd00:30::1")
        yield namespaces


LISTENER = '[[listener]]\nname = "smtp"\nbind = ["0.0.0.0:25", "[::]:25"]\n'


class ContainedHub(Hub):
    """A hub that finds itself in a container, and its namespace before that."""

    def command(self, *arguments: str) -> list[str]:
        words = super().command(*arguments)
        inside, words = words[:4], words[4:]  # /run/netns is out of sight in the container
        return [*inside, *contained(), *words]


@pytest.mark.parametrize("trust_gateway", [False, True])
def test_a_gateway_is_not_trusted(
    behind_gateway: tuple[Namespace, Namespace], tmp_path: Path, trust_gateway: bool
) -> None:
    """Others of its network are."""
    config = "[networks]\ntrust_gateway = true\n" if trust_gateway else ""
    hub_host, outside = behind_gateway
    with ContainedHub(
        tmp_path,
        config + "[limits]\ngreet_delay_s = 0\n",
        listener=LISTENER,
        port=25,
        namespace=hub_host.name,
    ) as hub:
        for source, to in (
            ("172.30.0.1", "172.30.0.2"),
            ("fd00:30::1", "fd00:30::2"),
            ("172.30.0.9", "172.30.0.2"),
        ):
            with outside.entered():
                connection = socket.create_connection((to, 25), 20, (source, 0))
            with connection:
                line_of(connection)
                say(connection, b"EHLO c.test")
                say(connection, b"MAIL FROM:<>")
                reply = say(connection, b"RCPT TO:<x@[172.30.0.77]>")
            is_trusted = trust_gateway or source == "172.30.0.9"
            assert reply.startswith(b"250 " if is_trusted else b"550 5.7.1"), (source, reply)
        assert hub.log_text().count("gateway-not-trusted") == (0 if trust_gateway else 2)


@pytest.mark.parametrize("gateway", ["172.30.0.1", "172.30.0.1/32", "fd00:30::1"])
def test_to_trust_a_gateway_alone_is_refused_at_start(
    behind_gateway: tuple[Namespace, Namespace], tmp_path: Path, gateway: str
) -> None:
    hub = ContainedHub(
        *(tmp_path, f'[networks]\ntrusted = ["{gateway}"]\n'),
        listener=LISTENER,
        namespace=behind_gateway[0].name,
    )
    done = hub.run("serve")
    assert done.returncode == 2
    said = done.stderr.decode()
    assert "container's gateway" in said
    assert "open relay" in said
    assert "waypost.toml:3" in said
