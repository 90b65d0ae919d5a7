"""What a submission server adds to a message that lacks it (RFC 6409 §8)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from waypost.errors import AddressError
from waypost.mail.address import Address
from waypost.mail.envelope import QueueId
from waypost.mail.header_address import Mailbox, parse_address_list
from waypost.mail.message import (
    MAX_DECODED,
    date_field_value,
    header_fields,
    header_section,
)


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

    `host` is what the hub calls itself. Sender says who really sent it, where that is not the
    one author, which `is_theirs` tells (RFC 5322 §3.6.2); `sender` None: nobody to name.
    """
    fields = [name for name, _ in header_fields(head)]
    added = []
    if "date" not in fields:
        added.append(f"Date: {date_field_value(at)}\r\n")
    if "message-id" not in fields:
        added.append(f"Message-ID: <{queue_id}@{host}>\r\n")
    if sender is not None and "sender" not in fields:
        authors = authors_of(head)
        is_sole = fields.count("from") == 1 and len(authors) == 1
        if not (is_sole and is_theirs(authors[0])):
            added.append(f"Sender: <{sender}>\r\n")
    return "".join(added).encode()


def authors_of(head: bytes) -> list[Address]:
    """The addresses of From, and of each where there are several, which RFC 5322 forbids.

    A field that cannot be read has none; nor has what is beyond MAX_DECODED octets of them.
    """
    authors: list[Address] = []
    left = MAX_DECODED
    for value in from_values(head):
        if len(value) <= left:
            left -= len(value)
            authors += _addresses(value)
    return authors


def from_values(head: bytes) -> list[bytes]:
    """The values of From, as they are folded."""
    return _FROM.findall(b"\n" + header_section(head))


_FROM = re.compile(rb"\nfrom[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", re.IGNORECASE)


# A device says who it is in the same words each time.
@lru_cache(maxsize=1024)
def _addresses(value: bytes) -> tuple[Address, ...]:
    try:
        found = parse_address_list(value.replace(b"\r\n", b"").decode("utf-8", "replace"))
    except AddressError:
        return ()
    return tuple(
        entry.address for entry in found if isinstance(entry, Mailbox) and entry.address is not None
    )
