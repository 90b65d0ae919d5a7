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
# Of the header of a part; what goes on longer is taken for text.
_MAX_HEADER_LINES = 100
_NAMED = ("from", "subject")
_BOUNDARY = re.compile(rb"boundary=(?:\"[^\"\r\n]*\"|[^;\s]*)", re.I)


def has_dedupe(section: bytes) -> bool:
    """Whether a header section may have the field, as programs write it."""
    return b"X-Waypost-Dedupe:" in section


class Fingerprint:
    """Of one content."""

    __slots__ = ("_carry", "_hash", "_header_lines", "_is_in_body", "dedupe")

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._carry = b""
        self._is_in_body = False
        self._header_lines = 0  # how many more the header of a part may have; 0: we are in none
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
        """Whole lines of the body, less what stands for nothing but its borders.

        Pictures in base64 have none, and are nearly all of what there is: they are looked over by
        one search, and never line by line.
        """
        begin, size = 0, len(lines)
        while begin < size:
            if self._header_lines:
                begin = self._part_header(lines, begin)
                continue
            if lines.startswith(b"--", begin):
                end = begin
            else:
                found = lines.find(b"\n--", begin)
                end = size if found < 0 else found + 1
                self._hash.update(memoryview(lines)[begin:end])
            begin = end
            if begin < size:  # at a border: a part begins, with a header
                begin = lines.find(b"\n", begin) + 1 or size
                self._header_lines = _MAX_HEADER_LINES

    def _part_header(self, lines: bytes, begin: int) -> int:
        """One line of a part's header; where the next begins."""
        end = lines.find(b"\n", begin) + 1 or len(lines)
        line = lines[begin:end]
        if line.startswith(b"--"):
            self._header_lines = _MAX_HEADER_LINES
            return end
        self._header_lines = 0 if line == b"\r\n" else self._header_lines - 1
        self._hash.update(_BOUNDARY.sub(b"", line))
        return end
