"""Domain groups: an address of this host stands for domains, inward and outward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from waypost.mail.address import Address, AddressLiteral, Domain, DomainPart, IPAddress


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """[addresses.groups], [addresses.names] and [addresses.moved]."""

    groups: tuple[tuple[IPAddress, tuple[Domain, ...]], ...] = ()
    names: tuple[tuple[IPAddress, Domain], ...] = ()
    moved: tuple[tuple[IPAddress, DomainPart], ...] = ()
    named_as_ours: tuple[IPAddress, ...] = ()  # addresses.own: perhaps a router has them (NAT)


class DomainGroups:
    """Which domains stand behind which address of ours."""

    def __init__(self, settings: GroupSettings) -> None:
        self._domains = {ip: tuple(d.ascii for d in domains) for ip, domains in settings.groups}
        self._names = dict(settings.names)
        self._own_names = {name.ascii for _, name in settings.names}
        self._moved = dict(settings.moved)
        self._all = frozenset(domain for domains in self._domains.values() for domain in domains)
        self.named_as_ours: frozenset[IPAddress | None] = frozenset(settings.named_as_ours)
        self._sources: dict[str, list[IPAddress]] = {}
        for ip, domains in self._domains.items():
            for domain in domains:
                self._sources.setdefault(domain, []).append(ip)

    def domains_at(self, ip: IPAddress) -> tuple[str, ...]:
        """The domains an address stands for, in ASCII."""
        return self._domains.get(ip, ())

    def has(self, domain: Domain) -> bool:
        """True for a domain of a group."""
        return domain.ascii in self._all

    def sources_of(self, sender: Address | None) -> Iterable[IPAddress]:
        """The addresses mail of a sender leaves by; none: the kernel chooses."""
        if sender is None:
            return ()
        if isinstance(sender.domain, AddressLiteral):
            # Its literal proves itself to the other side, NAT in between or not.
            ip = sender.domain.ip
            return (ip,) if ip in self._domains else ()
        if isinstance(sender.domain, Domain):
            return self._sources.get(sender.domain.ascii, ())
        return ()

    def name_of(self, ip: IPAddress, hostname: str | None) -> str:
        """What this host calls itself on a connection from an address of it."""
        name = self._names.get(ip)
        if name is not None:
            return name.ascii
        if hostname is None or ip in self._domains:
            return str(AddressLiteral(ip))
        return hostname

    def is_own_name(self, host: str) -> bool:
        """True for what this host calls itself at one of its addresses."""
        return host in self._own_names

    def new_place(self, domain: DomainPart) -> DomainPart | None:
        """Where a host has moved; None: it has not."""
        if not isinstance(domain, AddressLiteral):
            return None
        return self._moved.get(domain.ip)
