"""Asking hosts about mailboxes with good manners (depth "smtp").

A probe is a session that never delivers, and sites may list those who open many of them. So: only
where the operator wants it, from a host in order itself, one session with a domain at a time,
within a budget, and never twice for what is known already.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from waypost.check.answers import Stage, meaning_of
from waypost.check.assessment import NOTHING, Evidence
from waypost.check.findings import Finding
from waypost.check.memory import (
    ADDRESS_NO_S,
    ADDRESS_YES_S,
    DOMAIN_NO_S,
    DOMAIN_YES_S,
    Memory,
    network_of,
)
from waypost.check.probe import Prober, Session
from waypost.check.reasons import REASONS
from waypost.check.settings import CheckSettings
from waypost.check.standing import Standings
from waypost.check.verdict import Outcome
from waypost.errors import ConnectForbidden
from waypost.mail.address import Address, AddressLiteral, IPAddress, as_value
from waypost.net.interfaces import source_towards
from waypost.net.special import special_block

# Places of one domain that are tried.
MAX_PLACES = 3
# A budget is waited for this long; one that is spent for the day is not.
PATIENCE_S = 60.0
# Times a host that asked to come back is asked again, where the caller waits.
MAX_RETRIES = 2
# Domains of the Internet, in as many networks, that must have failed before the fault is ours.
_BLOCKED_AFTER = 3
# A domain none of whose hosts spoke to us is left alone for this long.
DEAD_S = 300.0
_REACHED = "reached"  # what memory keeps of hosts that answered

# The event loop's clock and the calendar's differ by less.
_CLOCKS_S = 0.05

# Hosts that say yes to everybody and return mail later; asking for a second address tells nothing.
_ACCEPTS_ALL = (".yahoodns.net", ".antispamcloud.com")
# What is said of us holds for every mailbox of the domain, at whatever stage it comes.
_ABOUT_US = frozenset(
    {
        *("smtp.blocked_dnsbl", "smtp.blocked_no_ptr", "smtp.needs_tls"),
        *("smtp.rate_limited", "smtp.too_many_rcpt"),
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    findings: Sequence[Finding]
    evidence: Evidence = NOTHING


_NOTHING_YET = Answer(())


class Inquiry:
    """Asks."""

    def __init__(
        self,
        prober: Prober,
        memory: Memory,
        standings: Standings,
        settings: CheckSettings,
        *,
        timeout_s: float,
        waits: bool,
        is_fresh: bool,
        on_wait: Callable[[float], None],
    ) -> None:
        """`timeout_s` is for one session; with `waits` it comes back by itself where a host asks
        for it; with `is_fresh` it asks, whatever is remembered. `on_wait` is told the seconds
        whenever a budget or a host makes us wait.
        """
        self._on_wait = on_wait
        self._timeout_s = timeout_s
        self._waits = waits
        self._is_fresh = is_fresh
        self._prober = prober
        self._memory = memory
        self._standings = standings
        self._settings = settings
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._dead: dict[str, tuple[float, Answer]] = {}  # until when, by time.monotonic()
        self._unreached: set[tuple[str, str]] = set()  # domain and network
        self._has_reached = False
        self._is_blocked = False
        self._self_test = asyncio.Lock()

    @property
    def is_port_blocked(self) -> bool:
        """Nobody at all can be reached from here."""
        return self._is_blocked and not self._has_reached

    async def ask(self, address: Address, places: Sequence[tuple[str, IPAddress]]) -> Answer:
        """Ask about an address at the hosts that take mail for it, in order."""
        answer = await self._ask_politely(address, places)
        for _ in range(MAX_RETRIES if self._waits else 0):
            retry_at = answer.evidence.retry_at
            if retry_at is None:
                break
            wait_s = max(0.0, retry_at - time.time())
            self._on_wait(wait_s)
            await asyncio.sleep(wait_s + _CLOCKS_S)
            answer = await self._ask_politely(address, places)
        return answer

    async def _ask_politely(
        self, address: Address, places: Sequence[tuple[str, IPAddress]]
    ) -> Answer:
        """One address of a domain at a time, and none that was asked about lately."""
        domain = str(address.domain)
        async with self._locks[domain]:
            until, answer = self._dead.get(domain, (0.0, _NOTHING_YET))
            if time.monotonic() < until:
                return answer
            if not self._is_fresh:
                known = await self._recall(str(address), "answer")
                known = known or await self._recall(domain, "refused")
                if known is not None:
                    return known
            return await self._ask(address, places)

    async def _ask(self, address: Address, places: Sequence[tuple[str, IPAddress]]) -> Answer:
        session: Session | None = None
        hindrance: Finding | None = None
        attempts = 0
        for host, ip in _with_a_way(places)[:MAX_PLACES]:
            tried = await self._open(host, ip, address)
            if isinstance(tried, Finding):
                hindrance = hindrance or tried
                if tried.code == "net.forbidden":
                    continue
                break
            attempts += 1
            if session is None or tried.reply is not None:
                session = tried
            if tried.stage is not Stage.CONNECT and not _refused_at_the_door(tried):
                break
        if session is not None:
            return await self._answer(address, session, attempts)
        assert hindrance is not None  # there is a place, or DNS would have said so
        return Answer([hindrance])

    async def _open(self, host: str, ip: IPAddress, recipient: Address) -> Session | Finding:
        """A session, or why there was none; once more without TLS where that broke."""
        session = await self._begin(host, ip, recipient, with_tls=True)
        if isinstance(session, Session) and session.has_tls_failed:
            plain = await self._begin(host, ip, recipient, with_tls=False)
            if isinstance(plain, Session):
                plain.transcript = [*session.transcript, *plain.transcript]
                return plain
        return session

    async def _begin(
        self, host: str, ip: IPAddress, recipient: Address, *, with_tls: bool
    ) -> Session | Finding:
        is_global = special_block(ip) is None
        if is_global:
            faults = await self._standings.faults_towards(ip)
            if faults:
                return Finding("net.self_check", "; ".join(faults))
        while True:
            if is_global and self.is_port_blocked:
                return Finding("net.port25_blocked", f"{host} [{ip}] was not tried")
            wait_s = await asyncio.to_thread(self._memory.take, ip, self._settings.budget)
            if not wait_s:
                break
            if wait_s > PATIENCE_S:
                return Finding("net.budget", f"{host} [{ip}] may be asked in {wait_s:.0f} s")
            self._on_wait(wait_s)
            await asyncio.sleep(wait_s)
        try:
            session = await self._prober.ask(
                host, ip, recipient, timeout_s=self._timeout_s, with_tls=with_tls
            )
        except ConnectForbidden as error:
            return Finding("net.forbidden", str(error))
        if is_global:
            await self._note_reach(str(recipient.domain), session)
        return session

    async def _note_reach(self, domain: str, session: Session) -> None:
        """Tell a dead host from a blocked port: our own trouble is said once, as such."""
        if session.stage is not Stage.CONNECT or session.trouble == "net.refused":
            self._has_reached = True
            if session.banner is not None:
                await asyncio.to_thread(
                    self._memory.keep, str(session.ip), _REACHED, session.host, DOMAIN_YES_S
                )
            return
        if not _has_way(session.ip):
            return  # no packet has left, so nothing blocked one
        self._unreached.add((domain, network_of(session.ip)))
        async with self._self_test:
            failed = min(len(set(column)) for column in zip(*self._unreached, strict=True))
            if failed < _BLOCKED_AFTER or self._is_blocked or self._has_reached:
                return
            if await self._reaches_one_known():
                self._has_reached = True
            self._is_blocked = True

    async def _reaches_one_known(self) -> bool:
        """Whether a host that greeted us lately still does."""
        for text in await asyncio.to_thread(self._memory.subjects_of, _REACHED, _BLOCKED_AFTER):
            ip = ip_address(text)
            if await asyncio.to_thread(self._memory.take, ip, self._settings.budget):
                continue
            with contextlib.suppress(ConnectForbidden):
                if await self._prober.answers(ip, timeout_s=self._timeout_s):
                    return True
        return False

    # What a session means.

    async def _answer(self, address: Address, session: Session, attempts: int) -> Answer:
        code = _code_of(session)
        smtp = session.as_json() | {
            "catch_all": "not_tested",
            "control": None,
            "accepts_literal": "unknown",
            "attempts": attempts,
        }
        if self.is_port_blocked and code in ("net.timeout", "net.unreachable"):
            code = "net.port25_blocked"
        is_literal = isinstance(address.domain, AddressLiteral)
        if session.is_accepted:
            if is_literal:
                smtp["accepts_literal"] = "yes"
            code = await self._proven(address, session, smtp)
        elif is_literal and REASONS[code].outcome is Outcome.REJECTED_RECIPIENT:
            code = await self._after_control(address, session, smtp, code)
        findings = [Finding(code, _said(session))]
        if not session.is_encrypted and session.extensions and "STARTTLS" not in session.extensions:
            findings.append(Finding("no_starttls", f"{session.host} does not offer STARTTLS"))
        return Answer(findings, await self._remember(address, session, findings, smtp))

    async def _proven(self, address: Address, session: Session, smtp: dict[str, Any]) -> str:
        """Whether a yes means anything: a mailbox nobody has is asked for, in another session."""
        if session.host.endswith(_ACCEPTS_ALL):
            return "smtp.provider_accepts_all"
        nobody = Address(f"{secrets.token_hex(6)}-nobody", address.domain)
        known = await self._control("catch_all", "random", nobody, session, smtp, DOMAIN_YES_S)
        smtp["catch_all"] = known
        return {"yes": "smtp.catch_all", "no": "smtp.rcpt_ok"}.get(known, "smtp.unproven")

    async def _after_control(
        self, address: Address, session: Session, smtp: dict[str, Any], code: str
    ) -> str:
        """Whether a host refuses this mailbox, or every address with its IP in brackets.

        Each host has a postmaster (RFC 5321 §4.5.1), so that is who is asked for.
        """
        if address.local_part.lower() == "postmaster":
            smtp["accepts_literal"] = "no"
            return "smtp.literal_not_accepted"
        postmaster = Address("postmaster", address.domain)
        known = await self._control("literal", "postmaster", postmaster, session, smtp, DOMAIN_NO_S)
        smtp["accepts_literal"] = known
        return "smtp.literal_not_accepted" if known == "no" else code

    async def _control(
        self,
        what: str,
        kind: str,
        control: Address,
        session: Session,
        smtp: dict[str, Any],
        no_lives_s: float,
    ) -> str:
        """Whether the host takes another address of the domain, in another session: yes, no or
        unknown. Remembered as `what`, a yes for as long as a domain is, a no for `no_lives_s`.
        """
        domain = str(control.domain)
        known = await asyncio.to_thread(self._memory.recall, domain, what)
        if known is not None and not self._is_fresh:
            return str(known)
        answer = await self._open(session.host, session.ip, control)
        if not isinstance(answer, Session) or answer.reply is None:
            return "unknown"
        smtp["control"] = {"kind": kind, "code": answer.reply.code}
        if answer.is_accepted:
            known, lives_s = "yes", DOMAIN_YES_S
        elif REASONS[_code_of(answer)].outcome is Outcome.REJECTED_RECIPIENT:
            known, lives_s = "no", no_lives_s
        else:
            return "unknown"
        await asyncio.to_thread(self._memory.keep, domain, what, known, lives_s)
        return known

    # What is kept.

    async def _remember(
        self,
        address: Address,
        session: Session,
        findings: Sequence[Finding],
        smtp: dict[str, Any],
    ) -> Evidence:
        evidence = Evidence(smtp=smtp)
        code = findings[0].code
        outcome = REASONS[code].outcome
        subject, what, lives_s = str(address), "answer", 0.0
        if session.stage is not Stage.RCPT or code in _ABOUT_US:
            subject, what = str(address.domain), "refused"
        if outcome in (Outcome.ACCEPTED, Outcome.ACCEPTED_UNPROVEN):
            lives_s = ADDRESS_YES_S
        elif outcome is Outcome.REJECTED_RECIPIENT:
            lives_s = ADDRESS_NO_S
        elif outcome is Outcome.NOT_TRANSMITTABLE:
            subject, what, lives_s = str(address), "answer", ADDRESS_NO_S
        elif outcome is Outcome.REFUSED_US:
            lives_s = ADDRESS_NO_S if what == "answer" else DOMAIN_NO_S
        elif outcome is Outcome.DEFERRED:
            before = await asyncio.to_thread(self._memory.recall, subject, "deferrals") or 0
            lives_s = self._settings.retry_s[min(before, len(self._settings.retry_s) - 1)]
            evidence = replace(evidence, retry_at=time.time() + lives_s)
            await asyncio.to_thread(
                self._memory.keep, subject, "deferrals", before + 1, ADDRESS_YES_S
            )
        elif session.trouble == code and (session.banner is None or _refused_at_the_door(session)):
            answer = Answer(findings, replace(evidence, is_from_cache=True))
            self._dead[subject] = time.monotonic() + DEAD_S, answer
        if lives_s:
            kept = {
                "findings": [[finding.code, finding.text] for finding in findings],
                "smtp": evidence.smtp,
                "retry_at": evidence.retry_at,
            }
            await asyncio.to_thread(self._memory.keep, subject, what, kept, lives_s)
        return evidence

    async def _recall(self, subject: str, what: str) -> Answer | None:
        kept = await asyncio.to_thread(self._memory.recall, subject, what)
        if kept is None or (kept["retry_at"] or math.inf) <= time.time():
            return None
        return Answer(
            [Finding(code, text) for code, text in kept["findings"] if code in REASONS],
            Evidence(smtp=kept["smtp"], retry_at=kept["retry_at"], is_from_cache=True),
        )


def _with_a_way(places: Sequence[tuple[str, IPAddress]]) -> list[tuple[str, IPAddress]]:
    """Without those the kernel knows no way to, as IPv6 on many a host; all where it knows none."""
    values = [(host, as_value(ip)) for host, ip in places]
    return [place for place in values if _has_way(place[1])] or values


def _has_way(ip: IPAddress) -> bool:
    try:
        source_towards(ip)
    except OSError:
        return False
    return True


def _code_of(session: Session) -> str:
    if session.trouble is not None:
        return session.trouble
    assert session.reply is not None  # no trouble, so there was one
    if session.reply.is_positive:
        return "smtp.unproven" if session.is_accepted else "smtp.no_smtputf8"
    return meaning_of(session.stage, session.reply)


def _refused_at_the_door(session: Session) -> bool:
    """Another host of the domain may be in a better mood (RFC 5321 §5.1)."""
    return session.stage in (Stage.GREETING, Stage.EHLO) and not session.is_encrypted


def _said(session: Session) -> str:
    host = f"{session.host} [{session.ip}]" if session.host[:1] != "[" else session.host
    if session.reply is None:
        return f"{host} port {session.port}, at {session.stage.value}"
    return f"{host} said at {session.stage.value}: {session.reply}"
