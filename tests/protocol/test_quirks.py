"""What a trusted client is forgiven is remembered, and nothing is where there is nothing."""

from __future__ import annotations

import pytest

from tests.protocol.driver import Server
from waypost.smtp.events import ServerSettings
from waypost.smtp.quirks import NO_QUIRK, Quirk

GREETING = b"EHLO cam\r\n"
MAIL = b"MAIL FROM:<cam@x.example>\r\nRCPT TO:<a@x.example>\r\n"


def quirks_of(*octets: bytes, lenient: bool = True) -> Quirk:
    server = Server(ServerSettings(10_000, 10, lenient=lenient))
    for piece in octets:
        server.feed(piece)
    return server.session.quirks


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (GREETING + MAIL + b"DATA\r\nSubject: x\r\n\r\nhi\r\n..\r\n.\r\nQUIT\r\n", NO_QUIRK),
        (b"helo cam\r\nmail from: <> size=7\r\nrcpt to:<postmaster>\r\n", NO_QUIRK),
        (b"HELO\r\n" + MAIL, Quirk.EMPTY_HELO),
        (GREETING + b"MAIL FROM: cam@x.example\r\n", Quirk.NO_BRACKETS),
        (GREETING + MAIL + b"RCPT TO:b@x.example\r\n", Quirk.NO_BRACKETS),
        (GREETING + b"MAIL FROM:<root>\r\n", Quirk.NO_DOMAIN),
        (GREETING + b"MAIL FROM:root\r\n", Quirk.NO_DOMAIN | Quirk.NO_BRACKETS),
        (GREETING + b"MAIL FROM:<a@x.example> X=1\r\n", Quirk.UNKNOWN_PARAMETER),
        (b"EHLO \xc9\xe3\xcf\xf1\r\n", Quirk.RAW_OCTETS),
        (GREETING + b"MAIL FROM:<K\xfcche@x.example>\r\n", Quirk.RAW_OCTETS),
        (GREETING + MAIL + b"RCPT TO:<K\xfcche@x.example>\r\n", Quirk.RAW_OCTETS),
        (GREETING + b"MAIL FROM:<cam@front_door.lan>\r\n", Quirk.NO_DOMAIN),
        (GREETING + b"MAIL FROM:<K\xc3\xbcche@x.example>\r\n", NO_QUIRK),
        (GREETING + b"NOOP\n", Quirk.BARE_LF),
        (b"\nEHLO cam\r\n", Quirk.BARE_LF),
        (GREETING + b"NOOP \r x\r\n", Quirk.BARE_CR),
        (GREETING + b"NOOP \x01\r\n", Quirk.CONTROLS),
        (GREETING + b"NOOP " + b"x" * 70_000 + b"\r\n", Quirk.LINE_TOO_LONG),
        (GREETING + MAIL + b"DATA\r\na\nb\r\n.\r\n", Quirk.CONTENT_MENDED),
        (GREETING + MAIL + b"BDAT 3 LAST\r\na\nb", Quirk.CONTENT_MENDED),
    ],
)
def test_each_quirk(octets: bytes, found: Quirk) -> None:
    assert quirks_of(octets) is found


def test_they_add_up_and_what_was_read_before_counts_again() -> None:
    """The grammar keeps what it has read; each session has its own quirks all the same."""
    for _ in range(2):
        found = quirks_of(b"HELO\r\n", b"MAIL FROM:root X=1\n")
        assert found == (
            Quirk.EMPTY_HELO
            | Quirk.NO_BRACKETS
            | Quirk.NO_DOMAIN
            | Quirk.UNKNOWN_PARAMETER
            | Quirk.BARE_LF
        )
