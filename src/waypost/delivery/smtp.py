"""Delivery over SMTP and LMTP: which connection, which peer, and what its replies mean."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from waypost.delivery.connection import (
    KeyChanged,
    NotCanonical,
    SmtpConnection,
    TlsFailed,
    TlsUnmet,
)
from waypost.delivery.credentials import Credentials
from waypost.delivery.demands import IN_CLEAR, Demand, Demands, Wanted
from waypost.delivery.eyeballs import first_to_answer
from waypost.delivery.rewriting import outgoing
from waypost.delivery.securing import Securing, described
from waypost.delivery.transport import DeliveryJob, deferred, failed
from waypost.dns.resolver import Resolver, ResolverUnavailable
from waypost.errors import ConnectForbidden, NoWay, PeerUnreachable, TemporaryError
from waypost.mail.address import Address, AddressLiteral, Domain, IPAddress
from waypost.mail.envelope import Hop, Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.net.gate import Gate, Origin, connect, connect_unix, origin_of
from waypost.net.interfaces import OwnAddresses
from waypost.routing.groups import DomainGroups
from waypost.routing.hops import Host, Relay, hosts_direct, hosts_of_relay, hosts_to
from waypost.routing.targets import Target, parse_next_hop
from waypost.smtp.client import NEEDS_REQUIRETLS, NO_TLS_THERE, Transaction
from waypost.tls.policy import Choice, Level

CONNECT_S = 30.0
# An idle connection is kept this long for the next message to the same host.
IDLE_S = 5.0
# Deadlines and idle connections are looked at this often.
WATCH_S = 1.0
MAX_WINDOW = 20

_LOST = deferred("The connection was lost", (4, 2))
_MAY_NOT_LEAVE = failed("The message has bare CR or LF and cannot be sent on", (6, 0))


class _Way(NamedTuple):
    """How a job leaves, beside where to: what connections must share to be used again."""

    origin: Origin
    sources: tuple[IPAddress, ...]  # of ours to leave by, of either family; none: any
    is_lmtp: bool
    relay: Relay | None  # whose login and port count; None: no relay
    demand: Demand  # of the host at hand


# Where nothing is sent.
_UNASKED = Demand(Level.NONE, "")

_PoolKey = tuple[Hop, _Way]


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """What SMTP on its way out is told."""

    hostname: str | None  # None: we call ourselves by a literal
    delivery_port: int  # of hosts mail goes straight to
    relays: Mapping[str, Relay]
    groups: DomainGroups


class SmtpTransport:
    """The transport of ``smtp:``, ``lmtp:``, ``relay:`` and ``direct`` targets."""

    def __init__(
        self,
        gate: Gate,
        own: OwnAddresses,
        resolver: Resolver,
        settings: SmtpSettings,
        demands: Demands,
        securing: Securing,
    ) -> None:
        """`resolver` and `settings` may be replaced while running (reload)."""
        self._gate = gate
        self._own = own
        self.resolver = resolver
        self.settings = settings
        self._idle: dict[_PoolKey, list[SmtpConnection]] = {}
        self._connections: set[SmtpConnection] = set()
        self._watch: asyncio.TimerHandle | None = None  # None: there is no connection
        self.demands = demands
        self.securing = securing

    @property
    def credentials(self) -> Credentials:
        """The logins of relays."""
        return self.securing.credentials

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport: for ``direct`` the recipient's host decides."""
        if target.kind == "direct":
            return f"{target}:{recipient.recipient.forward_path.domain}"
        return str(target)

    def window(self) -> int:
        """See Transport."""
        return MAX_WINDOW

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport. Raises TemporaryError or PermanentError for the job as a whole."""
        wanted = await self._wanted(job)
        if wanted.relay is not None:
            await self.credentials.login(wanted.relay)  # no host is asked while it is lost
        hosts = await self._hosts(job)
        may_log_in_again = True
        trouble: Exception | None = None
        refusal: tuple[Hop, Reply] | None = None
        login_refusal: str | None = None  # None: it was taken, or there is none
        for host in hosts:
            try:
                demand = await self.demands.at(wanted, host, self.resolver)
            except (TlsUnmet, ResolverUnavailable) as error:
                trouble = _worse(trouble, error)
                continue
            way = self._way(job, wanted, demand)
            hops = list(_fitting(host, way))
            while hops:
                try:
                    hop, connection, is_new = await self._connection(hops, way)
                except (PeerUnreachable, ConnectForbidden) as error:
                    trouble = _worse(trouble, error)
                    if isinstance(error, TlsUnmet) and error.hop in hops:
                        hops.remove(error.hop)
                        continue
                    break  # all of them were tried
                if is_new:
                    hops.remove(hop)
                try:
                    reply = await connection.greet() if is_new else None
                    if reply is None and is_new and way.relay is not None:
                        await self.credentials.taken(way.relay)
                    if reply is None and not connection.session.takes(job.message.envelope):
                        self._keep((hop, way), connection)
                        refusal = refusal or (hop, NEEDS_REQUIRETLS)
                        break
                    if reply is None:
                        outcomes = await self._carry(hop, connection, way, job)
                        if outcomes is not None:
                            return outcomes
                        continue
                except PeerUnreachable as error:
                    if error.has_sent_content:
                        raise  # it may have the message: another host would make two of it
                    trouble = _worse(trouble, error)
                    if isinstance(error, TlsFailed) and self.securing.do_without(hop, demand):
                        hops.insert(0, hop)  # better in clear than not at all
                    continue
                # RFC 5321 §5.1: another address or host of the domain may be in a better mood.
                connection.quit()
                if may_log_in_again and await self._has_another_login(connection, way):
                    may_log_in_again = False
                    hops.insert(0, hop)
                    continue
                if refusal is None or reply.is_transient:
                    refusal = (hop, reply)
                if connection.session.is_login_refused:
                    login_refusal = login_refusal or reply.text
        if refusal is not None and (trouble is None or refusal[1].is_transient):
            hop, reply = refusal
            if login_refusal is not None and wanted.relay is not None:
                raise await self.credentials.refused(wanted.relay, login_refusal)
            if wanted.needs_proof and reply.status == NO_TLS_THERE.status:
                raise _needs_tls(reply.text)
            return [Outcome.of(reply, success=_success(job), hop=hop)] * len(job.recipients)
        assert trouble is not None  # there is at least one host
        if wanted.needs_proof and isinstance(trouble, TlsUnmet):
            if not isinstance(trouble, KeyChanged):  # which is for the operator to say
                raise _needs_tls(str(trouble)) from trouble
        raise trouble

    async def places(self, job: DeliveryJob) -> tuple[list[Host], list[str]]:
        """The hosts a job would be tried at, in order, and why others would not be; connects to
        none. Raises as `deliver()`.
        """
        way = self._way(job, IN_CLEAR, _UNASKED)
        hosts: list[Host] = []
        forbidden: list[str] = []
        for host in await self._hosts(job):
            hops = []
            for hop in _fitting(host, way):
                packed = b"" if hop.ip is None else hop.ip.packed
                why = None if hop.ip is None else self._gate.refusal(packed, hop.port, way.origin)
                if why is None:
                    hops.append(hop)
                else:
                    forbidden.append(f"{hop}: {why}")
            if hops:
                hosts.append(Host(tuple(hops)))
        if not hosts:
            raise ConnectForbidden("; ".join(forbidden))
        return hosts, forbidden

    async def close(self) -> None:
        """Say goodbye on idle connections."""
        if self._watch is not None:
            self._watch.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.quit()
        self._idle.clear()
        await self.demands.close()

    async def _hosts(self, job: DeliveryJob) -> list[Host]:
        target = job.target
        if target.kind == "direct":
            recipient = job.recipients[0].recipient.forward_path
            port = self.settings.delivery_port
            return await hosts_direct(recipient, port, self.resolver, self._is_ours)
        if target.kind == "relay":
            return await hosts_of_relay(self._relay(target), self.resolver)
        return await hosts_to(parse_next_hop(target), self.resolver)

    def _relay(self, target: Target) -> Relay:
        relay = self.settings.relays.get(target.argument)
        if relay is None:
            raise TemporaryError(f"no [relay.{target.argument}] is configured any more")
        return relay

    def _is_ours(self, host: str, ip: IPAddress | None) -> bool:
        """Whether a host, by its name or an address, is this one."""
        if ip is None:
            return host == self.settings.hostname or self.settings.groups.is_own_name(host)
        # On loopback another server of this machine may well be meant.
        if ip.is_loopback:
            return self._gate.is_listener(ip, self.settings.delivery_port)
        return ip in self._own

    def _name_of(self, local_ip: IPAddress) -> str:
        return self.settings.groups.name_of(local_ip, self.settings.hostname)

    def choice(self, job: DeliveryJob) -> Choice:
        """What the rules say of TLS to where a job goes; its domain may ask for more.

        Raises TemporaryError.
        """
        return self.demands.choice(job, self._relay_of(job))

    async def _wanted(self, job: DeliveryJob) -> Wanted:
        return await self.demands.of_job(job, self._relay_of(job), self.resolver)

    def _relay_of(self, job: DeliveryJob) -> Relay | None:
        return self._relay(job.target) if job.target.kind == "relay" else None

    def _way(self, job: DeliveryJob, wanted: Wanted, demand: Demand) -> _Way:
        sender = job.message.envelope.reverse_path
        sources = self.settings.groups.sources_of(sender) or self._own_literal(sender)
        return _Way(
            self._origin(job),
            tuple(sources),
            job.target.kind == "lmtp",
            wanted.relay,
            demand,
        )

    def _own_literal(self, sender: Address | None) -> Sequence[IPAddress]:
        """An address of this host that a sender names: leaving by it proves the sender."""
        if sender is None or not isinstance(sender.domain, AddressLiteral):
            return ()
        ip = sender.domain.ip
        return (ip,) if ip in self._own and not ip.is_loopback else ()

    def _origin(self, job: DeliveryJob) -> Origin:
        if job.target.kind != "direct":
            return Origin.OPERATOR
        if job.target.argument:
            return Origin.ROUTED  # the operator named the recipient (routing/targets)
        origin = origin_of(job.message.arrival)
        if origin is Origin.TRUSTED:
            # The route was chosen when the mail was accepted: by the operator's rule, or
            # because the host is in a trusted network (routing/table).
            return Origin.ROUTED
        is_name = isinstance(job.recipients[0].recipient.forward_path.domain, Domain)
        if origin is Origin.PROVEN and is_name:
            # A name proves no address: a stranger chooses where it leads.
            return Origin.ROUTED if job.message.arrival.trusted else Origin.STRANGER
        return origin

    async def _connection(self, hops: Sequence[Hop], way: _Way) -> tuple[Hop, SmtpConnection, bool]:
        """A connection to one address of a host; True: a new one, to be greeted first."""
        for hop in hops:
            idle = self._idle_connection((hop, way))
            if idle is not None:
                return hop, idle, False
        self._make_room(way)
        return *await self._open(hops, way), True

    def _make_room(self, way: _Way) -> None:
        """A relay that counts its connections has none that idle beside a new one."""
        if way.relay is None or way.relay.pace.connections is None:
            return
        for (_, other), idle in self._idle.items():
            if other.relay is not None and other.relay.name == way.relay.name:
                while idle:
                    idle.pop().quit()

    async def _carry(
        self, hop: Hop, connection: SmtpConnection, way: _Way, job: DeliveryJob
    ) -> list[Outcome] | None:
        """Hand the job over; in several transactions where the peer takes fewer recipients.

        None: the connection was used before and is of no use any more; nothing was handed over.
        """
        success = _success(job)
        outcomes: list[Outcome] = []
        while True:
            was_used = connection.session.transactions > 0
            waiting = job.recipients[len(outcomes) :]
            batch = waiting[: connection.session.max_recipients or len(waiting)]
            is_stale = False
            made = await outgoing(
                job, way.relay, connection.session.extensions, self.settings.hostname
            )
            if made.refusal is not None:
                self._keep((hop, way), connection)
                refused = Outcome.of(made.refusal, success=success)
                return outcomes + [refused] * len(waiting)
            message = made.message
            try:
                replies = await connection.transact(_transaction(message, batch), message)
            except NotCanonical:
                return [Outcome.of(_MAY_NOT_LEAVE, success=success)] * len(job.recipients)
            except PeerUnreachable:
                # The peer may have closed it meanwhile: then nothing was handed over.
                is_stale = was_used and not connection.has_sent_content
                if not is_stale:
                    if outcomes:
                        # What was settled with the peer so far stands.
                        rest = Outcome.of(_LOST, success=success, hop=hop)
                        return outcomes + [rest] * len(waiting)
                    raise
            if was_used and connection.session.is_closing and not connection.has_sent_content:
                connection.quit()
                is_stale = True  # it said 421 as we began: its idle limit, not this message
            if not is_stale:
                peer_reports = connection.session.reports_deliveries
                tls = described(connection, way.demand)
                outcomes += [
                    Outcome.of(
                        reply,
                        success=success,
                        hop=hop,
                        peer_reports=peer_reports,
                        changes=made.changes,
                        tls=tls,
                    )
                    for reply in replies
                ]
                self._keep((hop, way), connection)
                if len(outcomes) == len(job.recipients):
                    return outcomes
            if not outcomes:
                return None
            left = len(job.recipients) - len(outcomes)
            try:
                _, connection, is_new = await self._connection([hop], way)
                refusal = await connection.greet() if is_new else None
            except (PeerUnreachable, ConnectForbidden):
                # As above: to try the next host would make two of what was taken here.
                return outcomes + [Outcome.of(_LOST, success=success, hop=hop)] * left
            if refusal is not None:
                connection.quit()
                return outcomes + [Outcome.of(refusal, success=success, hop=hop)] * left

    def _idle_connection(self, key: _PoolKey) -> SmtpConnection | None:
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            connection.idle_since = math.inf
            if connection.is_usable:
                return connection
            connection.abort()
        return None

    async def _open(self, hops: Sequence[Hop], way: _Way) -> tuple[Hop, SmtpConnection]:
        hop, connected = await first_to_answer(hops, lambda hop: self._connect(hop, way))
        local_ip = None if hop.ip is None else _local_ip(connected.getsockname())
        helo = "localhost" if local_ip is None else self._name_of(local_ip)
        try:
            connection = await self.securing.open(
                *(connected, hop, helo, way.demand), relay=way.relay, is_lmtp=way.is_lmtp
            )
        except TlsUnmet as error:
            error.hop = hop
            raise
        self._connections.add(connection)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)
        return hop, connection

    async def _has_another_login(self, connection: SmtpConnection, way: _Way) -> bool:
        """True when the host refused a token, and there is another one now."""
        session = connection.session
        if way.relay is None or not session.is_login_refused:
            return False
        return await self.credentials.another_than(way.relay, session.login)

    async def _connect(self, hop: Hop, way: _Way) -> socket.socket:
        try:
            async with asyncio.timeout(CONNECT_S):
                if hop.ip is None:
                    return await connect_unix(hop.host)
                version = hop.ip.version
                source = next((ip for ip in way.sources if ip.version == version), None)
                try:
                    return await connect(self._gate, hop.ip, hop.port, way.origin, source_ip=source)
                except OSError as error:
                    # An address of ours that a router has (NAT): it puts it on what leaves.
                    is_elsewhere = source in self.settings.groups.named_as_ours
                    if error.errno != errno.EADDRNOTAVAIL or not is_elsewhere:
                        raise
                return await connect(self._gate, hop.ip, hop.port, way.origin)
        except TimeoutError:
            raise PeerUnreachable(
                f"{hop}: no connection in {CONNECT_S:.0f} s", never_connected=True
            ) from None
        except OSError as error:
            # asyncio puts the address, which the hop names already, in place of the reason.
            reason = os.strerror(error.errno) if error.errno else str(error)
            # An address of ours that is not there says nothing of the host: others may reach it.
            is_ours_to_blame = error.errno == errno.EADDRNOTAVAIL and bool(way.sources)
            raise PeerUnreachable(
                f"{hop}: {reason}", never_connected=not is_ours_to_blame
            ) from error

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


def _fitting(host: Host, way: _Way) -> Sequence[Hop]:
    """The addresses of a host that mail can leave for by a source address of its own; all of them
    where it has none that fits.
    """
    versions = {ip.version for ip in way.sources}
    fitting = [hop for hop in host.hops if hop.ip is not None and hop.ip.version in versions]
    return fitting or host.hops


def _worse(known: Exception | None, new: Exception) -> Exception:
    """What is told of several troubles: a host that may answer later outweighs one that did and
    was not good enough, and both outweigh one that may never be asked.
    """
    weights = [
        (isinstance(error, ConnectForbidden), isinstance(error, TlsUnmet)) for error in (known, new)
    ]
    return new if known is None or weights[1] <= weights[0] else known


def _needs_tls(why: str) -> NoWay:
    """RFC 8689 §4.2.1: back to the sender, who asked for that."""
    return NoWay(550, f"REQUIRETLS: {why}", (7, 10))


def _success(job: DeliveryJob) -> OutcomeKind:
    return OutcomeKind.DELIVERED if job.target.kind == "lmtp" else OutcomeKind.RELAYED


def _transaction(message: QueuedMessage, batch: Sequence[QueuedRecipient]) -> Transaction:
    return Transaction(
        envelope=message.envelope,
        recipients=[queued.recipient for queued in batch],
        size=message.size,
        is_eight_bit=message.is_eight_bit,
    )


def _local_ip(address: tuple[str, int]) -> IPAddress:
    return ip_address(address[0].partition("%")[0])
