"""What is asked of a host before mail is given to it: the operator's rules, or what it offers.

For literals the rules and `waypost tls trust` say it all (tls/policy).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from waypost.delivery.connection import TlsUnmet
from waypost.mail.address import AddressLiteral, Domain
from waypost.routing.hops import Host, Relay
from waypost.routing.targets import parse_host
from waypost.tls.policy import Choice, Level, TlsPolicy, is_like

# With these the host is the one it should be, and not only whoever answers.
_PROOFS = (Level.VERIFY, Level.PIN, Level.DANE)


@dataclass(frozen=True, slots=True)
class Demand:
    """Of one host; sessions that meet the same one may be used again."""

    level: Level
    because: str  # who asks for it
    ca: tuple[Path, ...] = ()  # who may vouch; empty: whom this system trusts

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


IN_CLEAR = Wanted(Choice(Level.NONE, "LMTP"))


class Demands:
    """See the module text."""

    def __init__(self, policy: TlsPolicy) -> None:
        """`policy` may be replaced while running (reload)."""
        self.policy = policy

    def of_relay(self, relay: Relay) -> Wanted:
        """Of the hosts of a relay: its table alone says it."""
        ca = () if relay.ca is None else (relay.ca,)
        return Wanted(Choice(Level(relay.tls), f"relay.{relay.name}", ca), relay)

    def of_host(self, host: AddressLiteral | Domain) -> Wanted:
        """Of a host that is named by the operator, or by a literal."""
        return Wanted(self.policy.choice(host))

    def of_domain(self, domain: Domain) -> Wanted:
        """Of the hosts that take mail for a domain."""
        return Wanted(self.policy.choice(domain), domain=domain)

    def at(self, wanted: Wanted, host: Host) -> Demand:
        """What one host has to meet. Raises TlsUnmet for a host that cannot."""
        choice = wanted.choice
        demand = Demand(choice.level, choice.because, choice.ca)
        if wanted.relay is not None and not choice.ca and demand.level is Level.VERIFY:
            named = parse_host(host.name)
            demand = Demand(demand.level, demand.because, self.policy.authorities(named))
        if wanted.domain is not None and demand.level in (Level.VERIFY, Level.PIN):
            _must_take_mail(wanted, host, demand)
        return demand


def _must_take_mail(wanted: Wanted, host: Host, demand: Demand) -> None:
    """What a host proves is its own name: that it takes this mail has to be known as well."""
    hosts = wanted.choice.hosts
    if any(is_like(pattern, host.name) for pattern in hosts) or (not hosts and host.is_proven):
        return
    why = "is none of its hosts" if hosts else "is named by DNS alone, without DNSSEC"
    raise TlsUnmet(
        f"{host.name} {why}, so it gets no mail for {wanted.domain} ({demand.because});"
        " `hosts` of a [[tls.policy]] may name it"
    )
