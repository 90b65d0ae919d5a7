"""What passes between the hub and the process that reads mail: plain values, no objects.

The process handles what strangers made, with libraries written in C. So its answers are not
pickles, which can run code, but JSON and octets, and they are checked.
"""

from __future__ import annotations

import json
import struct
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, get_type_hints

from waypost.reading.values import Attachment, Correspondent, Limits, ReadMail

# Of a request: its length. Of an answer: its kind and its length.
REQUEST_HEADER = struct.Struct("!I")
ANSWER_HEADER = struct.Struct("!cI")
VALUE = b"V"  # JSON
OCTETS = b"O"
NOTHING = b"N"
FAILED = b"F"  # words
# Longer answers are none of ours.
MAX_ANSWER = 134_217_728

_T = TypeVar("_T")
_ATTACHMENT = get_type_hints(Attachment)


class Allowance(NamedTuple):
    """What one mail may cost the process that reads it."""

    cpu_s: int = 5
    wall_s: float = 30.0
    memory: int = 1_073_741_824  # octets of address space, libraries included


class ReadRequest(NamedTuple):
    """Read a whole mail."""

    limits: Limits


class OctetsRequest(NamedTuple):
    """The octets of one attachment."""

    attachment: Attachment


class ThumbnailRequest(NamedTuple):
    """A small picture of the octets sent along."""

    max_px: int


Request = ReadRequest | OctetsRequest | ThumbnailRequest


def request_frame(request: Request) -> bytes:
    """A request; the octets it is about go along as a descriptor."""
    body = json.dumps([type(request).__name__, *request]).encode()
    return REQUEST_HEADER.pack(len(body)) + body


def request_of(body: bytes) -> Request:
    """The opposite."""
    name, value = json.loads(body)
    if name == ReadRequest.__name__:
        return ReadRequest(Limits(*value))
    if name == OctetsRequest.__name__:
        return OctetsRequest(Attachment(*value))
    return ThumbnailRequest(value)


def answer_frame(kind: bytes, body: bytes = b"") -> bytes:
    """An answer."""
    return ANSWER_HEADER.pack(kind, len(body)) + body


def mail_octets(mail: ReadMail) -> bytes:
    """A mail that was read, as JSON."""
    date = None if mail.date is None else mail.date.isoformat()
    return json.dumps({**mail._asdict(), "date": date}).encode()


def mail_of(octets: bytes) -> ReadMail:
    """The opposite. Raises ValueError when the octets are none that `mail_octets` makes."""
    try:
        found = json.loads(octets)
        return ReadMail(
            subject=_typed(found["subject"], str),
            from_=_correspondents(found["from_"]),
            to=_correspondents(found["to"]),
            date=None if found["date"] is None else datetime.fromisoformat(found["date"]),
            message_id=_typed(found["message_id"], str),
            text=_typed(found["text"], str),
            text_truncated=_typed(found["text_truncated"], bool),
            html=_typed(found["html"], str),
            attachments=tuple(_attachment(one) for one in found["attachments"]),
            fault=None if found["fault"] is None else _typed(found["fault"], str),
        )
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"no mail: {error}") from error


def _correspondents(found: Any) -> tuple[Correspondent, ...]:
    return tuple(Correspondent(_typed(name, str), _typed(text, str)) for name, text in found)


def _attachment(found: Any) -> Attachment:
    pairs = zip(found, _ATTACHMENT.values(), strict=True)
    return Attachment(*(_typed(value, kind) for value, kind in pairs))


def _typed(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected")
    return value
