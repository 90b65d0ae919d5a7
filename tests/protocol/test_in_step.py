"""Strangers wait for the answers they have to wait for (RFC 2920 §3.1), or are cut off."""

from __future__ import annotations

import pytest

from tests.protocol.driver import Server
from waypost.mail import reply as replies
from waypost.smtp.events import ServerSettings

STRANGER = ServerSettings(1_000_000, 100, in_step=True)
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\n"
CONTENT = b"Subject: x\r\n\r\nx\r\n.\r\n"

# What is sent, one read for each; the last one is out of step.
OUT_OF_STEP = {
    "behind-ehlo": [b"EHLO c.example\r\n" + ENVELOPE],
    "behind-ehlo-a-little": [b"EHLO c.example\r\nM"],
    "behind-helo": [b"HELO c.example\r\n" + ENVELOPE],
    "behind-second-ehlo": [b"EHLO c.example\r\n", b"EHLO c.example\r\n" + ENVELOPE],
    "after-helo": [b"HELO c.example\r\n", ENVELOPE],
    "before-any-greeting": [b"NOOP\r\nEHLO c.example\r\n"],
    "content-behind-data": [b"EHLO c.example\r\n", ENVELOPE + b"DATA\r\n" + CONTENT],
    "command-behind-data": [b"EHLO c.example\r\n", ENVELOPE + b"DATA\r\nQUIT\r\n"],
    "behind-refused-data": [b"EHLO c.example\r\n", b"DATA\r\n" + CONTENT],
}
IN_STEP = {
    "group": [b"EHLO c.example\r\n", ENVELOPE + b"DATA\r\n", CONTENT + ENVELOPE + b"DATA\r\n"],
    "rset-first": [b"EHLO c.example\r\n", b"RSET\r\n" + ENVELOPE + b"DATA\r\n", CONTENT],
    "quit-behind-content": [b"EHLO c.example\r\n", ENVELOPE + b"DATA\r\n", CONTENT + b"QUIT\r\n"],
    "line-by-line-after-helo": [b"HELO c.example\r\n", *ENVELOPE.splitlines(True), b"DATA\r\n"],
    "chunks": [
        b"EHLO c.example\r\n",
        ENVELOPE + b"BDAT 4\r\na: b" + b"BDAT 4 LAST\r\n\r\n\r\n" + b"QUIT\r\n",
    ],
}


@pytest.mark.parametrize("reads", OUT_OF_STEP.values(), ids=OUT_OF_STEP)
def test_out_of_step(reads: list[bytes]) -> None:
    server = Server(STRANGER)
    for read in reads[:-1]:
        server.feed(read)
        assert not server.is_closed
    assert server.feed(reads[-1]).endswith(replies.OUT_OF_STEP.wire)
    assert server.is_closed
    assert server.session.ended_by is replies.OUT_OF_STEP
    assert server.accepted == []


@pytest.mark.parametrize("reads", IN_STEP.values(), ids=IN_STEP)
def test_in_step(reads: list[bytes]) -> None:
    server = Server(STRANGER)
    said = b"".join(server.feed(read) for read in reads)
    assert b"554" not in said
    assert server.session.ended_by is None or server.session.ended_by.code == 221


@pytest.mark.parametrize("lenient", [True, False])
@pytest.mark.parametrize("reads", OUT_OF_STEP.values(), ids=OUT_OF_STEP)
def test_others_are_forgiven(reads: list[bytes], lenient: bool) -> None:
    server = Server(ServerSettings(1_000_000, 100, lenient=lenient))
    assert replies.OUT_OF_STEP.wire not in b"".join(server.feed(read) for read in reads)
