"""The resolver: dnspython asks, answers are kept for their TTL, and one question goes out once.

Servers are the operator's: those of the configuration, or of the system's resolv.conf, which is
read again when it changes.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.reversename

from waypost.dns.resolver import (
    SYSTEM,
    Answer,
    MailExchange,
    ResolverUnavailable,
    Trouble,
    split_server,
)
from waypost.mail.address import IPAddress, as_value

T = TypeVar("T")

# One server is waited for this long, all of them together that long.
SERVER_S = 3.0
LIFETIME_S = 10.0
# Questions under way at once; the rest wait, so that no resolver is flooded.
MAX_ASKING = 200
# Answers kept at once, the least used go first.
MAX_ANSWERS = 20_000
MAX_TTL_S = 86_400.0
# RFC 2308 §5: what is not there is believed for shorter.
MAX_NEGATIVE_TTL_S = 10_800.0
# An answer with TTL 0 still serves those who ask in the same moment.
MIN_TTL_S = 1.0
# RFC 9520 §3.2: trouble is remembered, too, 1 s to 5 minutes.
TROUBLE_TTL_S = 10.0
# Between two looks at whether resolv.conf has changed.
_LOOK_S = 5.0
_RESOLV_CONF = "/etc/resolv.conf"
# RFC 6891: what passes nearly everywhere in one piece (DNS flag day 2020).
_UDP_BYTES = 1232

# A question: name and type.
_Question = tuple[str, str]


class _Kept:
    """A question that was asked, and its answer or trouble as soon as there is one."""

    def __init__(self, task: asyncio.Task[Answer[Any] | Trouble]) -> None:
        self.task = task
        self.good_until = math.inf  # nobody asks again while it is under way
        task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[Answer[Any] | Trouble]) -> None:
        # Nobody may wait any more; asyncio would complain of an exception nobody has seen.
        if task.cancelled() or task.exception() is not None:
            self.good_until = 0.0
            return
        found = task.result()
        if isinstance(found, Trouble):
            self.good_until = time.monotonic() + TROUBLE_TTL_S
        else:
            self.good_until = found.expires_at


class CachingResolver:
    """A `dns.resolver.Resolver` for one event loop."""

    def __init__(self, servers: Sequence[str] = (SYSTEM,)) -> None:
        """`servers`: "system", or addresses as 192.0.2.1, 192.0.2.1:5353, [2001:db8::1]:5353."""
        self._servers = tuple(servers)
        self._answers: OrderedDict[_Question, _Kept] = OrderedDict()
        self._asking = asyncio.Semaphore(MAX_ASKING)
        self._configured: dns.asyncresolver.Resolver | None = None
        self._looked_at = -math.inf
        self._system_seen: tuple[int, int] | None = None  # None: there is no resolv.conf
        self.asked = 0  # questions that went out

    async def mx(self, name: str) -> Answer[MailExchange]:
        """See Resolver."""
        return await self._ask(name, "MX", _mail_exchange)

    async def ipv4(self, name: str) -> Answer[IPAddress]:
        """See Resolver."""
        return await self._ask(name, "A", _address)

    async def ipv6(self, name: str) -> Answer[IPAddress]:
        """See Resolver."""
        return await self._ask(name, "AAAA", _address)

    async def txt(self, name: str) -> Answer[str]:
        """See Resolver."""
        return await self._ask(name, "TXT", _text)

    async def ptr(self, ip: IPAddress) -> Answer[str]:
        """See Resolver."""
        name = dns.reversename.from_address(str(ip))
        return await self._ask(name.to_text(omit_final_dot=True), "PTR", _target)

    async def data(self, name: str, kind: str) -> Answer[str]:
        """Records of any type, in lower case as a master file has them (RFC 1035 §5.1).

        TXT as its text alone; of an SOA the primary and the contact, whose numbers are the
        server's own. Asked anew each time. Raises ResolverUnavailable.
        """
        found = await self._look_up((name.lower(), kind), _data)
        if isinstance(found, Trouble):
            raise ResolverUnavailable(f"{name or '.'} {kind}", found)
        return found

    async def validates(self) -> bool:
        """See Resolver: the root is signed, so a validating resolver says so of it."""
        try:
            answer = await self._ask("", "SOA", str)
        except ResolverUnavailable:
            return False
        return answer.is_secure

    async def _ask(self, name: str, kind: str, read: Callable[[Any], T]) -> Answer[T]:
        question = (name.lower(), kind)
        kept = self._answers.get(question)
        if kept is None or kept.good_until <= time.monotonic():
            look_up = self._look_up(question, read)
            kept = _Kept(asyncio.get_running_loop().create_task(look_up))
            self._answers[question] = kept
            if len(self._answers) > MAX_ANSWERS:
                self._answers.popitem(last=False)
        self._answers.move_to_end(question)
        # Others may wait for the same answer: whoever gives up leaves it to them.
        found = await asyncio.shield(kept.task)
        if isinstance(found, Trouble):
            # To each their own: an exception collects traces and causes where it is raised.
            raise ResolverUnavailable(f"{name or '.'} {kind}", found)
        return found

    async def _look_up(self, question: _Question, read: Callable[[Any], T]) -> Answer[T] | Trouble:
        name, kind = question
        try:
            qname = dns.name.from_text(name)
        except dns.exception.DNSException:  # too long, or an empty label: no such name can be
            return _nothing(name)
        resolver = self._resolver()
        if resolver is None:
            return Trouble.NO_SERVERS
        try:
            found = await self._resolve(resolver, qname, kind)
        except dns.resolver.NXDOMAIN as error:
            return _no_such_name(error.kwargs["responses"][qname])
        except dns.resolver.LifetimeTimeout:
            return Trouble.TIMEOUT
        except dns.resolver.NoNameservers as error:
            trouble = _trouble_of(error)
            if trouble is Trouble.SERVFAIL and await self._is_bogus(question, qname):
                return Trouble.BOGUS
            return trouble
        except dns.exception.DNSException:  # loops of CNAMEs and the like
            return Trouble.SERVFAIL
        records = () if found.rrset is None else tuple(read(rdata) for rdata in found.rrset)
        return Answer(
            records,
            True,
            _plain(found.canonical_name),
            bool(found.response.flags & dns.flags.AD),
            _expiry_of(found.response, is_negative=not records),
        )

    async def _resolve(
        self, resolver: dns.asyncresolver.Resolver, qname: dns.name.Name, kind: str
    ) -> dns.resolver.Answer:
        # Held for this question alone: who waits for another one here would wait for ever, once
        # all places are taken by those who do.
        async with self._asking:
            self.asked += 1
            found = await resolver.resolve(qname, kind, raise_on_no_answer=False, search=False)
        _prefer(resolver, found)
        return found

    async def _is_bogus(self, question: _Question, qname: dns.name.Name) -> bool:
        """Whether the server would answer, did it not check signatures (RFC 4035 §3.2.2)."""
        if question == ("", "SOA") or not await self.validates():
            return False
        unchecked = self._made(dns.flags.RD | dns.flags.CD)
        if unchecked is None:
            return False
        try:
            await self._resolve(unchecked, qname, question[1])
        except dns.resolver.NXDOMAIN:
            return True
        except dns.exception.DNSException:
            return False
        return True

    def _resolver(self) -> dns.asyncresolver.Resolver | None:
        """The one in use; None: there is no server to ask."""
        if SYSTEM in self._servers and time.monotonic() - self._looked_at >= _LOOK_S:
            self._looked_at = time.monotonic()
            seen = _system_state()
            if seen != self._system_seen:
                self._system_seen = seen
                self._configured = None
        if self._configured is None:
            # AD in a question asks for AD in the answer (RFC 6840 §5.7).
            self._configured = self._made(dns.flags.RD | dns.flags.AD)
        return self._configured

    def _made(self, flags: dns.flags.Flag) -> dns.asyncresolver.Resolver | None:
        servers: list[str | dns.nameserver.Nameserver] = []
        for server in self._servers:
            if server != SYSTEM:
                servers.append(dns.nameserver.Do53Nameserver(*split_server(server)))
            else:
                servers += map(dns.nameserver.Do53Nameserver, _system_servers())
        if not servers:
            return None
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = servers
        resolver.timeout = SERVER_S
        resolver.lifetime = LIFETIME_S
        resolver.flags = flags
        resolver.use_edns(0, 0, _UDP_BYTES)
        return resolver


def _prefer(resolver: dns.asyncresolver.Resolver, found: dns.resolver.Answer) -> None:
    """Ask the server that answers first from now on: a silent one costs SERVER_S each time."""
    servers = list(resolver.nameservers)
    for place, server in enumerate(servers[1:], 1):
        if isinstance(server, dns.nameserver.Do53Nameserver) and (
            (server.address, server.port) == (found.nameserver, found.port)
        ):
            resolver.nameservers = [server, *servers[:place], *servers[place + 1 :]]
            return


def _system_state() -> tuple[int, int] | None:
    try:
        status = os.stat(_RESOLV_CONF)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _system_servers() -> list[str]:
    """Those of resolv.conf. Lines it should not have are passed over, as the C library does."""
    try:
        text = Path(_RESOLV_CONF).read_text("utf-8", "replace")
    except OSError:
        return []
    lines = [line.split() for line in text.splitlines()]
    named = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return [name for name in named if dns.inet.is_address(name)]


def _trouble_of(error: dns.resolver.NoNameservers) -> Trouble:
    codes = {
        response.rcode()
        for *_, response in error.kwargs.get("errors", ())
        if isinstance(response, dns.message.Message)
    }
    if not codes:
        return Trouble.TIMEOUT
    return Trouble.REFUSED if codes == {dns.rcode.REFUSED} else Trouble.SERVFAIL


def _no_such_name(response: Any) -> Answer[Any]:
    chain = response.resolve_chaining()
    return Answer(
        (),
        False,
        _plain(chain.canonical_name),
        bool(response.flags & dns.flags.AD),
        _expiry_of(response, is_negative=True),
    )


def _expiry_of(response: Any, *, is_negative: bool) -> float:
    if is_negative and all(rrset.rdtype != dns.rdatatype.SOA for rrset in response.authority):
        # RFC 2308 §5: nothing says how long it will hold that nothing is there.
        return _expiry(MIN_TTL_S, is_negative=True)
    return _expiry(response.resolve_chaining().minimum_ttl, is_negative=is_negative)


def _nothing(name: str) -> Answer[Any]:
    return Answer((), False, name, False, _expiry(MAX_TTL_S, is_negative=True))


def _expiry(ttl_s: float, *, is_negative: bool) -> float:
    longest_s = MAX_NEGATIVE_TTL_S if is_negative else MAX_TTL_S
    return time.monotonic() + min(max(ttl_s, MIN_TTL_S), longest_s)


def _plain(name: dns.name.Name) -> str:
    """Lower case, without the dot at its end; odd octets as \\ddd (RFC 1035 §5.1)."""
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _mail_exchange(rdata: Any) -> MailExchange:
    return MailExchange(rdata.preference, _plain(rdata.exchange))


def _address(rdata: Any) -> IPAddress:
    return as_value(ip_address(rdata.address))


def _text(rdata: Any) -> str:
    return b"".join(rdata.strings).decode("utf-8", "backslashreplace")


def _target(rdata: Any) -> str:
    return _plain(rdata.target)


def _data(rdata: Any) -> str:
    if hasattr(rdata, "strings"):  # TXT
        return _text(rdata)
    if hasattr(rdata, "rname"):  # SOA
        return f"{rdata.mname} {rdata.rname}".lower()
    return str(rdata).lower()
