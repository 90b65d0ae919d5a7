"""The codec between content and what travels after DATA or BDAT (RFC 5321 §4.5.2, RFC 3030).

Decoders take the octets as they arrive, in any pieces, and give canonical content. Only
CRLF "." CRLF ends DATA, for every client: anything laxer lets one message pass for two
(SMTP smuggling, CERT VU#302671). What a trusted client may have meant for an end is for the caller
to judge. No loop over lines or octets: find, count and replace only.
"""

from __future__ import annotations

import re

_END = b"\r\n.\r\n"
_LINE_ENDS = re.compile(rb"\r\r?\n|\r|\n")
# What the end of a piece may be the start of: the end mark or a stuffed dot; longest first.
_OPEN_ENDS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
# For trusted clients also a bare LF before a stuffed dot, and CR CR LF, which is one line end.
_OPEN_ENDS_LENIENT = (
    *(b"\r\r\n.\r", b"\r\n.\r", b"\r\r\n.", b"\r\r\n", b"\r\n."),
    *(b"\r\r", b"\r\n", b"\n.", b"\r", b"\n"),
)


# A line with one dot, in which a trusted client took a bare LF for a line end.
_LOOSE_END = re.compile(rb"\n\.\r*\n\Z")
_LOOSE_END_BYTES = 8  # enough to tell

# Deleting these leaves CR, LF and NUL: one pass instead of three.
_ALL_BUT_MARKS = bytes(octet for octet in range(256) if octet not in b"\r\n\0")


def _is_canonical(piece: bytes) -> bool:
    """True when every CR and LF of `piece` is part of a CRLF and there is no NUL."""
    return len(piece.translate(None, _ALL_BUT_MARKS)) == 2 * piece.count(b"\r\n")


def _normalised(piece: bytes) -> bytes:
    return _LINE_ENDS.sub(b"\r\n", piece).replace(b"\0", b"")


def _open_end(piece: bytes, endings: tuple[bytes, ...]) -> int:
    for ending in endings:
        if piece.endswith(ending):
            return len(ending)
    return 0


class DataDecoder:
    """Content sent after DATA: dots removed, line ends judged or mended.

    `lenient` (trusted clients): bare CR and LF become CRLF and NULs go, once, here.
    Otherwise the first of them sets `is_faulty`, and reading goes on to the true end.
    """

    __slots__ = ("_carry", "_lenient", "_skip", "_tail", "is_ended", "is_faulty", "was_mended")

    def __init__(self, *, lenient: bool) -> None:
        self._lenient = lenient
        self._tail = b"\r\n"  # the last octets received; kept for trusted clients only
        # A CRLF before the first line, so that a dot there is seen like any other.
        self._carry = b"\r\n"
        self._skip = 2
        self.is_ended = False
        self.is_faulty = False
        self.was_mended = False

    def receive(self, received: bytes) -> tuple[bytes, bytes]:
        """Canonical content from `received`, and the octets after the end mark."""
        if self._lenient:
            self._tail = (self._tail + received[-_LOOSE_END_BYTES:])[-_LOOSE_END_BYTES:]
        piece = self._carry + received if self._carry else received
        # The first dot at a line's start: the end mark in most messages, else stuffing.
        dot = piece.find(b"\r\n.")
        is_stuffed = dot >= 0 and not piece.startswith(_END, dot)
        end = piece.find(_END, dot) if is_stuffed else dot
        if end >= 0:
            rest = piece[end + 5 :]
            piece = piece[: end + 2]
            self._carry = b""
            self.is_ended = True
        else:
            rest = b""
            held = _open_end(piece, _OPEN_ENDS_LENIENT if self._lenient else _OPEN_ENDS)
            if held:
                self._carry = piece[-held:]
                piece = piece[:-held]
            else:
                self._carry = b""
        if not _is_canonical(piece):
            if self._lenient:
                # A bare line end may have a dot behind it. NULs go last: a dot behind one of them
                # is at no line's start, however the octets were split.
                piece = _LINE_ENDS.sub(b"\r\n", piece).replace(b"\r\n.", b"\r\n")
                piece = piece.replace(b"\0", b"")
                self.was_mended = True
                is_stuffed = False
            else:
                self.is_faulty = True
        if is_stuffed:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if self._skip and piece:
            piece = piece[self._skip :]
            self._skip = 0
        return piece, rest

    @property
    def may_be_ended(self) -> bool:
        """True when a trusted client may think it has sent the end mark: ``.`` LF, say.

        Only its silence can tell, and only the caller hears that.
        """
        return self._lenient and _LOOSE_END.search(self._tail) is not None

    def end(self) -> None:
        """Take the line with the dot for the end mark. What is held back is its own line end."""
        self._carry = b""
        self.is_ended = True
        self.was_mended = True


class ChunkDecoder:
    """Content sent with BDAT: exact octets, judged as DATA's are unless the body is binary."""

    __slots__ = ("_carry", "_lenient", "is_binary", "is_faulty", "was_mended")

    def __init__(self, *, lenient: bool, is_binary: bool) -> None:
        self._lenient = lenient
        self._carry = b""
        self.is_binary = is_binary
        self.is_faulty = False
        self.was_mended = False

    def receive(self, received: bytes, *, is_end: bool) -> bytes:
        """Content from `received`; `is_end` with the last octets of the last chunk."""
        if self.is_binary:
            return received
        piece = self._carry + received if self._carry else received
        self._carry = b""
        if not is_end:
            if self._lenient and piece.endswith(b"\r\r"):
                self._carry = b"\r\r"
            elif piece.endswith(b"\r"):
                self._carry = b"\r"
            if self._carry:
                piece = piece[: -len(self._carry)]
        if not _is_canonical(piece):
            if self._lenient:
                piece = _normalised(piece)
                self.was_mended = True
            else:
                self.is_faulty = True
        return piece


class DataEncoder:
    """Canonical content into what travels after DATA: dots stuffed, end mark added."""

    __slots__ = ("_last", "_unpaired")

    def __init__(self) -> None:
        self._last = b"\r\n"  # the last two octets sent: is the next one at a line's start?
        self._unpaired = 0  # CRs and LFs seen, less two for each CRLF

    def encode(self, piece: bytes) -> bytes:
        """One piece of the content, dot-stuffed."""
        if not piece:
            return piece
        joins = self._last[1:] == b"\r" and piece[:1] == b"\n"
        lines = piece.count(b"\r\n") + joins
        self._unpaired += piece.count(b"\r") + piece.count(b"\n") - 2 * lines
        stuffed = piece
        if b"\n." in piece:
            stuffed = piece.replace(b"\r\n.", b"\r\n..")
        if piece[:1] == b"." and self._last == b"\r\n":
            stuffed = b"." + stuffed
        elif joins and piece[1:2] == b".":
            stuffed = b"\n.." + stuffed[2:]
        self._last = (self._last + piece[-2:])[-2:]
        return stuffed

    @property
    def is_canonical(self) -> bool:
        """False: a bare CR or LF has gone by, so the end mark must never be sent."""
        return self._unpaired == 0

    def end(self) -> bytes:
        """The end mark, with the CRLF of the last line when the content lacks it."""
        return b".\r\n" if self._last == b"\r\n" else b"\r\n.\r\n"
