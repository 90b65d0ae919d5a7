"""Which replies of a relay mean "wait", whatever their code says.

A relay with an account refuses for the account's sake: too many connections, too much mail today.
That is no verdict on the message, so nothing bounces for it, and other mail need not ask either.
Codes from Google's "Gmail SMTP errors and codes" and Microsoft's pages on limits of SMTP AUTH
(message storage and concurrent connection throttling; continuous error throttling).
"""

from __future__ import annotations

import re
from enum import IntEnum

from waypost.mail.reply import Reply


class Ask(IntEnum):
    """What a relay asks for; the greater one counts."""

    NOTHING = 0
    PATIENCE = 1  # a while, and longer each time
    HOURS = 2  # until a quota has come back, in the course of a day


# Gmail 5.4.5, daily limit; Microsoft 5.1.90, daily recipients, and 5.2.251 to 5.2.255, throttled
# for errors that went on and on.
_QUOTA_STATUSES = frozenset(((4, 5), (1, 90), *((2, detail) for detail in range(251, 256))))
# The same said in words only: 550 5.7.1 and 450 4.2.1 of Gmail's relay service, 554 5.2.0 of
# Microsoft's store.
_QUOTA_WORDS = re.compile(
    r"daily\b.{0,40}\blimit exceeded|SubmissionQuotaExceeded", re.IGNORECASE | re.DOTALL
)
_RATE_WORDS = re.compile(r"relay (?:sending )?limit exceeded", re.IGNORECASE)
# 421: the service closes. 432: Microsoft's connection limit. 454: Gmail's count of logins.
_BUSY_CODES = frozenset((421, 432, 454))


def what_is_asked(reply: Reply) -> Ask:
    """What a relay that says this asks for."""
    if reply.is_positive:
        return Ask.NOTHING
    subject, detail = reply.status or (0, 0)
    if reply.is_permanent:
        is_quota = (subject, detail) in _QUOTA_STATUSES or _QUOTA_WORDS.search(reply.text)
        return Ask.HOURS if is_quota else Ask.NOTHING
    if _QUOTA_WORDS.search(reply.text):
        return Ask.HOURS
    is_busy = (
        reply.code in _BUSY_CODES
        # RFC 3463 §3.4: the mail system, not this message or mailbox.
        or subject == 3
        or _is_about_us(subject, detail)
        or _RATE_WORDS.search(reply.text) is not None
    )
    return Ask.PATIENCE if is_busy else Ask.NOTHING


def _is_about_us(subject: int, detail: int) -> bool:
    """4.7.x that speaks of the client: not 4.7.1, which greylisting says of one recipient."""
    # 28: Gmail's rates. 500 to 699: Microsoft's, "server busy". 8: a login that was refused, which
    # is not to be tried by every message in turn.
    return subject == 7 and (detail in (0, 8, 28) or 500 <= detail < 700)
