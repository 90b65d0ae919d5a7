"""Command lines out of a client's octets, and replies to it: what a session stands on.

Owns the buffers and where lines end; what a line means is smtp/server's. A line that is no line is
answered here, and a client that sends too many of them is closed.
"""

from __future__ import annotations

import re

from waypost.mail import reply as replies
from waypost.mail.reply import Reply
from waypost.smtp.events import Event, LoginOffer, ServerSettings, Transcript
from waypost.smtp.phase import Phase
from waypost.smtp.quirks import NO_QUIRK, Quirk
from waypost.smtp.sasl import MAX_LOGIN_LINE, LoginDialogue

# RFC 5321 §4.5.3.1.4, CRLF included; MAIL and RCPT grow with their extensions (RFC 1870 §3,
# RFC 3461 §5.4, RFC 6531 §3.4), here with room to spare.
MAX_COMMAND_LINE = 512
MAX_PATH_COMMAND_LINE = 2048
MAX_JUNK_COMMANDS = 20

# What no command line of a stranger may hold; a tab is harmless.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# What a trusted client may say for QUIT: anything that begins like it.
ODD_QUIT = re.compile(rb"[ \t]*QUIT", re.IGNORECASE)


class LineSession:
    """The lines of one session."""

    __slots__ = (
        "_answering",
        "_bad_lines",
        "_buffer",
        "_dialogue",
        "_failed_logins",
        "_junk",
        "_login_offer",
        "_out",
        "_overlong",
        "_position",
        "_refused_line",
        "_settings",
        "ended_by",
        "is_encrypted",
        "login",
        "phase",
        "quirks",
        "transcript",
    )

    def __init__(
        self, settings: ServerSettings, login_offer: LoginOffer | None, *, is_encrypted: bool
    ) -> None:
        self._settings = settings
        self._login_offer = login_offer  # None: nobody can log in
        self.is_encrypted = is_encrypted
        self._buffer = b""
        self._position = 0
        self._out: list[bytes] = []
        self._answering: Event | None = None
        self._dialogue: LoginDialogue | None = None  # None: no login is under way
        self._failed_logins = 0
        self._junk = 0
        self._bad_lines = 0
        self._overlong = False
        self._refused_line = False
        self.ended_by: Reply | None = None  # None: nothing was refused for good
        self.login: str | None = None  # who is logged in, as the caller has it; None: nobody
        self.phase = Phase.CONNECTED
        self.quirks = NO_QUIRK  # what was forgiven so far
        self.transcript: Transcript | None = None  # None: nobody follows

    def receive(self, received: bytes) -> None:
        """Take octets as they came; `next_event()` works on them."""
        if self.phase is Phase.CLOSED:
            self._buffer = b""  # nobody will look at them
        elif self._position < len(self._buffer):
            self._buffer = self._buffer[self._position :] + received
        else:
            self._buffer = received
        self._position = 0

    def refuse(self, reply: Reply) -> None:
        """Say `reply` unasked and close: 421 when idle, busy or going down."""
        self._out.append(reply.wire)
        self._answering = None
        self.ended_by = reply
        self.phase = Phase.CLOSED

    def data_to_send(self) -> bytes:
        """Everything to send now, in one piece."""
        out = self._out
        if not out:
            return b""
        self._out = []
        octets = out[0] if len(out) == 1 else b"".join(out)
        if self.transcript is not None:
            self.transcript.said(octets)
        return octets

    @property
    def is_answering(self) -> bool:
        """True between an event and its answer."""
        return self._answering is not None

    @property
    def buffered_bytes(self) -> int:
        """Octets received and not looked at yet."""
        return len(self._buffer) - self._position

    # Lines.

    def _next_line(self) -> bytes | None:
        """The next command line without its end; None: not complete yet, or closed."""
        while True:
            end = self._buffer.find(b"\n", self._position)
            if end < 0:
                waiting = len(self._buffer) - self._position
                if waiting > self._max_line:
                    # Keep nothing of a line that is too long anyway.
                    self._overlong = True
                    keep = 1 if self._buffer.endswith(b"\r") else 0
                    self._position = len(self._buffer) - keep
                return None
            line = self._buffer[self._position : end]
            self._position = end + 1
            is_overlong, self._overlong = self._overlong, False
            # RFC 5321 §2.3.8: only CRLF ends a line. A stranger's line with a bare LF is refused
            # at once, and what follows up to the CRLF is of the same line.
            was_refused, self._refused_line = (
                self._refused_line,
                not (line.endswith(b"\r") or self._settings.lenient),
            )
            if was_refused and not self._refused_line:
                continue
            if not was_refused and (is_overlong or len(line) > self._max_line):
                self._leave_login()
                self.quirks |= Quirk.LINE_TOO_LONG
                self._say_junk(replies.LINE_TOO_LONG)
            elif line.endswith(b"\r") and _CONTROL.search(line := line[:-1]) is None:
                return line
            elif self._settings.lenient and (b"\0" not in line or ODD_QUIT.match(line) is not None):
                # A bare LF ends the line for a trusted client; bare CRs go (device quirks).
                return self._mended(line)
            else:
                self._bad_line()
            if self.phase is Phase.CLOSED:
                return None

    def _mended(self, line: bytes) -> bytes:
        if self._buffer[self._position - 2 : self._position] != b"\r\n":
            self.quirks |= Quirk.BARE_LF
        without = line.replace(b"\r", b"")
        if without != line:
            self.quirks |= Quirk.BARE_CR
        if _CONTROL.search(without) is not None:
            self.quirks |= Quirk.CONTROLS
        return without

    @property
    def _max_line(self) -> int:
        return MAX_PATH_COMMAND_LINE if self._login_offer is None else MAX_LOGIN_LINE

    def _bad_line(self) -> None:
        self._leave_login()
        self._bad_lines += 1
        if self._bad_lines >= 2:
            self.refuse(replies.TOO_MANY_ERRORS)
        else:
            self._out.append(replies.BAD_LINE_END.wire)

    def _say_junk(self, reply: Reply) -> None:
        self._out.append(reply.wire)
        self._count_junk()

    def _count_junk(self) -> None:
        self._junk += 1
        if self._junk >= MAX_JUNK_COMMANDS:
            self.refuse(replies.TOO_MANY_ERRORS)

    def _leave_login(self) -> None:
        """End an exchange, if one is under way, with nobody logged in."""
        self._dialogue = None
        if self.phase is Phase.LOGIN:
            self.phase = Phase.READY
            self.login = None
