"""ClientSession against servers that lie, break off, or never end.

Rule: either the transaction ends with a reply for each recipient, or PeerOutOfStep says that the
connection is lost; content is never sent where it was not asked for, and nothing grows.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.mail.address import Address
from waypost.mail.envelope import Body, Envelope, Recipient
from waypost.smtp.client import (
    ClientSession,
    ContentWanted,
    SessionReady,
    SessionRefused,
    Transaction,
    TransactionEnded,
)
from waypost.smtp.replies import MAX_REPLY_BYTES, PeerOutOfStep

TO = [Recipient(Address.parse(f"{name}@b.example")) for name in ("ann", "bob", "eve")]
MAIL = Transaction(Envelope(None), TO, 10, is_eight_bit=False)
CHUNKED = Transaction(Envelope(None, Body.BINARY_MIME), TO, 10, is_eight_bit=False)
PIPELINING = b"250-x\r\n250-PIPELINING\r\n250-BINARYMIME\r\n250 CHUNKING\r\n"
PLAIN = b"250-x\r\n250-BINARYMIME\r\n250 CHUNKING\r\n"


def greeted(ehlo: bytes = PIPELINING, *, is_lmtp: bool = False) -> ClientSession:
    client = ClientSession("client.example", is_lmtp=is_lmtp)
    hear(client, b"220 x\r\n")
    hear(client, ehlo)
    assert isinstance(client.next_event(), SessionReady)
    return client


def hear(client: ClientSession, octets: bytes) -> bytes:
    """The peer says something; what the client says then."""
    client.receive(octets)
    return client.data_to_send()


def begun(
    ehlo: bytes = PIPELINING, *, is_lmtp: bool = False, mail: Transaction = MAIL
) -> ClientSession:
    client = greeted(ehlo, is_lmtp=is_lmtp)
    client.start(mail)
    client.data_to_send()
    return client


def codes(client: ClientSession) -> list[int]:
    event = client.next_event()
    assert isinstance(event, TransactionEnded), event
    return [reply.code for reply in event.replies]


def at_content(*, is_lmtp: bool = False) -> ClientSession:
    client = begun(is_lmtp=is_lmtp)
    hear(client, b"250 a\r\n250 b\r\n550 c\r\n250 d\r\n354 e\r\n")
    assert isinstance(client.next_event(), ContentWanted)
    client.content_sent()
    return client


def at_greeting() -> ClientSession:
    return ClientSession("client.example")


def at_ehlo() -> ClientSession:
    client = at_greeting()
    hear(client, b"220 x\r\n")
    return client


STAGES = {
    "greeting": at_greeting,
    "EHLO": at_ehlo,
    "idle": greeted,
    "envelope": begun,
    "one by one": lambda: begun(PLAIN),
    "content": at_content,
    "LMTP content": lambda: at_content(is_lmtp=True),
}


# Without end.


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "unit", [b"250-x\r\n", b"250-" + b"x" * 900 + b"\r\n", b"x" * 997, b"\0", b"\r"]
)
def test_a_reply_without_end_is_cut_off(stage: str, unit: bytes) -> None:
    client = STAGES[stage]()
    for _ in range(MAX_REPLY_BYTES // len(unit) - 1):
        with contextlib.suppress(PeerOutOfStep):
            client.receive(unit)
    with pytest.raises(PeerOutOfStep):
        client.receive(unit * 3)


@pytest.mark.parametrize("stage", STAGES)
def test_a_line_of_a_megabyte_is_cut_off(stage: str) -> None:
    for octets in (b"250 " + b"x" * 1_000_000, b"250 " + b"x" * 1_000_000 + b"\r\n"):
        with pytest.raises(PeerOutOfStep):
            STAGES[stage]().receive(octets)


def test_a_long_reply_is_no_fault_of_its_own() -> None:
    client = at_greeting()
    hear(client, b"220-" + b"\r\n220-".join([b"x" * 500] * 20) + b"\r\n220 x\r\n")
    client.receive(b"250-x\r\n" + b"".join(b"250-X-%d\r\n" % n for n in range(500)) + b"250 Y\r\n")
    assert isinstance(client.next_event(), SessionReady)
    assert len(client.extensions) == 501


# Nonsense.


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"25",
        b"25 x",
        b"x50 ok",
        b" 250 ok",
        b"150 wait",
        b"050 x",
        b"650 x",
        b"999 x",
        b"-250 x",
        b"\xff\xfe",
        b"\xef\xbc\x92\xef\xbc\x95\xef\xbc\x90 x",
        b"HTTP/1.1 400 Bad Request",
    ],
)
def test_what_is_no_reply_ends_it(stage: str, line: bytes) -> None:
    """RFC 5321 §4.2: three digits, the first from 2 to 5."""
    with pytest.raises(PeerOutOfStep):
        STAGES[stage]().receive(line + b"\r\n")


@pytest.mark.parametrize("stage", STAGES)
def test_two_codes_in_one_reply_end_it(stage: str) -> None:
    """RFC 5321 §4.2.1: the same on each line."""
    for octets in (b"250-a\r\n550 b\r\n", b"550-a\r\n250 b\r\n", b"250-a\r\n250-b\r\n251 c\r\n"):
        with pytest.raises(PeerOutOfStep):
            STAGES[stage]().receive(octets)


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("greeting", b"354 go\r\n"),
        ("EHLO", b"354 go\r\n"),
        ("EHLO", b"334 go\r\n"),
        ("idle", b"250 ok\r\n"),
        ("idle", b"550 no\r\n"),
        ("envelope", b"354 go\r\n"),
        ("envelope", b"250 a\r\n354 b\r\n"),
        ("envelope", b"250 a\r\n250 b\r\n250 c\r\n250 d\r\n250 e\r\n"),
        ("one by one", b"354 go\r\n"),
        ("content", b"354 go\r\n"),
        ("LMTP content", b"334 go\r\n"),
        ("LMTP content", b"250 a\r\n354 b\r\n"),
    ],
)
def test_a_code_that_does_not_fit_the_command_ends_it(stage: str, reply: bytes) -> None:
    with pytest.raises(PeerOutOfStep):
        STAGES[stage]().receive(reply)


def test_more_replies_than_commands_end_it() -> None:
    for stage in ("content", "LMTP content"):
        client = STAGES[stage]()
        with pytest.raises(PeerOutOfStep):
            client.receive(b"250 a\r\n250 b\r\n250 c\r\n")


# Too early: the answer to a command that was not sent yet is somebody else's.


def test_a_reply_before_its_command_ends_it() -> None:
    """An answer that was there before the question may come from another who fed the stream."""
    with pytest.raises(PeerOutOfStep):
        at_greeting().receive(b"220 x\r\n250 ok\r\n")
    with pytest.raises(PeerOutOfStep):
        at_ehlo().receive(b"500 x\r\n250 ok\r\n")  # HELO has not been sent
    with pytest.raises(PeerOutOfStep):
        greeted().receive(b"250 ok\r\n")
    client = greeted()
    client.start(MAIL)
    with pytest.raises(PeerOutOfStep):
        client.receive(b"250 ok\r\n")  # MAIL has not been sent
    with pytest.raises(PeerOutOfStep):
        begun(PLAIN).receive(b"250 mail\r\n250 rcpt\r\n")


# 421.


def test_421_as_greeting_or_to_ehlo_refuses_the_session() -> None:
    """RFC 5321 §3.8, §4.2.2."""
    for client in (at_greeting(), at_ehlo()):
        hear(client, b"421 4.3.2 busy\r\n")
        event = client.next_event()
        assert isinstance(event, SessionRefused)
        assert event.reply.is_transient
        assert client.is_closing


@pytest.mark.parametrize("code", [b"554", b"450", b"521"])
def test_a_refusing_greeting(code: bytes) -> None:
    """RFC 5321 §3.1, RFC 7504 §3."""
    client = at_greeting()
    assert hear(client, code + b" no\r\n") == b""
    event = client.next_event()
    assert isinstance(event, SessionRefused)
    assert event.reply.code == int(code)


def test_421_while_idle_closes() -> None:
    client = greeted()
    assert hear(client, b"421 4.4.2 idle\r\n") == b""
    assert client.is_closing
    assert client.next_event() is None


@pytest.mark.parametrize("ehlo", [PIPELINING, PLAIN])
@pytest.mark.parametrize("answered", range(5))
@pytest.mark.parametrize("is_lmtp", [False, True])
def test_421_in_the_envelope_is_the_reply_for_all_that_is_open(
    ehlo: bytes, answered: int, is_lmtp: bool
) -> None:
    """RFC 5321 §3.8: the server closes, so no other reply will come."""
    client = begun(ehlo, is_lmtp=is_lmtp)
    for reply in (b"250 a\r\n", b"250 b\r\n", b"550 c\r\n", b"250 d\r\n")[:answered]:
        hear(client, reply)
    assert hear(client, b"421 4.3.2 bye\r\n") == b""
    assert codes(client) == [421, 550 if answered > 2 else 421, 421]
    assert client.is_closing
    assert client.data_to_send() == b""


def test_421_after_the_content_is_no_acceptance() -> None:
    client = at_content()
    assert hear(client, b"421 4.3.2 bye\r\n") == b""
    assert codes(client) == [421, 550, 421]


def test_421_between_the_replies_of_lmtp_keeps_what_was_said() -> None:
    """RFC 2033 §4.2: each recipient's reply stands alone; what was taken must not go twice."""
    client = at_content(is_lmtp=True)
    hear(client, b"250 ann has it\r\n")
    assert client.next_event() is None
    hear(client, b"421 4.3.2 bye\r\n")
    assert codes(client) == [250, 550, 421]


def test_421_before_the_content_was_sent_whole() -> None:
    client = begun()
    hear(client, b"250 a\r\n250 b\r\n550 c\r\n250 d\r\n354 e\r\n")
    assert isinstance(client.next_event(), ContentWanted)
    hear(client, b"421 4.3.2 bye\r\n")
    client.content_sent()  # the caller may find out later
    assert codes(client) == [421, 550, 421]


# RFC 2920 §3.1: 354 although no recipient was taken.


def test_354_without_recipients_gets_a_lone_dot() -> None:
    client = begun()
    out = hear(client, b"250 a\r\n550 b\r\n450 c\r\n550 d\r\n354 go\r\n")
    assert out == b".\r\n"
    assert codes(client) == [550, 450, 550]
    # Whatever it says to the dot, the next transaction is in step.
    assert hear(client, b"250 queued?\r\n") == b""
    client.start(MAIL)
    client.data_to_send()
    hear(client, b"250 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n")
    assert isinstance(client.next_event(), ContentWanted)


def test_354_after_a_refused_sender_gets_a_lone_dot() -> None:
    client = begun()
    assert hear(client, b"550 a\r\n503 b\r\n503 c\r\n503 d\r\n354 go\r\n") == b".\r\n"
    assert codes(client) == [550] * 3


def test_a_refused_sender_refuses_all() -> None:
    client = begun()
    assert hear(client, b"451 a\r\n503 b\r\n503 c\r\n503 d\r\n503 e\r\n") == b"RSET\r\n"
    assert codes(client) == [451] * 3
    client = begun(PLAIN)
    assert hear(client, b"451 a\r\n") == b"RSET\r\n"
    assert codes(client) == [451] * 3


def test_data_refused_is_the_reply_of_those_taken() -> None:
    client = begun()
    assert hear(client, b"250 a\r\n250 b\r\n550 c\r\n250 d\r\n451 e\r\n") == b"RSET\r\n"
    assert codes(client) == [451, 550, 451]


def test_chunks_are_not_sent_before_recipients_are_known() -> None:
    """RFC 3030 §4.2: BDAT needs a recipient, or its octets are for nothing."""
    client = begun(mail=CHUNKED)
    assert hear(client, b"250 a\r\n550 b\r\n550 c\r\n") == b""
    assert client.next_event() is None
    assert hear(client, b"550 d\r\n") == b"RSET\r\n"
    assert codes(client) == [550] * 3


# Words of a peer.


def test_controls_and_other_charsets_in_replies_do_no_harm() -> None:
    client = begun()
    hear(client, b"550 5.7.1 \x1b[2Jno\rway\0 \xff\xc3\xbc\r\n503 b\r\n503 c\r\n503 d\r\n503 e\r\n")
    event = client.next_event()
    assert isinstance(event, TransactionEnded)
    reply = event.replies[0]
    assert reply.enhanced == "5.7.1"
    assert reply.text.isprintable()
    assert reply.wire.isascii()
    assert reply.wire.count(b"\n") == 1


@pytest.mark.parametrize(
    "ehlo",
    [
        b"250 x\r\n",
        b"250\r\n",
        b"250-x\r\n250-\r\n250 \r\n",
        b"250-x\r\n250-SIZE abc\r\n250-SIZE 99999999999999999999999\r\n250 SIZE -1\r\n",
        b"250-x\r\n250-SIZE \xc2\xb2\r\n250-LIMITS RCPTMAX=\xc2\xb2\r\n250 x\r\n",
        b"250-x\r\n250-SIZE \xef\xbc\x95\r\n250-LIMITS RCPTMAX=\xef\xbc\x95\r\n250 x\r\n",
        b"250-x\r\n250-PIPELINING PIPELINING\r\n250-pipelining\r\n250 AUTH=LOGIN\r\n",
        b"250-x\r\n250-LIMITS RCPTMAX=99999999999999999999999999 MAILMAX RCPTMAX=\r\n250 y\r\n",
        b"250-\xff\xfe\0\r\n250 \x1b[2J\r\n",
        b"250-SIZE x\r\n250-SIZE "
        + b"9" * 9_000
        + b"\r\n250 LIMITS RCPTMAX="
        + b"9" * 9_000
        + b"\r\n",
    ],
)
def test_odd_keywords_are_no_fault(ehlo: bytes) -> None:
    client = greeted(ehlo)
    assert client.max_recipients is None or client.max_recipients > 0
    assert client.max_transactions is None
    client.start(MAIL)
    assert client.data_to_send().startswith(b"MAIL FROM:<>")


@given(
    st.sampled_from(sorted(STAGES)),
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [
                    b"250 ok\r\n",
                    b"250-ok\r\n",
                    b"354 go\r\n",
                    b"421 bye\r\n",
                    b"450 no\r\n",
                    b"550 no\r\n",
                    b"250\n",
                    b"2",
                    b"50",
                    b" \r\n",
                ]
            ),
        ),
        max_size=30,
    ),
)
def test_any_octets_end_in_events_or_out_of_step(stage: str, pieces: list[bytes]) -> None:
    client = STAGES[stage]()
    ended = 0
    wanted = 0
    with contextlib.suppress(PeerOutOfStep):
        for piece in pieces:
            client.receive(piece)
            while (event := client.next_event()) is not None:
                if isinstance(event, ContentWanted):
                    wanted += 1
                    client.data_to_send()
                    client.content_sent()
                elif isinstance(event, TransactionEnded):
                    ended += 1
                    assert len(event.replies) == len(TO)
                    assert all(reply.code >= 200 for reply in event.replies)
            client.data_to_send()
    assert ended <= 1
    assert wanted <= 1
