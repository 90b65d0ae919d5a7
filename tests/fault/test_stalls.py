"""Peers and clients that stall, vanish or are cut off in the worst moment."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.fault.clients import submit
from tests.fault.ledger import MAILBOX, RELAY, Ledger
from tests.fault.mail import LARGE, SMALL, make_mail, read_copy, take_copies
from tests.fault.waiting import QUICK_RETRY, check_log, is_drained, wait_until, wait_until_drained
from tests.support.hub import Hub
from tests.support.ports import free_port
from tests.support.scripted_peer import DROP, ScriptedPeer
from waypost.queue.history import History

Say = Callable[[str], None]

HUGE = 8_000_000


def relay_config(port: int, domain: str = "sink.test") -> str:
    """A [[route]] that sends mail for a domain to a peer."""
    return (
        f'[[route]]\nname = "{domain}"\nmatch = {{ recipient = "*@{domain}" }}\n'
        f'to = ["smtp:[127.0.0.1]:{port}"]\n{QUICK_RETRY}'
    )


def leased(hub: Hub) -> int:
    """Recipients under way."""
    return History(hub.data).counts().get("leased", 0)


def delivered(hub: Hub) -> list[Path]:
    """The files in all mailboxes."""
    return list((hub.data / "mail").glob("*/new/*"))


def check_delivered(hub: Hub, ledger: Ledger, peer: ScriptedPeer, *, extra: int) -> None:
    """All is delivered, with no more than so many copies too many."""
    wait_until_drained(hub)
    ledger.collect(MAILBOX, take_copies(hub.data / "mail"))
    ledger.collect(RELAY, [read_copy(mail.content) for mail in peer.mails])
    assert ledger.damaged == []
    assert ledger.lost() == []
    assert ledger.extra_copies <= extra
    check_log(hub)


# Peers.


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_peer_that_falls_silent_delays_its_own_mail_only(
    start_hub: Callable[..., Hub], step: str, size: int
) -> None:
    rng = random.Random(step)
    ledger = Ledger()
    with ScriptedPeer() as peer:
        hub = start_hub(relay_config(peer.port))
        silent = peer.pause_at(step)
        submit(hub, ledger, "stalled", size, RELAY, rng=rng)
        silent.wait_until_reached()
        for number in range(5):
            submit(hub, ledger, f"other-{number}", size, MAILBOX, rng=rng)
        wait_until(lambda: leased(hub) == 1, hub.log_text)
        # Now it is cut off, and comes back in good health.
        with ThreadPoolExecutor(1) as thread:
            stopped = thread.submit(peer.stop)
            wait_until(lambda: leased(hub) == 0, hub.log_text)
            silent.go_on()
            stopped.result()
        peer.start()
        # Where it had all the content it may have kept it without our knowing.
        check_delivered(hub, ledger, peer, extra=1 if step == "CONTENT" else 0)


@pytest.mark.parametrize("step", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"])
def test_a_peer_that_hangs_up_gets_the_mail_again(start_hub: Callable[..., Hub], step: str) -> None:
    rng = random.Random(step)
    ledger = Ledger()
    with ScriptedPeer() as peer:
        hub = start_hub(relay_config(peer.port))
        for _ in range(3):
            peer.answer_once(step, DROP)
        for number, size in enumerate((SMALL, LARGE)):
            submit(hub, ledger, f"mail-{number}", size, RELAY, rng=rng)
        check_delivered(hub, ledger, peer, extra=3 if step == "CONTENT" else 0)


@contextmanager
def deaf_peer(port: int) -> Iterator[Future[socket.socket]]:
    """A peer that takes the envelope of one mail, asks for the content, and never reads it.

    Gives the connection, from then on.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        listening.settimeout(30)

        def converse() -> socket.socket:
            connection = stack.enter_context(listening.accept()[0])
            connection.settimeout(30)
            connection.sendall(b"220 deaf.test\r\n")
            seen = b""
            for command in (b"EHLO", b"MAIL", b"RCPT", b"DATA"):
                while command not in seen:
                    seen += connection.recv(4_096)
                connection.sendall(b"354 Go on\r\n" if command == b"DATA" else b"250 Ok\r\n")
            return connection

        thread = stack.enter_context(ThreadPoolExecutor(1))
        yield thread.submit(converse)


@pytest.mark.parametrize("size", [SMALL, LARGE, HUGE])
@pytest.mark.parametrize("waits", [True, False], ids=["waits", "hangs-up-at-once"])
def test_a_peer_that_stops_reading_holds_up_nobody_else(
    start_hub: Callable[..., Hub], size: int, waits: bool
) -> None:
    rng = random.Random(20)
    ledger = Ledger()
    port = free_port()
    hub = start_hub(relay_config(port))
    with deaf_peer(port) as connection:
        submit(hub, ledger, "stalled", size, RELAY, rng=rng)
        asked = connection.result()
        if waits:
            assert asked.recv(1, socket.MSG_PEEK)  # content is on its way
            for number in range(5):
                submit(hub, ledger, f"other-{number}", SMALL, MAILBOX, rng=rng)
            wait_until(lambda: len(delivered(hub)) == 5, hub.log_text)
            wait_until(lambda: leased(hub) == 1, hub.log_text)  # the others are settled
    # It has hung up in the middle of the content; here comes a better one.
    with ScriptedPeer(port=port) as peer:
        check_delivered(hub, ledger, peer, extra=0)


def test_many_mails_for_a_silent_peer_hold_up_nobody_else(start_hub: Callable[..., Hub]) -> None:
    """More than may be under way at once: they must not take all the places."""
    rng = random.Random(21)
    ledger = Ledger()
    with ScriptedPeer() as peer:
        silent = [peer.pause_at("GREETING") for _ in range(20)]
        hub = start_hub(relay_config(peer.port))
        with hub.smtp() as session:
            session.ehlo("client.test")
            for _ in range(2_100):
                session.mail("client@[127.0.0.1]")
                session.rcpt("all@sink.test")
                assert session.data(b"Subject: many\r\n\r\n")[0] == 250
        silent[0].wait_until_reached()
        submit(hub, ledger, "other", SMALL, MAILBOX, rng=rng)
        wait_until(lambda: len(delivered(hub)) == 1, lambda: hub.log_text()[-2_000:])
        assert len(peer.mails) == 0
        hub.kill()  # a stop would wait for the silent peer
        for pause in silent:
            pause.go_on()


# Hubs.


def test_what_a_killed_hub_had_under_way_is_delivered_by_the_next(
    start_hub: Callable[..., Hub],
) -> None:
    rng = random.Random(22)
    ledger = Ledger()
    with ScriptedPeer() as peer:
        hub = start_hub(relay_config(peer.port))
        silent = peer.pause_at("CONTENT")
        submit(hub, ledger, "mail", LARGE, RELAY, rng=rng)
        silent.wait_until_reached()
        assert leased(hub) == 1
        hub.kill()
        hub.start()
        check_delivered(hub, ledger, peer, extra=1)
        silent.go_on()


def test_what_a_stopped_hub_had_under_way_is_delivered_by_the_next(
    start_hub: Callable[..., Hub],
) -> None:
    """A stop waits for attempts, but not for ever."""
    rng = random.Random(23)
    ledger = Ledger()
    with ScriptedPeer() as peer:
        hub = start_hub(relay_config(peer.port))
        silent = peer.pause_at("MAIL")
        submit(hub, ledger, "mail", SMALL, RELAY, rng=rng)
        silent.wait_until_reached()
        hub.stop()
        hub.start()
        check_delivered(hub, ledger, peer, extra=0)
        silent.go_on()


# Clients.


class RawClient:
    """A client that can stop anywhere."""

    def __init__(self, hub: Hub) -> None:
        self.socket = socket.create_connection((hub.host, hub.port), timeout=30)
        self._answers = self.socket.makefile("rb")
        self.reply()

    def say(self, line: str) -> str:
        """Send a command; the last line of its reply."""
        self.socket.sendall(line.encode() + b"\r\n")
        return self.reply()

    def reply(self) -> str:
        """The last line of the next reply."""
        while (line := self._answers.readline().decode())[3:4] == "-":
            pass
        return line

    def begin(self, *recipients: str) -> None:
        """All up to the 354."""
        self.say("EHLO client.test")
        self.say("MAIL FROM:<client@[127.0.0.1]>")
        for recipient in recipients:
            assert self.say(f"RCPT TO:<{recipient}>").startswith("250")
        assert self.say("DATA").startswith("354")

    def vanish(self, *, reset: bool) -> None:
        """Close, or drop the connection with a reset."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._answers.close()
        self.socket.close()


def wire(mail: bytes) -> bytes:
    """A mail as DATA carries it, without the end."""
    return mail.replace(b"\r\n.", b"\r\n..")


def spool_files(hub: Hub) -> list[Path]:
    """Files of content, temporary ones too."""
    return [path for path in (hub.data / "content").rglob("*") if path.is_file()]


def test_slow_clients_hold_up_nobody_else(start_hub: Callable[..., Hub]) -> None:
    rng = random.Random(24)
    ledger = Ledger()
    hub = start_hub()
    slow = [RawClient(hub) for _ in range(60)]
    mails = []
    for number, client in enumerate(slow):
        ident = f"slow-{number}"
        mail = make_mail(ident, (SMALL, LARGE)[number % 2], rng)
        mails.append((ledger.open(ident, MAILBOX), client, wire(mail)))
        client.begin("bob@[127.0.0.1]")
        client.socket.sendall(mails[-1][2][:-1_000])
    for number in range(20):
        submit(hub, ledger, f"quick-{number}", (SMALL, LARGE)[number % 2], MAILBOX, rng=rng)
    assert ledger.acknowledged == 20
    wait_until(lambda: len(delivered(hub)) == 20, hub.log_text)
    for sent, client, octets in mails:
        client.socket.sendall(octets[-1_000:] + b".\r\n")
        reply = client.reply()
        assert reply.startswith("250")
        sent.acknowledged.append(reply.split()[-1])
        client.vanish(reset=False)
    wait_until_drained(hub)
    ledger.collect(MAILBOX, take_copies(hub.data / "mail"))
    assert ledger.problems(hub.data) == []
    assert ledger.extra_copies == 0


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("size", [SMALL, LARGE, HUGE])
def test_a_client_gone_in_the_middle_of_content_leaves_nothing(
    start_hub: Callable[..., Hub], size: int, reset: bool
) -> None:
    rng = random.Random(25)
    hub = start_hub()
    for number in range(10):
        octets = wire(make_mail(f"mail-{number}", size, rng))
        client = RawClient(hub)
        client.begin("bob@[127.0.0.1]")
        # Up to the end, but for the last dot's line end.
        cut = len(octets) - rng.randrange(0, len(octets) - 1)
        client.socket.sendall((octets + b".")[:cut])
        client.vanish(reset=reset)
    # A mail sent now comes after all of them.
    ledger = Ledger()
    submit(hub, ledger, "last", size, MAILBOX, rng=rng)
    wait_until(lambda: not spool_files(hub) and is_drained(hub), hub.log_text)
    assert [copy.ident for copy in take_copies(hub.data / "mail")] == ["last"]
    check_log(hub)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_client_gone_before_its_250_may_send_again(
    start_hub: Callable[..., Hub], size: int, reset: bool, say: Say
) -> None:
    rng = random.Random(26)
    ledger = Ledger()
    hub = start_hub()
    for number in range(30):
        ident = f"mail-{number}"
        sent = ledger.open(ident, MAILBOX)
        octets = wire(make_mail(ident, size, rng)) + b".\r\n"
        gone = RawClient(hub)
        gone.begin("bob@[127.0.0.1]")
        gone.socket.sendall(octets)
        gone.vanish(reset=reset)
        sent.cut += 1
        again = RawClient(hub)
        again.begin("bob@[127.0.0.1]")
        again.socket.sendall(octets)
        sent.acknowledged.append(again.reply().split()[-1])
        again.vanish(reset=False)
    wait_until_drained(hub)
    ledger.collect(MAILBOX, take_copies(hub.data / "mail"))
    assert ledger.problems(hub.data) == []
    assert ledger.extra_copies <= 30
    check_log(hub)
    say(f"30 clients gone before their 250 sent again: {ledger.extra_copies} extra copies")
