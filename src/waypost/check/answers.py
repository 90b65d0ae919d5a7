"""What a host's refusal means: a code of reasons.py.

"We refuse you" is looked for before "no such mailbox": taking the one for the other is the
commonest error of checkers. Enhanced status codes alone do not tell them apart: hosts send 5.7.1
and 5.1.1 for nearly everything, so words come first, and codes (RFC 3463) where words say nothing.
Judged by replies of real hosts, tests/unit/check/replies.toml.
"""

from __future__ import annotations

import re
from enum import StrEnum

from waypost.mail.reply import Reply


class Stage(StrEnum):
    """How far a session came."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    MAIL = "mail"
    RCPT = "rcpt"


_WHO = "(?:user|mailbox|mail box|recipient|address|addressee|account|alias)"

# In this order: a reply about our sender may quote "User unknown", one about our rate a blocklist.
_BY_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "smtp.sender_rejected",
        (
            r"sender address (?:rejected|must|is not)",
            r"sender verif",
            r"(?:domain of )?sender address .* does not",
            r"badmailfrom",
            r"\bsender (?:\S+ )?(?:rejected|denied|refused|not allowed|unknown)",
        ),
    ),
    (
        "smtp.needs_tls",
        (
            r"starttls",
            r"\btls (?:is )?(?:required|needed)",
            r"(?:requires?|needs?) (?:encryption|tls)",
            r"encryption (?:is )?(?:required|needed)",
        ),
    ),
    (
        "smtp.too_many_rcpt",
        (
            r"too many recipients(?! (?:from|received))",
            r"policy size per transaction",
            r"multiple regions",
        ),
    ),
    (
        "smtp.greylisted",
        (
            r"gr[ae]y[ -]?list",
            r"policy rejection- please try later",
            r"not yet authorized to deliver",
            r"\A\W*try again later\W*\Z",
        ),
    ),
    (
        "smtp.blocked_no_ptr",
        (
            r"reverse[ -](?:host ?name|dns|name|lookup|record|address)",
            r"\bptr\b",
            r"\br-?dns\b",
            r"find your (?:reverse )?host ?name",
        ),
    ),
    (
        "smtp.rate_limited",
        (
            r"too many (?:errors|connections|concurrent|invalid addresses|messages)",
            r"too many recipients (?:from|received)",
            r"too much mail|too fast|throttl",
            r"rate[ -]?limit|(?:unusual|at a) rate",
            r"unexpected volume|\bper hour\b",
        ),
    ),
    (
        "smtp.blocked_dnsbl",
        (
            r"spamhaus|spamcop|sorbs|uceprotect|mailspike|ipcheck",
            r"dns[bw]l\b|\brbl\b",
            r"(?:black|block|deny)[ -]?list",
            r"\blisted\b(?<!not listed)",
            r"blocked using|blocked for spam",
            r"reputation",
            r"banned sending ip",
            r"\(bl\)",
        ),
    ),
    (
        "smtp.full",
        (
            r"over ?quota|(?<!queue )quota (?:is )?exceeded|exceeded (?:its )?(?:storage|quota)",
            rf"{_WHO}(?: \S+)? (?:is )?full\b",
            r"out of storage space",
        ),
    ),
    (
        "smtp.blocked_policy",
        (
            r"\bspf\b|unauthenticated(?!, incoming)",
            r"helo command|client host rejected|policy restrictions",
            r"over ipv6|not in whitelist|dial-?up|permanently deferred",
            r"too many invalid recipients|administrative prohibition",
            r"authentication (?:is )?required|:blocked\)",
        ),
    ),
    (
        "smtp.relay_denied",
        (
            r"relay(?:ing)? (?:access )?(?:is )?(?:denied|not|prohibited)",
            r"(?:unable|not allowed|not permitted|refus\w+) to relay|as a relay",
            r"rcpthosts",
            r"\bnull ?mx\b",
            r"non-local e-?mail",
        ),
    ),
    (
        "smtp.disabled",
        (rf"{_WHO}.{{0,60}}\b(?:disabled|inactive|suspended|deactivated)", r"disabled|inactive "),
    ),
    ("smtp.moved", (r"has moved", r"no longer on (?:this )?server")),
    (
        "smtp.rejected",
        (
            r"unavailable or",
            r"not being accepted at this",
            r"not allowed to this address",
            r"domain literals",
            r"i cannot deliver",
            r"recipient address syntax",
        ),
    ),
    (
        "smtp.no_such_user",
        (
            rf"{_WHO} unknown|(?:unknown|no such|invalid|non-?existent).?(?:local )?{_WHO}",
            r"does ?n[o']t exist|does not exist|\bnot found\b",
            r"no mailbox here",
            r"does ?n[o']t have an? \S+ account",
            r"validrcptto|unrouteable",
            rf"{_WHO} (?:is )?unavailable",
            r"address rejected\.",
        ),
    ),
)
_PATTERNS = tuple(
    (code, re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL))
    for code, patterns in _BY_WORDS
)

# RFC 3463, and RFC 7372 §3.3, RFC 7505 §4: where words say nothing.
_BY_STATUS = {
    (1, 0): "smtp.no_such_user",
    (1, 1): "smtp.no_such_user",
    (1, 10): "smtp.no_such_user",
    (1, 6): "smtp.moved",
    (1, 7): "smtp.sender_rejected",
    (1, 8): "smtp.sender_rejected",
    (2, 1): "smtp.disabled",
    (2, 2): "smtp.full",
    (5, 3): "smtp.too_many_rcpt",
    (7, 25): "smtp.blocked_no_ptr",
    (7, 27): "smtp.sender_rejected",
    (7, 28): "smtp.rate_limited",
}
# The status may follow a word of the host's own, or stand in brackets at the end: (#5.1.1).
_STATUS_INSIDE = re.compile(r"(?<![\d.])[45]\.(\d{1,3})\.(\d{1,3})(?![\d.])")

_ABOUT_MAILBOX = frozenset({"smtp.no_such_user", "smtp.disabled", "smtp.moved", "smtp.rejected"})
_ABOUT_RECIPIENT = _ABOUT_MAILBOX | {"smtp.full", "smtp.relay_denied"}


def meaning_of(stage: Stage, reply: Reply) -> str:
    """The code for a reply that is no yes (4xx and 5xx)."""
    code = _by_words(reply) or _by_status(reply)
    if stage is not Stage.RCPT and code in _ABOUT_RECIPIENT:
        # Before any recipient was named it cannot be about one.
        if reply.is_transient:
            return "smtp.busy"
        return "smtp.sender_rejected" if stage is Stage.MAIL else "smtp.blocked_policy"
    if reply.is_transient:
        # Nothing is final yet, whatever the words.
        if code in _ABOUT_MAILBOX:
            return "smtp.busy"
        return "smtp.full_for_now" if code == "smtp.full" else code
    return code


def _by_words(reply: Reply) -> str | None:
    text = " ".join(reply.text.split("\n"))
    if "recipient address rejected: access denied" in text.lower():
        # Microsoft's words for a mailbox it does not have, with that status only.
        return "smtp.no_such_user" if reply.status == (4, 1) else None
    return next((code for code, words in _PATTERNS if words.search(text) is not None), None)


def _by_status(reply: Reply) -> str:
    status = reply.status
    if status is None and (found := _STATUS_INSIDE.search(reply.text)) is not None:
        status = (int(found[1]), int(found[2]))
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if reply.is_transient:
        return "smtp.busy"
    if status is not None and status[0] == 7:
        return "smtp.blocked_policy"
    return "smtp.moved" if reply.code == 551 else "smtp.rejected"
