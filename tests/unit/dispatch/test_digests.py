"""Gathering what was held back: bounds, trouble with the store, and faults of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, cast

import pytest

from tests.contract.mail import new_message, on_loop
from tests.support.mail import parsed, wire
from waypost.devices.names import DeviceNames
from waypost.dispatch import digests
from waypost.dispatch.digests import Digests
from waypost.dispatch.storms import Storms, Why, why_held
from waypost.errors import StoreUnavailable
from waypost.mail.address import Address
from waypost.mail.envelope import STORM, OutcomeKind, QueuedRecipient, QueueId
from waypost.mail.message import Content, QueuedMessage
from waypost.mail.standing import standing_of
from waypost.observe import Log
from waypost.queue.spool import InlineContent
from waypost.queue.store import QueueIdSource, QueueStore, Settlement
from waypost.routing.storms import StormSettings, Then
from waypost.routing.table import Rule
from waypost.routing.targets import Target

IDS = QueueIdSource()


class Store:
    """Takes settlements, or is away for the first `away` of them."""

    def __init__(self) -> None:
        self.settled: list[Sequence[Settlement]] = []
        self.away = 0
        self.fault: Exception | None = None

    def next_id(self) -> QueueId:
        return IDS.next_id()

    def settle_together(self, settlements: Sequence[Settlement]) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.away:
            self.away -= 1
            done.set_exception(StoreUnavailable("away"))
        elif self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        else:
            self.settled.append(settlements)
            done.set_result(None)
        return done

    @property
    def made(self) -> list[QueuedMessage]:
        """The digests, in order."""
        return [digest for batch in self.settled for one in batch for digest in one.reports]


class Bench:
    """Digests with all they need."""

    def __init__(self, then: Then = Then.DIGEST) -> None:
        self.store = Store()
        self.released: list[QueuedMessage] = []
        self.tasks: list[asyncio.Task[None]] = []
        rule = Rule("cameras", (Target("webhook", "plc"),), storm=StormSettings(5, 300.0, then))
        log = cast(Log, self)
        storms = Storms(
            [rule], names=DeviceNames, devices=cast(Any, None), events=cast(Any, None), log=log
        )
        self.logged: list[str] = []
        self.digests = Digests(
            cast(QueueStore, self.store),
            storms,
            share=self.share,
            release=lambda message, recipients: self.released.append(message),
            start=self.start,
            postmaster=lambda message: Address.parse("postmaster@[127.0.0.1]"),
            log=log,
        )

    def event(self, name: str, **_: object) -> None:
        self.logged.append(name)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def share(self, content: Content, queue_id: QueueId) -> Content:
        return content

    def add(self, count: int, *, target: str = "webhook:plc", size: int = 10) -> list[QueueId]:
        """So many mails become due."""
        added = []
        for number in range(count):
            content = InlineContent(wire(f"Subject: Motion {number}", "", "x" * size))
            message = new_message(IDS.next_id(), content=content)
            self.digests.add(message, held(message, target))
            added.append(message.queue_id)
        return added

    async def settle(self, batches: int) -> None:
        while len(self.store.settled) < batches:
            await asyncio.sleep(0.005)
        for task in self.tasks:
            await task


def held(
    message: QueuedMessage, target: str = "webhook:plc", why: Why = Why.STORM
) -> QueuedRecipient:
    recipient = message.recipients[0].recipient
    return QueuedRecipient(1, recipient, target, "cameras", last_reply=f"{why} until 17:05")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "GATHER_S", 0.02)
    monkeypatch.setattr(digests, "AGAIN_S", 0.01)


@on_loop
async def test_pieces_become_one() -> None:
    bench = Bench()
    added = bench.add(10)
    await asyncio.sleep(0)
    added += bench.add(20)
    await bench.settle(1)
    [digest] = bench.store.made
    standing = standing_of(digest.prepend)
    assert standing.more == 30
    assert [one["id"] for one in standing.suppressed] == added[:20]
    assert digest.arrival.listener == STORM
    assert [one.target for one in digest.recipients] == ["webhook:plc"]
    assert parsed(digest.content.inline or b"")["Subject"] == "30 more from 127.0.0.1 in 5 minutes"
    [batch] = bench.store.settled
    results = [result for one in batch for result in one.results]
    assert {result.outcome.kind for result in results} == {OutcomeKind.SUPPRESSED}
    assert {one.message.queue_id for one in batch} == set(added)
    # Only what its subject is in is kept of each.
    assert all(len(one.message.content.inline or b"") <= 2_048 for one in batch)


@on_loop
async def test_one_digest_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MAX_IN_ONE", 40)
    bench = Bench()
    bench.add(101)
    await bench.settle(3)
    more = [standing_of(one.prepend).more for one in bench.store.made]
    assert more == [40, 40, 21]


@on_loop
async def test_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MAX_GATHERED", 50)
    monkeypatch.setattr(digests, "GATHER_S", 60.0)
    bench = Bench()
    for number in range(60):
        bench.add(2, target=f"webhook:{number}")
    await bench.settle(50)
    assert bench.digests._count <= 50
    monkeypatch.setattr(digests, "MAX_OCTETS", 10_000)
    bench.add(2, target="webhook:large", size=11_000)
    assert not bench.digests._gatherings
    assert (bench.digests._count, bench.digests._octets) == (0, 0)


@on_loop
async def test_the_same_digest_is_offered_until_the_store_is_back() -> None:
    bench = Bench()
    bench.store.away = 3
    bench.add(3)
    await bench.settle(1)
    assert bench.logged == ["digest-waits"] * 3 + ["digest"]
    assert len(bench.store.made) == 1


@on_loop
async def test_a_fault_of_ours_loses_nothing() -> None:
    bench = Bench()
    bench.store.fault = RuntimeError("nobody thought of this")
    bench.add(3)
    await bench.settle(1)
    assert bench.logged == ["bug"]
    [batch] = bench.store.settled
    for settlement in batch:
        [result] = settlement.results
        assert result.next_attempt_at is not None
        # It is known again for what it is.
        result.recipient.last_reply = str(result.outcome.reply)
        assert why_held(result.recipient) is Why.STORM


@on_loop
async def test_the_last_is_whole_when_it_stands_for_the_others() -> None:
    bench = Bench(Then.MERGE)
    added = bench.add(3, size=5_000)
    await bench.settle(1)
    [merged] = bench.store.made
    standing = standing_of(merged.prepend)
    assert standing.more == 2
    assert [one["id"] for one in standing.suppressed] == added[:2]
    assert merged.prepend.endswith(b"Received: from client.test by hub.test\r\n")
    assert merged.content.size > 5_000
    assert merged.queue_id not in added


@on_loop
async def test_one_alone_is_let_go_as_it_is() -> None:
    bench = Bench()
    [queue_id] = bench.add(1)
    while not bench.released:
        await asyncio.sleep(0.005)
    assert [one.queue_id for one in bench.released] == [queue_id]
    assert not bench.store.settled


@on_loop
async def test_the_end_of_the_hub_makes_no_digest() -> None:
    bench = Bench()
    bench.add(3)
    bench.digests.stop()
    await asyncio.sleep(0.05)
    assert not bench.store.settled
    assert not bench.tasks


def test_no_host_can_say_that_mail_was_held_back() -> None:
    recipient = held(new_message(IDS.next_id()))
    assert why_held(recipient) is Why.STORM
    recipient.attempts = 1
    assert why_held(recipient) is None


def test_strangers_count_by_themselves() -> None:
    bench = Bench()
    storms = bench.digests._storms
    arrival = new_message(IDS.next_id()).arrival._replace(trusted=False)
    assert storms.source_of(arrival._replace(client_ip=ip_address("192.0.2.1"))) == "192.0.2.1"
    first, second = (
        storms.source_of(arrival._replace(client_ip=ip_address(ip)))
        for ip in ("2001:db8::1", "2001:db8::2")
    )
    assert first == second == "2001:db8::/64"
