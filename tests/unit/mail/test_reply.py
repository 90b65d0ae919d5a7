"""Replies: RFC 5321 §4.2, enhanced status codes of RFC 3463 and RFC 2034."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail import reply as replies
from waypost.mail.reply import Reply
from waypost.smtp import client

STANDARD = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in (replies, client)
    for name, value in vars(module).items()
    if isinstance(value, Reply)
}
LINE = re.compile(rb"[2-5][0-5][0-9][ -][ -~]*\r\n")


def test_reply_of_one_line() -> None:
    assert Reply(250, "Ok", (0, 0)).wire == b"250 2.0.0 Ok\r\n"
    assert Reply(354, "Go on").wire == b"354 Go on\r\n"


def test_reply_of_many_lines_repeats_both_codes() -> None:
    """RFC 5321 §4.2.1: a hyphen on all lines but the last; RFC 2034 §4: the code on each."""
    assert Reply(550, "One\nTwo\nThree", (7, 1)).wire == (
        b"550-5.7.1 One\r\n550-5.7.1 Two\r\n550 5.7.1 Three\r\n"
    )


@pytest.mark.parametrize(
    ("code", "status", "enhanced"),
    [
        (250, (1, 5), "2.1.5"),
        (252, (1, 5), "2.1.5"),
        (421, (3, 2), "4.3.2"),
        (451, (3, 0), "4.3.0"),
        (550, (1, 1), "5.1.1"),
        (550, None, "5.0.0"),
    ],
)
def test_class_of_the_enhanced_code_is_that_of_the_reply(
    code: int, status: tuple[int, int] | None, enhanced: str
) -> None:
    """RFC 2034 §4: it MUST agree."""
    assert Reply(code, "x", status).enhanced == enhanced


@pytest.mark.parametrize(
    ("code", "positive", "transient", "permanent"),
    [
        (220, True, False, False),
        (354, True, False, False),
        (421, False, True, False),
        (499, False, True, False),
        (500, False, False, True),
        (554, False, False, True),
    ],
)
def test_first_digit_says_what_a_reply_means(
    code: int, positive: bool, transient: bool, permanent: bool
) -> None:
    """RFC 5321 §4.2.1."""
    reply = Reply(code, "x")
    assert (reply.is_positive, reply.is_transient, reply.is_permanent) == (
        positive,
        transient,
        permanent,
    )


@pytest.mark.parametrize("name", STANDARD)
def test_standard_replies_are_ascii_lines_within_the_limit(name: str) -> None:
    """RFC 5321 §4.5.3.1.5: 512 octets with CRLF."""
    wire = STANDARD[name].wire
    for line in wire.splitlines(keepends=True):
        assert LINE.fullmatch(line)
        assert len(line) <= 512


@pytest.mark.parametrize("name", STANDARD)
def test_standard_replies_carry_an_enhanced_code(name: str) -> None:
    """RFC 2034 §4: all 2xx, 4xx and 5xx but greetings; 3xx has none."""
    reply = STANDARD[name]
    assert (reply.status is None) == (300 <= reply.code < 400)


@pytest.mark.parametrize(
    ("reply", "start"),
    [
        (replies.NO_SUCH_MAILBOX, "550 5.1.1 "),
        (replies.RELAY_DENIED, "550 5.7.1 "),
        (replies.QUEUE_FULL, "452 4.3.1 "),
        (replies.STORE_AWAY, "451 4.3.0 "),
        (replies.TOO_BUSY, "421 4.3.2 "),
        (replies.SHUTTING_DOWN, "421 4.3.2 "),
        (replies.MESSAGE_TOO_BIG, "552 5.3.4 "),
        (replies.TOO_MANY_RECIPIENTS, "452 4.5.3 "),
        (replies.LOOP, "554 5.4.6 "),
        (replies.BARE_LINE_ENDS, "550 5.6.0 "),
        (replies.NOT_IN_THIS_ORDER, "503 5.5.1 "),
        (replies.UNKNOWN_COMMAND, "500 5.5.2 "),
        (replies.NOT_IMPLEMENTED, "502 5.5.1 "),
        (replies.CANNOT_VERIFY, "252 2."),
        (replies.NEEDS_SMTPUTF8, "553 5.6.7 "),
    ],
)
def test_fixed_codes(reply: Reply, start: str) -> None:
    """The replies others script against."""
    assert reply.wire.decode().startswith(start)


# Replies of peers.


def test_enhanced_code_of_a_peer_is_taken_out_of_the_text() -> None:
    reply = Reply.received(550, ["5.1.1 No such user", "5.1.1 here"])
    assert reply == Reply(550, "No such user\nhere", (1, 1))
    assert reply.enhanced == "5.1.1"


@pytest.mark.parametrize(
    "text",
    ["No such user", "4.1.1 No such user", "5.1 No", "5.1.1.1 No", "15.1.1 No", "5.1.1No", ""],
)
def test_what_is_no_enhanced_code_of_this_class_stays_text(text: str) -> None:
    reply = Reply.received(550, [text])
    assert reply == Reply(550, text)
    assert reply.enhanced == "5.0.0"


@given(st.integers(200, 599), st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_a_peers_words_never_break_a_line(code: int, lines: list[str]) -> None:
    """A peer's CR, LF or escape sequence must not reach a log line, a report or a terminal."""
    reply = Reply.received(code, lines)
    assert reply.wire.count(b"\r\n") == len(reply.text.split("\n")) == len(lines)
    assert all(character.isprintable() for character in reply.text.replace("\n", ""))
    for line in reply.wire.split(b"\r\n")[:-1]:
        assert not any(octet < 32 or octet > 126 for octet in line)
