"""A header section as the octets it is made of (RFC 5322 §2.2): split, looked at, folded.

Nothing is parsed and written again: a field that nobody changes keeps its octets, and the order
stays. What the standard library makes of hostile headers is the reason (research on CPython's
email package: a bare CR becomes a new field, and its cost grows with the square of the input).
"""

from __future__ import annotations

import re
from typing import NamedTuple

# RFC 5322 §2.1.1: without the CRLF.
MAX_LINE = 998

# A field name is printable ASCII without a colon (RFC 5322 §3.6.8); obs-optional has blanks
# before the colon (§4.5.8).
_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_BLANKS = b" \t"
# Where an over-long line may be broken: white space that has something on both sides.
_BREAK = re.compile(rb"(?<=[^ \t])[ \t]+(?=[^ \t])")


class Field(NamedTuple):
    """One header field."""

    name: bytes  # as written
    octets: bytes  # the whole field with its folds and its CRLF

    @property
    def key(self) -> str:
        """The name for comparing."""
        return self.name.lower().decode("ascii")

    @property
    def body(self) -> bytes:
        """What stands behind the colon, folds taken out, without blanks around it."""
        return self.octets.partition(b":")[2].replace(b"\r\n", b"").strip(_BLANKS)

    def renamed(self, name: bytes) -> Field:
        """The same field by another name, every octet behind the colon as it was."""
        return Field(name, name + b":" + self.octets.partition(b":")[2])


def field(name: bytes, body: bytes) -> Field:
    """A new field; folded where it is too long."""
    return Field(name, folded(name + b": " + body + b"\r\n"))


class Section(NamedTuple):
    """The header section of a message or part."""

    fields: list[Field]
    size: int  # octets of the text before what follows the last field
    is_whole: bool  # False: it goes on behind the end of the text


def split(head: bytes, *, is_all: bool) -> Section:
    """The fields at the start of `head`; the first line that is none ends them.

    `is_all`: nothing follows `head`.
    """
    fields: list[Field] = []
    at = 0  # the start of the line looked at
    start = 0  # of the field it may belong to
    name = b""
    is_whole = is_all
    while at < len(head):
        end = head.find(b"\r\n", at)
        if end < 0 and not is_all:
            break
        if head[at : at + 1] in (b" ", b"\t") and name:
            at = len(head) if end < 0 else end + 2
            continue
        if name:
            fields.append(Field(name, head[start:at]))
        found = _NAME.match(head, at, len(head) if end < 0 else end)
        if found is None:
            name, start, is_whole = b"", at, True
            break
        name, start = found[1], at
        at = len(head) if end < 0 else end + 2
    if name:
        # The field may go on in what is not there yet.
        if is_all:
            octets = head[start:]
            fields.append(Field(name, octets if octets.endswith(b"\r\n") else octets + b"\r\n"))
            start = len(head)
    return Section(fields, start, is_whole)


def folded(octets: bytes) -> bytes:
    """A field with every line within MAX_LINE, as far as there is white space to break it at."""
    if len(octets) <= MAX_LINE + 2:
        return octets
    lines = octets[:-2].split(b"\r\n")
    if all(len(line) <= MAX_LINE for line in lines):
        return octets
    return b"\r\n".join(_broken(line) for line in lines) + b"\r\n"


def _broken(line: bytes) -> bytes:
    pieces: list[bytes] = []
    while len(line) > MAX_LINE:
        places = [found.start() for found in _BREAK.finditer(line, 0, MAX_LINE + 1)]
        if not places:
            later = _BREAK.search(line, MAX_LINE)
            if later is None:
                break
            places = [later.start()]
        pieces.append(line[: places[-1]])
        line = line[places[-1] :]
    return b"\r\n".join([*pieces, line])


def is_too_long(octets: bytes) -> bool:
    """Whether a line of a field is longer than anybody has to take."""
    return len(octets) > MAX_LINE + 2 and any(
        len(line) > MAX_LINE for line in octets.split(b"\r\n")
    )


def parameter(body: bytes, name: bytes) -> bytes | None:
    """The value of a parameter, as of Content-Type (RFC 2045 §5.1); None: it is not there."""
    found = re.search(
        rb";[ \t]*" + re.escape(name) + rb'[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))',
        body,
        re.IGNORECASE,
    )
    if found is None:
        return None
    if found[2] is not None:
        return found[2]
    return re.sub(rb"\\(.)", rb"\1", found[1])
