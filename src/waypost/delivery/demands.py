"""What is asked of a host before mail is given to it: the operator's rules, or what it offers.

For literals the rules and `waypost tls trust` say it all (tls/policy). Where they say nothing of a
domain, the domain is asked: MTA-STS names its hosts and has them prove their names, and TLSA
records name their certificates. What both ask for, both get.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from pathlib import Path

from waypost.delivery.connection import TlsUnmet
from waypost.delivery.sts import StsPolicies
from waypost.delivery.transport import DeliveryJob
from waypost.dns.resolver import Resolver, TlsaRecord
from waypost.mail.address import AddressLiteral, Domain
from waypost.mail.message import QueuedMessage, header_section
from waypost.observe import Log
from waypost.routing.hops import Host, Relay
from waypost.routing.targets import UnixPath, parse_host, parse_next_hop
from waypost.tls.policy import Choice, Level, TlsPolicy, is_like
from waypost.tls.sts import Mode, StsPolicy

# With these the host is the one it should be, and not only whoever answers.
_PROOFS = (Level.VERIFY, Level.PIN, Level.DANE)
_HEAD_BYTES = 65_536
_TLS_NOT_REQUIRED = re.compile(rb"^TLS-Required:[ \t]*No[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Demand:
    """Of one host; sessions that meet the same one may be used again."""

    level: Level
    because: str  # who asks for it
    ca: tuple[Path, ...] = ()  # who may vouch; empty: whom this system trusts
    tlsa: tuple[TlsaRecord, ...] = ()  # one of them names the certificate; empty: none is asked
    names: tuple[str, ...] = ()  # that stand for the host, where `tlsa` names an authority

    @property
    def is_proof(self) -> bool:
        """True when a host that meets it is the one it should be."""
        return self.level in _PROOFS


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of whatever host takes a job."""

    choice: Choice
    relay: Relay | None = None  # None: no relay
    domain: Domain | None = None  # whose MX records name the hosts; None: the operator names them
    sts: StsPolicy | None = None  # None: the domain has none, or was not asked
    needs_proof: bool = False  # the message does (RFC 8689)
    asks_zone: bool = False  # for TLSA records


IN_CLEAR = Wanted(Choice(Level.NONE, "LMTP"))


class Demands:
    """See the module text."""

    def __init__(self, policy: TlsPolicy, sts: StsPolicies, log: Log | None = None) -> None:
        """`policy` may be replaced while running (reload)."""
        self.policy = policy
        self._sts = sts
        self._log = log

    async def close(self) -> None:
        """Give up what is under way."""
        await self._sts.close()

    def choice(self, job: DeliveryJob, relay: Relay | None) -> Choice:
        """What the rules say of where a job goes; its domain may ask for more."""
        domain = _domain(job)
        if domain is not None:
            return self.policy.choice(domain)
        return self._of_named(job, relay).choice

    async def of_job(self, job: DeliveryJob, relay: Relay | None, resolver: Resolver) -> Wanted:
        """Of the hosts of a job; `relay` is the target's, where it is one.

        Raises KeptUnavailable.
        """
        domain = _domain(job)
        if domain is not None:
            return await self.of_domain(domain, job.message, resolver)
        return self._of_named(job, relay)

    def _of_named(self, job: DeliveryJob, relay: Relay | None) -> Wanted:
        target = job.target
        if relay is not None:
            return self.of_relay(relay, job.message)
        if target.kind == "direct":
            literal = job.recipients[0].recipient.forward_path.domain
            if isinstance(literal, AddressLiteral):
                return self.of_host(literal, job.message)
            return IN_CLEAR  # to which there is no way
        next_hop = parse_next_hop(target)
        if target.kind == "lmtp" or isinstance(next_hop, UnixPath):
            return IN_CLEAR
        return self.of_host(next_hop.host, job.message)

    def of_relay(self, relay: Relay, message: QueuedMessage | None) -> Wanted:
        """Of the hosts of a relay: its table alone says it. `message` None: there is none."""
        ca = () if relay.ca is None else (relay.ca,)
        choice = Choice(Level(relay.tls), f"relay.{relay.name}", ca)
        return _for_message(Wanted(choice, relay, asks_zone=choice.level is Level.DANE), message)

    def of_host(self, host: AddressLiteral | Domain, message: QueuedMessage) -> Wanted:
        """Of a host that is named by the operator, or by a literal."""
        choice = self.policy.choice(host)
        wanted = Wanted(choice, asks_zone=choice.may_rise or choice.level is Level.DANE)
        return _for_message(wanted, message)

    async def of_domain(self, domain: Domain, message: QueuedMessage, resolver: Resolver) -> Wanted:
        """Of the hosts that take mail for a domain. Raises KeptUnavailable."""
        choice = self.policy.choice(domain)
        wanted = Wanted(choice, domain=domain, asks_zone=choice.level is Level.DANE)
        wanted = _for_message(wanted, message)
        if not choice.may_rise:
            return wanted
        # RFC 8689 §4.2: REQUIRETLS makes the field void.
        if not message.envelope.requiretls and await _may_go_in_clear(message):
            return wanted
        sts = await self._sts.policy(domain, resolver)
        if sts is not None and sts.mode is Mode.NONE:
            sts = None
        return replace(wanted, sts=sts, asks_zone=True)

    async def at(self, wanted: Wanted, host: Host, resolver: Resolver) -> Demand:
        """What one host has to meet.

        Raises TlsUnmet for a host that cannot, ResolverUnavailable.
        """
        demand = Demand(wanted.choice.level, wanted.choice.because, self._ca(wanted, host))
        if wanted.sts is not None and self._is_enforced(wanted, wanted.sts, host):
            demand = replace(demand, level=Level.VERIFY, because="MTA-STS")
        elif wanted.domain is not None and demand.level in (Level.VERIFY, Level.PIN):
            _must_take_mail(wanted, host)
        if wanted.asks_zone and host.is_proven and not host.name.startswith("["):
            demand = await _with_zone(demand, wanted, host, resolver)
        elif demand.level is Level.DANE:
            raise TlsUnmet(f"DNSSEC does not prove that {host.name} is the host ({demand.because})")
        if wanted.needs_proof and not demand.is_proof:
            demand = replace(demand, level=Level.VERIFY, because="REQUIRETLS")
            if wanted.domain is not None:
                _must_take_mail(wanted, host)
        return demand

    def _ca(self, wanted: Wanted, host: Host) -> tuple[Path, ...]:
        if wanted.relay is None or wanted.choice.ca or host.hops[0].ip is None:
            return wanted.choice.ca
        return self.policy.authorities(parse_host(host.name))

    def _is_enforced(self, wanted: Wanted, sts: StsPolicy, host: Host) -> bool:
        if sts.mode is Mode.ENFORCE:
            if not sts.allows(host.name):
                raise TlsUnmet(f"{host.name} is none of the hosts of {wanted.domain} (MTA-STS)")
            return True
        if not sts.allows(host.name) and self._log is not None:
            self._log.event("mta-sts-testing", domain=wanted.domain, host=host.name)
        return False


def _domain(job: DeliveryJob) -> Domain | None:
    """The domain whose MX records say where a job goes; None: something else does."""
    domain = job.recipients[0].recipient.forward_path.domain
    return domain if job.target.kind == "direct" and isinstance(domain, Domain) else None


def _for_message(wanted: Wanted, message: QueuedMessage | None) -> Wanted:
    if message is None:
        return wanted
    # RFC 8689 §5: a report is not lost for want of REQUIRETLS on its way back.
    envelope = message.envelope
    if not envelope.requiretls or envelope.reverse_path is None:
        return wanted
    return replace(wanted, needs_proof=True)


async def _with_zone(demand: Demand, wanted: Wanted, host: Host, resolver: Resolver) -> Demand:
    # It takes a while to load, and most mail asks no zone.
    from waypost.delivery.dane import anchors_of

    anchors = await anchors_of(resolver, host.name, host.hops[0].port)
    if anchors is not None and anchors.usable:
        names = [anchors.base, host.name]
        if wanted.domain is not None:
            names.append(wanted.domain.ascii)  # RFC 7672 §3.2.2
        found = replace(demand, tlsa=anchors.usable, names=tuple(dict.fromkeys(names)))
        if demand.level is Level.VERIFY:
            return found
        because = demand.because if demand.level is Level.DANE else "its zone"
        return replace(found, level=Level.DANE, because=because)
    if demand.level is Level.DANE:
        raise TlsUnmet(f"{host.name} has no TLSA record that is validated ({demand.because})")
    if anchors is not None and demand.level is Level.OPPORTUNISTIC:
        return replace(demand, level=Level.ENCRYPT, because="its zone")  # RFC 7672 §2.2
    return demand


def _must_take_mail(wanted: Wanted, host: Host) -> None:
    """What a host proves is its own name: that it takes this mail has to be known as well."""
    choice = wanted.choice
    if any(is_like(pattern, host.name) for pattern in choice.hosts):
        return
    if not choice.hosts and host.is_proven:
        return
    why = "is none of its hosts" if choice.hosts else "is named by DNS alone, without DNSSEC"
    raise TlsUnmet(
        f"{host.name} {why}, so it gets no mail for {wanted.domain} ({choice.because});"
        " `hosts` of a [[tls.policy]] may name it"
    )


async def _may_go_in_clear(message: QueuedMessage) -> bool:
    """Whether its author would rather have it arrive than be protected (RFC 8689 §3)."""
    inline = message.content.inline

    def read() -> bytes:
        with message.content.open() as source:
            return source.read(_HEAD_BYTES)

    try:
        head = await asyncio.to_thread(read) if inline is None else inline
    except OSError:
        return False  # whoever sends it meets the same, and says so
    return _TLS_NOT_REQUIRED.search(header_section(head)) is not None
