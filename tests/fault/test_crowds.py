"""Clients that take their time, and crowds of them: strangers are cut off, others go on."""

from __future__ import annotations

import contextlib
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.hub import Hub
from tests.support.ports import free_port
from tests.support.waiting import wait_until

Say = Callable[[str], None]

STRANGER, DEVICE = "127.0.0.3", "127.0.0.2"
BOX = '[[mailbox]]\nname = "ann"\n'
TRUST = f'[networks]\ntrusted = ["{DEVICE}"]\naccept_from_strangers = true\n'

# Times as short as a test needs them; the order of their lengths is as in the source.
HASTY = """
import sys
from waypost.intake import session, smtp_listener
smtp_listener.SWEEP_S = 0.1
session.WITHOUT_MAIL_S = 4.5
session.PACE_AFTER_S = 1.0
session.STRESSED_IDLE_S = 3.0
session.IDLE_S = {idle_s}
from waypost.cli import main
sys.exit(main())
"""


class HastyHub(Hub):
    """A hub whose clients have less time."""

    idle_s = 60.0

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", HASTY.format(idle_s=self.idle_s), *arguments]


class Client:
    """One connection, from an address of its own."""

    def __init__(self, hub: Hub, source: str, first: bytes = b"") -> None:
        self.socket = socket.create_connection(
            (hub.host, hub.port), timeout=30, source_address=(source, 0)
        )
        if first:
            self.socket.sendall(first)
        self.greeting = self.line()

    def line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (octet := self.socket.recv(1)):
            line += octet
        return line

    def say(self, line: bytes) -> bytes:
        """The last line of the reply."""
        self.socket.sendall(line + b"\r\n")
        while (reply := self.line())[3:4] == b"-":
            pass
        return reply

    def begin_content(self) -> None:
        self.say(b"EHLO client.test")
        self.say(b"MAIL FROM:<>")
        self.say(b"RCPT TO:<ann@[127.0.0.1]>")
        assert self.say(b"DATA").startswith(b"354")

    def drip(self, octet: bytes, limit_s: float) -> bytes:
        """Send an octet now and then until the hub says something; that, or nothing."""
        ends_at = time.monotonic() + limit_s
        self.socket.settimeout(0.1)
        while time.monotonic() < ends_at:
            with contextlib.suppress(OSError):
                self.socket.sendall(octet)
            with contextlib.suppress(TimeoutError):
                return self.line()
        self.socket.settimeout(30)
        return b""

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def crowd() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def arrive(crowd: contextlib.ExitStack, hub: Hub, source: str, first: bytes = b"") -> Client:
    return crowd.enter_context(contextlib.closing(Client(hub, source, first)))


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[HastyHub]:
    config = f"{TRUST}[limits]\ngreet_delay_s = 0\n{BOX}"
    with HastyHub(tmp_path / "hub", config) as hub:
        yield hub
        assert " bug " not in hub.log_text()


def test_attack_59_a_stranger_that_brings_no_mail_is_cut_off(
    hasty: HastyHub, crowd: contextlib.ExitStack
) -> None:
    """An octet of a command now and then keeps it awake, and does not help."""
    device, stranger = (arrive(crowd, hasty, source) for source in (DEVICE, STRANGER))
    assert stranger.drip(b"N", 20).startswith(b"421 4.4.2 A session without mail for too long")
    assert stranger.socket.recv(1) == b""
    assert device.drip(b"N", 2.0) == b""


def test_a_stranger_that_brings_mail_may_stay(hasty: HastyHub, crowd: contextlib.ExitStack) -> None:
    stranger = arrive(crowd, hasty, STRANGER)
    for _ in range(4):
        stranger.begin_content()
        assert stranger.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        time.sleep(0.8)
    assert stranger.say(b"NOOP").startswith(b"250 ")


def test_attack_59_content_of_a_stranger_has_to_come_at_some_pace(
    hasty: HastyHub, crowd: contextlib.ExitStack
) -> None:
    device, slow = (arrive(crowd, hasty, source) for source in (DEVICE, STRANGER))
    device.begin_content()
    slow.begin_content()
    assert slow.drip(b"x", 20).startswith(b"421 4.4.2 The content comes too slowly")
    assert device.drip(b"x", 2.0) == b""
    # Ten times a second a few hundred octets are enough.
    steady = arrive(crowd, hasty, STRANGER)
    steady.begin_content()
    assert steady.drip(b"Subject: x\r\n" * 20, 3.0) == b""
    assert steady.say(b"\r\n\r\n.").startswith(b"250 ")
    assert device.say(b"\r\n\r\n.").startswith(b"250 ")


def test_a_listener_keeps_room_for_trusted_clients_and_hurries_strangers(
    tmp_path: Path, crowd: contextlib.ExitStack
) -> None:
    limits = "[limits]\ngreet_delay_s = 0\nconnections = 20\n"
    with HastyHub(tmp_path / "hub", TRUST + limits + BOX) as hub:
        devices = [arrive(crowd, hub, DEVICE) for _ in range(8)]
        strangers = [arrive(crowd, hub, STRANGER) for _ in range(10)]
        assert {client.greeting[:3] for client in devices + strangers} == {b"220"}
        # Nine in ten are there, and strangers have had their share.
        assert arrive(crowd, hub, STRANGER).greeting.startswith(b"421 4.3.2")
        assert arrive(crowd, hub, DEVICE).greeting.startswith(b"220")
        assert arrive(crowd, hub, DEVICE).greeting.startswith(b"220")
        for stranger in strangers:
            assert stranger.line().startswith(b"421 4.4.2 Idle too long")
        assert all(device.say(b"NOOP").startswith(b"250") for device in devices)


def test_everybody_is_cut_off_when_idle_for_too_long(
    tmp_path: Path, crowd: contextlib.ExitStack
) -> None:
    hub = HastyHub(tmp_path / "hub", f"{TRUST}[limits]\ngreet_delay_s = 0\n")
    hub.idle_s = 1.0
    with hub:
        for source in (DEVICE, STRANGER):
            assert arrive(crowd, hub, source).line().startswith(b"421 4.4.2 Idle too long")


# Crowds.

COUNT = 5_000


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, COUNT + 1_000), max(hard, COUNT + 1_000)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def proxy(number: int) -> bytes:
    return b"PROXY TCP4 203.0.%d.%d 198.51.100.1 1 25\r\n" % divmod(number, 250)


def resident_bytes(hub: Hub) -> int:
    return int(psutil.Process(hub.pid).memory_info().rss)


@pytest.mark.usefixtures("many_files")
def test_attack_60_five_thousand_idle_connections(
    tmp_path: Path, crowd: contextlib.ExitStack, say: Say
) -> None:
    """From one stranger most are refused, from many they cost little; others are served."""
    port_listener = (
        '[[listener]]\nname = "smtp"\nbind = ["127.0.0.1:{port}"]\nproxy_protocol = ["127.0.0.9"]\n'
    )
    limits = f"[limits]\ngreet_delay_s = 0\nconnections_per_minute = {COUNT}\n"
    port = free_port()
    with Hub(
        tmp_path / "hub",
        TRUST + limits + BOX,
        port=port,
        listener=port_listener.format(port=port),
    ) as hub:
        for source in (STRANGER, DEVICE):
            arrive(crowd, hub, source).close()
        refused = 0
        for _ in range(COUNT):
            client = Client(hub, STRANGER)
            if client.greeting.startswith(b"421 4.7.0"):
                refused += 1
                client.close()
            else:
                crowd.callback(client.close)
        assert refused == COUNT - 50
        lines = [line for line in hub.log_text().splitlines() if "turned-away" in line]
        assert len(lines) <= 3  # one, and a sum for each minute
        before = resident_bytes(hub)
        for number in range(COUNT):
            client = arrive(crowd, hub, "127.0.0.9", proxy(number // 50))
            assert client.greeting.startswith(b"220"), (number, client.greeting)
        each = (resident_bytes(hub) - before) / COUNT
        began_at = time.monotonic()
        for source in (DEVICE, "127.0.0.7"):
            client = arrive(crowd, hub, source)
            client.begin_content()
            assert client.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        took_s = time.monotonic() - began_at
        say(f"{COUNT} idle strangers: {each:,.0f} bytes each; two honest mails in {took_s:.3f} s")
        assert each < 16_384


@pytest.mark.usefixtures("many_files")
def test_a_flood_leaves_nothing_behind(tmp_path: Path, say: Say) -> None:
    """Connections that come and go, many of them held back, from a thousand strangers."""
    port = free_port()
    listener = (
        f'[[listener]]\nname = "smtp"\nbind = ["127.0.0.1:{port}"]\n'
        'proxy_protocol = ["127.0.0.9"]\n'
    )
    with Hub(
        tmp_path / "hub", f"{TRUST}[limits]\ngreet_delay_s = 1\n{BOX}", port=port, listener=listener
    ) as hub:

        def flood(count: int) -> None:
            for number in range(count):
                with socket.create_connection(
                    (hub.host, port), timeout=30, source_address=("127.0.0.9", 0)
                ) as client:
                    client.sendall(proxy(number % 1_000))
                    if number % 3 == 0:
                        client.sendall(b"EHLO spam.example\r\n")

        def files() -> int:
            return psutil.Process(hub.pid).num_fds()

        there = files()
        # How many are there at once, the machine decides: memory for those is found in the first
        # rounds. What each of them left behind would come on top in every round.
        grown: list[int] = []
        before = 0
        for _ in range(5):
            flood(6_000)
            wait_until(lambda: files() <= there + 1, hub.log_text)
            grown.append(resident_bytes(hub) - before)
            before = resident_bytes(hub)
            if grown[-1] < 6_000_000:
                break
        say(f"rounds of 6,000 connections grew the hub by {grown[1:]} bytes")
        assert grown[-1] < 6_000_000
        client = Client(hub, DEVICE)
        client.begin_content()
        assert client.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        client.close()
        assert " bug " not in hub.log_text()
