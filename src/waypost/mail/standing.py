"""Trace fields that say what a mail stands for: others that were held back, or one that was before.

They are put before the content when the hub takes or makes a mail, and believed there only: what
a client wrote itself means nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from waypost.mail.envelope import QueueId
from waypost.mail.message import header_fields

# How many of those it stands for a mail names.
MAX_NAMED = 20
# Characters; a line of the header has 998 octets at most, and one may take twelve of them.
_MAX_SUBJECT = 70

_MORE = b"X-Waypost-More"
_SUPPRESSED = b"X-Waypost-Suppressed"
_DUPLICATE_OF = b"X-Waypost-Duplicate-Of"


class Suppressed(NamedTuple):
    """A mail that another stands for."""

    queue_id: QueueId
    received_at: float
    subject: str

    def as_json(self) -> dict[str, str]:
        """For programs."""
        received = datetime.fromtimestamp(self.received_at, UTC).isoformat(timespec="milliseconds")
        return {
            "id": self.queue_id,
            "received": received.replace("+00:00", "Z"),
            "subject": self.subject[:_MAX_SUBJECT],
        }


class Standing(NamedTuple):
    """What the fields say."""

    more: int | None = None  # how many it stands for; None: it stands for itself
    suppressed: tuple[dict[str, Any], ...] = ()  # the first of those, as Suppressed.as_json
    duplicate_of: str | None = None  # a queue id; None: it is no duplicate


_ITSELF = Standing()


def more_fields(more: int, suppressed: Sequence[Suppressed]) -> bytes:
    """For a mail that stands for `more` others; the first of them are named."""
    lines = [_MORE + b": %d\r\n" % more]
    for one in suppressed[:MAX_NAMED]:
        named = json.dumps(one.as_json(), separators=(",", ":")).encode("ascii")
        lines.append(_SUPPRESSED + b": " + named + b"\r\n")
    return b"".join(lines)


def duplicate_field(queue_id: QueueId) -> bytes:
    """For a mail that was here before, under this id."""
    return _DUPLICATE_OF + b": " + queue_id.encode("ascii") + b"\r\n"


def is_duplicate(prepend: bytes) -> bool:
    """True when the hub has had the same mail before."""
    return _DUPLICATE_OF in prepend


def standing_of(prepend: bytes) -> Standing:
    """Read the fields that this hub put before a content."""
    if _MORE not in prepend and _DUPLICATE_OF not in prepend:
        return _ITSELF
    fields = header_fields(prepend)
    more = [value for name, value in fields if name == "x-waypost-more"]
    original = [value for name, value in fields if name == "x-waypost-duplicate-of"]
    return Standing(
        int(more[0]) if more else None,
        tuple(json.loads(value) for name, value in fields if name == "x-waypost-suppressed"),
        original[0].decode("ascii") if original else None,
    )
