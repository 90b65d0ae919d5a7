"""A trusted client that ends its content with a dot and a bare LF, and then waits.

Its silence is what tells an end from content. A relay's content is never ended so: who has put
such a line there may want one message taken for two.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.devices.test_catalogue import Device
from tests.support.hub import Hub
from tests.support.mail import content_of

ENDS = [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r\r\n"]
BEFORE_END_S = 0.5  # a pause that is no end: half a look
PAUSES_OF_AN_END = 4


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("no-end")) as running:
        yield running
        assert " bug " not in running.log_text()


def begun(hub: Hub, mailbox: str, content: bytes) -> Device:
    device = Device(hub, "127.0.0.1")
    device.hears("220")
    for command in ("HELO d", "MAIL FROM:<>", f"RCPT TO:<{mailbox}@[127.0.0.1]>"):
        device.send([command.encode() + b"\r\n"])
        device.hears("250")
    device.send([b"DATA\r\n"])
    device.hears("354")
    device.send([content])
    return device


def test_it_is_answered_and_may_say_quit(hub: Hub) -> None:
    for number, end in enumerate(ENDS, 1):
        device = begun(hub, "goes-on", b"Subject: x\r\n\r\n" + b"x" * 80_000 + end)
        with device.socket:
            device.hears("250 2.0.0 queued as")
            device.send([b"QUIT\r\n"])
            device.hears("221")
        stored = hub.wait_for_mail("goes-on", number)[-1]
        assert content_of(stored) == b"Subject: x\r\n\r\n" + b"x" * 80_000 + b"\r\n"


@pytest.mark.parametrize("command", [b"MAIL FROM:<>", b"EHLO x", b"STARTTLS", b"BDAT 3", b"x"])
def test_nothing_else_is_obeyed(hub: Hub, command: bytes) -> None:
    """A proxy that passes a stranger's content on as it comes makes no second mail of it."""
    device = begun(hub, "obeyed", b"Subject: x\r\n\r\none\r\n.\n")
    with device.socket:
        device.hears("250 2.0.0 queued as")
        device.send([command + b"\r\nRCPT TO:<obeyed@[127.0.0.1]>\r\n"])
        device.hears("421 4.5.2")
        assert device.reply() == []


def test_who_says_more_has_not_ended(hub: Hub) -> None:
    """One message, whatever stands in it, if the pauses are short."""
    for number, end in enumerate(ENDS, 1):
        device = begun(hub, "says-more", b"Subject: x\r\n\r\none" + end)
        with device.socket:
            time.sleep(BEFORE_END_S)
            device.send([b"MAIL FROM:<>\r\nDATA\r\n" + end + b"three"])
            time.sleep(BEFORE_END_S)
            device.send([b"\r\n.\r\n"])
            device.hears("250 2.0.0 queued as")
            device.send([b"NOOP\r\n"])
            device.hears("250 2.0.0")
        stored = hub.wait_for_mail("says-more", number)
        assert len(stored) == number
        assert content_of(stored[-1]).endswith(b"three\r\n")


def test_silence_is_counted_from_the_last_word(hub: Hub) -> None:
    """A client that says one dot after the other is never silent for long enough."""
    device = begun(hub, "many-dots", b"Subject: x\r\n\r\none")
    with device.socket:
        for _ in range(2 * PAUSES_OF_AN_END):
            device.send([b"\r\n.\n"])
            time.sleep(BEFORE_END_S)
        device.send([b"three\r\n.\r\n"])
        device.hears("250 2.0.0 queued as")
        device.send([b"NOOP\r\n"])
        device.hears("250 2.0.0")
    (stored,) = hub.wait_for_mail("many-dots")
    assert content_of(stored).endswith(b"three\r\n")


@pytest.mark.parametrize("size", [3, 80_000], ids=["in-memory", "in-a-file"])
def test_what_was_relayed_is_never_ended(hub: Hub, size: int) -> None:
    mailbox = f"relayed-{size}"
    head = b"Received: from a.example by b.example; Sun, 22 Nov 2026 03:00:01 +0000\r\n\r\n"
    devices = [begun(hub, mailbox, head + b"x" * size + end) for end in ENDS]
    assert devices[0].is_left_alone()
    for device in devices:
        device.socket.settimeout(0.01)
        with pytest.raises(TimeoutError):
            device.socket.recv(1)
        device.socket.settimeout(20)
        device.send([b"two\r\n.\r\n"])
        device.hears("250 2.0.0 queued as")
        device.socket.close()
    assert len(hub.wait_for_mail(mailbox, len(ENDS))) == len(ENDS)


def test_who_hangs_up_instead_has_sent_nothing(hub: Hub) -> None:
    begun(hub, "hung-up", b"Subject: x\r\n\r\none\r\n.\n").socket.close()
    device = begun(hub, "hung-up", b"Subject: x\r\n\r\ntwo\r\n.\n")
    with device.socket:
        device.socket.shutdown(socket.SHUT_WR)
        assert device.reply() == []
    device = begun(hub, "hung-up", b"Subject: x\r\n\r\nthree\r\n.\r\n")
    with device.socket:
        device.hears("250 2.0.0 queued as")
    (stored,) = hub.wait_for_mail("hung-up")
    assert b"three" in stored
