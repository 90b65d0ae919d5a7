"""Attacks 1 to 10: one DATA is one message, and BDAT takes what it says, no more and no less.

Behind every string that a receiver with other ideas might take for an end stand commands that it
would run. Here they are content, whatever the segments they come in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.attacks.talk import Talk
from tests.attacks.world import World
from tests.support.hub import Hub
from tests.support.mail import content_of
from tests.support.waiting import wait_until

ENDS = {
    1: b"\r\n.\r\n",
    2: b"\n.\n",
    3: b"\n.\r\n",
    4: b"\r\n.\n",
    5: b"\r.\r",
    6: b"\r.\r\n",
    7: b"\r\n.\r",
    8: b"\r\n.\r\r\n",
    9: b"\n.\r\n",  # in two segments that part CR and LF
}
# Beyond the table: lone ones, and NUL where a reader might skip it.
ODD = [
    b"\r",
    b"\n",
    b"\r\r\n",
    b"\0",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\0\n.\r\0\n",
    b"\n\r.\n\r",
]
BODY = b"Subject: first\r\n\r\nfirst"
EVIL = b"MAIL FROM:<evil@[10.9.0.50]>\r\nRCPT TO:<ann@plant.example>\r\nDATA\r\nevil"
TRUE_END = b"\r\n.\r\n"
CASES = [(number, end) for number, end in ENDS.items() if number > 1]
CASES += [(0, odd) for odd in ODD]
IDS = [f"{number or 'odd'}-{end!r}" for number, end in CASES]


def segments(octets: bytes) -> Iterator[list[bytes]]:
    """Whole, parted at every place, and octet by octet."""
    yield [octets]
    for place in range(1, len(octets)):
        yield [octets[:place], octets[place:]]
    yield [octets[place : place + 1] for place in range(len(octets))]


@contextlib.contextmanager
def transaction(world: World, who: str, recipient: str) -> Iterator[Talk]:
    """A session that has been told to go on with the content."""
    with world.stranger(200) if who == "stranger" else world.trusted() as talk:
        assert talk.begin(recipient, sender="x@elsewhere.example")[0].startswith("250")
        assert talk.say("DATA")[0].startswith("354")
        yield talk


@pytest.mark.parametrize(("number", "end"), CASES, ids=IDS)
def test_attacks_2_to_9_no_other_end_from_a_stranger(
    world: World, hub: Hub, number: int, end: bytes
) -> None:
    """Read to its true end, refused, and closed: of what stands in it nothing is obeyed."""
    before = len(hub.mailbox("ann"))
    for pieces in segments(end):
        with transaction(world, "stranger", "ann@plant.example") as talk:
            talk.send(BODY)
            for piece in pieces:
                talk.send(piece)
                assert_silent(talk)
            talk.send(EVIL + TRUE_END + b"NOOP\r\n")
            said = talk.rest()
        assert said.startswith(b"550 5.6.0 "), (pieces, said)
        assert said.count(b"\r\n") == 1, (pieces, said)
    wait_until(lambda: not hub.json("queue", "list"))
    assert len(hub.mailbox("ann")) == before


@pytest.mark.parametrize(("number", "end"), CASES, ids=IDS)
def test_attacks_2_to_9_no_other_end_from_a_trusted_client(
    world: World, hub: Hub, number: int, end: bytes
) -> None:
    """Its line ends are mended; its messages stay as many as they were."""
    mailbox = f"mended-{number}-{end.hex()}"
    ways = list(segments(end))
    for pieces in ways:
        with transaction(world, "trusted", f"{mailbox}@[10.9.0.1]") as talk:
            talk.send(BODY)
            for piece in pieces:
                talk.send(piece)
                assert_silent(talk)
            talk.send(EVIL + TRUE_END)
            assert "queued as" in talk.reply()
            assert talk.say("NOOP") == ["250 2.0.0 Ok"]
    contents = {content_of(stored) for stored in hub.wait_for_mail(mailbox, len(ways))}
    assert len(hub.mailbox(mailbox)) == len(ways)
    # However it came, it is the same one message, and only CRLF ends its lines.
    (content,) = contents
    assert content.startswith(BODY)
    assert content.endswith(b"\r\nDATA\r\nevil\r\n")
    bare = content.replace(b"\r\n", b"")
    assert b"\r" not in bare
    assert b"\n" not in bare
    assert b"\0" not in bare


@pytest.mark.parametrize("who", ["stranger", "trusted"])
def test_attack_1_the_one_true_end(world: World, hub: Hub, who: str) -> None:
    """In whatever segments it comes, and with the next commands right behind it."""
    before = len(hub.mailbox("ann"))
    ways = list(segments(ENDS[1]))
    for pieces in ways:
        with transaction(world, who, "ann@plant.example") as talk:
            talk.send(BODY)
            for piece in pieces[:-1]:
                talk.send(piece)
                assert_silent(talk)
            talk.send(pieces[-1] + b"NOOP\r\nRSET\r\n")
            assert "queued as" in talk.reply()
            assert [talk.reply(), talk.reply()] == ["250 2.0.0 Ok"] * 2
    assert len(hub.wait_for_mail("ann", before + len(ways))) == before + len(ways)


def test_attack_1_dots_are_unstuffed_once(world: World, hub: Hub) -> None:
    lines = [b".", b"..", b"...", b". ", b".x", b"..x", b"x.", b" ."]
    stuffed = b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in lines)
    before = len(hub.mailbox("ann"))
    for size in (1, 2, 3, 5, 1000):
        with transaction(world, "stranger", "ann@plant.example") as talk:
            for start in range(0, len(stuffed), size):
                talk.send(stuffed[start : start + size])
            talk.send(b".\r\n")
            assert "queued as" in talk.reply()
        before += 1
        stored = hub.wait_for_mail("ann", before)[-1]
        assert content_of(stored) == b"".join(line + b"\r\n" for line in lines)


# Attack 10: BDAT.

BARE = [b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"a\n.\nMAIL FROM:<>\r\n", b"\r\n.\r\n\n"]


@pytest.mark.parametrize("content", BARE)
def test_attack_10_chunks_with_bare_ends(world: World, hub: Hub, content: bytes) -> None:
    """Refused, wherever a chunk ends, and nothing in them is a command."""
    for place in range(len(content) + 1):
        first, last = content[:place], content[place:]
        with world.stranger(201) as talk:
            talk.begin("ann@plant.example")
            talk.send(b"BDAT %d\r\n%b" % (len(first), first))
            talk.send(b"BDAT %d LAST\r\n%b" % (len(last), last))
            talk.send(b"NOOP\r\n")
            replies = talk.replies(3)
        assert any(reply.startswith("550 5.6.0") for reply in replies), (place, replies)
        assert not any("queued" in reply for reply in replies)


def test_attack_10_an_empty_last_chunk(world: World, hub: Hub) -> None:
    before = len(hub.mailbox("ann"))
    with world.stranger(202) as talk:
        talk.begin("ann@plant.example")
        talk.send(b"BDAT 14\r\nSubject: x\r\n\r\n")
        assert talk.reply().startswith("250")
        assert "queued as" in talk.say("BDAT 0 LAST")[0]
        assert talk.say("BDAT 0 LAST", "NOOP")[1] == "250 2.0.0 Ok"
    assert content_of(hub.wait_for_mail("ann", before + 1)[-1]) == b"Subject: x\r\n\r\n"


SMUGGLED = b"\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<ann@plant.example>\r\nBDAT 4 LAST\r\nevil\r\n"


@pytest.mark.parametrize(
    "begin",
    [
        (),
        ("MAIL FROM:<x@elsewhere.example>",),
        ("MAIL FROM:<x@elsewhere.example>", "RCPT TO:<nobody@plant.example>"),
        ("MAIL FROM:<x@elsewhere.example>", "RCPT TO:<x@elsewhere.example>"),
        ("RCPT TO:<ann@plant.example>",),
    ],
    ids=["no MAIL", "no RCPT", "unknown RCPT", "denied RCPT", "no MAIL but RCPT"],
)
def test_attack_10_a_refused_chunk_is_read_to_its_end(
    world: World, hub: Hub, begin: tuple[str, ...]
) -> None:
    """Its octets are not commands, though nobody wants them."""
    before = len(hub.mailbox("ann"))
    with world.stranger(203) as talk:
        talk.say(*begin)
        talk.send(b"BDAT %d LAST\r\n%bNOOP\r\n" % (len(SMUGGLED), SMUGGLED))
        assert talk.reply().startswith(("503 ", "554 "))
        assert talk.reply() == "250 2.0.0 Ok"
    assert len(hub.mailbox("ann")) == before


def test_attack_10_sizes_that_lie(world: World, hub: Hub) -> None:
    """Too small: the rest is commands, and bad ones. Too large: it takes them as content."""
    before = len(hub.mailbox("ann")) + 1
    with world.stranger(204) as talk:
        talk.begin("ann@plant.example")
        talk.send(b"BDAT 12 LAST\r\nSubject: x\r\nmore\r\n")
        assert "queued as" in talk.reply()
        assert talk.reply().startswith("500 5.5.2")
    assert content_of(hub.wait_for_mail("ann", before)[-1]) == b"Subject: x\r\n"
    with world.stranger(205) as talk:
        talk.begin("ann@plant.example")
        talk.send(b"BDAT 30 LAST\r\nSubject: x\r\nNOOP\r\n")
        assert_silent(talk)
        talk.send(b"NOOP\r\nNOOP\r\nNOOP\r\n")
        assert "queued as" in talk.reply()
    stored = hub.wait_for_mail("ann", before + 1)[-1]
    assert content_of(stored) == b"Subject: x\r\nNOOP\r\nNOOP\r\nNOOP\r\n"[:30]


@pytest.mark.parametrize(
    "size",
    [
        "",
        "-1",
        "+1",
        "0x10",
        "1.5",
        "1e3",
        "99999999999999999999999",
        "\u0661",
        "1 FIRST",
        "1 LAST x",
    ],
)
def test_attack_10_a_size_that_is_none_ends_the_session(world: World, hub: Hub, size: str) -> None:
    """What follows cannot be told from commands."""
    with world.stranger(206) as talk:
        talk.begin("ann@plant.example")
        talk.send(f"BDAT {size}\r\n".encode() + SMUGGLED)
        said = talk.rest()
    assert said.startswith(b"501 "), said
    assert said.count(b"\r\n") == 1


def assert_silent(talk: Talk) -> None:
    """Nothing is said to what has been sent so far.

    A wait as short as this sees most of what is said too early; what it misses, the order of
    the replies shows.
    """
    talk.socket.settimeout(0.002)
    try:
        said = talk.socket.recv(1)
    except TimeoutError:
        said = b""
    finally:
        talk.socket.settimeout(20)
    assert said == b""
