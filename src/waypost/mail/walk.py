"""The body of a message taken apart as it goes by: lines, and which part each belongs to
(RFC 2046 §5.1).

Octets are only looked at: what walks through comes out as it was.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from waypost.mail.fields import MAX_LINE, Field, Section, parameter, split
from waypost.mail.outgoing import is_signed_type

# A part's header section is held in memory; a longer one is nobody's.
MAX_PART_HEAD = 65_536
MAX_DEPTH = 30
# Nor has anybody more parts; each takes memory.
MAX_PARTS = 5_000
# Lines without end are handled in pieces of this size.
MAX_PIECE = 65_536

# Content-Transfer-Encodings that encode nothing; empty: none is given.
IDENTITY = (b"", b"7bit", b"8bit", b"binary")


class Line(NamedTuple):
    """A line, or a piece of a long one."""

    octets: bytes  # with the CRLF, where there is one
    is_start: bool  # of a line
    is_end: bool


class NotPossible(Exception):
    """The body cannot be encoded without touching what must not be touched."""


def lines(chunks: Iterable[bytes]) -> Iterator[Line]:
    """Octets in any pieces, as lines."""
    rest = b""
    is_start = True
    for chunk in chunks:
        text = rest + chunk
        at = 0
        while (end := text.find(b"\r\n", at)) >= 0:
            yield Line(text[at : end + 2], is_start, True)
            is_start = True
            at = end + 2
        rest = text[at:]
        if len(rest) > MAX_PIECE:
            # The last octet may be the CR of a CRLF.
            yield Line(rest[:-1], is_start, False)
            is_start, rest = False, rest[-1:]
    if rest:
        yield Line(rest, is_start, True)


class Kind(Enum):
    HEAD = "head"  # the whole header section of a part, with the empty line after it
    BODY = "body"  # a line of a leaf
    FRAME = "frame"  # boundaries, and what is outside of all parts


@dataclass(slots=True)
class Entity:
    """A message or part, and what its body turned out to need."""

    fields: Sequence[Field]
    is_sealed: bool  # signed as it stands, or of a type that may not be encoded
    is_leaf: bool = True
    is_eight_bit: bool = False
    is_too_long: bool = False
    is_binary: bool = False  # it holds NUL, or CR or LF that end no line
    is_utf8: bool = True
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")()
    )

    @property
    def encoding(self) -> bytes:
        """The Content-Transfer-Encoding, in lower case; empty: none is given."""
        return body_of(self.fields, "content-transfer-encoding").partition(b";")[0].strip().lower()

    def see(self, line: Line) -> None:
        self.is_too_long = self.is_too_long or len(line.octets) > MAX_LINE + 2
        self.is_too_long = self.is_too_long or not (line.is_start and line.is_end)
        if not line.octets.isascii():
            self.is_eight_bit = True
        if self.is_eight_bit and self.is_utf8:
            try:
                self._decoder.decode(line.octets)
            except UnicodeDecodeError:
                self.is_utf8 = False


class Walk:
    """Goes through a body, and knows for each line which part it belongs to."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.entities: list[Entity] = []
        self._boundaries: list[tuple[bytes, bool, bool]] = []  # is all within sealed; a digest
        self._head: list[bytes] | None = None  # None: not in a header section
        self._head_size = 0
        self._is_frame = False
        self._enter(fields, is_sealed=False)

    def run(self, source: Iterable[Line]) -> Iterator[tuple[Kind, Entity, Line]]:
        """Every line with its place; `entities` grows as parts begin."""
        for line in source:
            boundary = self._boundary(line)
            if boundary is not None:
                yield from self._end_head()
                depth, is_last = boundary
                del self._boundaries[depth + (not is_last) :]
                self._is_frame = True
                self._head = None if is_last else []
                yield Kind.FRAME, self.entities[-1], line
            elif self._head is not None:
                self._head.append(line.octets)
                self._head_size += len(line.octets)
                if self._head_size > MAX_PART_HEAD:
                    raise NotPossible("a part has a header without end")
                if line.octets == b"\r\n":
                    yield from self._end_head()
            else:
                kind = Kind.FRAME if self._is_frame else Kind.BODY
                yield kind, self.entities[-1], line
        yield from self._end_head()

    def _end_head(self) -> Iterator[tuple[Kind, Entity, Line]]:
        if self._head is None:
            return
        octets = b"".join(self._head)
        self._head, self._head_size = None, 0
        section: Section = split(octets, is_all=True)
        is_sealed, is_digest = self._boundaries[-1][1:] if self._boundaries else (False, False)
        is_sealed = is_sealed or (self.entities[-1].is_sealed and not self.entities[-1].is_leaf)
        # What has no type there is a message (RFC 2046 §5.1.5).
        is_sealed = is_sealed or (is_digest and not body_of(section.fields, "content-type"))
        if octets[section.size :] not in (b"\r\n", b""):
            raise NotPossible("a part has a header that is none")
        self._enter(section.fields, is_sealed=is_sealed)
        yield Kind.HEAD, self.entities[-1], Line(octets, True, True)

    def _enter(self, fields: Sequence[Field], *, is_sealed: bool) -> None:
        content_type = body_of(fields, "content-type")
        kind = content_type.partition(b";")[0].strip().lower()
        is_sealed = is_sealed or is_signed_type(content_type)
        entity = Entity(fields, is_sealed)
        self.entities.append(entity)
        if len(self.entities) > MAX_PARTS:
            raise NotPossible("there are too many parts")
        self._is_frame = False
        if kind.startswith(b"multipart/"):
            boundary = parameter(content_type, b"boundary")
            if not boundary or len(self._boundaries) >= MAX_DEPTH:
                raise NotPossible("a multipart has no boundary, or too many are nested")
            entity.is_leaf = False
            self._boundaries.append((boundary, is_sealed, kind == b"multipart/digest"))
            self._is_frame = True
        elif kind == b"message/rfc822" and entity.encoding in IDENTITY:
            entity.is_leaf = False
            self._head = []
        elif kind.startswith(b"message/"):
            entity.is_sealed = True  # RFC 2046 §5.2: may not be encoded

    def _boundary(self, line: Line) -> tuple[int, bool] | None:
        if not (line.is_start and line.octets.startswith(b"--")):
            return None
        text = line.octets.rstrip(b" \t\r\n")[2:]
        for depth in range(len(self._boundaries) - 1, -1, -1):
            boundary = self._boundaries[depth][0]
            if text in (boundary, boundary + b"--"):
                return depth, text != boundary
        return None


def body_of(fields: Sequence[Field], key: str) -> bytes:
    return next((one.body for one in fields if one.key == key), b"")
