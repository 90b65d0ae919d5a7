"""Bodies made fit for hosts that take no binary content, seven bits or short lines only
(RFC 2045 §6, RFC 3030 §3, RFC 6152 §3).

A body is walked line by line: parts found by their boundaries, each encoded by itself, and what
need not change goes by as it is. Decoded, every part is octet for octet what it was. Nothing that
is signed or encrypted is touched; what cannot be done so is not done at all.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence

from waypost.mail.fields import MAX_LINE, Field
from waypost.mail.fields import field as new_field
from waypost.mail.outgoing import mended_octets
from waypost.mail.walk import IDENTITY, Entity, Kind, Line, NotPossible, Walk, body_of

_QP_LINE = 76
_EQUALS = ord("=")
_UNSAFE = re.compile(rb"[^\t -<>-~]+")  # RFC 2045 §6.7, rule 1
_UNSAFE_BUT_EQUALS = re.compile(rb"[^\t -~]+")  # in what is quoted-printable already
_BINARY = re.compile(rb"[\r\n\0]")  # beside line ends: what only BDAT can carry
_KNOWN = (b"quoted-printable", b"base64")
_BASE64_LINE = 57  # octets that become a line of 76


class Scan:
    """What a body needs, found fast: most need nothing."""

    def __init__(self, *, may_be_binary: bool = False) -> None:
        """`may_be_binary`: nobody has promised lines."""
        self._may_be_binary = may_be_binary
        self.is_eight_bit = False
        self.is_binary = False
        self._ends_in_cr = False
        self.is_too_long = False  # a line is longer than RFC 5321 §4.5.3.1.6 has hosts take
        self._open = 0  # octets of the line that goes on in the next piece

    def see(self, piece: bytes) -> None:
        """Look at the next piece."""
        self.is_eight_bit = self.is_eight_bit or not piece.isascii()
        if self._may_be_binary and not self.is_binary:
            self._see_binary(piece)
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

    def _see_binary(self, piece: bytes) -> None:
        if self._ends_in_cr:
            piece = b"\r" + piece
        self._ends_in_cr = piece.endswith(b"\r")
        pairs = piece.count(b"\r\n")
        self.is_binary = (
            piece.count(b"\r") - self._ends_in_cr != pairs
            or piece.count(b"\n") != pairs
            or b"\0" in piece
        )


class Encoding:
    """How a body is to be encoded, found by going through it once."""

    def __init__(
        self,
        fields: Sequence[Field],
        source: Iterable[Line],
        *,
        to_seven_bits: bool,
        from_binary: bool = False,
    ) -> None:
        """`to_seven_bits`: the next host takes nothing else. `from_binary`: it was accepted as
        BINARYMIME, and the next host takes lines only. Raises NotPossible.
        """
        self._to_seven_bits = to_seven_bits
        self._from_binary = from_binary
        walk = Walk(fields)
        if from_binary and any(_is_binary(one.octets) for one in fields):
            raise NotPossible("the header is binary")
        for kind, entity, line in walk.run(source):
            if kind is Kind.BODY:
                entity.see(line)
                entity.is_binary = entity.is_binary or (from_binary and _is_binary(line.octets))
            elif from_binary and _is_binary(line.octets):
                raise NotPossible("there is binary content outside of all parts")
            elif kind is Kind.FRAME and to_seven_bits and not line.octets.isascii():
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
        words = {word for entity in self._entities if (word := self._change(entity))}
        if self._from_binary and any(one.encoding == b"binary" for one in self._entities):
            words.add("no-binary")
        return sorted(words)

    def encode(self, source: Iterable[Line]) -> Iterator[bytes]:
        """The body, encoded; `source` as it was gone through before."""
        walk = Walk(self._top)
        number = 1  # of the entity looked at, from 1
        encoder = self._encoder(0)
        for kind, _, line in walk.run(source):
            if kind is Kind.BODY:
                yield line.octets if encoder is None else encoder.feed(line)
                continue
            if encoder is not None:
                yield encoder.end(is_content=False)
                encoder = None
            if kind is Kind.FRAME:
                yield line.octets
                continue
            entity = self._entities[number]
            end = b"\r\n" if line.octets.endswith(b"\r\n\r\n") or line.octets == b"\r\n" else b""
            yield b"".join(one.octets for one in self._fields_of(entity)) + end
            encoder = self._encoder(number)
            number += 1
        if encoder is not None:
            yield encoder.end(is_content=True)

    def _needs(self, entity: Entity) -> bool:
        return entity.is_leaf and (
            entity.is_too_long or entity.is_binary or (self._to_seven_bits and entity.is_eight_bit)
        )

    def _judge(self, entity: Entity) -> None:
        is_raw = self._to_seven_bits and entity.is_eight_bit
        if (is_raw or entity.is_binary) and (entity.is_sealed or not entity.is_leaf):
            raise NotPossible("a part with eight bits must not be touched")
        if is_raw and entity.encoding not in (*IDENTITY, b"quoted-printable"):
            raise NotPossible("a part with eight bits says that it has none")
        if entity.is_binary and entity.encoding not in (*IDENTITY, b"base64"):
            raise NotPossible("a part with binary content says that it has none")

    def _change(self, entity: Entity) -> str | None:
        if not self._needs(entity) or entity.is_sealed:
            return None
        if entity.encoding in IDENTITY:
            kind = body_of(entity.fields, "content-type").lower()
            is_text = not kind or kind.startswith(b"text/")
            is_base64 = entity.is_binary or (self._from_binary and not is_text)
            return "base64" if is_base64 else "quoted-printable"
        return entity.encoding.decode() if entity.encoding in _KNOWN else None

    def _encoder(self, number: int) -> _QuotedPrintable | _Rewrapped | _Base64 | None:
        entity = self._entities[number]
        change = self._change(entity)
        if change is None:
            return None
        if change == "base64":
            return _Rewrapped() if entity.encoding == b"base64" else _Base64()
        return _QuotedPrintable(is_encoded=entity.encoding not in IDENTITY)

    def _fields_of(self, entity: Entity) -> list[Field]:
        """The header section that fits."""
        fields = list(entity.fields)
        is_top = entity is self._entities[0]
        change = self._change(entity)
        if change is not None and entity.encoding in IDENTITY:
            fields = _with_encoding(fields, change.encode())
            if not body_of(fields, "content-type"):
                charset = "us-ascii" if not entity.is_eight_bit else _charset(entity)
                fields.append(new_field(b"Content-Type", f"text/plain; charset={charset}".encode()))
            if is_top and not body_of(fields, "mime-version"):
                fields.append(new_field(b"MIME-Version", b"1.0"))
        elif (
            self._to_seven_bits and not entity.is_sealed and entity.encoding in (b"8bit", b"binary")
        ):
            fields = _with_encoding(fields, b"7bit")
        elif self._from_binary and not entity.is_sealed and entity.encoding == b"binary":
            fields = _with_encoding(fields, b"8bit")
        if not is_top and self._to_seven_bits and not entity.is_sealed:
            noted: list[str] = []
            fields = [mended_octets(one, None, noted, may_be_utf8=False) for one in fields]
        return fields


def _charset(entity: Entity) -> str:
    # RFC 1428 §3: what nobody has named.
    return "utf-8" if entity.is_utf8 else "unknown-8bit"


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

    def end(self, *, is_content: bool) -> bytes:
        rest, self._carry = self._carry, b""
        return rest


class _Rewrapped:
    """Base64 (RFC 2045 §6.8) in lines of the length it should have."""

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, line: Line) -> bytes:
        text = self._carry + line.octets.translate(None, b"\r\n\0")
        whole = len(text) - len(text) % _QP_LINE
        self._carry = text[whole:]
        return b"".join(text[at : at + _QP_LINE] + b"\r\n" for at in range(0, whole, _QP_LINE))

    def end(self, *, is_content: bool) -> bytes:
        rest, self._carry = self._carry, b""
        return rest + b"\r\n" if rest else b""


class _Base64:
    """RFC 2045 §6.8, of octets that are no lines."""

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, line: Line) -> bytes:
        octets = self._carry + line.octets
        # The last two may be the line end before a boundary.
        whole = max(len(octets) - 2, 0) // _BASE64_LINE * _BASE64_LINE
        self._carry = octets[whole:]
        return _in_base64(octets[:whole])

    def end(self, *, is_content: bool) -> bytes:
        """`is_content`: a line end that came last is of the part, not of a boundary behind it
        (RFC 2046 §5.1.1).
        """
        rest, self._carry = self._carry, b""
        return _in_base64(rest if is_content else rest.removesuffix(b"\r\n"))


def _in_base64(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", b"\r\n")


def _is_binary(octets: bytes) -> bool:
    return _BINARY.search(octets.replace(b"\r\n", b"")) is not None
