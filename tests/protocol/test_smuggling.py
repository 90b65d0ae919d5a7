"""SMTP smuggling (CERT VU#302671): one DATA is one message, whatever octets it holds.

Every string over CR, LF, dot, NUL and a letter stands before commands that a receiver with other
ideas of a line's end would run. Length 5 always, length 7 with --sweep.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from tests.protocol.driver import Server, split_replies
from waypost.smtp.data import DataEncoder
from waypost.smtp.events import ServerSettings

BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")
END = b"\r\n.\r\n"
BEGIN = b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@y.example>\r\nDATA\r\n"
EVIL = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<x@y.example>\r\nDATA\r\nevil\r\n.\r\n"
ALPHABET = (b"\r", b"\n", b".", b"x", b"\0")


def strings(length: int) -> Iterator[bytes]:
    return map(b"".join, itertools.product(ALPHABET, repeat=length))


def settings(*, lenient: bool) -> ServerSettings:
    return ServerSettings(max_message_bytes=10_000, max_recipients=10, lenient=lenient)


def assert_one_message(middle: bytes, *, lenient: bool) -> None:
    content = b"a" + middle + EVIL[: -len(b".\r\n")]
    # The client may well end its message itself; then what follows are its own commands, which
    # make a second message unless something still stands before them.
    is_ended_by_client = END in b"a" + middle
    server = Server(settings(lenient=lenient))
    server.session.data_to_send()
    said = server.feed(BEGIN + content + b".\r\nQUIT\r\n")
    replies = split_replies(said)
    assert replies[3].startswith(b"354 ")
    assert replies[4].startswith(b"250 " if lenient else (b"250 ", b"550 5.6.0 "))
    if is_ended_by_client:
        assert len(server.ended) in (1, 2)
        assert b"evil@" not in server.ended[0].content
    else:
        assert len(server.ended) == 1
        assert len(replies) == 6
        assert replies[-1].startswith(b"221 ")
        assert bool(server.accepted) == (lenient or BARE.search(content) is None)
    for message in server.accepted:
        assert BARE.search(message.content) is None
        assert_leaves_as_one(message.content)


def assert_leaves_as_one(content: bytes) -> None:
    encoder = DataEncoder()
    sent = encoder.encode(content) + encoder.end()
    assert encoder.is_canonical
    assert BARE.search(sent) is None
    assert (b"\r\n" + sent).count(END) == 1
    # And the strictest of next hops takes it for the same one message.
    following = Server(settings(lenient=False))
    following.session.data_to_send()
    replies = split_replies(following.feed(BEGIN + sent + b"QUIT\r\n"))
    assert [reply[:3] for reply in replies] == [b"250", b"250", b"250", b"354", b"250", b"221"]
    assert [message.content for message in following.accepted] == [content]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("length", range(6))
def test_no_short_string_makes_two_messages(length: int, lenient: bool) -> None:
    for middle in strings(length):
        assert_one_message(middle, lenient=lenient)


@pytest.mark.slow
@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("length", [6, 7])
def test_no_string_makes_two_messages(length: int, lenient: bool) -> None:
    for middle in strings(length):
        assert_one_message(middle, lenient=lenient)


@pytest.mark.parametrize("lenient", [False, True])
def test_no_short_string_in_chunks_makes_two_messages(lenient: bool) -> None:
    """RFC 3030: octets are counted, so nothing in them can end a message."""
    begin = BEGIN.removesuffix(b"DATA\r\n")
    for length in range(5):
        for content in strings(length):
            server = Server(settings(lenient=lenient))
            server.session.data_to_send()
            half = length // 2
            said = server.feed(
                begin
                + b"BDAT %d\r\n%b" % (half, content[:half])
                + b"BDAT %d LAST\r\n%b" % (length - half, content[half:])
                + b"RSET\r\nQUIT\r\n"
            )
            codes = [reply[:3] for reply in split_replies(said)]
            assert codes[:3] == [b"250"] * 3
            assert codes[-2:] == [b"250", b"221"]
            assert len(codes) == 7
            is_bare = BARE.search(content) is not None
            assert len(server.accepted) == (lenient or not is_bare)
            for message in server.accepted:
                assert_leaves_as_one(message.content + b"\r\n")
