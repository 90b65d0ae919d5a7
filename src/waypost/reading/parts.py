"""The parts of a mail (RFC 2046 §5): where each begins and ends, over octets, in one pass.

No recursion, nothing is copied, and each octet is looked at a fixed number of times, whatever the
sender wrote. Delimiters that are missing or not the ones announced are lived with.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from waypost.reading.fields import parameter_text, parameters
from waypost.reading.transfer import IDENTITY, encoding_of
from waypost.reading.values import Limits

# RFC 2046 §5.1.1 allows 70; lines are no longer than 998.
MAX_BOUNDARY = 998
PLAIN = "text/plain"

_DELIMITER = re.compile(rb"^--[^\r\n]*", re.MULTILINE)
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_BLANK = re.compile(rb"\r?\n(?=\r?\n)")
# A line that looks like a delimiter and has a field after it.
_LIKELY_DELIMITER = re.compile(
    rb"^--([^\r\n]{1,200})\r?\n(?=content-[a-z-]{1,40}[ \t]*:)", re.MULTILINE | re.IGNORECASE
)

Fields = dict[str, list[bytes]]


class Part(NamedTuple):
    """A part that holds no others, or a whole message within the message."""

    fields: Fields  # values by name in lower case, unfolded
    type: str  # as named; text/plain if nothing is
    parameters: dict[str, bytes]  # of Content-Type, raw
    encoding: str  # as in reading/transfer
    start: int
    end: int
    within: int  # so many messages are around it
    alternative: int | None  # which multipart/alternative is around it; None: none

    def first(self, name: str) -> bytes:
        """The first field of a name; empty: there is none."""
        return self.fields.get(name, [b""])[0]

    @property
    def disposition(self) -> tuple[str, dict[str, bytes]]:
        """Content-Disposition (RFC 2183): what it says first, and its parameters."""
        return parameters(self.first("content-disposition"))

    def name(self, hint: str) -> str:
        """The file name it was given, decoded; empty: none."""
        return parameter_text(self.disposition[1], "filename", hint) or parameter_text(
            self.parameters, "name", hint
        )


class _Open(NamedTuple):
    """What a delimiter, or the end of the mail, will close."""

    part: Part  # its end is not known yet
    boundary: bytes | None  # None: no multipart
    is_leaf: bool
    parts_before: int


class Walk:
    """One pass over the octets of a mail; `parts` and `faults` are what it found."""

    def __init__(self, content: bytes, limits: Limits) -> None:
        self.fields: Fields = {}  # of the mail itself
        self.parts: list[Part] = []
        self.faults: list[str] = []
        self._content = content
        self._limits = limits
        self._open: list[_Open] = []
        self._levels: dict[bytes, list[int]] = {}  # where in _open each boundary stands
        self._end = len(content)
        self._walk(self._entity(0))
        self._close(0, self._end)
        self.parts.sort(key=lambda part: part.start)

    def _walk(self, at: int) -> None:
        delimiters = 0
        while self._levels and (line := _DELIMITER.search(self._content, at)) is not None:
            delimiters += 1
            if delimiters > self._limits.delimiters:
                self._fault(f"it has more than {self._limits.delimiters} lines with two hyphens")
                return
            at = line.end()
            found = self._level_of(line[0])
            if found is None:
                continue
            level, is_last = found
            self._close(level + 1, self._before(line.start()))
            if is_last:
                # What follows belongs to nobody, up to the next delimiter (RFC 2046 §5.1.1).
                self._close(level, self._before(line.start()))
                continue
            if len(self.parts) >= self._limits.parts:
                self._fault(f"it has more than {self._limits.parts} parts")
                self._end = line.start()
                return
            at = self._entity(self._after(at))

    def _level_of(self, line: bytes) -> tuple[int, bool] | None:
        """Whose delimiter a line is, and whether it is the last one; None: of nobody here."""
        named = line[2 : MAX_BOUNDARY + 80].rstrip()
        if levels := self._levels.get(named):
            return levels[-1], False
        if named.endswith(b"--") and (levels := self._levels.get(named[:-2].rstrip())):
            return levels[-1], True
        return None

    def _before(self, at: int) -> int:
        """The line break before a delimiter is part of it (RFC 2046 §5.1.1)."""
        for line_break in (b"\r\n", b"\n"):
            if self._content.endswith(line_break, max(0, at - len(line_break)), at):
                return at - len(line_break)
        return at

    def _after(self, at: int) -> int:
        """Where the next line begins."""
        found = self._content.find(b"\n", at)
        return len(self._content) if found < 0 else found + 1

    # One entity: a header, and what follows it.

    def _entity(self, at: int) -> int:
        """Open what begins here, with all that begin with it; gives where to go on."""
        while True:
            fields, start = self._header(at)
            if not self._open:
                self.fields = fields
            part = self._part(fields, start)
            main = part.type.partition("/")[0]
            is_message = part.type in ("message/rfc822", "message/global")
            is_nesting = (main == "multipart" or is_message) and part.encoding == IDENTITY
            if is_nesting and len(self._open) >= self._limits.levels:
                self._fault(f"it has more than {self._limits.levels} levels")
                is_nesting = False
            boundary = self._boundary(part) if is_nesting and not is_message else None
            is_leaf = boundary is None and not (is_nesting and is_message)
            if is_leaf and is_nesting:
                part = part._replace(type=PLAIN)  # a multipart without a boundary
            self._push(part, boundary, is_leaf)
            if is_leaf or boundary is not None:
                return start
            at = start

    def _push(self, part: Part, boundary: bytes | None, is_leaf: bool) -> None:
        if boundary is not None:
            self._levels.setdefault(boundary, []).append(len(self._open))
        self._open.append(_Open(part, boundary, is_leaf, len(self.parts)))

    def _close(self, level: int, end: int) -> None:
        """End all from this level of `_open` on."""
        while len(self._open) > level:
            one = self._open.pop()
            part = one.part._replace(end=max(end, one.part.start))
            if one.boundary is not None:
                self._levels[one.boundary].pop()
                if not self._levels[one.boundary]:
                    del self._levels[one.boundary]
                if len(self.parts) > one.parts_before:
                    continue
                self._fault("a multipart has none of its delimiters")
                part = part._replace(type=PLAIN)
            self.parts.append(part)

    def _part(self, fields: Fields, start: int) -> Part:
        around = self._open[-1].part if self._open else None
        usual = PLAIN
        within, alternative = 0, None
        if around is not None:
            is_message = self._open[-1].boundary is None
            usual = "message/rfc822" if around.type == "multipart/digest" else PLAIN
            within = around.within + is_message
            alternative = None if is_message else around.alternative
            if around.type == "multipart/alternative" and alternative is None:
                alternative = around.start
        value = fields.get("content-type", [b""])[0]
        named, found = parameters(value)
        if not named:
            named = usual
        encoding = encoding_of(fields.get("content-transfer-encoding", [b""])[0])
        return Part(fields, named, found, encoding, start, start, within, alternative)

    def _boundary(self, part: Part) -> bytes | None:
        """What delimits a multipart; None: nothing does, and that was said."""
        boundary = part.parameters.get("boundary", b"").rstrip()
        if len(boundary) > MAX_BOUNDARY:
            self._fault(f"a boundary is longer than {MAX_BOUNDARY} octets")
            boundary = b""
        if self._open:
            if not boundary:
                self._fault("a multipart has no boundary")
            return boundary or None
        # Only for the mail itself: looking ahead in each part would take quadratic time.
        if boundary and self._content.find(b"--" + boundary, part.start) >= 0:
            return boundary
        likely = _LIKELY_DELIMITER.search(self._content, part.start)
        if likely is None:
            if not boundary:
                self._fault("a multipart has no boundary")
            return boundary or None
        self._fault("the boundary it names is not the one it uses")
        return likely[1].rstrip()

    def _header(self, at: int) -> tuple[Fields, int]:
        """The fields that begin here, and where the body does."""
        content, limits = self._content, self._limits
        most = at + limits.header
        pieces: list[tuple[str, list[bytes]]] = []
        while at < len(content):
            line_end = content.find(b"\n", at, most)
            if line_end < 0:
                line_end = min(len(content), most)
            line = content[at:line_end].removesuffix(b"\r")
            if not line:
                return _joined(pieces), self._after(at)
            if line[:1] in b" \t" and pieces:
                pieces[-1][1].append(line)
            elif (name := _FIELD.match(line)) is not None:
                if len(pieces) >= limits.fields:
                    self._fault(f"a header has more than {limits.fields} fields")
                    return _joined(pieces), self._past_header(at)
                pieces.append((name[1].decode().lower(), [line[name.end() :]]))
            elif line.startswith(b"--") and self._level_of(line) is not None:
                return _joined(pieces), at
            elif pieces or not line.startswith((b"From ", b">From ")):
                return _joined(pieces), at  # the text begins without an empty line
            if line_end >= most:
                self._fault(f"a header is longer than {limits.header} octets")
                return _joined(pieces), self._past_header(line_end)
            at = line_end + 1
        return _joined(pieces), len(content)

    def _past_header(self, at: int) -> int:
        """Where the body of an overlong header begins; only looked for in the mail's own."""
        blank = None if self._open else _BLANK.search(self._content, at)
        return at if blank is None else self._after(blank.end())

    def _fault(self, words: str) -> None:
        if words not in self.faults:
            self.faults.append(words)


def _joined(pieces: list[tuple[str, list[bytes]]]) -> Fields:
    """Unfolded values by name. A bare CR is white space and never makes a field."""
    fields: Fields = {}
    for name, lines in pieces:
        fields.setdefault(name, []).append(b"".join(lines).strip())
    return fields
