"""How hosts that mail goes to have to be secured: an ordered list of rules, without I/O.

The operator's rules come first, the first that matches wins; then the authorities of other sites
(`waypost tls trust`), which vouch for the networks and domains they were taken for, alone. What
neither names is left to what the host itself offers (delivery/demands).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from waypost.errors import AddressError
from waypost.mail.address import AddressLiteral, Domain
from waypost.net.networks import Networks


class Level(StrEnum):
    """What is asked of a session."""

    NONE = "none"  # nothing: in clear
    OPPORTUNISTIC = "opportunistic"  # TLS where it works (RFC 7435)
    ENCRYPT = "encrypt"  # TLS with whoever answers
    VERIFY = "verify"  # and the host proves its name or its address (RFC 9525)
    PIN = "pin"  # and its key is the one it showed first
    DANE = "dane"  # and its certificate is the one in its zone (RFC 7672)


class Scope:
    """Networks, for address literals, and domains, for names."""

    __slots__ = ("_domains", "_networks", "words")

    def __init__(self, words: Iterable[str]) -> None:
        """`words`: "loopback", "private", "any" (literals), CIDRs, names, "*.name", "*" (names).

        Raises ValueError, naming the word.
        """
        self.words = tuple(words)
        networks: list[str] = []
        self._domains: list[str] = []
        for word in self.words:
            try:
                Networks((word,))
                networks.append(word)
            except ValueError as error:
                if "/" in word or ":" in word:
                    raise
                self._domains.append(_domain_pattern(word, error))
        self._networks = Networks(networks)

    @property
    def domains(self) -> tuple[str, ...]:
        """Patterns of names."""
        return tuple(self._domains)

    def __contains__(self, host: AddressLiteral | Domain) -> bool:
        if isinstance(host, AddressLiteral):
            return host.ip in self._networks
        return any(is_like(pattern, host.ascii) for pattern in self._domains)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scope) and self.words == other.words

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"Scope({list(self.words)!r})"


def _domain_pattern(word: str, error: ValueError) -> str:
    if word == "*":
        return word
    stem = word.removeprefix("*.")
    try:
        domain = Domain.parse(stem)
    except AddressError:
        raise ValueError(f"{word!r} is neither a network nor a domain, as in *.example") from None
    if domain.as_ip() is not None or stem.rpartition(".")[2].isdigit():
        raise error  # an address that went wrong: no name ends in a number
    return word[: len(word) - len(stem)] + domain.ascii


def is_like(pattern: str, name: str) -> bool:
    """Whether a name (A-labels, lower case) is the pattern, or lies below its "*."."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return pattern in ("*", name)


class Rule(NamedTuple):
    """One [[tls.policy]]."""

    scope: Scope
    level: Level
    ca: Path | None = None  # who may vouch; None: a trusted authority, else whom this system trusts
    hosts: tuple[str, ...] = ()  # that may take mail for a domain; empty: what DNS proves


class TrustedAuthority(NamedTuple):
    """Another site's authority, and what it may vouch for."""

    scope: Scope
    certificate: Path


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rules say of a place mail is meant for."""

    level: Level
    because: str
    ca: tuple[Path, ...] = ()  # who may vouch; empty: whom this system trusts
    hosts: tuple[str, ...] = ()  # patterns of hosts that may take the mail; empty: not said
    may_rise: bool = False  # no rule holds for this name: it may ask for more itself


class TlsPolicy:
    """See the module text."""

    def __init__(
        self, rules: Sequence[Rule] = (), trusted: Sequence[TrustedAuthority] = ()
    ) -> None:
        self._rules = tuple(rules)
        self._trusted = tuple(trusted)

    def choice(self, host: AddressLiteral | Domain) -> Choice:
        """What holds for a literal, or for a domain or host by its name."""
        authorities = self.authorities(host)
        for number, rule in enumerate(self._rules, 1):
            if host in rule.scope:
                ca = authorities if rule.ca is None else (rule.ca,)
                return Choice(rule.level, f"tls.policy[{number}]", ca, rule.hosts)
        if authorities:
            return Choice(Level.VERIFY, "tls trust", authorities)
        may_rise = isinstance(host, Domain)
        return Choice(Level.OPPORTUNISTIC, "default", may_rise=may_rise)

    def authorities(self, host: AddressLiteral | Domain) -> tuple[Path, ...]:
        """Certificates of those that vouch for this host, alone; empty: none was taken for it."""
        return tuple(entry.certificate for entry in self._trusted if host in entry.scope)
