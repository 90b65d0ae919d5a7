"""What a submission server adds to a message that lacks it (RFC 6409 §8)."""

from __future__ import annotations

from collections.abc import Callable

from waypost.errors import AddressError
from waypost.mail.address import Address
from waypost.mail.envelope import QueueId
from waypost.mail.header_address import Mailbox, parse_address_list
from waypost.mail.message import MAX_DECODED, date_field_value, header_fields


def missing_fields(
    head: bytes,
    *,
    queue_id: QueueId,
    at: float,
    host: str,
    sender: Address | None,
    is_theirs: Callable[[Address], bool],
) -> bytes:
    """Date, Message-ID and Sender, as far as the header section in `head` lacks them.

    `host` is what the hub calls itself. Sender says who really sent it, where no author is
    `is_theirs` (RFC 5322 §3.6.2); `sender` None: nobody to name.
    """
    fields = dict(header_fields(head))
    added = []
    if "date" not in fields:
        added.append(f"Date: {date_field_value(at)}\r\n")
    if "message-id" not in fields:
        added.append(f"Message-ID: <{queue_id}@{host}>\r\n")
    if sender is not None and "sender" not in fields:
        authors = header_from(fields.get("from", b""))
        if not any(is_theirs(author) for author in authors):
            added.append(f"Sender: <{sender}>\r\n")
    return "".join(added).encode()


def header_from(value: bytes) -> list[Address]:
    """The addresses of a From field; none when it cannot be read, or is too long to be read now."""
    if len(value) > MAX_DECODED:
        return []
    try:
        found = parse_address_list(value.decode("utf-8", "replace"))
    except AddressError:
        return []
    return [
        entry.address for entry in found if isinstance(entry, Mailbox) and entry.address is not None
    ]
