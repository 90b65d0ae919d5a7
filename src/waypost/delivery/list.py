"""The transport of ``list`` targets: one message in, one for all members out (RFC 5321 §3.9.2).

What comes out has the list's own reverse-path, so that bounces reach its owner and no poster. It
never takes the same list twice, and bounces are handed to the owner rather than to everybody. A
List-Id says that members had a message, a Delivered-To (RFC 9228) that the owner had.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

from waypost.delivery.transport import DeliveryJob, deferred
from waypost.mail.address import Address, Domain, DomainPart
from waypost.mail.envelope import (
    Arrival,
    Notify,
    Outcome,
    OutcomeKind,
    QueuedRecipient,
    QueueId,
    Recipient,
)
from waypost.mail.message import Content, QueuedMessage, decoded_fields, header_fields
from waypost.mail.reply import Reply
from waypost.routing.table import LIST, ContentFacts, ListSettings, Route, RoutingTable
from waypost.routing.targets import BOUNCES, LISTED, OWNER, Target

_HEAD_BYTES = 65_536

_NOBODY = Reply(250, "The list has no members", (0, 0))
_LOOP = Reply(554, "This list has had the message already", (4, 6))


class ListTransport:
    """Expands lists."""

    def __init__(
        self,
        *,
        table: Callable[[], RoutingTable],
        next_id: Callable[[], QueueId],
        share: Callable[[Content, QueueId], Awaitable[Content]],
    ) -> None:
        """`table` gives the one that holds now; `share` keeps content for a second message."""
        self._table = table
        self._next_id = next_id
        self._share = share

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport."""
        return 5

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport. The message for the members goes to `job.spawned`."""
        table = self._table()
        name, _, role = job.target.argument.partition(":")
        settings = table.list_settings(name)
        if settings is None:
            reply = deferred(f"no [list.{name}] is configured any more", (3, 5))
            return [Outcome.of(reply, success=OutcomeKind.DELIVERED)] * len(job.recipients)
        message = job.message
        domain = self._domain(table, settings, job)
        # One name for the list, under whatever name of this hub it was written to (RFC 2919 §2).
        home = Domain(settings.scope) if settings.scope else table.own_domain(message.arrival)
        head = await asyncio.to_thread(_head, message)
        members, reverse_path = settings.members, message.envelope.reverse_path
        if role == OWNER or reverse_path is None:
            owner = settings.owner or Address("postmaster", table.own_domain(message.arrival))
            mark = str(Address(f"{name}-{OWNER}", home))
            if mark in _values(head, "delivered-to"):
                return [Outcome(OutcomeKind.FAILED, _LOOP)] * len(job.recipients)
            fields = f"Delivered-To: {mark}\r\n"
            members = (owner,)
            said = "for the owner"
        else:
            list_id = f"<{name}.{_in_id(home)}>"
            if any(list_id in value for value in _values(head, "list-id")):
                return [Outcome(OutcomeKind.FAILED, _LOOP)] * len(job.recipients)
            fields = f"List-Id: {list_id}\r\nList-Post: <mailto:{Address(name, domain)}>\r\n"
            reverse_path = Address(f"{name}{BOUNCES}", domain)
            said = f"for {len(members)} members"
        if not members:
            return [Outcome(OutcomeKind.DELIVERED, _NOBODY)] * len(job.recipients)
        spawned = await self._copy(message, members, reverse_path, fields.encode(), head)
        job.spawned.append(spawned)
        reply = Reply(250, f"queued as {spawned.queue_id} {said}", (0, 0))
        return [Outcome(OutcomeKind.DELIVERED, reply)] * len(job.recipients)

    def _domain(self, table: RoutingTable, settings: ListSettings, job: DeliveryJob) -> DomainPart:
        """What stands behind the list's name: where it belongs, or how it was written to."""
        if settings.scope:
            return Domain(settings.scope)
        domain = job.recipients[0].recipient.forward_path.domain
        arrival = job.message.arrival
        return domain if table.is_ours(domain, arrival) else table.own_domain(arrival)

    async def _copy(
        self,
        message: QueuedMessage,
        members: tuple[Address, ...],
        reverse_path: Address | None,
        fields: bytes,
        head: bytes,
    ) -> QueuedMessage:
        queue_id = self._next_id()
        facts = ContentFacts(message.content.size, decoded_fields(fields + head))
        queued: list[QueuedRecipient] = []
        for member in dict.fromkeys(members):
            # RFC 3461 §5.2.7.3: what the poster asked of reports ends at the list.
            recipient, routes = self._routes(member, message, reverse_path, facts)
            queued += [
                QueuedRecipient(len(queued) + at, recipient, str(route.target), route.rule)
                for at, route in enumerate(routes)
            ]
        return message._replace(
            queue_id=queue_id,
            envelope=message.envelope._replace(
                reverse_path=reverse_path,
                smtputf8=message.envelope.smtputf8
                or not all(member.is_ascii for member in members),
                envid=None,
                ret=None,
            ),
            content=await self._share(message.content, queue_id),
            prepend=fields + message.prepend,
            accepted_at=time.time(),
            reports_allowed=reverse_path is not None,
            recipients=tuple(queued),
        )

    def _routes(
        self,
        member: Address,
        message: QueuedMessage,
        reverse_path: Address | None,
        facts: ContentFacts,
    ) -> tuple[Recipient, list[Route]]:
        """As for mail of a trusted client: the operator named the member."""
        here = Arrival("local", None, message.arrival.local_ip, "", LIST, trusted=True)
        routing = self._table().route(member, here, reverse_path, content=facts)
        routes = [
            route._replace(target=Target("direct", LISTED))
            if route.target.kind == "direct"
            else route
            for route in routing.routes
        ]
        if routing.refusal is not None:
            refusal = routing.refusal
            routes = [Route(Target("reject", f"{refusal.enhanced} {refusal.text}"), "list member")]
        notify = Notify.NEVER if reverse_path is None else None
        return Recipient(routing.recipient, None, notify), routes


def _in_id(domain: DomainPart) -> str:
    """A domain within a List-Id (RFC 2919 §2): letters, digits and dots."""
    return re.sub(r"[^A-Za-z0-9.\-]", "-", str(domain).strip("[]"))


def _head(message: QueuedMessage) -> bytes:
    """The first octets of a message; blocks."""
    with message.content.open() as source:
        return message.prepend + source.read(_HEAD_BYTES)


def _values(head: bytes, name: str) -> list[str]:
    """The values of the header fields of that name."""
    return [
        value.decode("utf-8", "replace") for field, value in header_fields(head) if field == name
    ]
