"""The vocabulary of checks: verdicts, outcomes, advice.

The words and scores are a superset of those that other checkers use.
"""

from __future__ import annotations

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

    @property
    def one_lower(self) -> Verdict:
        """One step less sure of a yes; what is no yes stays as it is."""
        if self is Verdict.DELIVERABLE:
            return Verdict.PROBABLY_DELIVERABLE
        return Verdict.UNKNOWN if self is Verdict.PROBABLY_DELIVERABLE else self


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


class Bounce(StrEnum):
    """Which kind of refusal a message would meet."""

    NONE = "none"
    SOFT = "soft"  # a deferral: again later
    HARD = "hard"
    POLICY = "policy"  # of us, whoever the recipient is


BOUNCES = {
    Outcome.DEFERRED: Bounce.SOFT,
    Outcome.REJECTED_RECIPIENT: Bounce.HARD,
    Outcome.REFUSED_US: Bounce.POLICY,
}


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
    is_provisional: bool = False  # it decides only until somebody was asked
    lowers: bool = False  # a yes is one step less sure with it
