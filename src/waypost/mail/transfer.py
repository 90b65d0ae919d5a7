"""Bodies made fit for hosts that take seven bits or short lines only (RFC 2045 §6, RFC 6152 §3).

A body is walked line by line: parts found by their boundaries, each encoded by itself, and what
need not change goes by as it is. Decoded, every part is octet for octet what it was. Nothing that
is signed or encrypted is touched; what cannot be done so is not done at all.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from waypost.mail.fields import MAX_LINE, Field, Section, parameter, split
from waypost.mail.fields import field as new_field
from waypost.mail.outgoing import is_signed_type, mended_octets

# A part's header section is held in memory; a longer one is nobody's.
MAX_PART_HEAD = 65_536
MAX_DEPTH = 30
# Nor has anybody more parts; each takes memory.
MAX_PARTS = 5_000
# Lines without end are handled in pieces of this size.
MAX_PIECE = 65_536

_QP_LINE = 76
_EQUALS = ord("=")
_UNSAFE = re.compile(rb"[^\t -<>-~]+")  # RFC 2045 §6.7, rule 1
_UNSAFE_BUT_EQUALS = re.compile(rb"[^\t -~]+")  # in what is quoted-printable already
_IDENTITY = (b"", b"7bit", b"8bit", b"binary")


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


class Scan:
    """What a body needs, found fast: most need nothing."""

    def __init__(self) -> None:
        self.is_eight_bit = False
        self.is_too_long = False  # a line is longer than RFC 5321 §4.5.3.1.6 has hosts take
        self._open = 0  # octets of the line that goes on in the next piece

    def see(self, piece: bytes) -> None:
        """Look at the next piece."""
        self.is_eight_bit = self.is_eight_bit or not piece.isascii()
        if self.is_too_long:
            return
        # From the last line end in reach to the next: one search for a thousand octets.
        at = piece.rfind(b"\n", 0, max(MAX_LINE + 2 - self._open, 0)) + 1
        if not at:
            self._open += len(piece)
            self.is_too_long = self._open > MAX_LINE + 2
            return
        while len(piece) - at > MAX_LINE + 2:
            end = piece.rfind(b"\n", at, at + MAX_LINE + 2)
            if end < 0:
                self.is_too_long = True
                return
            at = end + 1
        last = piece.rfind(b"\n", at) + 1
        self._open = len(piece) - (last or at)


class _Kind(Enum):
    HEAD = "head"  # the whole header section of a part, with the empty line after it
    BODY = "body"  # a line of a leaf
    FRAME = "frame"  # boundaries, and what is outside of all parts


@dataclass(slots=True)
class _Entity:
    """A message or part, and what its body turned out to need."""

    fields: Sequence[Field]
    is_sealed: bool  # signed as it stands, or of a type that may not be encoded
    is_leaf: bool = True
    is_eight_bit: bool = False
    is_too_long: bool = False
    is_utf8: bool = True
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")()
    )

    @property
    def encoding(self) -> bytes:
        """The Content-Transfer-Encoding, in lower case; empty: none is given."""
        return _body_of(self.fields, "content-transfer-encoding").partition(b";")[0].strip().lower()

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


class _Walk:
    """Goes through a body, and knows for each line which part it belongs to."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self.entities: list[_Entity] = []
        self._boundaries: list[tuple[bytes, bool, bool]] = []  # is all within sealed; a digest
        self._head: list[bytes] | None = None  # None: not in a header section
        self._head_size = 0
        self._is_frame = False
        self._enter(fields, is_sealed=False)

    def run(self, source: Iterable[Line]) -> Iterator[tuple[_Kind, _Entity, Line]]:
        """Every line with its place; `entities` grows as parts begin."""
        for line in source:
            boundary = self._boundary(line)
            if boundary is not None:
                yield from self._end_head()
                depth, is_last = boundary
                del self._boundaries[depth + (not is_last) :]
                self._is_frame = True
                self._head = None if is_last else []
                yield _Kind.FRAME, self.entities[-1], line
            elif self._head is not None:
                self._head.append(line.octets)
                self._head_size += len(line.octets)
                if self._head_size > MAX_PART_HEAD:
                    raise NotPossible("a part has a header without end")
                if line.octets == b"\r\n":
                    yield from self._end_head()
            else:
                kind = _Kind.FRAME if self._is_frame else _Kind.BODY
                yield kind, self.entities[-1], line
        yield from self._end_head()

    def _end_head(self) -> Iterator[tuple[_Kind, _Entity, Line]]:
        if self._head is None:
            return
        octets = b"".join(self._head)
        self._head, self._head_size = None, 0
        section: Section = split(octets, is_all=True)
        is_sealed, is_digest = self._boundaries[-1][1:] if self._boundaries else (False, False)
        is_sealed = is_sealed or (self.entities[-1].is_sealed and not self.entities[-1].is_leaf)
        # What has no type there is a message (RFC 2046 §5.1.5).
        is_sealed = is_sealed or (is_digest and not _body_of(section.fields, "content-type"))
        if octets[section.size :] not in (b"\r\n", b""):
            raise NotPossible("a part has a header that is none")
        self._enter(section.fields, is_sealed=is_sealed)
        yield _Kind.HEAD, self.entities[-1], Line(octets, True, True)

    def _enter(self, fields: Sequence[Field], *, is_sealed: bool) -> None:
        content_type = _body_of(fields, "content-type")
        kind = content_type.partition(b";")[0].strip().lower()
        is_sealed = is_sealed or is_signed_type(content_type)
        entity = _Entity(fields, is_sealed)
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
        elif kind == b"message/rfc822" and entity.encoding in _IDENTITY:
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


class Encoding:
    """How a body is to be encoded, found by going through it once."""

    def __init__(
        self, fields: Sequence[Field], source: Iterable[Line], *, to_seven_bits: bool
    ) -> None:
        """`to_seven_bits`: the next host takes nothing else. Raises NotPossible."""
        self._to_seven_bits = to_seven_bits
        walk = _Walk(fields)
        for kind, entity, line in walk.run(source):
            if kind is _Kind.BODY:
                entity.see(line)
            elif kind is _Kind.FRAME and to_seven_bits and not line.octets.isascii():
                raise NotPossible("there are eight bits outside of all parts")
        self._entities = walk.entities
        for entity in walk.entities:
            self._judge(entity)
        self._top = list(fields)
        self.fields = self._fields_of(walk.entities[0])
        if to_seven_bits and len(walk.entities) > 1:
            for entity in walk.entities[1:]:
                if not b"".join(one.octets for one in self._fields_of(entity)).isascii():
                    raise NotPossible("a part's header cannot do with seven bits")

    @property
    def changes(self) -> list[str]:
        """What is done, in words for the log."""
        return sorted({word for entity in self._entities if (word := self._change(entity))})

    def encode(self, source: Iterable[Line]) -> Iterator[bytes]:
        """The body, encoded; `source` as it was gone through before."""
        walk = _Walk(self._top)
        number = 1  # of the entity looked at, from 1
        encoder = self._encoder(0)
        for kind, _, line in walk.run(source):
            if kind is _Kind.BODY:
                yield line.octets if encoder is None else encoder.feed(line)
                continue
            if encoder is not None:
                yield encoder.end()
                encoder = None
            if kind is _Kind.FRAME:
                yield line.octets
                continue
            entity = self._entities[number]
            end = b"\r\n" if line.octets.endswith(b"\r\n\r\n") or line.octets == b"\r\n" else b""
            yield b"".join(one.octets for one in self._fields_of(entity)) + end
            encoder = self._encoder(number)
            number += 1
        if encoder is not None:
            yield encoder.end()

    def _needs(self, entity: _Entity) -> bool:
        return entity.is_leaf and (
            entity.is_too_long or (self._to_seven_bits and entity.is_eight_bit)
        )

    def _judge(self, entity: _Entity) -> None:
        is_raw = self._to_seven_bits and entity.is_eight_bit
        if is_raw and (entity.is_sealed or not entity.is_leaf):
            raise NotPossible("a part with eight bits must not be touched")
        if is_raw and entity.encoding not in (*_IDENTITY, b"quoted-printable"):
            raise NotPossible("a part with eight bits says that it has none")

    def _change(self, entity: _Entity) -> str | None:
        if not self._needs(entity) or entity.is_sealed:
            return None
        if entity.encoding in (*_IDENTITY, b"quoted-printable"):
            return "quoted-printable"
        return "base64" if entity.encoding == b"base64" else None

    def _encoder(self, number: int) -> _QuotedPrintable | _Rewrapped | None:
        entity = self._entities[number]
        change = self._change(entity)
        if change is None:
            return None
        if change == "base64":
            return _Rewrapped()
        return _QuotedPrintable(is_encoded=entity.encoding not in _IDENTITY)

    def _fields_of(self, entity: _Entity) -> list[Field]:
        """The header section that fits."""
        fields = list(entity.fields)
        is_top = entity is self._entities[0]
        change = self._change(entity)
        if change == "quoted-printable" and entity.encoding in _IDENTITY:
            fields = _with_encoding(fields, b"quoted-printable")
            if not _body_of(fields, "content-type"):
                charset = "us-ascii" if not entity.is_eight_bit else _charset(entity)
                fields.append(new_field(b"Content-Type", f"text/plain; charset={charset}".encode()))
            if is_top and not _body_of(fields, "mime-version"):
                fields.append(new_field(b"MIME-Version", b"1.0"))
        elif (
            self._to_seven_bits and not entity.is_sealed and entity.encoding in (b"8bit", b"binary")
        ):
            fields = _with_encoding(fields, b"7bit")
        if not is_top and self._to_seven_bits and not entity.is_sealed:
            noted: list[str] = []
            fields = [mended_octets(one, None, noted, may_be_utf8=False) for one in fields]
        return fields


def _charset(entity: _Entity) -> str:
    # RFC 1428 §3: what nobody has named.
    return "utf-8" if entity.is_utf8 else "unknown-8bit"


def _body_of(fields: Sequence[Field], key: str) -> bytes:
    return next((one.body for one in fields if one.key == key), b"")


def _with_encoding(fields: Sequence[Field], encoding: bytes) -> list[Field]:
    made = new_field(b"Content-Transfer-Encoding", encoding)
    kept = [made if one.key == "content-transfer-encoding" else one for one in fields]
    return kept if made in kept else [*kept, made]


def _in_hex(found: re.Match[bytes]) -> bytes:
    return b"=" + found[0].hex("=").upper().encode("ascii")


class _QuotedPrintable:
    """RFC 2045 §6.7, in pieces."""

    def __init__(self, *, is_encoded: bool) -> None:
        """`is_encoded`: it is quoted-printable already, with lines that are too long."""
        self._unsafe = _UNSAFE_BUT_EQUALS if is_encoded else _UNSAFE
        self._is_encoded = is_encoded
        self._carry = b""

    def feed(self, line: Line) -> bytes:
        octets, end = line.octets, b""
        if line.is_end and octets.endswith(b"\r\n"):
            octets, end = octets[:-2], b"\r\n"
        text = self._carry + self._unsafe.sub(_in_hex, octets)
        if line.is_end and not self._is_encoded and text[-1:] in (b" ", b"\t"):
            text = text[:-1] + b"=%02X" % text[-1]
        out: list[bytes] = []
        at = 0
        while True:
            if text.startswith(b"--", at):
                # Broken before two hyphens, a line would begin as a boundary does.
                text, at = b"=2D" + text[at + 1 :], 0
            if len(text) - at <= _QP_LINE:
                break
            cut = at + _QP_LINE - 1
            if text[cut - 1] == _EQUALS:
                cut -= 1
            elif text[cut - 2] == _EQUALS:
                cut -= 2
            out.append(text[at:cut] + b"=\r\n")
            at = cut
        self._carry = text[at:]
        if line.is_end:
            out.append(self._carry + end)
            self._carry = b""
        return b"".join(out)

    def end(self) -> bytes:
        rest, self._carry = self._carry, b""
        return rest


class _Rewrapped:
    """Base64 (RFC 2045 §6.8) in lines of the length it should have."""

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, line: Line) -> bytes:
        text = self._carry + line.octets.rstrip(b"\r\n")
        whole = len(text) - len(text) % _QP_LINE
        self._carry = text[whole:]
        return b"".join(text[at : at + _QP_LINE] + b"\r\n" for at in range(0, whole, _QP_LINE))

    def end(self) -> bytes:
        rest, self._carry = self._carry, b""
        return rest + b"\r\n" if rest else b""
