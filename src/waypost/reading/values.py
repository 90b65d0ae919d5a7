"""What is read out of a mail, and how much work it may make. Values only."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class Limits(NamedTuple):
    """How much of one mail is looked at. What lies beyond is left out, and `fault` says so."""

    octets: int = 67_108_864  # of the whole mail
    header: int = 262_144  # octets of one header section
    fields: int = 1_000  # of one header section
    levels: int = 100  # of multiparts and messages within each other
    parts: int = 1_000
    delimiters: int = 200_000  # lines that begin with "--"
    text: int = 100_000  # characters
    html: int = 500_000  # characters; 0: HTML is not looked at


class Correspondent(NamedTuple):
    """Who stands in From or To, as far as it can be told."""

    name: str  # decoded; empty: there is none
    address: str  # as written, perhaps no address at all ("root"); empty: there is none


class Attachment(NamedTuple):
    """A part that is not the text. `start`, `end` and `encoding` say where its octets lie."""

    name: str  # for display and for a file: no path, no controls, never empty
    type: str  # media type in lower case, of the octets where they show it
    size: int  # octets, decoded
    sha256: str  # of the octets, decoded
    is_inline: bool  # it belongs into the text, or is shown after it
    content_id: str  # without "<>"; empty: there is none
    start: int
    end: int
    encoding: str  # base64, quoted-printable, uuencode; else as it is


class ReadMail(NamedTuple):
    """A mail as people and programs want it. Texts are decoded and bounded."""

    subject: str = ""
    from_: tuple[Correspondent, ...] = ()
    to: tuple[Correspondent, ...] = ()
    date: datetime | None = None  # with a zone; None: none, or none that can be read
    message_id: str = ""  # with "<>"; empty: there is none
    text: str = ""  # lines end in "\n"
    text_truncated: bool = False
    html: str = ""  # as it was sent: whoever shows it must make it harmless first
    attachments: tuple[Attachment, ...] = ()
    fault: str | None = None  # what could not be read, in words; None: all was
