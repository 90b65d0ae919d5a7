"""By what the same mail is known when a device sends it again: pure, and fed piece by piece.

What changes from one sending to the next is left out: trace fields, Date, Message-ID, and the
boundaries that many mailers make up for each mail (RFC 2046 §5.1.1).
"""

from __future__ import annotations

import re
from hashlib import blake2b

from waypost.mail.message import header_fields

# The field by which a program says itself which of its requests are one.
DEDUPE = "x-waypost-dedupe"

_MAX_HEADER = 65_536
# A line that is longer is taken in pieces.
_MAX_CARRY = 65_536
_NEAR_TOP = 4_096
_NAMED = ("from", "subject")
_BOUNDARY_LINE = re.compile(rb"^--[^\r\n]*\r\n|^[ \t]*boundary=[^\r\n]*\r\n", re.M | re.I)
_BOUNDARY = re.compile(rb"boundary=(?:\"[^\"\r\n]*\"|[^;\s]*)", re.I)


def has_dedupe(head: bytes) -> bool:
    """Whether a content that begins so may have the field; programs write it near the top."""
    return b"X-Waypost-Dedupe:" in head[:_NEAR_TOP]


class Fingerprint:
    """Of one content."""

    __slots__ = ("_carry", "_hash", "_is_in_body", "dedupe")

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._carry = b""
        self._is_in_body = False
        self.dedupe: bytes | None = None  # the value of DEDUPE; None: there is no such field

    def update(self, piece: bytes) -> None:
        """Take the next octets of the content."""
        text = self._carry + piece if self._carry else piece
        if not self._is_in_body:
            end = 0 if text.startswith(b"\r\n") else text.find(b"\r\n\r\n") + 2
            if end == 1 and len(text) < _MAX_HEADER:
                self._carry = text
                return
            end = len(text) if end == 1 else end
            self._header(text[:end])
            self._is_in_body = True
            text = text[end:]
        end = text.rfind(b"\n") + 1
        if not end and len(text) > _MAX_CARRY:
            end = len(text)
        self._carry = text[end:]
        self._lines(text[:end])

    def digest(self) -> bytes:
        """What it comes to, when there is no more."""
        carry, self._carry = self._carry, b""
        if self._is_in_body:
            self._lines(carry)
        else:
            self._header(carry)
        return self._hash.digest()

    def _header(self, header: bytes) -> None:
        for name, value in header_fields(header):
            if name in _NAMED:
                self._hash.update(name.encode() + b":" + value + b"\n")
            elif name == DEDUPE and value and self.dedupe is None:
                self.dedupe = value[:998]
        self._hash.update(b"\n")

    def _lines(self, lines: bytes) -> None:
        # Pictures in base64 have neither, and are nearly all of what there is.
        if (
            lines.startswith(b"--")
            or b"\n--" in lines
            or b"oundary=" in lines
            or b"OUNDARY=" in lines
        ):
            lines = _BOUNDARY.sub(b"", _BOUNDARY_LINE.sub(b"", lines))
        self._hash.update(lines)
