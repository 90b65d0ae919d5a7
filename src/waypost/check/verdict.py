"""The vocabulary of checks: verdicts, outcomes, and every reason there is for one.

A check finds facts; each fact is a `Finding` with a code of `REASONS`. Everything else follows from
the codes here: the verdict, what happens if you send now, the advice and the plain words. The
words and scores are a superset of those that other checkers use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Whether mail will arrive, from the surest no to the surest yes."""

    MALFORMED = "malformed"
    UNDELIVERABLE = "undeliverable"
    PROBABLY_UNDELIVERABLE = "probably_undeliverable"
    UNKNOWN = "unknown"
    PROBABLY_DELIVERABLE = "probably_deliverable"
    DELIVERABLE = "deliverable"

    @property
    def score(self) -> int:
        """0 good to 4 bad."""
        return _SCORES[self]


_SCORES = {
    Verdict.MALFORMED: 4,
    Verdict.UNDELIVERABLE: 4,
    Verdict.PROBABLY_UNDELIVERABLE: 3,
    Verdict.UNKNOWN: 2,
    Verdict.PROBABLY_DELIVERABLE: 1,
    Verdict.DELIVERABLE: 0,
}


class Outcome(StrEnum):
    """What happens to a message that is sent now."""

    ACCEPTED = "accepted"
    ACCEPTED_UNPROVEN = "accepted_unproven"  # by a host that takes mail for anybody
    DEFERRED = "deferred"  # a soft bounce
    REJECTED_RECIPIENT = "rejected_recipient"  # a hard bounce
    REFUSED_US = "refused_us"  # says nothing of the mailbox
    NO_ROUTE = "no_route"
    NOT_TRANSMITTABLE = "not_transmittable"  # SMTP cannot carry it
    NOT_TRIED = "not_tried"


class Advice(StrEnum):
    """What to do."""

    SEND = "send"
    RETRY_LATER = "retry_later"
    CONFIRM_WITH_USER = "confirm_with_user"
    FIX_ADDRESS = "fix_address"
    DO_NOT_SEND = "do_not_send"


class Level(StrEnum):
    """How much a finding weighs."""

    INFO = "info"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Reason:
    """What a code means; `plain` is for a mail administrator who has never seen it."""

    level: Level
    plain: str
    ref: str
    verdict: Verdict | None = None  # None, here and below: it decides nothing
    outcome: Outcome | None = None
    advice: Advice | None = None


def _malformed(plain: str, ref: str) -> Reason:
    return Reason(
        *(Level.ERROR, plain, ref),
        *(Verdict.MALFORMED, Outcome.NOT_TRANSMITTABLE, Advice.FIX_ADDRESS),
    )


def _no_route(plain: str, ref: str) -> Reason:
    return Reason(
        *(Level.ERROR, plain, ref),
        *(Verdict.UNDELIVERABLE, Outcome.NO_ROUTE, Advice.DO_NOT_SEND),
    )


def _flag(plain: str, ref: str, level: Level = Level.INFO) -> Reason:
    return Reason(level, plain, ref)


_LITERAL = "RFC 5321 §4.1.3"
_SPECIAL = "RFC 6890"

REASONS: dict[str, Reason] = {
    "syntax.ok": Reason(
        Level.INFO,
        "The address is well formed. Nobody was asked whether it exists.",
        "RFC 5321 §4.1.2",
        Verdict.UNKNOWN,
        Outcome.NOT_TRIED,
        Advice.CONFIRM_WITH_USER,
    ),
    "syntax.no_at": _malformed("There is no @ with a domain behind it.", "RFC 5321 §4.1.2"),
    "syntax.no_domain": _malformed("Nothing stands behind the @.", "RFC 5321 §4.1.2"),
    "syntax.local_empty": _malformed("Nothing stands before the @.", "RFC 5321 §4.1.2"),
    "syntax.dot_start": _malformed("A dot stands at a start.", "RFC 5321 §4.1.2"),
    "syntax.dot_end": _malformed("A dot stands at an end.", "RFC 5321 §4.1.2"),
    "syntax.dot_double": _malformed("Two dots stand in a row.", "RFC 5321 §4.1.2"),
    "syntax.bad_char": _malformed(
        "A character stands where it cannot; perhaps a typing error.", "RFC 5321 §4.1.2"
    ),
    "syntax.unclosed_quote": _malformed("A quotation mark is not closed.", "RFC 5321 §4.1.2"),
    "syntax.unclosed_comment": _malformed("A parenthesis is not closed.", "RFC 5322 §3.2.2"),
    "syntax.unclosed_literal": _malformed("A bracket is not closed.", _LITERAL),
    "syntax.too_long_local": _malformed(
        "More than 64 octets stand before the @.", "RFC 5321 §4.5.3.1.1"
    ),
    "syntax.too_long_domain": _malformed("The domain is too long.", "RFC 5321 §4.5.3.1.2"),
    "syntax.too_long_label": _malformed(
        "A part of the domain has more than 63 octets.", "RFC 1035 §2.3.4"
    ),
    "syntax.too_long_path": _malformed("The address is too long.", "RFC 5321 §4.5.3.1.3"),
    "syntax.not_5321_only_5322": _malformed(
        "A header may hold it, but no mail system can carry it.", "RFC 5321 §4.1.2"
    ),
    "literal.bad_ipv4": _malformed("The brackets do not hold an IPv4 address.", _LITERAL),
    "literal.bad_ipv6": _malformed("The brackets do not hold an IPv6 address.", _LITERAL),
    "literal.bad_general": _malformed("The brackets do not hold an IP address.", _LITERAL),
    "literal.untagged_ipv6": _malformed(
        "An IPv6 address in brackets needs IPv6: before it.", _LITERAL
    ),
    "literal.zone_id": _malformed(
        "A zone such as %eth0 means something on one host only.", _LITERAL
    ),
    "literal.prefix_length": _malformed("It names a network, not a host.", _LITERAL),
    "literal.trailing_text": _malformed("Something follows the closing bracket.", _LITERAL),
    "literal.ambiguous_octet": _malformed(
        "A number has a leading zero: some hosts read 010 as eight, some as ten.", _LITERAL
    ),
    "literal.bare_ip_domain": Reason(
        Level.WARN,
        "An IP address stands there without brackets; most hosts look it up as a name and fail.",
        _LITERAL,
        Verdict.MALFORMED,
        Outcome.NOT_TRANSMITTABLE,
        Advice.FIX_ADDRESS,
    ),
    "literal.unknown_tag": _no_route(
        "The brackets name a kind of network nobody has registered.", _LITERAL
    ),
    "ip.private": _no_route(
        "A private address: mail can reach it only from within its own network.", "RFC 1918"
    ),
    "ip.loopback": _no_route("It means the sending host itself.", "RFC 1122 §3.2.1.3"),
    "ip.link_local": _no_route("It is reachable on its own cable or radio only.", "RFC 4291"),
    "ip.multicast": _no_route("A group of hosts; mail goes to one.", "RFC 5771"),
    "ip.documentation": _no_route("An example of documentation, used by nobody.", "RFC 5737"),
    "ip.cgnat": _no_route("An address within a provider's network.", "RFC 6598"),
    "ip.unspecified": _no_route("It stands for no address.", "RFC 4291"),
    "ip.reserved": _no_route("No host on the Internet has such an address.", _SPECIAL),
    "ip.trusted": Reason(
        Level.INFO,
        "An address of a network this hub trusts: it sends there straight, others may not.",
        "networks.trusted",
        Verdict.UNKNOWN,
        Outcome.NOT_TRIED,
        Advice.CONFIRM_WITH_USER,
    ),
    "dns.idna_invalid": _malformed("The domain holds characters no name may have.", "RFC 5891 §4"),
    "role": _flag("It belongs to a task rather than to a person.", "RFC 2142"),
    "disposable": _flag(
        "Its provider gives away addresses that live for minutes.",
        "disposable-email-domains",
        Level.WARN,
    ),
    "subaddressed": _flag("It has a sub-address.", "RFC 5233"),
    "quoted_local": _flag(
        "The local part needs quotation marks; some web forms refuse it.", "RFC 5321 §4.1.2"
    ),
    "non_ascii_local": _flag(
        "Only hosts that offer SMTPUTF8 can take it.", "RFC 6531 §3.3", Level.WARN
    ),
    "special_use_domain": _flag(
        "The name is reserved: it means something on some networks only, or nothing.",
        "RFC 6761",
        Level.WARN,
    ),
    "dotless": _flag("A name without a dot works on some networks only.", "RFC 7085", Level.WARN),
    "obsolete_form": _flag(
        "Written in a form that must not be written any more.", "RFC 5322 §4", Level.WARN
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about an address."""

    code: str  # of REASONS
    text: str  # what exactly was found
    at: int | None = None  # offset in the input; None: it is about no place in it

    @property
    def reason(self) -> Reason:
        """What its code means."""
        return REASONS[self.code]


def weigh(findings: Sequence[Finding]) -> Finding:
    """The finding that decides: the worst of those that decide anything.

    Raises ValueError where none does.
    """
    deciding = [finding for finding in findings if finding.reason.verdict is not None]
    if not deciding:
        raise ValueError("nothing that was found decides anything")
    return max(deciding, key=lambda finding: _SCORES[_verdict(finding)])


def _verdict(finding: Finding) -> Verdict:
    verdict = finding.reason.verdict
    assert verdict is not None
    return verdict
