"""Delivery over SMTP and LMTP: which connection, which peer, and what its replies mean."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from waypost.delivery.connection import NotCanonical, SmtpConnection
from waypost.delivery.transport import DeliveryJob, failed
from waypost.errors import PeerUnreachable
from waypost.mail.address import IPAddress
from waypost.mail.envelope import Hop, Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.reply import Reply
from waypost.net.gate import Gate, Origin, connect, connect_unix, origin_of
from waypost.routing.hops import hops_direct, hops_to
from waypost.routing.targets import Target, parse_next_hop
from waypost.smtp.client import Transaction

CONNECT_S = 30.0
# An idle connection is kept this long for the next message to the same host.
IDLE_S = 5.0
# Deadlines and idle connections are looked at this often.
WATCH_S = 1.0
MAX_WINDOW = 20

_MAY_NOT_LEAVE = failed("The message has bare CR or LF and cannot be sent on", (6, 0))

_PoolKey = tuple[Hop, Origin, bool]  # the last: LMTP


class SmtpTransport:
    """The transport of ``smtp:``, ``lmtp:`` and ``direct`` targets."""

    def __init__(
        self, gate: Gate, *, helo: Callable[[IPAddress | None], str], delivery_port: int
    ) -> None:
        """`helo` gives our name for a connection from one of our addresses (None: no IP)."""
        self._gate = gate
        self._helo = helo
        self.delivery_port = delivery_port  # replaced when settings are read again
        self._idle: dict[_PoolKey, list[SmtpConnection]] = {}
        self._connections: set[SmtpConnection] = set()
        self._watch: asyncio.TimerHandle | None = None  # None: there is no connection

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport: for ``direct`` the recipient's host decides."""
        if target.kind == "direct":
            return f"direct:{recipient.recipient.forward_path.domain}"
        return str(target)

    def window(self) -> int:
        """See Transport."""
        return MAX_WINDOW

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport. Raises TemporaryError or PermanentError for the job as a whole."""
        is_lmtp = job.target.kind == "lmtp"
        if job.target.kind == "direct":
            hops = hops_direct(job.recipients[0].recipient.forward_path, self.delivery_port)
            origin = origin_of(job.message.arrival)
            if origin is Origin.TRUSTED:
                # The route was chosen when the mail was accepted: by the operator's rule, or
                # because the host is in a trusted network (routing/table).
                origin = Origin.ROUTED
        else:
            hops = hops_to(parse_next_hop(job.target))
            origin = Origin.OPERATOR
        trouble: PeerUnreachable | None = None
        for hop in hops:
            try:
                return await self._deliver_to(hop, origin, job, is_lmtp=is_lmtp)
            except PeerUnreachable as error:
                trouble = error
        assert trouble is not None  # there is at least one hop
        raise trouble

    async def close(self) -> None:
        """Say goodbye on idle connections."""
        if self._watch is not None:
            self._watch.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.quit()
        self._idle.clear()

    async def _deliver_to(
        self, hop: Hop, origin: Origin, job: DeliveryJob, *, is_lmtp: bool
    ) -> list[Outcome]:
        success = OutcomeKind.DELIVERED if is_lmtp else OutcomeKind.RELAYED
        outcomes: list[Outcome] = []
        while len(outcomes) < len(job.recipients):
            connection = self._idle_connection((hop, origin, is_lmtp))
            was_idle = connection is not None
            refusal: Reply | None = None
            if connection is None:
                connection = await self._open(hop, origin, is_lmtp=is_lmtp)
                refusal = await connection.greet()
            waiting = job.recipients[len(outcomes) :]
            if refusal is not None:
                connection.quit()
                outcomes += [Outcome.of(refusal, success=success, hop=hop)] * len(waiting)
                break
            batch = waiting[: connection.session.max_recipients or len(waiting)]
            try:
                replies = await connection.transact(_transaction(job, batch), job.message)
            except NotCanonical:
                return [Outcome.of(_MAY_NOT_LEAVE, success=success)] * len(job.recipients)
            except PeerUnreachable:
                if was_idle and not connection.has_sent_content:
                    continue  # the peer had closed it meanwhile; nothing was handed over
                if outcomes:
                    # What was settled with the peer so far stands.
                    lost = Reply(451, "The connection was lost", (4, 2))
                    return outcomes + [Outcome.of(lost, success=success, hop=hop)] * len(waiting)
                raise
            if was_idle and connection.session.is_closing and not connection.has_sent_content:
                connection.quit()
                continue  # it said 421 as we began: its idle limit, not this message
            peer_reports = connection.session.reports_deliveries
            outcomes += [
                Outcome.of(reply, success=success, hop=hop, peer_reports=peer_reports)
                for reply in replies
            ]
            self._keep((hop, origin, is_lmtp), connection)
        return outcomes

    def _idle_connection(self, key: _PoolKey) -> SmtpConnection | None:
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            connection.idle_since = math.inf
            if connection.is_usable:
                return connection
            connection.abort()
        return None

    async def _open(self, hop: Hop, origin: Origin, *, is_lmtp: bool) -> SmtpConnection:
        try:
            async with asyncio.timeout(CONNECT_S):
                if hop.ip is None:
                    connected = await connect_unix(hop.host)
                else:
                    connected = await connect(self._gate, hop.ip, hop.port, origin)
        except TimeoutError:
            raise PeerUnreachable(
                f"{hop}: no connection in {CONNECT_S:.0f} s", never_connected=True
            ) from None
        except OSError as error:
            # asyncio puts the address, which the hop names already, in place of the reason.
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise PeerUnreachable(f"{hop}: {reason}", never_connected=True) from error
        local_ip = None if hop.ip is None else _local_ip(connected.getsockname())
        connection = await SmtpConnection.open(connected, self._helo(local_ip), is_lmtp=is_lmtp)
        self._connections.add(connection)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)
        return connection

    def _keep(self, key: _PoolKey, connection: SmtpConnection) -> None:
        if not connection.is_usable:
            connection.quit()
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault(key, []).append(connection)

    def _look(self) -> None:
        """Every second, whatever the number of messages: one timer for all connections."""
        now = time.monotonic()
        for key, idle in list(self._idle.items()):
            fresh = [connection for connection in idle if now - connection.idle_since < IDLE_S]
            for connection in idle[: len(idle) - len(fresh)]:
                connection.quit()
            if fresh:
                self._idle[key] = fresh
            else:
                del self._idle[key]
        for connection in list(self._connections):
            if connection.deadline <= now:
                connection.expire()
            if connection.is_closed:
                self._connections.discard(connection)
        self._watch = None
        if self._connections:
            self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)


def _transaction(job: DeliveryJob, batch: Sequence[QueuedRecipient]) -> Transaction:
    message = job.message
    return Transaction(
        envelope=message.envelope,
        recipients=[queued.recipient for queued in batch],
        size=message.size,
        is_eight_bit=message.is_eight_bit,
    )


def _local_ip(address: tuple[str, int]) -> IPAddress:
    return ip_address(address[0].partition("%")[0])
