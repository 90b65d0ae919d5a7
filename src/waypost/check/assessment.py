"""All that is said of one address, for people and as JSON."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from waypost.check import evidence
from waypost.check.domain import DomainFacts
from waypost.check.findings import Finding
from waypost.check.verdict import BOUNCES, Advice, Bounce, Outcome, Verdict
from waypost.dns.blocklist import Listing
from waypost.dns.reverse import ReverseNames
from waypost.mail.address import AddressLiteral, IPAddress
from waypost.mail.header_address import Mailbox


class Depth(StrEnum):
    """How far a check looks."""

    SYNTAX = "syntax"  # at the address alone
    DNS = "dns"  # at what the name service says
    SMTP = "smtp"  # at what the host answers


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found beyond the address itself."""

    domain: DomainFacts | None = None  # None: not asked, or a literal
    names: Mapping[IPAddress, ReverseNames] = field(default_factory=dict)  # of hosts
    listings: Sequence[Listing] = ()
    smtp: Mapping[str, Any] | None = None  # the "smtp" object; None: no host was asked
    retry_at: float | None = None  # UTC epoch seconds; None: nothing says to come back
    is_from_cache: bool = False


NOTHING = Evidence()


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is known of one address."""

    input: str
    depth: Depth
    mailbox: Mailbox | None  # None: the text is no address
    findings: Sequence[Finding]
    primary: Finding  # the one that decides
    suggestion: str | None  # what was probably meant; None: nothing comes to mind
    checked_at: float  # UTC epoch seconds
    took_ms: float
    evidence: Evidence = NOTHING

    @property
    def verdict(self) -> Verdict:
        """Whether mail will arrive."""
        verdict = self.primary.reason.verdict
        assert verdict is not None  # `weigh` picks from those that decide
        lowers = any(finding.reason.lowers for finding in self.findings)
        return verdict.one_lower if lowers else verdict

    @property
    def outcome(self) -> Outcome:
        """What happens to a message sent now."""
        return self.primary.reason.outcome or Outcome.NOT_TRIED

    @property
    def advice(self) -> Advice:
        """What to do."""
        return self.primary.reason.advice or Advice.CONFIRM_WITH_USER

    @property
    def confidence(self) -> float:
        """How sure the verdict is: a rank, not a probability; docs/reference/verdicts.md."""
        if self.verdict is Verdict.UNKNOWN:
            return 0.0
        if self.outcome in (Outcome.NOT_TRANSMITTABLE, Outcome.NO_ROUTE):
            return 1.0
        return 0.9 if self.verdict in (Verdict.DELIVERABLE, Verdict.UNDELIVERABLE) else 0.5

    @property
    def plain(self) -> str:
        """The sentences an administrator can act on."""
        sentences = [self.primary.reason.plain]
        if self.evidence.retry_at is not None:
            at = time.strftime("%H:%M UTC on %Y-%m-%d", time.gmtime(self.evidence.retry_at))
            sentences.append(f"Ask again after {at}.")
        if self.suggestion is not None:
            sentences.append(f"Perhaps {self.suggestion} was meant.")
        return " ".join(sentences)

    def as_json(self, row: str | None = None) -> dict[str, Any]:
        """One object for each address, the same everywhere; docs/reference/verdicts.md.

        `row` names the line of a file it is of; None: of none.
        """
        found, mailbox = self.evidence, self.mailbox
        address = None if mailbox is None else mailbox.address
        codes = {finding.code for finding in self.findings}
        retry_at = found.retry_at
        return {
            "v": 1,
            "input": self.input,
            "id": row,
            "checked_at": iso_time(self.checked_at),
            "took_ms": round(self.took_ms, 3),
            "depth": self.depth.value,
            "from_cache": found.is_from_cache,
            "verdict": self.verdict.value,
            "score": self.verdict.score,
            "outcome": self.outcome.value,
            "bounce": self._bounce_json(),
            "confidence": self.confidence,
            "primary": self.primary.code,
            "reasons": [
                {
                    "code": finding.code,
                    "level": finding.reason.level.value,
                    "at": finding.at,
                    "text": finding.text,
                    "ref": finding.reason.ref,
                }
                for finding in self.findings
            ],
            "plain": self.plain,
            "advice": self.advice.value,
            "retry_at": None if retry_at is None else iso_time(retry_at),
            "suggestion": self.suggestion,
            "address": None if mailbox is None else evidence.address_json(mailbox),
            "literal": None if mailbox is None else self._literal_json(mailbox),
            "dns": None if found.domain is None else evidence.dns_json(found.domain, found.names),
            "auth": None if found.domain is None else evidence.auth_json(found.domain),
            "dnsbl": [evidence.listing_json(listing) for listing in found.listings],
            "smtp": found.smtp,
            "class": None if address is None else evidence.class_json(address, codes),
        }

    def _bounce_json(self) -> dict[str, Any]:
        bounce = BOUNCES.get(self.outcome, Bounce.NONE)
        smtp = self.evidence.smtp
        reply = None if smtp is None or bounce is Bounce.NONE else smtp["rcpt"]
        return {
            "class": bounce.value,
            "smtp": None if reply is None else reply["code"],
            "enhanced": None if reply is None else reply["enhanced"],
        }

    def _literal_json(self, mailbox: Mailbox) -> dict[str, Any] | None:
        names = None
        if mailbox.address is not None and isinstance(mailbox.address.domain, AddressLiteral):
            names = self.evidence.names.get(mailbox.address.domain.ip)
        return evidence.literal_json(mailbox, names)


def iso_time(at: float) -> str:
    """A moment in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
