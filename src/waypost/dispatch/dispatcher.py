"""Leases due mail, hands it to transports by destination, and settles what became of it.

Each destination has a window of jobs under way that grows with success and shrinks with trouble,
and is left alone for a while when its host cannot be reached. A relay has a pace besides: mail it
cannot take soon goes back to the store, or by another relay. What a transport raises becomes a
reply here (and in intake/acceptance, nowhere else); what nobody expected is temporary.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from waypost.delivery.pace import FALLBACK_S, Pace, Paces
from waypost.delivery.transport import DeliveryJob, Transport, deferred, reply_to
from waypost.delivery.unknown import UnknownTransport
from waypost.dispatch.destination import Destination
from waypost.dispatch.digests import Digests
from waypost.dispatch.reports import Reporter
from waypost.dispatch.storms import Storms
from waypost.dns.resolver import ResolverUnavailable
from waypost.errors import NoWay, PeerUnreachable, PermanentError, TemporaryError
from waypost.http.client import HttpFailed
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient, QueueId
from waypost.mail.message import Content, QueuedMessage
from waypost.mail.outgoing import SIGNATURE_BROKEN
from waypost.mail.reply import Reply
from waypost.oauth.keeper import LoginLost
from waypost.oauth.messages import TokenTrouble
from waypost.observe import Log
from waypost.queue.retry import RetrySettings, is_warning_due, next_attempt_at
from waypost.queue.store import QueueStore, Result, Settlement
from waypost.routing.targets import Target, parse_target

# Messages under way at once; the rest waits in the store, so memory stays flat.
MAX_ACTIVE = 2_000
LEASE_BATCH = 200
# After a failed connect the destination is left alone this long; its mail is deferred unasked.
DOWN_S = 30.0
# When all places are taken, mail that waits for a host from which nothing has come back for this
# long is put off, so that mail for others has its turn.
STALL_S = 5.0
# What a relay can take within this time waits here; the rest waits in the store.
HOLD_S = 5.0
# A settlement the store could not take is offered again after this long.
SETTLE_AGAIN_S = 1.0

_FORBIDDEN = Reply(550, "The next host may not be contacted from here", (4, 4))
_SILENT_FAILURE = deferred("Delivery failed for a reason the log has")
_STALLED = deferred("The next host is slow to answer, and other mail had to go first", (4, 2))


class Dispatcher:
    """Moves mail from the store to the transports."""

    def __init__(
        self,
        store: QueueStore,
        transports: Mapping[str, Transport],
        reporter: Reporter,
        retry: Callable[[], RetrySettings],
        paces: Paces,
        storms: Storms,
        share: Callable[[Content, QueueId], Awaitable[Content]],
        log: Log,
    ) -> None:
        """`transports` is keyed by the kind of target; `share` keeps content for another mail."""
        self._store = store
        self._transports = transports
        self._unknown = UnknownTransport()
        self._reporter = reporter
        self._retry = retry
        self._paces = paces
        self._log = log
        self._destinations: dict[str, Destination] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs_left: dict[QueueId, int] = {}  # of messages under way
        self._room = asyncio.Event()
        self._is_stopping = False
        self._storms = storms
        self._digests = Digests(
            *(store, storms),
            share=share,
            release=self._distribute,
            start=self._start,
            postmaster=reporter.postmaster,
            log=log,
        )

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
        self._digests.stop()
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
            if destination.answered_at < before and destination.wake is None:
                waiting, destination.waiting = destination.waiting, deque()
                for job in waiting:
                    await self._settle(job, [_outcome(_STALLED)] * len(job.recipients))

    def forget_trouble(self) -> None:
        """An operator says: try all destinations again."""
        for destination in self._destinations.values():
            destination.down_until = 0.0
        self._paces.forget_waits()

    @property
    def active(self) -> int:
        """Messages under way."""
        return len(self._jobs_left)

    def _assign(self, message: QueuedMessage) -> None:
        if not self._storms.concerns(message):
            self._distribute(message, message.recipients)
        elif self._storms.depends_on_words(message, time.time()):
            self._add_jobs(message, 1)
            self._start(self._sift_by_words(message))
        else:
            self._sift(message, is_failure=False)

    async def _sift_by_words(self, message: QueuedMessage) -> None:
        try:
            is_failure = await self._storms.says_failure(message)
        except TemporaryError:
            is_failure = True  # its transports will say what is wrong with it
        except Exception as error:
            self._log.event("bug", id=message.queue_id, task="storms", why=repr(error))
            is_failure = True
        self._sift(message, is_failure=is_failure)
        self._end_job(message.queue_id)

    def _sift(self, message: QueuedMessage, *, is_failure: bool) -> None:
        """Hand on what may go now; the rest waits, or is finished."""
        now = time.time()
        sifted = self._storms.sift(message, now, is_failure=is_failure)
        for recipient in sifted.due:
            self._digests.add(message, recipient)
        if sifted.results:
            self._add_jobs(message, 1)
            self._offer(Settlement(message, sifted.results, now))
        if sifted.passed:
            self._distribute(message, sifted.passed)

    def _add_jobs(self, message: QueuedMessage, count: int) -> None:
        queue_id = message.queue_id
        self._jobs_left[queue_id] = self._jobs_left.get(queue_id, 0) + count

    def _end_job(self, queue_id: QueueId) -> None:
        self._jobs_left[queue_id] -= 1
        if not self._jobs_left[queue_id]:
            del self._jobs_left[queue_id]
            self._room.set()

    def _distribute(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> None:
        """Let recipients wait for the transports of their targets."""
        groups: dict[str, tuple[Transport, Target, list[QueuedRecipient]]] = {}
        for recipient in recipients:
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
        self._add_jobs(message, len(groups))
        for key, (transport, target, together) in groups.items():
            job = DeliveryJob(message, together, target)
            self._place(job, self._destination(key, transport, target))

    def _destination(self, key: str, transport: Transport, target: Target) -> Destination:
        destination = self._destinations.get(key)
        if destination is None:
            pace = self._paces.of(target)
            destination = self._destinations[key] = Destination(key, transport, pace)
        return destination

    def _place(self, job: DeliveryJob, destination: Destination) -> None:
        """Let a job wait for its turn: here, by another relay, or in the store."""
        pace = destination.pace
        if pace is not None:
            if not self._can_take(destination) and self._by_fallback(job, pace):
                return
            # One that comes back from the store has had its place in the queue.
            is_new = all(recipient.next_attempt_at is None for recipient in job.recipients)
            delay_s = pace.delay_s(len(destination.waiting), is_new=is_new)
            if delay_s > HOLD_S:
                pace.book(delay_s)
                self._start(self._put_off(job, pace.why(), delay_s))
                return
        destination.waiting.append(job)
        self._pump(destination)

    def _can_take(self, destination: Destination) -> bool:
        pace = destination.pace
        return not destination.is_down and (
            pace is None or pace.delay_s(len(destination.waiting), is_new=True) <= FALLBACK_S
        )

    def _by_fallback(self, job: DeliveryJob, pace: Pace) -> bool:
        """Hand the job to the next relay that can take it; False: there is none."""
        name = pace.fallback
        while name is not None:
            target = Target("relay", name)
            transport = self._transports[target.kind]
            destination = self._destination(str(target), transport, target)
            if destination.pace is None:
                return False  # the configuration was changed meanwhile
            if self._can_take(destination):
                self._place(replace(job, target=target), destination)
                return True
            name = destination.pace.fallback
        return False

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pump(self, destination: Destination) -> None:
        while destination.running < destination.window:
            first = self._next(destination)
            if first is None:
                return
            destination.running += 1
            self._start(self._work(destination, first))

    def _next(self, destination: Destination) -> DeliveryJob | None:
        """The job whose turn it is; None: there is none, or it has to wait."""
        if not destination.waiting:
            return None
        pace = destination.pace
        if pace is not None and not destination.is_down:
            delay_s = pace.delay_s()
            if delay_s > HOLD_S:
                waiting, destination.waiting = destination.waiting, deque()
                for job in waiting:
                    self._place(job, destination)
                return None
            if delay_s > 0:
                if destination.wake is None:
                    loop = asyncio.get_running_loop()
                    destination.wake = loop.call_later(delay_s, self._awake, destination)
                return None
            pace.take()
        return destination.waiting.popleft()

    def _awake(self, destination: Destination) -> None:
        destination.wake = None
        self._pump(destination)

    async def _put_off(self, job: DeliveryJob, why: Reply, delay_s: float) -> None:
        """Back to the store, where it waits without having failed."""
        await self._settle(job, [_outcome(why)] * len(job.recipients), time.time() + delay_s)

    async def _work(self, destination: Destination, first: DeliveryJob) -> None:
        """Carry the destination's jobs one after the other until none waits."""
        job: DeliveryJob | None = first
        while job is not None:
            outcomes = await self._attempt(destination, job)
            destination.answered_at = time.monotonic()
            if outcomes is not None:
                await self._settle(job, outcomes)
            job = None
            if destination.running <= min(destination.window, destination.limit):
                job = self._next(destination)
        destination.running -= 1
        if not destination.running and not destination.waiting:
            rest_s = destination.down_until - time.monotonic()
            if rest_s > 0:
                asyncio.get_running_loop().call_later(rest_s, self._forget, destination)
            else:
                self._forget(destination)

    def _forget(self, destination: Destination) -> None:
        if not destination.running and not destination.waiting:
            self._destinations.pop(destination.key, None)

    async def _attempt(self, destination: Destination, job: DeliveryJob) -> list[Outcome] | None:
        """Try once; None: the job has gone to another relay instead."""
        pace = destination.pace
        if destination.is_down:
            if pace is not None and self._by_fallback(job, pace):
                return None
            assert destination.down_reply is not None
            return [_outcome(destination.down_reply)] * len(job.recipients)
        is_elsewhere_possible = False  # nobody can have the message yet
        is_ours_to_mend = False
        try:
            outcomes = await destination.transport.deliver(job)
            if len(outcomes) != len(job.recipients):
                raise ValueError(f"{len(outcomes)} outcomes for {len(job.recipients)} recipients")
        except PeerUnreachable as error:
            reply = reply_to(error)
            destination.window = max(1, destination.window // 2)
            is_elsewhere_possible = not error.has_sent_content
            if error.never_connected:
                destination.down_reply = reply
                # Never so long that a retry of the schedule would be answered unasked.
                rest_s = min(DOWN_S, self._retry().first_s / 2)
                destination.down_until = time.monotonic() + rest_s
        except (TemporaryError, NoWay) as error:
            reply = reply_to(error)
            is_ours_to_mend = isinstance(error, LoginLost)
            is_elsewhere_possible = isinstance(
                error, ResolverUnavailable | NoWay | LoginLost | TokenTrouble | HttpFailed
            )
        except PermanentError as error:
            # The reason is for the operator: a DSN must not tell what the inside looks like.
            self._log.event("forbidden", id=job.message.queue_id, to=destination.key, why=error)
            reply = _FORBIDDEN
        except Exception as error:
            self._log.event("bug", id=job.message.queue_id, to=destination.key, why=repr(error))
            reply = _SILENT_FAILURE
        else:
            destination.down_reply = None
            if pace is not None:
                return self._paced(destination, pace, job, outcomes)
            self._widen(destination)
            return outcomes
        if pace is not None:
            if is_elsewhere_possible:
                pace.give_back()
                if self._by_fallback(job, pace):
                    return None
        outcome = _outcome(reply)._replace(is_ours_to_mend=is_ours_to_mend)
        return [outcome] * len(job.recipients)

    def _widen(self, destination: Destination) -> None:
        if destination.window < destination.limit:
            destination.window += 1
            self._pump(destination)

    def _paced(
        self, destination: Destination, pace: Pace, job: DeliveryJob, outcomes: list[Outcome]
    ) -> list[Outcome] | None:
        """What a relay's replies come to; None: the job has gone to another relay instead."""
        retry = self._retry()
        judged, begins_to_wait = pace.judged(outcomes, first_s=retry.first_s, longest_s=retry.max_s)
        if begins_to_wait:
            wait_s = round(pace.wait_s, 1)
            self._log.event("relay-waits", relay=pace.name, seconds=wait_s, why=pace.reason)
        if pace.reason is None:
            self._widen(destination)
            return judged
        destination.window = 1
        nobody_has_it = all(outcome.kind is OutcomeKind.DEFERRED for outcome in judged)
        if nobody_has_it and not self._can_take(destination) and self._by_fallback(job, pace):
            return None
        return judged

    async def _settle(
        self, job: DeliveryJob, outcomes: Sequence[Outcome], not_before: float | None = None
    ) -> None:
        """`not_before`: nobody was asked, and this is when (UTC epoch seconds); None: somebody."""
        message = job.message
        now = time.time()
        results = [
            self._result(message, recipient, outcome, now, not_before)
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
            if not_before is not None and result.next_attempt_at is not None:
                self._log.event(
                    "put-off",
                    id=message.queue_id,
                    to=result.recipient.recipient.forward_path,
                    target=result.recipient.target,
                    seconds=round(result.next_attempt_at - now, 1),
                    why=result.outcome.reply,
                )
                continue
            changes = result.outcome.changes
            if SIGNATURE_BROKEN in changes:
                self._log.event("signature-broken", id=message.queue_id, target=job.target)
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
                via=None if str(job.target) == result.recipient.target else job.target,
                changes=" ".join(changes) or None,
            )

    def _result(
        self,
        message: QueuedMessage,
        recipient: QueuedRecipient,
        outcome: Outcome,
        now: float,
        not_before: float | None,
    ) -> Result:
        if outcome.kind is not OutcomeKind.DEFERRED:
            return Result(recipient, outcome)
        retry = self._retry()
        is_attempt = not_before is None
        attempts = recipient.attempts + is_attempt
        at = next_attempt_at(max(attempts, 1), now, message.accepted_at, retry, random.random())
        if at is None and outcome.is_ours_to_mend:
            at = now + retry.max_s  # it is not for the sender to suffer
        if at is None:
            reply = outcome.reply
            text = f"{reply.text}\n(given up after {attempts} attempts)"
            late = Reply(reply.code, text, reply.status or (4, 7))
            failed = outcome._replace(kind=OutcomeKind.FAILED, reply=late)
            return Result(recipient, failed)
        if not_before is None and outcome.wait_s:
            not_before = max(at, now + min(outcome.wait_s, retry.max_s))
        if not_before is not None:
            at = min(not_before, message.accepted_at + retry.give_up_after_s)
        warned = is_warning_due(now, message.accepted_at, recipient.warned, retry)
        return Result(recipient, outcome, at, warned, is_attempt)

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
            self._end_job(settlement.message.queue_id)

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
