"""Which reports a message's sender is owed after an attempt, made ready for the queue.

Rules of RFC 3461 §4 and §5.2 (who asked for what), RFC 5321 §4.5.5 (never to <>), and our own:
never to an unproven literal (mail/envelope.sender_is_proven).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from waypost.mail.address import Address
from waypost.mail.dsn import (
    MAX_RETURNED_BYTES,
    Action,
    Report,
    ReportedRecipient,
    build_report,
)
from waypost.mail.envelope import (
    DEFAULT_NOTIFY,
    REPORT,
    Arrival,
    Body,
    Envelope,
    Notify,
    OutcomeKind,
    QueuedRecipient,
    QueueId,
    Recipient,
    Ret,
)
from waypost.mail.message import QueuedMessage, decoded_fields, trace_name
from waypost.observe import Log
from waypost.queue.retry import RetrySettings
from waypost.queue.spool import InlineContent
from waypost.queue.store import Result
from waypost.routing.table import ContentFacts, RoutingTable

_HEAD_BYTES = 65_536

_ASKED = {
    Action.FAILED: Notify.FAILURE,
    Action.DELAYED: Notify.DELAY,
    Action.DELIVERED: Notify.SUCCESS,
    Action.RELAYED: Notify.SUCCESS,
}


class Reporter:
    """Writes DSNs."""

    def __init__(
        self,
        *,
        next_id: Callable[[], QueueId],
        table: Callable[[], RoutingTable],
        retry: Callable[[], RetrySettings],
        hostname: Callable[[], str | None],
        log: Log,
    ) -> None:
        """The callables give what holds now: settings may change while the hub runs."""
        self._next_id = next_id
        self._table = table
        self._retry = retry
        self._hostname = hostname
        self._log = log

    async def reports(
        self, message: QueuedMessage, results: Sequence[Result], now: float
    ) -> list[QueuedMessage]:
        """The reports these results call for, at most one for each kind of action."""
        by_action: dict[Action, list[ReportedRecipient]] = {}
        for result in results:
            action = _action(result)
            if action is None:
                continue
            recipient = result.recipient.recipient
            asked = DEFAULT_NOTIFY if recipient.notify is None else recipient.notify
            if _ASKED[action] not in asked:
                continue
            until = message.accepted_at + self._retry().give_up_after_s
            hop = result.outcome.hop
            entry = ReportedRecipient(
                recipient=recipient,
                action=action,
                reply=result.outcome.reply,
                remote_mta=None if hop is None else hop.host,
                will_retry_until=until if action is Action.DELAYED else None,
            )
            by_action.setdefault(action, []).append(entry)
        to = message.envelope.reverse_path
        if not by_action or to is None:
            return []
        if not message.reports_allowed:
            self._log.event("report-dropped", id=message.queue_id, to=to, why="unproven sender")
            return []
        reports = []
        for action, entries in by_action.items():
            report = await self._report(message, to, action, entries, now)
            if report is not None:
                reports.append(report)
        return reports

    def postmaster(self, message: QueuedMessage) -> Address:
        """Whom mail of the hub's own about a message is from."""
        return Address("postmaster", self._table().own_domain(message.arrival))

    async def _report(
        self,
        message: QueuedMessage,
        to: Address,
        action: Action,
        entries: list[ReportedRecipient],
        now: float,
    ) -> QueuedMessage | None:
        arrival = Arrival(
            protocol="local",
            client_ip=None,
            local_ip=message.arrival.local_ip,
            helo="",
            listener=REPORT,
            trusted=message.arrival.trusted,
        )
        table = self._table()
        routing = table.route(to, arrival, None)
        if routing.refusal is not None:
            self._log.event("report-dropped", id=message.queue_id, to=to, why=routing.refusal)
            return None
        queue_id = self._next_id()
        # RFC 3461 §4.3: RET speaks of failures; other reports return headers only.
        whole = message.envelope.ret is Ret.FULL and action is Action.FAILED
        whole = whole and message.size <= MAX_RETURNED_BYTES
        # RFC 8689 §5: what was not to go in clear goes back as little as may be, and as protected.
        requiretls = message.envelope.requiretls
        whole = whole and not requiretls
        limit = message.content.size if whole else _HEAD_BYTES
        content = build_report(
            Report(
                reporting_mta=trace_name(arrival.local_ip, self._hostname()),
                sender=Address("postmaster", table.own_domain(arrival)),
                to=to,
                queue_id=message.queue_id,
                arrived_at=message.accepted_at,
                written_at=now,
                envid=message.envelope.envid,
                recipients=entries,
                returned=message.prepend + await _head(message, limit),
                returned_whole=whole,
                token=queue_id,
            )
        )
        if routing.needs_content:
            facts = ContentFacts(len(content), decoded_fields(content))
            routing = table.route(to, arrival, None, content=facts)
            if routing.refusal is not None:
                self._log.event("report-dropped", id=message.queue_id, to=to, why=routing.refusal)
                return None
        is_eight_bit = not content.isascii()
        recipient = Recipient(routing.recipient, None, Notify.NEVER)
        return QueuedMessage(
            queue_id=queue_id,
            envelope=Envelope(
                reverse_path=None,
                body=Body.EIGHT_BIT_MIME if is_eight_bit else None,
                smtputf8=not to.is_ascii,
                requiretls=requiretls,
            ),
            arrival=arrival,
            content=InlineContent(content),
            prepend=b"",
            accepted_at=now,
            is_eight_bit=is_eight_bit,
            reports_allowed=False,
            recipients=tuple(
                QueuedRecipient(number, recipient, str(route.target), route.rule)
                for number, route in enumerate(routing.routes)
            ),
        )


def _action(result: Result) -> Action | None:
    kind = result.outcome.kind
    if kind is OutcomeKind.FAILED:
        return Action.FAILED
    if kind is OutcomeKind.DEFERRED:
        return Action.DELAYED if result.warned else None
    if result.outcome.peer_reports:
        return None  # a next hop that knows DSN has taken over the duty (RFC 3461 §5.2.2)
    return Action.DELIVERED if kind is OutcomeKind.DELIVERED else Action.RELAYED


async def _head(message: QueuedMessage, limit: int) -> bytes:
    """The first `limit` octets of the content; nothing when it cannot be read."""
    if message.content.inline is not None:
        return message.content.inline[:limit]

    def read() -> bytes:
        with message.content.open() as source:
            return source.read(limit)

    try:
        return await asyncio.to_thread(read)
    except OSError:
        return b""
