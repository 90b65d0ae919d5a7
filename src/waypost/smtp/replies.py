"""A peer's replies out of its octets, without I/O (RFC 5321 §4.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from waypost.mail.reply import Reply

# RFC 5321 §4.5.3.1.5 allows 512 octets a line; no honest reply comes near this in all.
MAX_REPLY_BYTES = 32_768

_REPLY_LINE = re.compile(rb"([2-5][0-9]{2})([ \-]?)(.*)", re.DOTALL)


class PeerOutOfStep(Exception):
    """The peer's replies cannot be matched to our commands any more."""

    def __init__(self, reason: str, heard: bytes = b"") -> None:
        """`heard` is what is no reply at all: the word of a service that does not speak SMTP."""
        super().__init__(f"{reason}: {heard[:80]!r}" if heard else reason)
        self.reason = reason


class ReplyReader:
    """Puts lines together to replies."""

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[str] = []
        self._code = 0
        self._reply_bytes = 0

    def receive(self, received: bytes) -> Iterator[tuple[Reply, list[str]]]:
        """Take octets as they came; each reply they end, and its lines as they were.

        Raises PeerOutOfStep for what is no reply, or one without end.
        """
        buffer = self._buffer + received if self._buffer else received
        start = 0
        while (end := buffer.find(b"\n", start)) >= 0:
            reply = self._line(buffer[start:end].rstrip(b"\r"))
            start = end + 1
            if reply is not None:
                yield reply
        self._buffer = buffer[start:]
        if self._reply_bytes + len(self._buffer) > MAX_REPLY_BYTES:
            raise PeerOutOfStep("a reply without end")

    def _line(self, line: bytes) -> tuple[Reply, list[str]] | None:
        self._reply_bytes += len(line) + 2
        match = _REPLY_LINE.fullmatch(line)
        if match is None or self._reply_bytes > MAX_REPLY_BYTES:
            raise PeerOutOfStep("not a reply", line)
        code = int(match[1])
        if self._lines and code != self._code:
            raise PeerOutOfStep(f"a reply with two codes, {self._code} and {code}")
        self._code = code
        self._lines.append(match[3].decode("utf-8", "replace"))
        if match[2] == b"-":
            return None
        lines, self._lines = self._lines, []
        self._reply_bytes = 0
        return Reply.received(code, lines), lines
