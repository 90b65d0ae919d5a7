"""What a route does with too much mail of one device, and which targets that is about. Values only.

Mailboxes, and LMTP to somebody else's, always get every mail: what keeps is no alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# What a storm is kept from.
HELD_KINDS = frozenset({"smtp", "relay", "direct", "list", "mqtt", "webhook", "notify"})
# What keeps mail, however much there is.
KEEPING_KINDS = frozenset({"mailbox", "lmtp"})
# What is told of a mail, rather than given it: once is enough for the same mail.
TOLD_KINDS = frozenset({"mqtt", "webhook", "notify"})


class Then(StrEnum):
    """What becomes of mail beyond the cap."""

    DIGEST = "digest"  # one mail that lists them all
    MERGE = "merge"  # the last of them, for all
    DROP = "drop"  # nothing: a mailbox has them


@dataclass(frozen=True, slots=True)
class StormSettings:
    """[[route]] storm: of one device, `messages` in `per_s` go at once."""

    messages: int
    per_s: float
    then: Then = Then.DIGEST
