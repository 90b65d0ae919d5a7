"""A resolver that answers from tables in memory, and counts what it is asked."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address
from typing import TypeVar

from waypost.dns.resolver import (
    Answer,
    MailExchange,
    ResolverUnavailable,
    TlsaRecord,
    Trouble,
)
from waypost.mail.address import IPAddress, as_value

T = TypeVar("T")

TTL_S = 300.0
_MAX_CHAIN = 16
_ESCAPED = re.compile(r"\\(?:\d{3}|.)")
_FINAL_DOT = re.compile(r"(?<!\\)\.$")


class StaticResolver:
    """A `waypost.dns.resolver.Resolver`.

    Records are written as in a master file, a TXT record as its text. A name exists when it, or
    one below it, has records, or `names` holds it. PTR records stand at `ip.reverse_pointer`.
    Tables may be changed at any time.
    """

    def __init__(
        self,
        records: Mapping[tuple[str, str], Sequence[str]] | None = None,
        *,
        names: Collection[str] = (),
        troubles: Mapping[str | tuple[str, str], Trouble] | None = None,  # of a name, or one type
        secure: Collection[str] = (),  # names whose answers are validated
        validates: bool = False,
    ) -> None:
        self.records = {
            (_plain(name), kind): list(texts) for (name, kind), texts in (records or {}).items()
        }
        self.names = {_plain(name) for name in names}
        self.troubles = dict(troubles or {})
        self.secure = set(secure)
        self.is_validating = validates
        self.asked: Counter[tuple[str, str]] = Counter()  # by name and type

    async def mx(self, name: str) -> Answer[MailExchange]:
        """See Resolver."""
        return self._answer(name, "MX", _mail_exchange)

    async def ipv4(self, name: str) -> Answer[IPAddress]:
        """See Resolver."""
        return self._answer(name, "A", _address)

    async def ipv6(self, name: str) -> Answer[IPAddress]:
        """See Resolver."""
        return self._answer(name, "AAAA", _address)

    async def txt(self, name: str) -> Answer[str]:
        """See Resolver."""
        return self._answer(name, "TXT", str)

    async def tlsa(self, name: str) -> Answer[TlsaRecord]:
        """See Resolver."""
        return self._answer(name, "TLSA", _tlsa)

    async def ptr(self, ip: IPAddress) -> Answer[str]:
        """See Resolver."""
        return self._answer(ip.reverse_pointer, "PTR", _plain)

    async def validates(self) -> bool:
        """See Resolver."""
        return self.is_validating

    def _answer(self, name: str, kind: str, read: Callable[[str], T]) -> Answer[T]:
        name = _plain(name)
        self.asked[name, kind] += 1
        canonical = name
        for _ in range(_MAX_CHAIN):
            trouble = self.troubles.get(canonical) or self.troubles.get((canonical, kind))
            if trouble is not None:
                raise ResolverUnavailable(f"{name} {kind}", trouble)
            alias = self.records.get((canonical, "CNAME"))
            if alias is None:
                break
            canonical = _plain(alias[0])
        else:
            raise ResolverUnavailable(f"{name} {kind}", Trouble.SERVFAIL)
        texts = self.records.get((canonical, kind), [])
        return Answer(
            tuple(read(text) for text in texts),
            self._exists(canonical),
            canonical,
            name in self.secure,
            time.monotonic() + TTL_S,
        )

    def _exists(self, name: str) -> bool:
        owners = [*self.names, *(owner for owner, _ in self.records)]
        return _can_be(name) and any(
            owner == name or owner.endswith(f".{name}") for owner in owners
        )


def _plain(name: str) -> str:
    return _FINAL_DOT.sub("", name.lower())


def _can_be(name: str) -> bool:
    plain = _ESCAPED.sub("x", name)
    return len(plain) <= 253 and all(0 < len(label) <= 63 for label in plain.split("."))


def _address(text: str) -> IPAddress:
    return as_value(ip_address(text))


def _mail_exchange(text: str) -> MailExchange:
    preference, host = text.split(maxsplit=1)
    return MailExchange(int(preference), _plain(host))


def _tlsa(text: str) -> TlsaRecord:
    usage, selector, matching, data = text.split(maxsplit=3)
    return TlsaRecord(int(usage), int(selector), int(matching), bytes.fromhex(data))


def count_of(resolver: StaticResolver, kind: str) -> int:
    """How many questions of a type it was asked."""
    return sum(count for (_, asked), count in resolver.asked.items() if asked == kind)
