"""Takes fields out of a header section while the content comes in, piece by piece.

Gone are Authentication-Results that claim to be ours (RFC 8601 §5), and Bcc of what is submitted
here (RFC 5322 §3.6.3). All else passes as it came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

# More is not held back of a line, whether it has ended or not; a longer Authentication-Results is
# nobody's, and goes.
MAX_HELD = 65_536

# Lines end where a reader of the file may think so: in BINARYMIME that can be a LF alone.
_SUSPECT = rb"(?:bcc|resent-bcc|authentication-results)[ \t]*"
# Of a line that is cut the colon may be still to come.
_SUSPECT_FIELD = re.compile(_SUSPECT + rb"(?::|\Z)", re.IGNORECASE)
# What begins with an octet is searched for much faster than what begins with "^".
_SUSPECT_LINE = re.compile(rb"\n" + _SUSPECT + rb":", re.IGNORECASE)
_CONTINUED = (b" ", b"\t")

# What comes before and in authserv-id (RFC 8601 §2.2): comments, then a token or a quoted string.
_IN_COMMENT = re.compile(rb"(?:[^()\\]|\\.)*", re.DOTALL)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_TOKEN = re.compile(rb'[^\s;"()]+')
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_FOLD = re.compile(rb"\r?\n")


class _Fate(Enum):
    """What becomes of the field that is read now."""

    PASSES = 0
    GOES = 1
    IS_HELD = 2  # not known yet


class HeaderFilter:
    """The filter of one message."""

    __slots__ = (
        "_fate",
        "_field",
        "_field_size",
        "_held",
        "_is_in_line",
        "_is_ours",
        "_without_bcc",
        "is_done",
    )

    def __init__(self, is_ours: Callable[[str], bool], *, without_bcc: bool) -> None:
        """`is_ours`: whether this hub calls itself so in Authentication-Results."""
        self._is_ours = is_ours
        self._without_bcc = without_bcc
        self._held = b""  # the start of a line whose end has not come yet
        self._field: list[bytes] = []  # what has come of a field that is held
        self._field_size = 0
        self._fate = _Fate.PASSES
        self._is_in_line = False  # the start of this line has been dealt with already
        self.is_done = False  # the header is over: the rest passes as it comes

    def feed(self, piece: bytes) -> bytes:
        """What passes of the content so far, and was not given yet."""
        if self.is_done:
            return piece
        content = self._held + piece if self._held else piece
        if self._fate is _Fate.PASSES and not self._is_in_line:
            # Nearly always there is nothing to take out, and all of the header in one piece.
            is_whole = content.startswith(b"\r\n")
            end = 0 if is_whole else content.find(b"\n\r\n") + 1
            if is_whole or (end and not _is_suspect(content, end)):
                self._held = b""
                self.is_done = True
                return content
        return self._by_line(content)

    def end(self) -> bytes:
        """What was held back when the content ends within the header section."""
        passed: list[bytes] = []
        if self._held:
            self._take(self._held, passed)
            self._held = b""
        passed.append(self._ended_field())
        return b"".join(passed)

    def _by_line(self, content: bytes) -> bytes:
        passed: list[bytes] = []
        position = 0
        while (end := content.find(b"\n", position) + 1) > 0:
            line = content[position:end]
            if line == b"\r\n" and not self._is_in_line:
                passed.append(self._ended_field())
                self.is_done = True
                self._held = b""
                passed.append(content[position:])
                return b"".join(passed)
            self._take(line, passed)
            self._is_in_line = False
            position = end
        self._held = content[position:]
        if self._held and (self._is_in_line or len(self._held) > MAX_HELD):
            self._take(self._held, passed)
            self._held = b""
            self._is_in_line = True
        return b"".join(passed)

    def _take(self, line: bytes, passed: list[bytes]) -> None:
        """One line, or a part of one."""
        if not (self._is_in_line or line.startswith(_CONTINUED)):
            passed.append(self._ended_field())
            if _SUSPECT_FIELD.match(line) is not None:
                self._fate = _Fate.IS_HELD
                if line[:1] not in b"Aa":
                    self._fate = _Fate.GOES if self._without_bcc else _Fate.PASSES
        if self._fate is _Fate.PASSES:
            passed.append(line)
        elif self._fate is _Fate.IS_HELD:
            self._field.append(line)
            self._field_size += len(line)
            if self._field_size > MAX_HELD:
                self._field, self._field_size = [], 0
                self._fate = _Fate.GOES

    def _ended_field(self) -> bytes:
        """A field that was held, if it may stay."""
        field = b"".join(self._field)
        self._field, self._field_size = [], 0
        self._fate = _Fate.PASSES
        if not field:
            return b""
        named = _authserv_id(field.partition(b":")[2])
        return b"" if named is not None and self._is_ours(named) else field


def _is_suspect(content: bytes, end: int) -> bool:
    """Whether a field in the header section that ends there may have to go."""
    return (
        _SUSPECT_FIELD.match(content, 0, end) is not None
        or _SUSPECT_LINE.search(content, 0, end) is not None
    )


def _authserv_id(value: bytes) -> str | None:
    """Who says so, in the value of an Authentication-Results field; None: nobody."""
    value = _FOLD.sub(b"", value)
    position, depth = 0, 0
    while position < len(value):
        if depth:
            found = _IN_COMMENT.match(value, position)
            assert found is not None  # it matches nothing, too
            position = found.end()
            mark = value[position : position + 1]
            depth += {b"(": 1, b")": -1}.get(mark, 0)
        elif value[position : position + 1] == b"(":
            depth = 1
        elif value[position : position + 1] not in b" \t":
            break
        position += 1
    if (quoted := _QUOTED.match(value, position)) is not None:
        return _QUOTED_PAIR.sub(rb"\1", quoted[1]).decode("utf-8", "replace")
    if (token := _TOKEN.match(value, position)) is not None:
        return token[0].decode("utf-8", "replace")
    return None
