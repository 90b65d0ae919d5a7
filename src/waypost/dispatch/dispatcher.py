"""Leases due mail, hands it to transports by destination, and settles what became of it.

Each destination has a window of jobs under way that grows with success and shrinks with trouble,
and is left alone for a while when its host cannot be reached. What a transport raises becomes a
reply here (and in intake/acceptance, nowhere else); what nobody expected is temporary.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from waypost.delivery.transport import DeliveryJob, Transport, deferred, reply_to
from waypost.delivery.unknown import UnknownTransport
from waypost.dispatch.reports import Reporter
from waypost.errors import NoWay, PeerUnreachable, PermanentError, TemporaryError
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient, QueueId
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.observe import Log
from waypost.queue.retry import RetrySettings, is_warning_due, next_attempt_at
from waypost.queue.store import QueueStore, Result, Settlement
from waypost.routing.targets import Target, parse_target

# Messages under way at once; the rest waits in the store, so memory stays flat.
MAX_ACTIVE = 2_000
LEASE_BATCH = 200
FIRST_WINDOW = 5
# After a failed connect the destination is left alone this long; its mail is deferred unasked.
DOWN_S = 30.0
# When all places are taken, mail that waits for a host from which nothing has come back for this
# long is put off, so that mail for others has its turn.
STALL_S = 5.0
# A settlement the store could not take is offered again after this long.
SETTLE_AGAIN_S = 1.0

_FORBIDDEN = Reply(550, "The next host may not be contacted from here", (4, 4))
_SILENT_FAILURE = deferred("Delivery failed for a reason the log has")
_STALLED = deferred("The next host is slow to answer, and other mail had to go first", (4, 2))


class _Destination:
    """Jobs that share a next hop."""

    __slots__ = (
        "answered_at",
        "down_reply",
        "down_until",
        "key",
        "running",
        "transport",
        "waiting",
        "window",
    )

    def __init__(self, key: str, transport: Transport) -> None:
        self.key = key
        self.transport = transport
        self.waiting: deque[DeliveryJob] = deque()
        self.running = 0
        self.window = min(FIRST_WINDOW, transport.window())
        self.answered_at = time.monotonic()  # when an attempt has ended last, or its creation
        self.down_until = 0.0  # monotonic
        self.down_reply: Reply | None = None  # None: not known to be down


class Dispatcher:
    """Moves mail from the store to the transports."""

    def __init__(
        self,
        store: QueueStore,
        transports: Mapping[str, Transport],
        reporter: Reporter,
        retry: Callable[[], RetrySettings],
        log: Log,
    ) -> None:
        """`transports` is keyed by the kind of target."""
        self._store = store
        self._transports = transports
        self._unknown = UnknownTransport()
        self._reporter = reporter
        self._retry = retry
        self._log = log
        self._destinations: dict[str, _Destination] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs_left: dict[QueueId, int] = {}  # of messages under way
        self._room = asyncio.Event()
        self._is_stopping = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            capacity = MAX_ACTIVE - len(self._jobs_left)
            if capacity <= 0:
                self._room.clear()
                try:
                    async with asyncio.timeout(STALL_S):
                        await self._room.wait()
                except TimeoutError:
                    await self._put_off_stalled()
                continue
            try:
                messages = await self._store.lease(min(capacity, LEASE_BATCH))
            except TemporaryError as error:
                self._log.event("lease-failed", why=error)
                await asyncio.sleep(SETTLE_AGAIN_S)
                continue
            for message in messages:
                self._assign(message)
            if not messages:
                await self._store.wait()

    async def drain(self, limit_s: float) -> None:
        """Start nothing new, and let what is under way end within `limit_s`."""
        self._is_stopping = True
        for destination in self._destinations.values():
            destination.waiting.clear()  # still leased in the store: due again at the next start
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)
        for task in self._tasks:
            task.cancel()

    async def _put_off_stalled(self) -> None:
        """Make room: what waits for hosts that keep us waiting goes back to the store."""
        before = time.monotonic() - STALL_S
        for destination in list(self._destinations.values()):
            if destination.answered_at < before:
                waiting, destination.waiting = destination.waiting, deque()
                for job in waiting:
                    await self._settle(job, [_outcome(_STALLED)] * len(job.recipients))

    def forget_trouble(self) -> None:
        """An operator says: try all destinations again."""
        for destination in self._destinations.values():
            destination.down_until = 0.0

    @property
    def active(self) -> int:
        """Messages under way."""
        return len(self._jobs_left)

    def _assign(self, message: QueuedMessage) -> None:
        groups: dict[str, tuple[Transport, Target, list[QueuedRecipient]]] = {}
        for recipient in message.recipients:
            try:
                target = parse_target(recipient.target)
                transport = self._transports[target.kind]
            except (ValueError, KeyError):
                # Written by another version of Waypost: kept, and tried again by schedule.
                target, transport = Target("unknown", recipient.target), self._unknown
            key = transport.destination(target, recipient)
            group = groups.get(key)
            if group is None:
                groups[key] = (transport, target, [recipient])
            else:
                group[2].append(recipient)
        queue_id = message.queue_id
        self._jobs_left[queue_id] = self._jobs_left.get(queue_id, 0) + len(groups)
        for key, (transport, target, recipients) in groups.items():
            destination = self._destinations.get(key)
            if destination is None:
                destination = self._destinations[key] = _Destination(key, transport)
            destination.waiting.append(DeliveryJob(message, recipients, target))
            self._pump(destination)

    def _pump(self, destination: _Destination) -> None:
        while destination.waiting and destination.running < destination.window:
            destination.running += 1
            first = destination.waiting.popleft()
            task = asyncio.get_running_loop().create_task(self._work(destination, first))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, destination: _Destination, first: DeliveryJob) -> None:
        """Carry the destination's jobs one after the other until none waits."""
        job: DeliveryJob | None = first
        while job is not None:
            outcomes = await self._attempt(destination, job)
            destination.answered_at = time.monotonic()
            await self._settle(job, outcomes)
            job = None
            if destination.waiting and destination.running <= destination.window:
                job = destination.waiting.popleft()
        destination.running -= 1
        if not destination.running and not destination.waiting:
            rest_s = destination.down_until - time.monotonic()
            if rest_s > 0:
                asyncio.get_running_loop().call_later(rest_s, self._forget, destination)
            else:
                self._forget(destination)

    def _forget(self, destination: _Destination) -> None:
        if not destination.running and not destination.waiting:
            self._destinations.pop(destination.key, None)

    async def _attempt(self, destination: _Destination, job: DeliveryJob) -> list[Outcome]:
        if destination.down_reply is not None and time.monotonic() < destination.down_until:
            return [_outcome(destination.down_reply)] * len(job.recipients)
        try:
            outcomes = await destination.transport.deliver(job)
            if len(outcomes) != len(job.recipients):
                raise ValueError(f"{len(outcomes)} outcomes for {len(job.recipients)} recipients")
        except PeerUnreachable as error:
            reply = reply_to(error)
            destination.window = max(1, destination.window // 2)
            if error.never_connected:
                destination.down_reply = reply
                # Never so long that a retry of the schedule would be answered unasked.
                rest_s = min(DOWN_S, self._retry().first_s / 2)
                destination.down_until = time.monotonic() + rest_s
        except (TemporaryError, NoWay) as error:
            reply = reply_to(error)
        except PermanentError as error:
            # The reason is for the operator: a DSN must not tell what the inside looks like.
            self._log.event("forbidden", id=job.message.queue_id, to=destination.key, why=error)
            reply = _FORBIDDEN
        except Exception as error:
            self._log.event("bug", id=job.message.queue_id, to=destination.key, why=repr(error))
            reply = _SILENT_FAILURE
        else:
            if destination.window < destination.transport.window():
                destination.window += 1
                self._pump(destination)
            destination.down_reply = None
            return outcomes
        return [_outcome(reply)] * len(job.recipients)

    async def _settle(self, job: DeliveryJob, outcomes: Sequence[Outcome]) -> None:
        message = job.message
        now = time.time()
        results = [
            self._result(message, recipient, outcome, now)
            for recipient, outcome in zip(job.recipients, outcomes, strict=True)
        ]
        reports: Sequence[QueuedMessage] = ()
        if message.envelope.reverse_path is not None and any(map(_may_report, results)):
            try:
                reports = await self._reporter.reports(message, results, now)
            except Exception as error:  # the outcomes stand; the log and the trace have them
                self._log.event("bug", id=message.queue_id, task="report", why=repr(error))
        self._offer(Settlement(message, results, now, [*job.spawned, *reports]))
        for result in results:
            self._log.event(
                "attempt",
                id=message.queue_id,
                to=result.recipient.recipient.forward_path,
                target=result.recipient.target,
                outcome=result.outcome.kind,
                hop=result.outcome.hop,
                tls=result.outcome.tls,
                reply=result.outcome.reply,
                delay=round(now - message.accepted_at, 3),
            )

    def _result(
        self, message: QueuedMessage, recipient: QueuedRecipient, outcome: Outcome, now: float
    ) -> Result:
        if outcome.kind is not OutcomeKind.DEFERRED:
            return Result(recipient, outcome)
        retry = self._retry()
        attempts = recipient.attempts + 1
        at = next_attempt_at(attempts, now, message.accepted_at, retry, random.random())
        if at is None:
            reply = outcome.reply
            text = f"{reply.text}\n(given up after {attempts} attempts)"
            late = Reply(reply.code, text, reply.status or (4, 7))
            failed = outcome._replace(kind=OutcomeKind.FAILED, reply=late)
            return Result(recipient, failed)
        warned = is_warning_due(now, message.accepted_at, recipient.warned, retry)
        return Result(recipient, outcome, at, warned)

    def _offer(self, settlement: Settlement) -> None:
        """Record an attempt; when the store cannot, again and again until it can."""
        future = self._store.settle(settlement)

        def settled(done: asyncio.Future[None]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is not None:
                self._log.event("settle-failed", id=settlement.message.queue_id, why=error)
                asyncio.get_running_loop().call_later(SETTLE_AGAIN_S, self._offer, settlement)
                return
            queue_id = settlement.message.queue_id
            self._jobs_left[queue_id] -= 1
            if not self._jobs_left[queue_id]:
                del self._jobs_left[queue_id]
                self._room.set()

        future.add_done_callback(settled)


def _outcome(reply: Reply) -> Outcome:
    return Outcome.of(reply, success=OutcomeKind.RELAYED)


def _may_report(result: Result) -> bool:
    """False for the everyday cases, success nobody asked about and a first deferral."""
    if result.outcome.kind is OutcomeKind.FAILED or result.warned:
        return True
    return result.outcome.kind is not OutcomeKind.DEFERRED and bool(
        result.recipient.recipient.notify
    )
