"""The QueueStore seam (queue/store.py): what every store must do, whatever it is made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.contract.mail import (
    LATER,
    NEVER,
    SENDER,
    TAKEN,
    TEXT,
    accepted_at,
    deferred,
    delivered,
    new_message,
    numbers,
    on_loop,
    result,
    settlement,
)
from tests.contract.stores import IMPLEMENTATIONS, SqliteBench, StoreBench
from waypost.errors import QueueFull, StoreUnavailable
from waypost.mail import reply as replies
from waypost.mail.address import Address
from waypost.mail.envelope import (
    Arrival,
    Body,
    Envelope,
    Notify,
    OutcomeKind,
    QueuedRecipient,
    QueueId,
    Recipient,
    RecipientStatus,
    Ret,
)
from waypost.mail.message import QueuedMessage
from waypost.queue.spool import InlineContent
from waypost.queue.sqlite import TRACE_S, StoreInUse
from waypost.queue.store import Action, QueueStore, Refusal, encode_queue_id, first_number_at

MANY = 100
THREE = ("ann@[127.0.0.1]", "bob@[127.0.0.1]", "eve@[127.0.0.1]")


@pytest.fixture(params=list(IMPLEMENTATIONS))
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StoreBench]:
    """A store not yet opened."""
    return IMPLEMENTATIONS[request.param](tmp_path / "data", monkeypatch)


@asynccontextmanager
async def opened(bench: StoreBench) -> AsyncIterator[QueueStore]:
    """The store, open while inside."""
    store = await bench.open()
    try:
        yield store
    finally:
        await bench.close()


async def accepted(store: QueueStore, message: QueuedMessage) -> QueuedMessage:
    """Accept, and give back."""
    await store.accept(message)
    return message


async def leased(store: QueueStore, limit: int = MANY) -> list[QueuedMessage]:
    """What is lent once something is: `wait` is a hint, `lease` says what is due."""
    while not (messages := await store.lease(limit)):
        await store.wait()
    return messages


def octets(message: QueuedMessage) -> bytes:
    """The whole content."""
    with message.content.open() as source:
        return source.read()


def status(bench: StoreBench, message: QueuedMessage) -> list[RecipientStatus]:
    """Of each recipient, as kept."""
    entry = bench.entry(message.queue_id)
    assert entry is not None
    return [recipient.status for recipient in entry.recipients]


# Accepting.


@on_loop
async def test_accepted_mail_is_lent_once(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        assert lent.queue_id == message.queue_id
        assert octets(lent) == TEXT
        assert await store.lease(MANY) == []


@on_loop
async def test_all_of_a_message_survives_a_crash_right_after_accept(bench: StoreBench) -> None:
    message = QueuedMessage(
        queue_id=QueueId(""),
        envelope=Envelope(
            Address.parse("jörg@[IPv6:fd00::1]"),
            Body.EIGHT_BIT_MIME,
            smtputf8=True,
            envid="run 7",
            ret=Ret.FULL,
        ),
        arrival=Arrival(
            "UTF8SMTP", ip_address("fd00::1"), ip_address("fd00::2"), "[ünique]", "smtp", False
        ),
        content=InlineContent("Subject: grüße\r\n\r\n\0\x7f\r\n".encode()),
        prepend=b"Received: by us\r\n",
        accepted_at=1_700_000_000.25,
        is_eight_bit=True,
        reports_allowed=False,
        recipients=(
            QueuedRecipient(
                0,
                Recipient(
                    Address.parse('"a b"@[127.0.0.1]'),
                    "rfc822;a@b",
                    Notify.SUCCESS | Notify.DELAY,
                ),
                "mailbox:a b",
                "own address",
            ),
            QueuedRecipient(
                1,
                Recipient(Address.parse("c@xn--bcher-kva.example"), None, Notify.NEVER),
                "smtp:[10.0.0.5]:25",
                "a route",
            ),
        ),
    )
    async with opened(bench) as store:
        message = message._replace(queue_id=store.next_id())
        await store.accept(message)
        crashed = bench.after_crash()
    async with opened(crashed) as store:
        [lent] = await leased(store)
    assert octets(lent) == octets(message)
    for field in ("queue_id", "envelope", "arrival", "prepend", "accepted_at", "is_eight_bit"):
        assert getattr(lent, field) == getattr(message, field)
    assert lent.reports_allowed is False
    assert [
        (recipient.number, recipient.recipient, recipient.target, recipient.rule)
        for recipient in lent.recipients
    ] == [
        (recipient.number, recipient.recipient, recipient.target, recipient.rule)
        for recipient in message.recipients
    ]


@on_loop
async def test_the_null_reverse_path_stays_null(bench: StoreBench) -> None:
    async with opened(bench) as store:
        await store.accept(new_message(store.next_id(), reverse_path=None))
    async with opened(bench) as store:
        [lent] = await leased(store)
        assert lent.envelope.reverse_path is None


@on_loop
async def test_nothing_is_kept_before_accept_is_done(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = new_message(store.next_id())
        with bench.failing(keeps_commit=False), pytest.raises(StoreUnavailable):
            await store.accept(message)
        assert bench.after_crash().entry(message.queue_id) is None


@on_loop
async def test_concurrent_accepts_share_commits(bench: StoreBench) -> None:
    async with opened(bench) as store:
        before = bench.commits
        messages = [new_message(store.next_id()) for _ in range(200)]
        await asyncio.gather(*(store.accept(message) for message in messages))
        assert bench.commits - before <= 10
        assert len(await leased(store, 1000)) == len(messages)


@pytest.mark.parametrize("count", [99, 100, 101, 1_000])
@on_loop
async def test_a_message_for_many_is_kept_whole(bench: StoreBench, count: int) -> None:
    async with opened(bench) as store:
        to = [f"box{number}@[127.0.0.1]" for number in range(count)]
        before = bench.commits
        message = await accepted(store, new_message(store.next_id(), to=to))
        assert bench.commits - before == 1
        [lent] = await leased(store)
        before = bench.commits
        await store.settle(delivered(lent))
        assert bench.commits - before == 1
        assert not bench.content_is_kept(message.queue_id)


@on_loop
async def test_a_bad_request_does_not_fail_those_beside_it(bench: StoreBench) -> None:
    async with opened(bench) as store:
        there = await accepted(store, new_message(store.next_id()))
        twin = new_message(there.queue_id, to=("other@[127.0.0.1]",))
        good = [new_message(store.next_id()) for _ in range(20)]
        batch = [*good[:10], twin, *good[10:]]
        outcomes = await asyncio.gather(
            *(store.accept(message) for message in batch), return_exceptions=True
        )
        assert isinstance(outcomes[10], StoreUnavailable)
        assert [outcome for outcome in outcomes if outcome is not None] == [outcomes[10]]
        lent = {message.queue_id for message in await leased(store)}
        assert lent == {message.queue_id for message in (there, *good)}
    entry = bench.entry(there.queue_id)
    assert entry is not None
    assert [one.address for one in entry.recipients] == ["bob@[127.0.0.1]"]


@on_loop
async def test_queue_ids_are_unique_and_grow_over_restarts(bench: StoreBench) -> None:
    ids: list[QueueId] = []
    for _ in range(3):
        async with opened(bench) as store:
            ids += [store.next_id() for _ in range(2_000)]
    assert ids == sorted(set(ids))
    assert all(len(queue_id) == 13 for queue_id in ids)


@on_loop
async def test_only_one_process_owns_an_embedded_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = SqliteBench(tmp_path / "data", monkeypatch)
    twin = SqliteBench(tmp_path / "data", monkeypatch)
    async with opened(bench):
        with pytest.raises(StoreInUse):
            await twin.open()
        await twin.close()
    async with opened(twin):
        pass  # the first has let go


# Content.


@on_loop
async def test_inline_content_goes_when_the_message_is_finished(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        assert bench.content_is_kept(message.queue_id)
        [lent] = await leased(store)
        await store.settle(delivered(lent))
        assert not bench.content_is_kept(message.queue_id)


@on_loop
async def test_content_in_a_file_goes_when_the_message_is_finished(bench: StoreBench) -> None:
    async with opened(bench) as store:
        queue_id = store.next_id()
        content = await bench.large_content(queue_id, 200_000)
        await store.accept(new_message(queue_id, content=content))
        crashed = bench.after_crash()
        [lent] = await leased(store)
        assert octets(lent) == b"x" * 200_000
        await store.settle(delivered(lent))
        assert not bench.content_is_kept(queue_id)
    async with opened(crashed) as store:
        [lent] = await leased(store)
        assert octets(lent) == b"x" * 200_000


@on_loop
async def test_content_stays_until_the_last_recipient_is_finished(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id(), to=THREE))
        [lent] = await leased(store)
        assert numbers(lent) == [0, 1, 2]
        await store.settle(
            settlement(
                lent,
                result(lent, 0, TAKEN),
                result(lent, 1, LATER, again_at=time.time()),
                result(lent, 2, NEVER),
            )
        )
        assert status(bench, message) == [
            RecipientStatus.FINISHED,
            RecipientStatus.WAITING,
            RecipientStatus.FINISHED,
        ]
    async with opened(bench) as store:
        [lent] = await leased(store)
        assert numbers(lent) == [1]
        assert lent.recipients[0].attempts == 1
        assert lent.recipients[0].last_reply == str(LATER)
        assert octets(lent) == TEXT
        await store.settle(delivered(lent))
        assert not bench.content_is_kept(message.queue_id)
        entry = bench.entry(message.queue_id)
        assert entry is not None
        assert entry.finished_at is not None
        assert [recipient.outcome for recipient in entry.recipients] == [
            OutcomeKind.DELIVERED,
            OutcomeKind.DELIVERED,
            OutcomeKind.FAILED,
        ]


# Lending.


@on_loop
async def test_a_lease_takes_no_more_than_its_limit(bench: StoreBench) -> None:
    async with opened(bench) as store:
        for _ in range(5):
            await store.accept(new_message(store.next_id()))
        assert [len(await store.lease(2)) for _ in range(4)] == [2, 2, 1, 0]
    async with opened(bench) as store:
        assert [len(await store.lease(2)) for _ in range(4)] == [2, 2, 1, 0]


@on_loop
async def test_nothing_is_lent_before_it_is_due(bench: StoreBench) -> None:
    async with opened(bench) as store:
        await store.accept(new_message(store.next_id()))
        [lent] = await leased(store)
        again_at = time.time() + 0.3
        await store.settle(deferred(lent, again_at))
        [lent] = await leased(store)
        assert time.time() >= again_at
        assert lent.recipients[0].attempts == 1


@on_loop
async def test_the_earliest_due_is_lent_first(bench: StoreBench) -> None:
    async with opened(bench) as store:
        for offset in (30, 10, 20):
            message = await accepted(store, new_message(store.next_id()))
            [lent] = await store.lease(1)
            await store.settle(deferred(lent, message.accepted_at - offset))
        order = [(await store.lease(1))[0] for _ in range(3)]
        offsets = [
            round(message.accepted_at - (message.recipients[0].next_attempt_at or 0))
            for message in order
        ]
        assert offsets == [30, 20, 10]


@on_loop
async def test_waiting_ends_when_mail_comes(bench: StoreBench) -> None:
    async with opened(bench) as store:
        assert await store.lease(MANY) == []
        waiting = asyncio.ensure_future(store.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        await store.accept(new_message(store.next_id()))
        await asyncio.wait_for(waiting, 15)
        assert len(await store.lease(MANY)) == 1


@on_loop
async def test_what_was_lent_is_due_again_after_a_restart(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id(), to=THREE))
        [lent] = await leased(store)
        await store.settle(settlement(lent, result(lent, 1, TAKEN)))
        crashed = bench.after_crash()
    for again in (crashed, bench):
        async with opened(again) as store:
            [lent] = await leased(store)
            assert lent.queue_id == message.queue_id
            assert numbers(lent) == [0, 2]


@on_loop
async def test_a_lease_that_fails_takes_nothing_with_it(bench: StoreBench) -> None:
    async with opened(bench) as store:
        old = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        await store.settle(deferred(lent, time.time()))
        new = await accepted(store, new_message(store.next_id()))
        found: set[QueueId] = set()
        # Either answer will do, but no mail may be caught in between.
        with bench.failing(keeps_commit=False), suppress(StoreUnavailable):
            found |= {message.queue_id for message in await store.lease(MANY)}
        found |= await _found(store, 2 - len(found))
        assert found == {old.queue_id, new.queue_id}


async def _found(store: QueueStore, count: int) -> set[QueueId]:
    """The next `count` messages lent by a store that has to come to itself first."""
    found: set[QueueId] = set()
    while len(found) < count:
        try:
            found |= {message.queue_id for message in await store.lease(MANY)}
        except StoreUnavailable:
            await asyncio.sleep(0.05)
            continue
        if len(found) < count:
            await store.wait()
    return found


# Settling.


@on_loop
async def test_an_attempt_is_recorded_in_one_transaction(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id(), to=THREE))
        [lent] = await leased(store)
        report = new_message(store.next_id(), reverse_path=None, to=("ann@[127.0.0.1]",))
        before = bench.commits
        await store.settle(
            settlement(
                lent,
                result(lent, 0, TAKEN),
                result(lent, 1, LATER, again_at=time.time() + 600),
                result(lent, 2, NEVER),
                reports=[report],
            )
        )
        assert bench.commits - before == 1
        crashed = bench.after_crash()
        [lent] = await leased(store)
        assert lent.queue_id == report.queue_id
    async with opened(crashed) as store:
        [lent] = await leased(store)
        assert lent.queue_id == report.queue_id
    assert status(crashed, message) == [
        RecipientStatus.FINISHED,
        RecipientStatus.WAITING,
        RecipientStatus.FINISHED,
    ]


@on_loop
async def test_a_settlement_that_fails_leaves_nothing_behind(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        report = new_message(store.next_id(), reverse_path=None, to=("ann@[127.0.0.1]",))
        with bench.failing(keeps_commit=False), pytest.raises(StoreUnavailable):
            await store.settle(settlement(lent, result(lent, 0, NEVER), reports=[report]))
        crashed = bench.after_crash()
    assert crashed.entry(report.queue_id) is None
    async with opened(crashed) as store:
        [lent] = await leased(store)
        assert lent.queue_id == message.queue_id


@on_loop
async def test_several_messages_are_settled_in_one_transaction(bench: StoreBench) -> None:
    async with opened(bench) as store:
        messages = [await accepted(store, new_message(store.next_id())) for _ in range(MANY)]
        kept = await accepted(store, new_message(store.next_id(), to=THREE))
        lent = await leased(store, 2 * MANY)
        digest = new_message(store.next_id(), reverse_path=None)
        before = bench.commits
        together = [
            settlement(one, result(one, 0, TAKEN), reports=[digest] if one is lent[0] else ())
            for one in lent
        ]
        await store.settle_together(together)
        assert bench.commits - before == 1
        [last] = await leased(store)
        assert last.queue_id == digest.queue_id
        assert all(status(bench, one) == [RecipientStatus.FINISHED] for one in messages)
        assert not any(bench.content_is_kept(one.queue_id) for one in messages)
        # The rest of a message that was settled in part is still under way.
        await store.act(Action.HOLD, [kept.queue_id])
        [of_kept] = [one for one in lent if one.queue_id == kept.queue_id]
        later = time.time()
        await store.settle(
            settlement(of_kept, *(result(of_kept, at, LATER, again_at=later) for at in (1, 2)))
        )
        held = [RecipientStatus.FINISHED, RecipientStatus.HELD, RecipientStatus.HELD]
        assert status(bench, kept) == held


@on_loop
async def test_what_is_settled_together_fails_together(bench: StoreBench) -> None:
    async with opened(bench) as store:
        messages = [await accepted(store, new_message(store.next_id())) for _ in range(3)]
        lent = await leased(store)
        digest = new_message(store.next_id(), reverse_path=None)
        together = [settlement(one, result(one, 0, TAKEN)) for one in lent]
        together[-1].reports = [digest]
        together[1].at = [together[1].at]  # type: ignore[assignment] # nothing a store can keep
        with pytest.raises(StoreUnavailable):
            await store.settle_together(together)
        crashed = bench.after_crash()
    assert crashed.entry(digest.queue_id) is None
    async with opened(crashed) as store:
        assert {one.queue_id for one in await leased(store)} == {one.queue_id for one in messages}


@on_loop
async def test_the_trace_tells_each_attempt(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        for _ in range(2):
            [lent] = await leased(store)
            await store.settle(deferred(lent, time.time()))
        [lent] = await leased(store)
        await store.settle(delivered(lent))
    entry = bench.entry(message.queue_id)
    assert entry is not None
    assert [attempt.outcome for attempt in entry.attempts] == ["deferred", "deferred"]
    [recipient] = entry.recipients
    assert recipient.attempts == 3
    assert recipient.outcome == OutcomeKind.DELIVERED
    assert recipient.last_reply == str(TAKEN)


# Operators.


@on_loop
async def test_held_mail_is_not_lent_until_released(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        assert await store.act(Action.HOLD, [message.queue_id]) == 1
        assert await store.lease(MANY) == []
        assert status(bench, message) == [RecipientStatus.HELD]
    async with opened(bench) as store:
        assert await store.lease(MANY) == []
        assert await store.act(Action.RELEASE, [message.queue_id]) == 1
        [lent] = await leased(store)
        assert lent.queue_id == message.queue_id


@on_loop
async def test_retry_makes_waiting_mail_due(bench: StoreBench) -> None:
    async with opened(bench) as store:
        await store.accept(new_message(store.next_id()))
        [lent] = await leased(store)
        await store.settle(deferred(lent, time.time() + 3_600))
        assert await store.lease(MANY) == []
        assert await store.act(Action.RETRY, None) == 1
        assert len(await leased(store)) == 1


@on_loop
async def test_cancelled_mail_is_finished_and_its_content_goes(bench: StoreBench) -> None:
    async with opened(bench) as store:
        waiting = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        await store.settle(deferred(lent, time.time() + 3_600))
        fresh = await accepted(store, new_message(store.next_id()))
        assert await store.act(Action.CANCEL, [waiting.queue_id, fresh.queue_id]) == 2
        assert await store.lease(MANY) == []
    for message in (waiting, fresh):
        assert not bench.content_is_kept(message.queue_id)
        entry = bench.entry(message.queue_id)
        assert entry is not None
        assert entry.finished_at is not None
        assert entry.recipients[0].outcome == OutcomeKind.CANCELLED
        assert entry.attempts[-1].outcome == "cancelled"


@on_loop
async def test_mail_under_way_is_held_when_its_attempt_fails(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        assert await store.act(Action.HOLD, [message.queue_id]) == 1
        await store.settle(deferred(lent, time.time()))
        assert status(bench, message) == [RecipientStatus.HELD]
        assert await store.lease(MANY) == []
        assert await store.act(Action.RELEASE, [message.queue_id]) == 1
        [lent] = await leased(store)
        # The wish was for that one attempt.
        await store.settle(deferred(lent, time.time()))
        assert len(await leased(store)) == 1


@on_loop
async def test_mail_under_way_is_cancelled_when_its_attempt_fails(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        assert await store.act(Action.CANCEL, None) == 1
        await store.settle(deferred(lent, time.time()))
        entry = bench.entry(message.queue_id)
        assert entry is not None
        assert entry.recipients[0].outcome == OutcomeKind.CANCELLED
        assert not bench.content_is_kept(message.queue_id)
        assert await store.lease(MANY) == []


@pytest.mark.parametrize("action", [Action.HOLD, Action.CANCEL])
@on_loop
async def test_success_under_way_stands_whatever_an_operator_wished(
    bench: StoreBench, action: Action
) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        await store.act(action, [message.queue_id])
        await store.settle(delivered(lent))
        entry = bench.entry(message.queue_id)
        assert entry is not None
        assert entry.recipients[0].outcome == OutcomeKind.DELIVERED


@on_loop
async def test_a_release_takes_back_a_hold_of_mail_under_way(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        await store.act(Action.HOLD, [message.queue_id])
        await store.act(Action.RELEASE, [message.queue_id])
        await store.settle(deferred(lent, time.time()))
        assert len(await leased(store)) == 1


@on_loop
async def test_a_wish_reaches_mail_that_is_being_lent_at_that_moment(bench: StoreBench) -> None:
    async with opened(bench) as store:
        old = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        await store.settle(deferred(lent, time.time()))
        new = await accepted(store, new_message(store.next_id()))
        lending = asyncio.ensure_future(leased(store))
        await asyncio.sleep(0)
        ids = [old.queue_id, new.queue_id]
        assert await store.act(Action.HOLD, ids) == 2
        for message in await _ended(lending):
            await store.settle(deferred(message, time.time()))
        assert status(bench, old) == status(bench, new) == [RecipientStatus.HELD]


async def _ended(lending: asyncio.Future[list[QueuedMessage]]) -> list[QueuedMessage]:
    """What a lease has brought, or nothing if it is still waiting for something to be due."""
    done, _ = await asyncio.wait([lending], timeout=0.2)
    if done:
        return lending.result()
    lending.cancel()
    return []


@on_loop
async def test_recipients_settled_side_by_side_are_no_longer_under_way(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id(), to=THREE))
        [lent] = await leased(store)
        due = time.time()
        await asyncio.gather(
            *(
                store.settle(settlement(lent, result(lent, index, LATER, again_at=due)))
                for index in range(3)
            )
        )
        assert await store.act(Action.HOLD, [message.queue_id]) == 3
        assert await store.act(Action.RELEASE, [message.queue_id]) == 3


@on_loop
async def test_acting_on_mail_that_is_not_there_does_nothing(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        assert await store.act(Action.CANCEL, [store.next_id()]) == 0
        with pytest.raises(ValueError, match="queue id"):
            await store.act(Action.HOLD, [message.queue_id, QueueId("no such id")])
        assert len(await leased(store)) == 1


@pytest.mark.parametrize("keeps_commit", [False, True])
@on_loop
async def test_an_action_that_fails_does_not_strand_mail(
    bench: StoreBench, keeps_commit: bool
) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        with bench.failing(keeps_commit=keeps_commit), pytest.raises(StoreUnavailable):
            await store.act(Action.RETRY, None)
        assert await _found(store, 1) == {message.queue_id}
        assert await store.lease(MANY) == []


@on_loop
async def test_holding_everything_lasts_over_a_restart(bench: StoreBench) -> None:
    async with opened(bench) as store:
        before = await accepted(store, new_message(store.next_id()))
        await store.hold_all_new(held=True)
        after = await accepted(store, new_message(store.next_id()))
        assert await store.lease(MANY) == []
    async with opened(bench) as store:
        assert await store.lease(MANY) == []
        await store.hold_all_new(held=False)
        assert await _found(store, 2) == {before.queue_id, after.queue_id}
    async with opened(bench) as store:
        assert len(await leased(store)) == 2


# Refusals and the trace.


@on_loop
async def test_refusals_are_remembered(bench: StoreBench) -> None:
    async with opened(bench) as store:
        store.note_refusal(
            Refusal(
                at=time.time(),
                client_ip=ip_address("10.0.0.9"),
                listener="smtp",
                helo="bad.test",
                reverse_path="<>",
                forward_path="nobody@[127.0.0.1]",
                reply=replies.NO_SUCH_MAILBOX,
            )
        )
    [refusal] = bench.refusals()
    assert refusal.client_ip == "10.0.0.9"
    assert refusal.reply == str(replies.NO_SUCH_MAILBOX)


@on_loop
async def test_only_old_and_finished_mail_leaves_the_trace(bench: StoreBench) -> None:
    def id_of_age(seconds: float) -> QueueId:
        return encode_queue_id(first_number_at(time.time() - seconds))

    async with opened(bench) as store:
        kinds = {}
        for kind, age_s in (
            ("old", TRACE_S + 60),
            ("old, unfinished", TRACE_S + 120),
            ("young", TRACE_S - 60),
        ):
            queue_id = id_of_age(age_s)
            assert abs(accepted_at(queue_id) - (time.time() - age_s)) < 5
            kinds[kind] = await accepted(store, new_message(queue_id))
        for lent in await leased(store):
            if lent.queue_id == kinds["old, unfinished"].queue_id:
                await store.settle(deferred(lent, time.time()))
            else:
                await store.settle(delivered(lent))
    async with opened(bench) as store:
        await store.wait()  # there is time for such things when the hub has nothing to do
    assert bench.entry(kinds["old"].queue_id) is None
    assert bench.entry(kinds["young"].queue_id) is not None
    assert bench.entry(kinds["old, unfinished"].queue_id) is not None
    async with opened(bench) as store:
        [lent] = await leased(store)
        assert lent.queue_id == kinds["old, unfinished"].queue_id


# Trouble.


@on_loop
async def test_room_is_judged_before_content_is_asked_for(bench: StoreBench) -> None:
    async with opened(bench) as store:
        assert store.refusal(0) is None
        assert store.refusal(1 << 60) == replies.QUEUE_FULL


@on_loop
async def test_no_room_is_said_and_passes(bench: StoreBench) -> None:
    with bench.on_small_disk() as (small, ballast):
        async with opened(small) as store:
            kept = {(await accepted(store, new_message(store.next_id()))).queue_id}
            ballast.fill()
            refused: set[QueueId] = set()
            while not refused:
                message = new_message(store.next_id(), content=InlineContent(b"x" * 60_000))
                try:
                    await store.accept(message)
                    kept.add(message.queue_id)
                except QueueFull:
                    refused.add(message.queue_id)
            ballast.drop()
            last = await accepted(store, new_message(store.next_id()))
            assert await _found(store, len(kept) + 1) == kept | {last.queue_id}
        for queue_id in refused:
            assert small.entry(queue_id) is None


@pytest.mark.parametrize("keeps_commit", [False, True])
@on_loop
async def test_after_an_io_error_only_what_was_acknowledged_is_there(
    bench: StoreBench, keeps_commit: bool
) -> None:
    async with opened(bench) as store:
        before = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        refused = new_message(store.next_id())
        with bench.failing(keeps_commit=keeps_commit):
            with pytest.raises(StoreUnavailable):
                await store.accept(refused)
            assert store.refusal(0) == replies.STORE_AWAY
        await _well_again(store)
        after = await accepted(store, new_message(store.next_id()))
        assert await _found(store, 1) == {after.queue_id}
        assert bench.entry(refused.queue_id) is None
        assert not bench.content_is_kept(refused.queue_id)
        assert status(bench, before) == [RecipientStatus.LEASED]
        await store.settle(delivered(lent))
        assert status(bench, before) == [RecipientStatus.FINISHED]


async def _well_again(store: QueueStore) -> None:
    """A store comes to itself while nobody asks anything but its dispatcher, which waits."""
    while store.refusal(0) is not None:
        await store.wait()


@on_loop
async def test_what_a_failed_lease_took_is_given_back(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        await store.settle(deferred(lent, time.time()))
        with bench.failing(keeps_commit=True), pytest.raises(StoreUnavailable):
            await store.lease(MANY)
        assert await _found(store, 1) == {message.queue_id}


@on_loop
async def test_a_settlement_can_be_offered_again(bench: StoreBench) -> None:
    async with opened(bench) as store:
        message = await accepted(store, new_message(store.next_id()))
        [lent] = await leased(store)
        report = new_message(store.next_id(), reverse_path=SENDER)
        offered = settlement(lent, result(lent, 0, NEVER), reports=[report])
        with bench.failing(keeps_commit=True), pytest.raises(StoreUnavailable):
            await store.settle(offered)
        await _well_again(store)
        await store.settle(offered)
        assert await _found(store, 1) == {report.queue_id}
        assert status(bench, message) == [RecipientStatus.FINISHED]
        assert status(bench, report) == [RecipientStatus.LEASED]
