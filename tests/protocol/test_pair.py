"""ClientSession against ServerSession: what one says, the other understands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.pair import Pair
from waypost.mail.address import Address
from waypost.mail.envelope import Body, Envelope, Notify, Recipient, Ret
from waypost.mail.reply import Reply
from waypost.smtp import client as client_replies
from waypost.smtp.client import Transaction, TransactionEnded
from waypost.smtp.events import ServerSettings

CODES = {"nobody": 550, "later": 450}


def settings(*, is_lmtp: bool = False, recipients: int = 20, size: int = 5_000) -> ServerSettings:
    return ServerSettings(max_message_bytes=size, max_recipients=recipients, is_lmtp=is_lmtp)


def expected_code(recipient: Recipient, *, is_lmtp: bool) -> int:
    name = recipient.forward_path.local_part
    if is_lmtp and name == "full":
        return 452
    return CODES.get(name, 250)


domains = st.sampled_from(["b.example", "[192.0.2.7]", "[IPv6:2001:db8::7]"])
local_parts = st.sampled_from(["ann", "bob", "nobody", "later", "full", '"a b"', "a+b", "x=y"])
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)
originals = st.one_of(
    st.none(),
    st.sampled_from(["rfc822;ann+x@b.example", 'rfc822;"a b"@c.example', "x-local;=+;"]),
    st.sampled_from(["utf-8;jürgen@bücher.example", "utf-8;用户@例え.jp", r"utf-8;a\b +=@c"]),
)
notifies = st.one_of(
    st.none(),
    st.just(Notify.NEVER),
    st.sets(st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY]), min_size=1).map(
        lambda flags: Notify(sum(flags))
    ),
)
recipients = st.builds(
    lambda local, domain, original, notify: Recipient(
        Address.parse(f"{local}@{domain}"), original, notify
    ),
    local_parts,
    domains,
    originals,
    notifies,
)
lines = st.sampled_from([b"", b".", b"..", b".x", b"hello", b"x" * 70, b"QUIT", b"."])
text_contents = st.lists(lines, max_size=12).map(lambda all_: b"".join(x + b"\r\n" for x in all_))
binary_contents = st.one_of(st.binary(max_size=60), text_contents)
envelopes = st.builds(
    Envelope,
    reverse_path=st.sampled_from(
        [None, Address.parse("s@b.example"), Address.parse("s@[192.0.2.1]")]
    ),
    body=st.sampled_from([None, Body.SEVEN_BIT, Body.EIGHT_BIT_MIME]),
    envid=st.one_of(st.none(), printable),
    ret=st.sampled_from([None, Ret.FULL, Ret.HEADERS]),
    requiretls=st.just(False),  # these sessions are in clear; see test_requiretls
)
mails = st.lists(
    st.tuples(envelopes, st.lists(recipients, min_size=1, max_size=6), text_contents),
    min_size=1,
    max_size=4,
)
HIDDEN = ["PIPELINING", "SIZE", "8BITMIME", "CHUNKING", "DSN", "LIMITS", "ENHANCEDSTATUSCODES"]


@given(mails, st.booleans(), st.sets(st.sampled_from(HIDDEN)), st.integers())
def test_every_mail_arrives_as_it_was_sent(
    mails: list[tuple[Envelope, list[Recipient], bytes]],
    is_lmtp: bool,
    without: set[str],
    seed: int,
) -> None:
    pair = Pair(settings(is_lmtp=is_lmtp), without=without, seed=seed)
    pair.connect()
    count = 0
    for envelope, to, content in mails:
        codes = pair.carry(Transaction(envelope, to, len(content), is_eight_bit=False), content)
        assert codes == [expected_code(recipient, is_lmtp=is_lmtp) for recipient in to]
        taken = [
            recipient
            for recipient in to
            if recipient.forward_path.local_part not in ("nobody", "later")
        ]
        if not taken:
            continue
        count += 1
        assert len(pair.server.accepted) == count
        message = pair.server.accepted[-1]
        assert message.content == content
        assert message.mail.reverse_path == envelope.reverse_path
        assert [heard.forward_path for heard in message.recipients] == [
            recipient.forward_path for recipient in taken
        ]
        assert message.mail.size == (None if "SIZE" in without else len(content))
        if "DSN" in without:
            assert message.mail.envid is None
            assert message.mail.ret is None
            assert all(heard.notify is None for heard in message.recipients)
        else:
            assert message.mail.envid == envelope.envid
            assert message.mail.ret == envelope.ret
            assert [heard.notify for heard in message.recipients] == [
                recipient.notify for recipient in taken
            ]
            for heard, recipient in zip(message.recipients, taken, strict=True):
                if recipient.original_recipient is not None:
                    assert heard.original_recipient == recipient.original_recipient
    pair.client.quit()
    pair.settle()
    assert pair.server.is_closed
    assert len(pair.server.accepted) == count


@given(st.lists(binary_contents, min_size=1, max_size=3), st.booleans(), st.integers())
def test_binary_content_goes_by_chunks_and_arrives_exactly(
    contents: list[bytes], is_lmtp: bool, seed: int
) -> None:
    """RFC 3030 §3."""
    pair = Pair(settings(is_lmtp=is_lmtp), seed=seed)
    pair.connect()
    envelope = Envelope(None, Body.BINARY_MIME)
    to = [Recipient(Address.parse(f"{name}@b.example")) for name in ("ann", "nobody", "full")]
    for content in contents:
        transaction = Transaction(envelope, to, len(content), is_eight_bit=True)
        assert pair.carry(transaction, content) == [250, 550, 452 if is_lmtp else 250]
        assert pair.server.accepted[-1].content == content
        assert pair.server.accepted[-1].mail.body is Body.BINARY_MIME


def mail_to(*names: str) -> Transaction:
    to = [Recipient(Address.parse(f"{name}@b.example")) for name in names]
    return Transaction(Envelope(Address.parse("s@b.example")), to, 3, is_eight_bit=False)


def test_a_pipelining_peer_gets_the_envelope_in_one_burst() -> None:
    """RFC 2920 §3.1; without the keyword each command waits for its reply."""
    pair = Pair(settings())
    pair.connect()
    before = pair.bursts
    assert pair.carry(mail_to("a", "b", "c"), b"x\r\n") == [250] * 3
    assert pair.bursts == before + 1
    pair = Pair(settings(), without=["PIPELINING"])
    pair.connect()
    before = pair.bursts
    assert pair.carry(mail_to("a", "b", "c"), b"x\r\n") == [250] * 3
    assert pair.bursts == before + 5


@pytest.mark.parametrize("without", [[], ["PIPELINING"]])
@pytest.mark.parametrize("is_lmtp", [False, True])
def test_refusals_leave_the_session_in_step(without: list[str], is_lmtp: bool) -> None:
    pair = Pair(settings(is_lmtp=is_lmtp, recipients=2), without=without)
    pair.connect()
    assert pair.carry(mail_to("nobody", "later"), b"") == [550, 450]
    assert pair.carry(mail_to("a"), b"x\r\n") == [250]
    refused = Transaction(
        Envelope(Address.parse("refused@b.example")),
        mail_to("a", "nobody").recipients,
        0,
        is_eight_bit=False,
    )
    assert pair.carry(refused, b"") == [550, 550]
    assert pair.carry(mail_to("nodisk", "nobody"), b"") == [452, 550]
    assert pair.carry(mail_to("a", "nobody", "b", "c"), b"x\r\n") == [250, 550, 250, 452]
    assert pair.carry(mail_to("a"), b"x\r\n") == [250]
    assert len(pair.server.accepted) == 3


def test_old_servers_are_greeted_with_helo() -> None:
    """RFC 5321 §3.2: a server that does not know EHLO."""
    client = Pair(settings()).client
    client.receive(b"220 old\r\n")
    assert client.data_to_send() == b"EHLO client.example\r\n"
    client.receive(b"500 what\r\n")
    assert client.data_to_send() == b"HELO client.example\r\n"
    client.receive(b"250 hello\r\n")
    assert client.is_ready
    client.next_event()
    client.start(mail_to("a"))
    assert client.data_to_send() == b"MAIL FROM:<s@b.example>\r\n"


# What the peer lacks.


def carry_without(without: list[str], transaction: Transaction) -> tuple[list[Reply], bytes]:
    pair = Pair(settings(), without=without)
    pair.connect()
    pair.sent = b""
    pair.client.start(transaction)
    event = pair.next_event()
    assert isinstance(event, TransactionEnded)
    pair.settle()
    assert pair.carry(mail_to("a"), b"x\r\n") == [250]
    return event.replies, pair.sent


ANN = Recipient(Address.parse("ann@b.example"))
JUERGEN = Recipient(Address.parse("jürgen@b.example"))


@pytest.mark.parametrize(
    ("without", "transaction", "reply"),
    [
        (
            ["SMTPUTF8"],
            Transaction(Envelope(None, smtputf8=True), [ANN], 1, is_eight_bit=False),
            client_replies.NEEDS_SMTPUTF8,
        ),
        (
            ["SMTPUTF8"],
            Transaction(Envelope(None), [ANN, JUERGEN], 1, is_eight_bit=False),
            client_replies.NEEDS_SMTPUTF8,
        ),
        (
            ["SMTPUTF8"],
            Transaction(Envelope(JUERGEN.forward_path), [ANN], 1, is_eight_bit=False),
            client_replies.NEEDS_SMTPUTF8,
        ),
        (
            ["CHUNKING"],
            Transaction(Envelope(None, Body.BINARY_MIME), [ANN], 1, is_eight_bit=True),
            client_replies.NEEDS_BINARYMIME,
        ),
        (
            ["BINARYMIME"],
            Transaction(Envelope(None, Body.BINARY_MIME), [ANN], 1, is_eight_bit=False),
            client_replies.NEEDS_BINARYMIME,
        ),
        (
            ["8BITMIME"],
            Transaction(Envelope(None, Body.EIGHT_BIT_MIME), [ANN], 1, is_eight_bit=True),
            client_replies.NEEDS_8BITMIME,
        ),
        (
            [],
            Transaction(Envelope(None), [ANN, ANN], 5_001, is_eight_bit=False),
            client_replies.TOO_BIG_FOR_PEER,
        ),
    ],
)
def test_what_the_peer_cannot_carry_is_not_offered_to_it(
    without: list[str], transaction: Transaction, reply: Reply
) -> None:
    """RFC 6531 §3.2, RFC 3030 §3, RFC 6152 §3, RFC 1870 §6.1."""
    replies, sent = carry_without(without, transaction)
    assert replies == [reply] * len(transaction.recipients)
    assert reply.is_permanent
    assert sent.count(b"MAIL FROM") == 1


@pytest.mark.parametrize(
    ("body", "is_eight_bit", "without", "command"),
    [
        (None, False, [], b"MAIL FROM:<> SIZE=7\r\n"),
        (None, True, [], b"MAIL FROM:<> SIZE=7 BODY=8BITMIME\r\n"),
        (Body.EIGHT_BIT_MIME, False, ["8BITMIME", "SIZE"], b"MAIL FROM:<>\r\n"),
        (None, True, ["8BITMIME"], b"MAIL FROM:<> SIZE=7\r\n"),
        (Body.BINARY_MIME, True, [], b"MAIL FROM:<> SIZE=7 BODY=BINARYMIME\r\n"),
    ],
)
def test_mail_command(
    body: Body | None, is_eight_bit: bool, without: list[str], command: bytes
) -> None:
    pair = Pair(settings(), without=without)
    pair.connect()
    pair.client.start(Transaction(Envelope(None, body), [ANN], 7, is_eight_bit=is_eight_bit))
    assert pair.client.data_to_send().startswith(command)


def test_utf8_goes_out_with_smtputf8() -> None:
    """RFC 6531 §3.4."""
    pair = Pair(settings())
    pair.connect()
    envelope = Envelope(JUERGEN.forward_path, smtputf8=True)
    assert pair.carry(Transaction(envelope, [JUERGEN], 0, is_eight_bit=False), b"") == [250]
    message = pair.server.accepted[0]
    assert message.mail.smtputf8
    assert message.mail.reverse_path == message.recipients[0].forward_path == JUERGEN.forward_path


def test_limits_of_the_peer_are_read() -> None:
    """RFC 9422 §4."""
    client = Pair(settings()).client
    client.receive(b"220 x\r\n")
    client.data_to_send()
    client.receive(b"250-x\r\n250-limits MAILMAX=5 RCPTMAX=1 FOO=x\r\n250 SIZE\r\n")
    assert (client.max_transactions, client.max_recipients) == (5, 1)
    client = Pair(settings()).client
    client.receive(b"220 x\r\n")
    client.data_to_send()
    client.receive(b"250-x\r\n250 LIMITS MAILMAX=0 RCPTMAX=x\r\n")
    assert (client.max_transactions, client.max_recipients) == (None, None)
