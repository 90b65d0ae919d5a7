"""Octets of a part out of their transfer encoding (RFC 2045 §6), however damaged."""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

IDENTITY = ""
BASE64 = "base64"
QUOTED_PRINTABLE = "quoted-printable"
UUENCODE = "uuencode"

_NAMES = {
    BASE64: BASE64,
    QUOTED_PRINTABLE: QUOTED_PRINTABLE,
    "uuencode": UUENCODE,
    "x-uuencode": UUENCODE,
    "x-uue": UUENCODE,
    "uue": UUENCODE,
}
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_OUTSIDE = bytes(set(range(256)) - set(_ALPHABET))
_WHITE_SPACE = b" \t\r\n"
_UU_BEGIN = re.compile(rb"^begin[ \t]++[0-7]{3,4}[ \t]++([^\r\n]{1,500})\r?\n", re.MULTILINE)
_UU_END = re.compile(rb"^end[ \t]*\r?$", re.MULTILINE)


class Uuencoded(NamedTuple):
    """One file within a text: from its "begin" line to its "end" line."""

    name: bytes
    start: int
    end: int


def encoding_of(value: bytes) -> str:
    """One of the names above for a Content-Transfer-Encoding; unknown ones change nothing."""
    words = value[:100].decode("latin-1").lower().split(";")[0].split()
    return _NAMES.get(words[0], IDENTITY) if words else IDENTITY


def unwrapped(octets: bytes, encoding: str) -> tuple[bytes, bool]:
    """The octets without their encoding, and whether any of it was damaged."""
    if encoding == BASE64:
        return unwrapped_base64(octets)
    if encoding == QUOTED_PRINTABLE:
        return binascii.a2b_qp(octets), False
    if encoding == UUENCODE:
        return _unwrapped_uuencode(octets)
    return octets, False


def unwrapped_base64(octets: bytes) -> tuple[bytes, bool]:
    """Up to the padding; what is outside of the alphabet is skipped (RFC 2045 §6.8)."""
    body, padding, rest = octets.partition(b"=")
    letters = body.translate(None, _OUTSIDE)
    is_damaged = len(letters) % 4 == 1 or bool(body.translate(None, _ALPHABET + _WHITE_SPACE))
    if padding:
        # After it come a gateway's advertisements, or a second run that some devices send.
        is_damaged |= bool(rest.translate(None, b"=" + _WHITE_SPACE))
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4)), is_damaged


def uuencoded_in(text: bytes, most: int) -> list[Uuencoded]:
    """Files that old devices put into the text; no more than `most`."""
    found: list[Uuencoded] = []
    at = 0
    while len(found) < most and (begin := _UU_BEGIN.search(text, at)) is not None:
        at = begin.end()
        first = text[at : at + 100].split(b"\n", 1)[0]
        if not _is_uu_line(first.rstrip(b"\r")):
            continue
        end = _UU_END.search(text, at)
        at = len(text) if end is None else end.end()
        found.append(Uuencoded(begin[1], begin.start(), at))
    return found


def _is_uu_line(line: bytes) -> bool:
    """True when the length it begins with fits its letters."""
    if not line or not all(32 <= octet <= 96 for octet in line):
        return False
    letters = ((line[0] - 32) % 64 + 2) // 3 * 4
    return letters - 4 < len(line) - 1 <= letters + 4


def _unwrapped_uuencode(octets: bytes) -> tuple[bytes, bool]:
    begin = _UU_BEGIN.search(octets)
    lines = octets[0 if begin is None else begin.end() :].split(b"\n")
    found: list[bytes] = []
    is_damaged = begin is None
    for line in lines:
        line = line.rstrip(b"\r")
        if not line:
            continue  # the library makes 32 zero octets of it
        if line.rstrip() == b"end":
            return b"".join(found), is_damaged
        try:
            found.append(binascii.a2b_uu(line))
        except binascii.Error:
            is_damaged = True
    return b"".join(found), True
