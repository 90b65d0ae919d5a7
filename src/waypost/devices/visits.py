"""Sessions of devices: what was said in the last one of each, without content and secrets.

In memory only, and bounded: so many devices, and so much of one session.
"""

from __future__ import annotations

import re
import time
from collections import deque
from typing import NamedTuple

from waypost.devices.device import Device
from waypost.devices.registry import Registry
from waypost.mail.address import IPAddress
from waypost.smtp.quirks import Quirk

MAX_DIALOGUES = 1_000
# Of one session its beginning and its end are kept, each of at most so many octets.
_HALF_BYTES = 4_096
# What a line costs besides its octets.
_LINE_BYTES = 24

CLIENT, SERVER, NOTE = "C", "S", "-"

# Commands that are shown whole. What else a client sends may be a secret in a wrong place: some
# send their password though AUTH was refused.
_SHOWN = re.compile(
    rb"(?:EHLO|HELO|LHLO|MAIL|RCPT|DATA|BDAT|RSET|NOOP|VRFY|EXPN|HELP|QUIT|STARTTLS)(?: .*)?",
    re.IGNORECASE | re.DOTALL,
)
_AUTH = re.compile(
    rb"\s*AUTH\s+(?:PLAIN|LOGIN|CRAM-MD5|DIGEST-MD5|SCRAM-SHA-[0-9]+(?:-PLUS)?|XOAUTH2|OAUTHBEARER"
    rb"|NTLM|GSSAPI|EXTERNAL)(?=\s|$)",
    re.IGNORECASE,
)
# Of these it helps to know that they came: other protocols, and what is no part of ours.
_WORD = re.compile(
    rb"(?:GET|HEAD|POST|PUT|OPTIONS|CONNECT|USER|PASS|ETRN|SEND|SOML|SAML|TURN|XCLIENT|XFORWARD)"
    rb"(?= )",
    re.IGNORECASE,
)
# "Username:" and "Password:", and the empty challenge, tell nothing.
_PROMPTS = (b"334 VXNlcm5hbWU6", b"334 UGFzc3dvcmQ6", b"334 ")
_CHALLENGE = b"334 "
_MASK = b"***"


class Line(NamedTuple):
    """One line of a dialogue."""

    after_s: float  # since the session began
    who: str  # CLIENT, SERVER, or NOTE for what is no line
    text: bytes


class Visit:
    """One session of a device; a Transcript for the engine."""

    __slots__ = (
        *("_began", "_head", "_head_left", "_is_over", "_registry", "_tail", "_tail_bytes"),
        *("_tried_login", "began_at", "device", "left_out"),
    )

    def __init__(self, registry: Registry, device: Device) -> None:
        self._registry = registry
        self.device = device
        self.began_at = time.time()
        self._began = time.monotonic()
        self._head: list[Line] = []
        self._head_left = _HALF_BYTES
        self._tail: deque[Line] = deque()
        self._tail_bytes = 0
        self.left_out = 0  # lines between the beginning and the end
        self._tried_login = False
        self._is_over = False  # nothing is kept of it any more

    # What the engine says.

    def heard(self, line: bytes, *, is_response: bool) -> None:
        """See Transcript."""
        if is_response:
            line = line if line == b"*" else _MASK
        elif _SHOWN.fullmatch(line) is None:
            line = self._masked(line)
        self._keep(CLIENT, line)

    def content(self, size: int) -> None:
        """See Transcript."""
        self._keep(NOTE, b"content, %d octets" % size)

    def said(self, octets: bytes) -> None:
        """See Transcript."""
        if _CHALLENGE in octets:
            octets = b"\r\n".join(
                _CHALLENGE + _MASK if line.startswith(_CHALLENGE) and line not in _PROMPTS else line
                for line in octets.split(b"\r\n")
            )
        self._keep(SERVER, octets)

    # What the session says.

    def forgave(self, quirks: Quirk) -> None:
        """The client was forgiven these so far."""
        self._registry.forgave(self.device, quirks)

    def note(self, text: str) -> None:
        """Something that is no line."""
        self._keep(NOTE, text.encode())

    def drop(self) -> None:
        """Keep nothing of it: others take its place."""
        self._is_over = True
        self._head.clear()
        self._tail.clear()

    @property
    def lines(self) -> list[Line]:
        """All that was kept, in order; each reply a line of its own."""
        lines = list(self._head)
        if self.left_out:
            text = b"%d lines are left out" % self.left_out
            lines.append(Line(self._tail[0].after_s, NOTE, text))
        lines += self._tail
        return [
            kept._replace(text=part)
            for kept in lines
            for part in kept.text.removesuffix(b"\r\n").split(b"\r\n")
        ]

    def _masked(self, line: bytes) -> bytes:
        if line.lstrip()[:4].upper() == b"AUTH":
            self._tried_login = True
            login = _AUTH.match(line)
            if login is not None:
                return line if login.end() == len(line) else login[0] + b" " + _MASK
        word = None if self._tried_login else _WORD.match(line)
        return b"%s%s (%d octets)" % (b"" if word is None else word[0] + b" ", _MASK, len(line))

    def _keep(self, who: str, text: bytes) -> None:
        if self._is_over:
            return
        line = Line(time.monotonic() - self._began, who, text[:_HALF_BYTES])
        cost = len(line.text) + _LINE_BYTES
        if self._head_left >= cost and not self._tail:
            self._head_left -= cost
            self._head.append(line)
            return
        self._head_left = 0
        self._tail.append(line)
        self._tail_bytes += cost
        while self._tail_bytes > _HALF_BYTES and len(self._tail) > 1:
            self._tail_bytes -= len(self._tail.popleft().text) + _LINE_BYTES
            self.left_out += 1


class Visits:
    """The last session of each device."""

    def __init__(self, registry: Registry, *, max_dialogues: int = MAX_DIALOGUES) -> None:
        self._registry = registry
        self._max_dialogues = max_dialogues
        self._last: dict[IPAddress, Visit] = {}  # the latest at the end

    def begin(self, client: IPAddress) -> Visit | None:
        """A trusted client has come; None: there is no room for another device."""
        device = self._registry.meet(client)
        if device is None:
            return None
        visit = Visit(self._registry, device)
        self._last.pop(client, None)
        self._last[client] = visit
        if len(self._last) > self._max_dialogues:
            self._last.pop(next(iter(self._last))).drop()
        return visit

    def last(self, client: IPAddress) -> Visit | None:
        """The session of a device that began last; None: nothing is kept of one."""
        return self._last.get(client)

    def forget(self, client: IPAddress) -> None:
        """The device is to be known no more."""
        visit = self._last.pop(client, None)
        if visit is not None:
            visit.drop()
