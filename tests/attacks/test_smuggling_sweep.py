"""R14: every string over CR, LF, dot, x and NUL in DATA: messages in = messages out.

By a hub to a real Postfix behind it, which counts what it delivers. Up to length 6 always
(19,531 strings), up to length 8 with --sweep (488,281, about half an hour).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import uvloop

from tests.attacks.world import NO_LIMITS, wait_until_settled
from tests.support.hub import Hub
from tests.support.postfix import Postfix
from tests.support.toml import route
from tests.support.waiting import wait_until

TRUSTED, STRANGER = "127.0.0.1", "127.0.0.2"
CONNECTIONS = 20
# Transactions in one write of a trusted client.
BURST = 25
# Strings that go through before what came of them is looked at.
BLOCK = 20_000
TRUE_END = b"\r\n.\r\n"
# What would be run behind an end that is none.
EVIL = b"MAIL FROM:<>\r\nRCPT TO:<ann@plant.example>\r\nDATA\r\nevil"
BEGIN = b"MAIL FROM:<>\r\nRCPT TO:<ann@plant.example>\r\nDATA\r\n"
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_LINE_END = re.compile(rb"\r\r?\n|\r|\n")
_SUBJECT = re.compile(rb"^Subject: (\S+)$", re.MULTILINE)

T = TypeVar("T")


def strings(longest: int) -> Iterator[bytes]:
    """All of them."""
    for length in range(longest + 1):
        yield from map(bytes, itertools.product(b"\r\n.x\0", repeat=length))


def ends_itself(string: bytes) -> bool:
    """True when it holds the one true end: what follows it is the client's own commands."""
    return TRUE_END in b"a" + string


def is_canonical(string: bytes) -> bool:
    """True when only CRLF ends its lines, and it has no NUL."""
    return _BARE.search(b"a" + string + b"M") is None


class Sent(NamedTuple):
    """One string on its way."""

    subject: str  # which nobody else has
    string: bytes

    @property
    def head(self) -> bytes:
        """What is sent after DATA, before the string."""
        return f"Subject: {self.subject}\r\n\r\na".encode()

    @property
    def content(self) -> bytes:
        """What is sent after DATA."""
        return self.head + self.string + EVIL + TRUE_END

    @property
    def kept(self) -> bytes:
        """What of it arrives, by RFC 5321: lines, each without the dot it was given."""
        lines = _LINE_END.split(self.content[: -len(TRUE_END)])
        text = b"\r\n".join(line.removeprefix(b".") for line in lines) + b"\r\n"
        return text.replace(b"\0", b"")


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begun(cls, port: int, source: str) -> Client:
        """One that has been told to go on with the content."""
        client = await cls.open(port, source)
        client.send(BEGIN)
        await client.expect(b"250", b"250", b"354")
        return client

    @classmethod
    async def open(cls, port: int, source: str) -> Client:
        """A connection that has said EHLO."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        client = cls(reader, writer)
        await client.expect(b"220")
        client.send(b"EHLO x\r\n")
        await client.expect(b"250")
        return client

    def send(self, octets: bytes) -> None:
        """Send them in a write of their own."""
        self._writer.write(octets)

    async def reply(self) -> bytes:
        """The last line of the next reply; nothing when it has closed."""
        while (line := await self._reader.readline())[3:4] == b"-":
            pass
        return line

    async def expect(self, *codes: bytes) -> None:
        """These replies."""
        for code in codes:
            line = await self.reply()
            assert line.startswith(code), (line, code)

    async def rest(self) -> bytes:
        """All it says until it closes; then so does this side."""
        said = await self._reader.read()
        self.close()
        return said

    def close(self) -> None:
        """Go."""
        self._writer.close()


async def share(work: Iterable[T], run: Callable[[T], Awaitable[None]]) -> None:
    """Run through the work with so many at once."""
    left = iter(work)

    async def worker() -> None:
        for some in left:
            await run(some)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(worker())


async def hand_over(port: int, sent: Sequence[Sent]) -> None:
    """As a trusted client, many a connection and many a write; each is one message."""
    idle: list[Client] = []

    async def run(some: Sequence[Sent]) -> None:
        client = idle.pop() if idle else await Client.open(port, TRUSTED)
        client.send(b"".join(BEGIN + one.content for one in some))
        await client.expect(*[b"250", b"250", b"354", b"250 2.0.0 queued"] * len(some))
        idle.append(client)

    await share((sent[start : start + BURST] for start in range(0, len(sent), BURST)), run)
    for client in idle:
        client.send(b"NOOP\r\n")
        await client.expect(b"250")  # in step to the end
        client.close()


async def try_as_stranger(port: int, sent: Sequence[Sent]) -> None:
    """One connection each: what is not canonical is refused, once, and ends it."""

    async def run(one: Sent) -> None:
        client = await Client.begun(port, STRANGER)
        client.send(one.content + b"QUIT\r\n")
        replies = (await client.rest()).splitlines()
        if is_canonical(one.string):
            assert [line[:3] for line in replies] == [b"250", b"221"], (one, replies)
        else:
            assert [line[:9] for line in replies] == [b"550 5.6.0"], (one, replies)

    await share(sent, run)


async def part(port: int, source: str, sent: Sequence[tuple[Sent, int]]) -> None:
    """Each in two segments, parted at a place in the string."""

    async def run(parted: tuple[Sent, int]) -> None:
        one, place = parted
        client = await Client.begun(port, source)
        content = one.content + b"QUIT\r\n"
        client.send(content[: len(one.head) + place])
        await asyncio.sleep(0.003)
        client.send(content[len(one.head) + place :])
        (said, *more) = (await client.rest()).splitlines()
        is_taken = source == TRUSTED or is_canonical(one.string)
        assert said.startswith(b"250" if is_taken else b"550 5.6.0"), parted
        assert len(more) == is_taken, parted

    await share(sent, run)


async def end_early(port: int, source: str, sent: Sequence[Sent]) -> int:
    """Strings that end their message themselves; how many messages were taken in all."""
    taken = 0
    for one in sent:
        client = await Client.begun(port, source)
        client.send(one.content + b".\r\nQUIT\r\n")
        count = (await client.rest()).count(b"queued as")
        # The commands behind the end are the client's own, unless something stands before them;
        # what stands before the end may be refused.
        assert count in (1, 2) if source == TRUSTED else count in (0, 1, 2), one
        taken += count
    return taken


class Out:
    """What Postfix has delivered."""

    def __init__(self, postfix: Postfix) -> None:
        self._postfix = postfix
        self._new = postfix.mailbox("ann") / "new"

    def take(self, count: int) -> dict[str, bytes]:
        """So many messages, no more and no less, by their subjects; they are gone then."""
        wait_until_still(self._count)
        paths = list(self._new.iterdir()) if count else []
        assert len(paths) == count, self._postfix.log_text()[-2000:]
        found = {}
        for path in paths:
            head, _, body = path.read_bytes().partition(b"\n\n")
            subject = _SUBJECT.search(head)
            assert subject is not None, head
            found[subject[1].decode()] = body
            path.unlink()
        assert len(found) == count
        return found

    def _count(self) -> int:
        return len(list(self._new.iterdir())) if self._new.exists() else 0


def wait_until_still(count: Callable[[], int]) -> None:
    """Until nothing has come for a second."""
    before = -1
    while (now := count()) != before:
        before = now
        time.sleep(1)


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    """It delivers to one mailbox, as fast as it can."""
    memory = Path("/dev/shm")
    with Postfix(
        mailboxes=("ann",),
        domains=("plant.example",),
        main_cf={"in_flow_delay": "0s"},
        parent=memory if memory.is_dir() else None,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def hub(postfix: Postfix, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """It sends everything on to Postfix."""
    config = NO_LIMITS + (
        f'[networks]\ntrusted = ["{TRUSTED}/32"]\naccept_from_strangers = true\n'
        '[addresses]\ndomains = ["plant.example"]\n[[mailbox]]\nname = "ann"\n'
    )
    config += route(f"smtp:[127.0.0.1]:{postfix.port}", match='recipient = "ann@plant.example"')
    with Hub(tmp_path_factory.mktemp("sweep"), config) as running:
        yield running


@pytest.mark.timeout(3600)
def test_attacks_1_to_9_every_string_is_one_message(
    hub: Hub, postfix: Postfix, is_sweep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a trusted client all are taken; from a stranger those that are canonical."""
    out = Out(postfix)
    count = taken = 0
    left = (string for string in strings(8 if is_sweep else 6) if not ends_itself(string))
    while block := list(itertools.islice(left, BLOCK)):
        ours = [Sent(f"trusted-{count + number}", each) for number, each in enumerate(block)]
        theirs = [Sent(f"stranger-{count + number}", each) for number, each in enumerate(block)]
        uvloop.run(hand_over(hub.port, ours))
        uvloop.run(try_as_stranger(hub.port, theirs))
        wanted = [*ours, *(one for one in theirs if is_canonical(one.string))]
        wait_until_settled(hub)
        assert_arrived(out.take(len(wanted)), wanted)
        count += len(block)
        taken += len(wanted)
    assert count == (488_281 - 585 if is_sweep else 19_531 - 11)
    with capsys.disabled():
        print(
            f"\n{count} strings, from each of two clients: {taken} messages in, {taken} out", end=""
        )


@pytest.mark.parametrize("source", [TRUSTED, STRANGER])
def test_attacks_1_to_9_every_short_string_parted_anywhere(
    hub: Hub, postfix: Postfix, source: str
) -> None:
    parted = [
        (Sent(f"parted-{source}-{number}-{place}", string), place)
        for number, string in enumerate(strings(3))
        for place in range(len(string) + 1)
    ]
    uvloop.run(part(hub.port, source, parted))
    wanted = [one for one, _ in parted if source == TRUSTED or is_canonical(one.string)]
    assert_arrived(Out(postfix).take(len(wanted)), wanted)


@pytest.mark.parametrize("source", [TRUSTED, STRANGER])
def test_attack_1_strings_that_end_their_message(hub: Hub, postfix: Postfix, source: str) -> None:
    """Two messages at most, the second of the client's own making: what is taken comes out."""
    sent = [
        Sent(f"ended-{number}", string)
        for number, string in enumerate(strings(6))
        if ends_itself(string)
    ]
    taken = uvloop.run(end_early(hub.port, source, sent))
    assert 0 < taken < 2 * len(sent)
    wait_until_settled(hub)
    new = postfix.mailbox("ann") / "new"
    wait_until(lambda: len(list(new.iterdir())) >= taken, postfix.log_text)
    wait_until_still(lambda: len(list(new.iterdir())))
    assert len(list(new.iterdir())) == taken
    for path in new.iterdir():
        path.unlink()


def assert_arrived(found: dict[str, bytes], wanted: Sequence[Sent]) -> None:
    """Each once, as it was sent but for its line ends."""
    for one in wanted:
        body = one.kept.partition(b"\r\n\r\n")[2]
        assert found[one.subject].replace(b"\n", b"\r\n") == body, one
