"""Attacks 52, 75 and 77: next hosts that talk too much, and names that lead nowhere good."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.attacks.talk import greeted
from tests.attacks.world import OWN, ZONE, World, hexed
from tests.support.hub import Hub
from tests.support.mail import message, stuffed
from tests.support.toml import retry, route
from tests.support.waiting import wait_until
from waypost.queue.history import History

CONTENT = stuffed(message())
GREETING = b"220 peer.test ESMTP\r\n"
EHLO = b"250-peer.test\r\n250 PIPELINING\r\n"
TALK = [GREETING, EHLO, b"250 ok\r\n250 ok\r\n354 go on\r\n", b"250 taken\r\n"]


class Peer:
    """A server that says what it is told, a piece after each time it has heard something."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.heard: list[bytes] = []
        self.sent_bytes = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    @contextlib.contextmanager
    def running(self) -> Iterator[Peer]:
        """Talk to whoever comes, one after the other."""
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield self
        finally:
            self._listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            connected.settimeout(1)
            with connected, contextlib.suppress(OSError):
                self._talk(connected)

    def _talk(self, connected: socket.socket) -> None:
        for piece in self.pieces:
            for start in range(0, len(piece), 65_536):
                self.sent_bytes += connected.send(piece[start : start + 65_536])
            heard = connected.recv(65_536)
            self.heard.append(heard)
            if not heard:
                return


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer().running() as running:
        yield running


@pytest.fixture(scope="module")
def relay(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """It sends to the peer, and soon gives up."""
    config = retry(0.3, max_s=0.3, warn_after_s=0.5, give_up_after_s=1)
    config += route(f"smtp:[127.0.0.1]:{peer.port}", match='recipient = "*@far.example"')
    with Hub(tmp_path_factory.mktemp("peers"), config) as running:
        yield running


def submit(hub: Hub, recipient: str, sender: str) -> None:
    """Hand a message over."""
    with greeted(hub.host, hub.port) as talk:
        assert talk.begin(recipient, sender=sender)[0].startswith("250")
        assert talk.content(CONTENT).startswith("250")


ENDLESS = b"250-x\r\n" * 2_000_000
BAD = {
    "endless greeting": [b"220-x\r\n" * 2_000_000],
    "endless EHLO": [GREETING, ENDLESS],
    "endless reply": [GREETING, EHLO, ENDLESS],
    "endless answer to the content": [*TALK[:3], ENDLESS],
    "line of a megabyte": [b"220 " + b"x" * 1_000_000 + b"\r\n"],
    "line of a megabyte without end": [GREETING, b"250 " + b"x" * 16_000_000],
    "no code": [b"hello\r\n"],
    "wrong code": [GREETING, b"354 go on\r\n"],
    "a code of none": [GREETING, b"999 x\r\n"],
    "two codes": [GREETING, b"250-x\r\n550 y\r\n"],
    "354 to MAIL": [GREETING, EHLO, b"354 now\r\n"],
    "250 to DATA": [GREETING, EHLO, b"250 ok\r\n250 ok\r\n250 ok\r\n"],
    "reply before the command": [GREETING, EHLO + b"250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"],
    "acceptance before the content": [GREETING, EHLO, TALK[2] + b"250 taken\r\n"],
    "NULs": [b"\0" * 100_000],
}


@pytest.mark.parametrize("name", BAD)
def test_attack_77_replies_out_of_hand(relay: Hub, peer: Peer, name: str) -> None:
    """The session is dropped soon, the mail waits, and nothing grows."""
    peer.pieces, peer.heard, peer.sent_bytes = BAD[name], [], 0
    sender = f"ann-{name.replace(' ', '-')}"
    submit(relay, "bob@far.example", f"{sender}@[127.0.0.1]")
    (report,) = relay.wait_for_mail(sender.lower(), 2)[:1]
    # It has been waiting: a fault of the next host is not the sender's.
    assert b"Action: delayed" in report
    assert len(report) < 8_000
    wait_until(lambda: not History(relay.data).counts())
    if not any(b"354 " in piece for piece in BAD[name]):
        assert not any(b"Hello." in heard for heard in peer.heard), "content nobody asked for"
    # What it would have sent, it could not: 32 KiB are read, and what the system buffers.
    assert peer.sent_bytes < 24_000_000


SERVICES = [
    b"SSH-2.0-OpenSSH_9.2p1 inside.secret\r\n",
    b"-ERR wrong number of arguments, inside.secret\r\n",
    b"HTTP/1.1 400 Bad Request\r\nServer: inside.secret\r\n\r\n",
    b"\x00\x00\x00\x1ainside.secret\n",
    b"+OK inside.secret ready\r\n",
]


@pytest.mark.parametrize("banner", SERVICES)
def test_attack_52_what_other_services_say_is_not_told(
    relay: Hub, peer: Peer, banner: bytes
) -> None:
    """Or mail to a literal would read any banner of the inside."""
    peer.pieces = [banner]
    sender = f"reader-{SERVICES.index(banner)}"
    submit(relay, "bob@far.example", f"{sender}@[127.0.0.1]")
    for report in relay.wait_for_mail(sender, 2):
        assert b"out of step" in report
        assert b"secret" not in report


def test_attack_52_what_the_gate_refuses_is_not_explained(world: World, hub: Hub) -> None:
    """A report about a name that leads inside says nothing of where."""
    with world.trusted() as talk:
        name = f"tell-{hexed(ip_address('169.254.169.254'))}.a.{ZONE}"
        assert talk.begin(f"x@{name}", sender="curious@plant.example")[0].startswith("250")
        assert talk.content(CONTENT).startswith("250")
    (report,) = hub.wait_for_mail("curious")
    assert b"Action: failed" in report
    assert b"169.254" not in report
    assert b"link-local" not in report


# Attack 75.


def test_attack_75_names_that_go_in_circles(world: World, hub: Hub) -> None:
    """Aliases of each other, and of themselves: they come to an end, and nobody is connected to."""
    with world.namespace.watched() as attempts:
        with world.trusted() as talk:
            for form in ("loop", "self", "mxloop"):
                assert talk.begin(f"x@one.{form}.{ZONE}")[0].startswith("250")
                assert talk.content(CONTENT).startswith("250")
            for form in ("loop", "self", "mxloop"):
                hub.wait_for_log(f"to=x@one.{form}.{ZONE} target=direct outcome=deferred")
        assert hub.run("queue", "cancel", "--all").returncode == 0
    questions = sum(attempt.endswith(":53") for attempt in attempts)
    assert questions < 200
    assert not any(attempt.endswith(":25") for attempt in attempts)


def test_attack_75_a_hundred_exchanges(world: World, hub: Hub) -> None:
    """So many are looked up and tried as any honest domain has, and no more."""
    with world.watched(hub) as connections, world.trusted() as talk:
        assert talk.begin(f"x@one.hundred.{ZONE}")[0].startswith("250")
        assert talk.content(CONTENT).startswith("250")
    assert 2 <= len(connections) <= 20


def test_attack_75_no_mail_wanted(world: World, hub: Hub) -> None:
    """A null MX (RFC 7505): 5.1.10, though there is an address."""
    with world.watched(hub) as connections, world.trusted() as talk:
        sender = "nullmx@plant.example"
        assert talk.begin(f"x@one.null.{ZONE}", sender=sender)[0].startswith("250")
        assert talk.content(CONTENT).startswith("250")
    (report,) = hub.wait_for_mail("nullmx")
    assert b"Status: 5.1.10" in report
    assert connections == set()


def test_attack_75_answers_by_others(world: World, hub: Hub) -> None:
    """Packets with a wrong number, or about another name, come first: they are not believed."""
    with world.watched(hub) as connections, world.trusted() as talk:
        assert talk.begin(f"x@{hexed(ip_address('10.7.7.7'))}.forged.{ZONE}")[0].startswith("250")
        assert talk.content(CONTENT).startswith("250")
    assert connections <= {"10.7.7.7:25"}
    assert not any(str(ip) == "10.6.6.6" for ip in world.reached)


def test_attack_75_a_text_of_60_kilobytes(world: World, hub: Hub) -> None:
    """In a question about something else: no harm comes of what nobody asked for."""
    with world.watched(hub) as connections, world.trusted() as talk:
        assert talk.begin(f"x@{hexed(ip_address('10.7.7.8'))}.big.{ZONE}")[0].startswith("250")
        assert talk.content(CONTENT).startswith("250")
    assert connections == {"10.7.7.8:25"}


def test_attack_67_links_that_somebody_has_planted(world: World, hub: Hub, tmp_path: Path) -> None:
    """Nothing is written where a link leads; the mail waits until somebody has looked."""
    outside = tmp_path / "outside"
    for name in ("tmp", "new", "cur"):
        (outside / name).mkdir(parents=True)
    mail = hub.data / "mail"
    mail.mkdir(exist_ok=True)
    (mail / "planted").symlink_to(outside)
    for number, part in enumerate(("tmp", "new", "cur")):
        directory = mail / f"planted-{number}"
        for name in ("tmp", "new", "cur"):
            if name != part:
                (directory / name).mkdir(parents=True)
        (directory / part).symlink_to(outside / part)
    names = ("planted", "planted-0", "planted-1", "planted-2")
    with world.trusted() as talk:
        for name in names:
            assert talk.begin(f"{name}@[{OWN[1]}]")[0].startswith("250")
            assert talk.content(CONTENT).startswith("250")
    for name in names:
        hub.wait_for_log(f"to={name}@[{OWN[1]}] target=mailbox:{name} outcome=deferred")
    assert not any(path.is_file() for path in outside.rglob("*"))
    assert hub.run("queue", "cancel", "--all").returncode == 0
