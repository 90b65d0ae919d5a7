"""A body without its largest attachments, for hosts that would not take the whole.

Each part that is left out is replaced, where it stood, by a text that says what was there; all
else goes by as it is. Nothing that is signed or encrypted is touched, nor what is said: texts
without a file name stay.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from waypost.mail.fields import Field
from waypost.mail.fields import field as new_field
from waypost.mail.walk import Entity, Kind, Line, Walk, body_of

# Octets of base64 are taken out of their lines in pieces of about this size.
_PIECE_BYTES = 65_536
_NAMED = re.compile(rb";\s*(?:file)?name(?:\*0)?\*?\s*=", re.IGNORECASE)
_NO_BASE64 = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
)
_SOFT_BREAK = re.compile(rb"=[0-9A-Fa-f]?\Z")
_CONTENT = "content-"


class LeftOut(NamedTuple):
    """One attachment, as it was."""

    fields: Sequence[Field]
    size: int  # octets out of their transfer encoding
    sha256: str


# What is to be read in place of an attachment.
Describe = Callable[[LeftOut], str]


class Stripping:
    """Which parts are left out, found by going through the body once."""

    def __init__(
        self, fields: Sequence[Field], source: Iterable[Line], surplus: int, describe: Describe
    ) -> None:
        """`surplus`: octets that are too many. Raises NotPossible."""
        self._top = list(fields)
        walk = Walk(fields)
        measures: dict[int, _Measure] = {}
        if _is_attachment(walk.entities[0]):
            measures[0] = _Measure(walk.entities[0], 0)
        for number, kind, entity, line in _numbered(walk, source):
            if kind is Kind.HEAD and _is_attachment(entity):
                measures[number] = _Measure(entity, len(line.octets))
            elif kind is Kind.BODY and number in measures:
                measures[number].see(line)
        self._texts: dict[int, bytes] = {}  # by the number of the part that is left out
        self._fields: dict[int, list[Field]] = {}
        for number, measure in sorted(measures.items(), key=lambda one: -one[1].size):
            if surplus <= 0:
                break
            is_top = number == 0
            made, text = _replacement(describe(measure.left_out(is_top=is_top)), measure.entity)
            gain = measure.size - len(text) - (0 if is_top else _size(made))
            if gain > 0:
                self._fields[number], self._texts[number] = made, text
                surplus -= gain
        self.is_enough = surplus <= 0
        self.fields = self._fields.get(0, self._top)

    def encode(self, source: Iterable[Line]) -> Iterator[bytes]:
        """The body that is left; `source` as it was gone through before."""
        is_open = 0 in self._texts  # at a part that is left out
        if is_open:
            yield self._texts[0]
        for number, kind, _, line in _numbered(Walk(self._top), source):
            if kind is Kind.HEAD:
                is_open = number in self._texts
                if is_open:
                    fields = self._fields[number]
                    yield b"".join(one.octets for one in fields) + b"\r\n" + self._texts[number]
                else:
                    yield line.octets
            elif kind is Kind.FRAME or not is_open:
                is_open = False
                yield line.octets


def _numbered(walk: Walk, source: Iterable[Line]) -> Iterator[tuple[int, Kind, Entity, Line]]:
    for kind, entity, line in walk.run(source):
        yield len(walk.entities) - 1, kind, entity, line


def _size(fields: Iterable[Field]) -> int:
    return sum(len(one.octets) for one in fields) + 2


def _is_attachment(entity: Entity) -> bool:
    if not entity.is_leaf or entity.is_sealed:
        return False
    kind, _, parameters = body_of(entity.fields, "content-type").partition(b";")
    disposition = body_of(entity.fields, "content-disposition")
    is_text = not kind or kind.strip().lower().startswith(b"text/")
    is_named = _NAMED.search(b";" + parameters + b";" + disposition) is not None
    return not is_text or is_named or disposition.lower().startswith(b"attachment")


def _replacement(text: str, entity: Entity) -> tuple[list[Field], bytes]:
    """The header and body of the part that stands for another; the body ends its last line."""
    octets = text.encode().replace(b"\n", b"\r\n") + b"\r\n"
    encoding = b"7bit"
    if not octets.isascii():
        encoding = b"base64"
        octets = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    made = [one for one in entity.fields if not one.key.startswith(_CONTENT)]
    made += [
        new_field(b"Content-Type", b"text/plain; charset=utf-8"),
        new_field(b"Content-Transfer-Encoding", encoding),
    ]
    return made, octets


class _Measure:
    """What is learnt of a part as it goes by."""

    def __init__(self, entity: Entity, head_size: int) -> None:
        self.entity = entity
        self.size = head_size  # octets on the way out
        self._decoder = _Decoder(entity.encoding)
        self._end = b""  # a line end that may be the boundary's

    def see(self, line: Line) -> None:
        self.size += len(line.octets)
        octets = self._end + line.octets
        self._end = octets[-2:] if octets.endswith(b"\r\n") else b""
        self._decoder.feed(octets.removesuffix(b"\r\n"))

    def left_out(self, *, is_top: bool) -> LeftOut:
        """`is_top`: no boundary follows, so the last line end is content."""
        if is_top:
            self._decoder.feed(self._end)
        self._decoder.end()
        return LeftOut(self.entity.fields, self._decoder.size, self._decoder.hash.hexdigest())


class _Decoder:
    """Octets out of their transfer encoding, only to be counted and hashed."""

    def __init__(self, encoding: bytes) -> None:
        self._encoding = encoding
        self._rest = bytearray()
        self.size = 0
        self.hash = hashlib.sha256()

    def feed(self, octets: bytes) -> None:
        self._rest += octets
        if len(self._rest) >= _PIECE_BYTES:
            self._decode(is_end=False)

    def end(self) -> None:
        self._decode(is_end=True)

    def _decode(self, *, is_end: bool) -> None:
        octets, self._rest = bytes(self._rest), bytearray()
        if self._encoding == b"base64":
            letters = octets.translate(None, _NO_BASE64)
            whole = len(letters) // 4 * 4
            if is_end:
                letters += b"=" * (-len(letters) % 4)
                # One letter alone is no octet.
                whole = len(letters) if not letters.endswith(b"===") else whole
            else:
                self._rest += letters[whole:]
            octets = binascii.a2b_base64(letters[:whole])
        elif self._encoding == b"quoted-printable":
            cut = len(octets)
            if not is_end:
                # Up to a line's end: what stands before it may mean nothing, or join two lines.
                cut = octets.rfind(b"\n") + 1 or _without_escape(octets)
                self._rest += octets[cut:]
            octets = binascii.a2b_qp(octets[:cut])
        self.size += len(octets)
        self.hash.update(octets)


def _without_escape(octets: bytes) -> int:
    found = _SOFT_BREAK.search(octets)
    return len(octets) if found is None else found.start()
