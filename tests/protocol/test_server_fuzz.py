"""ServerSession under random sequences: it never raises, stays in step, and stays small."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.driver import Server, split_replies
from waypost.smtp.events import ServerSettings

# A command line that is not ended yet (RFC 5321 §4.5.3.1.4, with its extensions), and its CR.
MAX_BUFFERED = 2_049


def assert_small(server: Server, just_fed: bytes) -> None:
    """Nothing grows; a session that has ended drops what it was last given with the next."""
    limit = len(just_fed) if server.is_closed else MAX_BUFFERED
    assert server.session.buffered_bytes <= limit


COMMANDS = [
    b"EHLO client.example",
    b"HELO client.example",
    b"LHLO client.example",
    b"EHLO",
    b"EHLO \xc3\xbc",
    b"MAIL FROM:<a@b.example>",
    b"MAIL FROM:<>",
    b"MAIL FROM:<a@b.example> BODY=BINARYMIME",
    b"MAIL FROM:<a@b.example> SMTPUTF8 SIZE=100 RET=FULL ENVID=x",
    b"MAIL FROM:<a@b.example> SIZE=9999",
    b"MAIL FROM:<refused@b.example>",
    b"MAIL FROM:<a@[IPv6:::1]> X=Y",
    b"MAIL FROM:a@b.example",
    b"MAIL FROM:<\xff@b>",
    b"RCPT TO:<x@y.example>",
    b"RCPT TO:<Postmaster>",
    b"RCPT TO:<full@y.example>",
    b"RCPT TO:<nodisk@y.example>",
    b"RCPT TO:<nobody@y.example>",
    b"RCPT TO:<later@y.example> NOTIFY=NEVER",
    b"RCPT TO:<j\xc3\xbcrgen@y.example>",
    b"RCPT TO:<@a:b@[192.0.2.1]> ORCPT=rfc822;x",
    b"RCPT TO:<a@[1.2.3]>",
    b"RSET",
    b"NOOP",
    b"NOOP " + b"x" * 600,
    b"x" * 3_000,
    b"VRFY a",
    b"EXPN a",
    b"HELP",
    b"STARTTLS",
    b"AUTH PLAIN",
    b"DATA x",
    b"",
    b" ",
    b"\xff\xfe",
    b"BOGUS",
]
bodies = st.lists(
    st.sampled_from([b"x", b"\r\n", b".", b"\r\n.", b"\r\n..", b"\n", b"\r", b"\0", b"x" * 120]),
    max_size=6,
).map(b"".join)


@dataclass(frozen=True)
class Data:
    """DATA, and the content if it is wanted."""

    content: bytes

    @property
    def sent(self) -> bytes:
        """The content up to its first end mark, and that."""
        stream = b"\r\n" + self.content + b"\r\n.\r\n"
        return stream[2 : stream.index(b"\r\n.\r\n") + 5]


@dataclass(frozen=True)
class Chunk:
    """BDAT with its octets, wanted or not."""

    content: bytes
    is_last: bool

    @property
    def sent(self) -> bytes:
        last = b" LAST" if self.is_last else b""
        return b"BDAT %d%b\r\n%b" % (len(self.content), last, self.content)


Item = bytes | Data | Chunk
# Useful orders come often, so that deep states are reached.
TRANSACTION: list[Item] = [b"MAIL FROM:<a@b.example>", b"RCPT TO:<x@y.example>"]
items = st.one_of(
    st.sampled_from(COMMANDS).map(lambda line: [line]),
    bodies.map(lambda content: [*TRANSACTION, Data(content)]),
    st.builds(
        lambda first, second: [*TRANSACTION, Chunk(first, is_last=False), Chunk(second, True)],
        bodies,
        bodies,
    ),
    bodies.map(lambda content: [Data(content)]),
    st.builds(lambda content, is_last: [Chunk(content, is_last)], bodies, st.booleans()),
    st.just([b"MAIL FROM:<a@b.example>", *[b"RCPT TO:<full@y.example>"] * 5]),
)
sequences = st.lists(items, max_size=12).map(
    lambda lists: [item for each in lists for item in each]
)


def session_settings(*, lenient: bool, is_lmtp: bool) -> ServerSettings:
    return ServerSettings(max_message_bytes=200, max_recipients=3, lenient=lenient, is_lmtp=is_lmtp)


@given(sequences, st.booleans(), st.booleans())
def test_each_command_has_exactly_one_reply(
    sequence: list[Item], lenient: bool, is_lmtp: bool
) -> None:
    """RFC 5321 §4.2; with LMTP, one for each recipient after the content (RFC 2033 §4.2)."""
    server = Server(session_settings(lenient=lenient, is_lmtp=is_lmtp))
    greeting = server.session.data_to_send()
    stream = b""
    said = b""

    def tell(octets: bytes, expected: int) -> list[bytes]:
        nonlocal stream, said
        stream += octets
        out = server.feed(octets)
        said += out
        replies = split_replies(out)
        if server.is_closed:
            assert replies[-1][:3] in (b"221", b"421")
            assert len(replies) <= expected + 1
        else:
            assert len(replies) == expected, (octets, replies)
        assert_small(server, octets)
        return replies

    tell(b"LHLO x\r\n" if is_lmtp else b"EHLO x\r\n", 1)
    for item in sequence:
        if server.is_closed:
            break
        recipients = server.session.recipients if is_lmtp else 1
        if isinstance(item, Data):
            if tell(b"DATA\r\n", 1)[0].startswith(b"354"):
                tell(item.sent, recipients)
        elif isinstance(item, Chunk):
            is_end = item.is_last and server.session.phase.name in ("RECIPIENTS", "CHUNKS")
            tell(item.sent, recipients if is_end else 1)
        else:
            tell(item + b"\r\n", 1)
    # Told at once, or octet by octet, it hears the same.
    for pieces in ([stream], [bytes([octet]) for octet in stream]):
        other = Server(session_settings(lenient=lenient, is_lmtp=is_lmtp))
        assert other.session.data_to_send() == greeting
        assert b"".join(other.feed(piece) for piece in pieces) == said
        assert [message.content for message in other.accepted] == [
            message.content for message in server.accepted
        ]


fragments = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [line + end for line in COMMANDS for end in (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\0\r\n")]
    ),
    st.sampled_from(
        [b"DATA\r\n", b".\r\n", b"\r\n.\r\n", b"BDAT 7\r\n", b"BDAT 3 LAST\r\n", b"BDAT x\r\n"]
    ),
    st.sampled_from([b"BDAT 99999999999999999999\r\n", b"y" * 5_000, b"QUIT\r\n"]),
)


@given(st.lists(fragments, max_size=30), st.booleans(), st.booleans())
def test_any_octets_are_taken_and_only_replies_come_back(
    pieces: list[bytes], lenient: bool, is_lmtp: bool
) -> None:
    server = Server(session_settings(lenient=lenient, is_lmtp=is_lmtp))
    split_replies(server.session.data_to_send())
    for piece in pieces:
        split_replies(server.feed(piece))
        assert_small(server, piece)
        assert server.session.recipients <= 3
    for message in server.accepted:
        assert len(message.content) <= 200
        if message.mail.body != "BINARYMIME":
            assert re.search(rb"(?<!\r)\n|\r(?!\n)|\0", message.content) is None


@given(st.lists(fragments, max_size=20), st.lists(st.integers(1, 50), min_size=1), st.booleans())
def test_no_way_of_splitting_changes_what_comes_back(
    pieces: list[bytes], sizes: list[int], lenient: bool
) -> None:
    stream = b"EHLO x\r\n" + b"".join(pieces)
    whole = Server(session_settings(lenient=lenient, is_lmtp=False))
    said = whole.feed(stream)
    other = Server(session_settings(lenient=lenient, is_lmtp=False))
    heard = b""
    position = index = 0
    while position < len(stream):
        size = sizes[index % len(sizes)]
        heard += other.feed(stream[position : position + size])
        position += size
        index += 1
    assert heard == said
    assert [message.content for message in other.accepted] == [
        message.content for message in whole.accepted
    ]


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"EHLO x\r\n",
        b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n",
        b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 99999999\r\n",
        b"EHLO x\r\nBDAT 99999999\r\n",
        b"QUIT\r\n",
        b"BDAT x\r\n",
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("unit", [b"x", b"\r", b"\n", b".", b"\0", b"\r\n.", b"\r\n"])
def test_a_megabyte_of_anything_is_not_kept(begin: bytes, lenient: bool, unit: bytes) -> None:
    server = Server(session_settings(lenient=lenient, is_lmtp=False))
    server.feed(begin)
    piece = unit * (8_192 // len(unit))
    said = 0
    for _ in range(128):
        said += len(server.feed(piece))
        assert_small(server, piece)
    # Nor is anything said for each octet: junk has an end.
    assert said < 4_000


def test_a_session_that_waits_for_an_answer_reads_no_further() -> None:
    """RFC 2920 §3.2: what is pipelined waits; how much is the caller's to see."""
    server = Server(session_settings(lenient=False, is_lmtp=False))
    session = server.session
    session.receive(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nNOOP\r\nNOOP\r\n")
    assert session.next_event() is not None
    assert session.is_answering
    session.data_to_send()
    assert session.next_event() is None
    assert session.buffered_bytes == len(b"NOOP\r\nNOOP\r\n")
    session.receive(b"NOOP\r\n")
    assert session.next_event() is None
    assert session.data_to_send() == b""
    assert session.buffered_bytes == len(b"NOOP\r\nNOOP\r\nNOOP\r\n")
