"""Sessions of devices: what was said in the last one of each, without content and secrets.

In memory only, and bounded: so many devices, and so much of one session.
"""

from __future__ import annotations

import re
import time
from time import monotonic
from typing import NamedTuple

from waypost.devices.device import Device
from waypost.devices.registry import Registry
from waypost.mail.address import IPAddress
from waypost.smtp.quirks import Quirk

MAX_DIALOGUES = 1_000
# Of one session its beginning and its end are kept: three parts, each of at most so much and one
# line more. They are shifted, never searched: that is for every message of a long session.
_PART_BYTES = 1_700
_MAX_LINE = 1_000
# What a line costs besides its octets.
_LINE_BYTES = 24

CLIENT, SERVER, NOTE = "C", "S", "-"

# The beginnings of nearly all commands that come, which hold no secret: one look instead of a
# pattern for each.
_PLAIN = frozenset(
    spelling
    for verb in (b"MAIL ", b"RCPT ", b"DATA", b"RSET", b"QUIT", b"EHLO ", b"HELO ", b"BDAT ")
    for spelling in (verb, verb.lower())
)
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


# When (monotonic), who, and what: no Line, which takes ten times as long to make.
_Heard = tuple[float, str, bytes]


class Visit:
    """One session of a device; a Transcript for the engine."""

    __slots__ = (
        *("_before", "_began", "_beginning", "_left_out", "_lines", "_registry", "_room"),
        *("_is_dropped", "_tried_login", "began_at", "device"),
    )

    def __init__(self, registry: Registry, device: Device) -> None:
        self._registry = registry
        self.device = device
        self.began_at = time.time()
        self._began = monotonic()
        self._beginning: list[_Heard] = []  # for good; empty: all fits yet
        self._before: list[_Heard] = []  # what comes before _lines
        self._lines: list[_Heard] = []
        self._room = _PART_BYTES  # left for _lines; below 0: they make a part
        self._is_dropped = False  # nothing is kept of it any more
        self._left_out = 0  # how many are, behind the beginning
        self._tried_login = False

    # What the engine says.

    def heard(self, line: bytes, *, is_response: bool) -> None:
        """See Transcript."""
        if is_response or line[:5] not in _PLAIN:
            line = self._masked(line, is_response=is_response)
        self._lines.append((monotonic(), CLIENT, line))
        self._room -= len(line) + _LINE_BYTES
        if self._room < 0:
            self._shift()

    def content(self, size: int) -> None:
        """See Transcript."""
        self._keep(NOTE, b"content, %d octets" % size)

    def said(self, octets: bytes) -> None:
        """See Transcript."""
        if self._tried_login and _CHALLENGE in octets:  # there is none before
            octets = b"\r\n".join(
                _CHALLENGE + _MASK if line.startswith(_CHALLENGE) and line not in _PROMPTS else line
                for line in octets.split(b"\r\n")
            )
        self._lines.append((monotonic(), SERVER, octets))
        self._room -= len(octets) + _LINE_BYTES
        if self._room < 0:
            self._shift()

    # What the session says.

    def forgave(self, quirks: Quirk) -> None:
        """The client was forgiven these so far."""
        self._registry.forgave(self.device, quirks)

    def note(self, text: str) -> None:
        """Something that is no line."""
        self._keep(NOTE, text.encode())

    def drop(self) -> None:
        """Keep nothing of it: others take its place."""
        self._is_dropped = True
        self._shift()

    @property
    def lines(self) -> list[Line]:
        """All that was kept, in order; each reply a line of its own."""
        left_out: list[_Heard] = []
        if self._left_out:
            at = self._beginning[-1][0]
            left_out.append((at, NOTE, b"%d lines are left out" % self._left_out))
        return [
            Line(at - self._began, who, part)
            for at, who, text in (*self._beginning, *left_out, *self._before, *self._lines)
            for part in text.removesuffix(b"\r\n").split(b"\r\n")
        ]

    def _masked(self, line: bytes, *, is_response: bool) -> bytes:
        if is_response:
            return line if line == b"*" else _MASK
        if _SHOWN.fullmatch(line) is not None:
            return line
        if line.lstrip()[:4].upper() == b"AUTH":
            self._tried_login = True
            login = _AUTH.match(line)
            if login is not None:
                return line if login.end() == len(line) else login[0] + b" " + _MASK
        word = None if self._tried_login else _WORD.match(line)
        return b"%s%s (%d octets)" % (b"" if word is None else word[0] + b" ", _MASK, len(line))

    def _keep(self, who: str, text: bytes) -> None:
        self._lines.append((monotonic(), who, text))
        self._room -= len(text) + _LINE_BYTES
        if self._room < 0:
            self._shift()

    def _shift(self) -> None:
        """A part is full, or nothing is to be kept."""
        lines, self._lines, self._room = self._lines, [], _PART_BYTES
        if self._is_dropped:
            self._room = -1
            self._beginning, self._before, self._left_out = [], [], 0
            return
        at, who, text = lines[-1]  # the only one that may be long
        lines[-1] = (at, who, text[:_MAX_LINE])
        if not self._beginning:
            self._beginning = lines
        else:
            self._left_out += len(self._before)
            self._before = lines


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
