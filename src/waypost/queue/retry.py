"""When to try again, when to warn, when to give up: pure functions (RFC 5321 §4.5.4.1)."""

from __future__ import annotations

from dataclasses import dataclass

GROWTH = 2.0
# Each wait is spread by this share up and down, so that mail deferred together, by one dead
# host, does not come back together.
JITTER = 0.2


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """[retry] of the configuration; all in seconds."""

    first_s: float = 60.0
    max_s: float = 14_400.0
    warn_after_s: float = 14_400.0
    give_up_after_s: float = 432_000.0


def wait_before_retry(attempts: int, settings: RetrySettings, chance: float) -> float:
    """Seconds to wait after the `attempts`-th attempt has failed.

    `chance` is a random number from 0 to 1, given by the caller.
    """
    # Beyond 64 doublings every setting has long reached its maximum.
    wait = min(settings.first_s * GROWTH ** min(attempts - 1, 64), settings.max_s)
    return min(wait * (1 + JITTER * (2 * chance - 1)), settings.max_s)


def next_attempt_at(
    attempts: int, now: float, accepted_at: float, settings: RetrySettings, chance: float
) -> float | None:
    """When to try again after the `attempts`-th attempt; None: give up, the time is over.

    The last attempt falls on the limit itself: giving up needs a failure at or after it.
    """
    expires_at = accepted_at + settings.give_up_after_s
    if now >= expires_at:
        return None
    return min(now + wait_before_retry(attempts, settings, chance), expires_at)


def is_warning_due(
    now: float, accepted_at: float, already_warned: bool, settings: RetrySettings
) -> bool:
    """True when the sender is to be told, once, that the mail is late."""
    return not already_warned and now >= accepted_at + settings.warn_after_s
