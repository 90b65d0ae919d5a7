"""Takes fields out of a header section while the content comes in, piece by piece.

Gone are Authentication-Results that claim to be ours (RFC 8601 §5), and Bcc of what is submitted
here (RFC 5322 §3.6.3). All else passes as it came.
"""

from __future__ import annotations

import re

# A line beyond this is no header line, and neither is what follows it.
MAX_LINE = 65_536

_SUSPECT = re.compile(rb"(?:bcc|resent-bcc|authentication-results)[ \t]*:", re.IGNORECASE)
_SUSPECT_LINE = re.compile(rb"^" + _SUSPECT.pattern, re.IGNORECASE | re.MULTILINE)
# authserv-id (RFC 8601 §2.2): a token or a quoted string, comments before it.
_AUTHSERV_ID = re.compile(rb'\s*(?:\([^()]*\)\s*)*(?:"((?:[^"\\]|\\.)*)"|([^\s;"()]+))')


class HeaderFilter:
    """The filter of one message."""

    __slots__ = ("_authserv_id", "_field", "_held", "_is_done", "_without_bcc")

    def __init__(self, authserv_id: str, *, without_bcc: bool) -> None:
        """`authserv_id` is what this hub calls itself in Authentication-Results."""
        self._authserv_id = authserv_id.lower().encode()
        self._without_bcc = without_bcc
        self._held = b""  # the start of a line whose end has not come yet
        self._field = b""  # the lines so far of a field that may have to go; empty: none
        self._is_done = False

    def feed(self, piece: bytes) -> bytes:
        """What passes of the content so far, and was not given yet."""
        if self._is_done:
            return piece
        content = self._held + piece if self._held else piece
        end = 0 if content.startswith(b"\r\n") else content.find(b"\r\n\r\n") + 2
        if end != 1 and not self._field and _SUSPECT_LINE.search(content, 0, end) is None:
            self._held = b""
            self._is_done = True
            return content
        return self._by_line(content)

    def end(self) -> bytes:
        """What was held back when the content ends within the header section."""
        held, self._held = self._held, b""
        return self._ended_field() + held

    def _by_line(self, content: bytes) -> bytes:
        passed: list[bytes] = []
        position = 0
        while (end := content.find(b"\r\n", position)) >= 0:
            line = content[position : end + 2]
            if line[0] not in b" \t":
                passed.append(self._ended_field())
            if line == b"\r\n":
                self._is_done = True
                break
            position = end + 2
            if (self._field and line[0] in b" \t") or _SUSPECT.match(line) is not None:
                self._field += line
            else:
                passed.append(line)
        self._held = content[position:]
        if self._is_done or len(self._held) > MAX_LINE:
            self._is_done = True
            passed.append(self.end())
        return b"".join(passed)

    def _ended_field(self) -> bytes:
        field, self._field = self._field, b""
        return b"" if field and self._must_go(field) else field

    def _must_go(self, field: bytes) -> bool:
        name, _, value = field.partition(b":")
        if name.strip().lower() != b"authentication-results":
            return self._without_bcc
        found = _AUTHSERV_ID.match(value)
        return found is not None and (found[1] or found[2] or b"").lower() == self._authserv_id
