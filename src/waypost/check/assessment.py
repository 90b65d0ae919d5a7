"""All that is said of one address, for people and as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from waypost.check import syntax
from waypost.check.verdict import REASONS, Advice, Finding, Outcome, Verdict, weigh
from waypost.mail.address import AddressLiteral, GeneralLiteral
from waypost.mail.header_address import Mailbox
from waypost.mail.matching import LIKELY_SAME, key
from waypost.net.networks import Networks
from waypost.net.special import special_block

# Addresses below this name force a verdict, for people who script against it: the local part is a
# code with "-" for "." and "_", as in ip-private@sandbox.waypost.invalid (RFC 6761 §6.4).
SANDBOX = "sandbox.waypost.invalid"
_SANDBOX_CODES = {code.replace(".", "-").replace("_", "-"): code for code in REASONS}


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is known of one address."""

    input: str
    mailbox: Mailbox | None  # None: the text is no address
    findings: Sequence[Finding]
    primary: Finding  # the one that decides
    suggestion: str | None  # what was probably meant; None: nothing comes to mind
    checked_at: float  # UTC epoch seconds
    took_ms: float

    @property
    def verdict(self) -> Verdict:
        """Whether mail will arrive."""
        verdict = self.primary.reason.verdict
        assert verdict is not None  # `weigh` picks from those that decide
        return verdict

    @property
    def outcome(self) -> Outcome:
        """What happens to a message sent now."""
        return self.primary.reason.outcome or Outcome.NOT_TRIED

    @property
    def advice(self) -> Advice:
        """What to do."""
        return self.primary.reason.advice or Advice.CONFIRM_WITH_USER

    @property
    def plain(self) -> str:
        """The sentences an administrator can act on."""
        sentences = [self.primary.reason.plain]
        if self.suggestion is not None:
            sentences.append(f"Perhaps {self.suggestion} was meant.")
        return " ".join(sentences)

    def as_json(self) -> dict[str, Any]:
        """One object for each address, the same everywhere; docs/reference/verdicts.md."""
        return {
            "v": 1,
            "input": self.input,
            "checked_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.checked_at)),
            "took_ms": round(self.took_ms, 3),
            "depth": "syntax",
            "verdict": self.verdict.value,
            "score": self.verdict.score,
            "outcome": self.outcome.value,
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
            "suggestion": self.suggestion,
            "address": None if self.mailbox is None else _address_json(self.mailbox),
            "literal": None if self.mailbox is None else _literal_json(self.mailbox),
        }


def assess(text: str, trusted: Networks) -> Assessment:
    """Check what can be known without asking anybody."""
    at, begun = time.time(), time.perf_counter()
    mailbox, findings, suggestion = syntax.read(text, trusted)
    forced = _forced(mailbox)
    if forced is not None:
        findings = [*findings, forced]
    primary = forced or weigh(findings)
    took_ms = (time.perf_counter() - begun) * 1000
    return Assessment(text, mailbox, findings, primary, suggestion, at, took_ms)


def _forced(mailbox: Mailbox | None) -> Finding | None:
    if mailbox is None or mailbox.domain.lower() != SANDBOX:
        return None
    code = _SANDBOX_CODES.get(mailbox.local_part.lower())
    if code is None or REASONS[code].verdict is None:
        return None
    return Finding(code, "forced by a sandbox address")


def _address_json(mailbox: Mailbox) -> dict[str, Any]:
    address, levels = mailbox.address, mailbox.levels
    normalized = None if address is None else str(address)
    return {
        "display_name": mailbox.display_name,
        "local": mailbox.local_part,
        "local_quoted": normalized is not None and normalized.startswith('"'),
        "domain": mailbox.domain if address is None else str(address.domain),
        "normalized": normalized,
        "ascii": normalized if address is not None and address.is_ascii else None,
        "key": None if address is None else key(address, LIKELY_SAME),
        "comments": list(mailbox.comments),
        "smtputf8": address is not None and not address.is_ascii,
        "levels": {
            "rfc5321": levels.rfc5321,
            "rfc5322": levels.rfc5322,
            "rfc6531": levels.rfc6531,
            "obsolete": levels.obsolete,
        },
    }


def _literal_json(mailbox: Mailbox) -> dict[str, Any] | None:
    if mailbox.address is None:
        return None
    domain = mailbox.address.domain
    if isinstance(domain, GeneralLiteral):
        return {"kind": "general", "ip": None, "class": None, "global": False}
    if not isinstance(domain, AddressLiteral):
        return None
    block = special_block(domain.ip)
    return {
        "kind": f"ipv{domain.ip.version}",
        "ip": str(domain.ip),
        "class": "global" if block is None else block.kind,
        "global": block is None,
    }
