"""SMTP replies and enhanced status codes (RFC 5321 §4.2, RFC 3463).

The class of the enhanced code is computed from the reply code, so the two cannot disagree.
The named standard replies stand at the end, rendered once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

_ENHANCED = re.compile(r"[245]\.(\d{1,3})\.(\d{1,3})(?:\s|$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: three-digit code, enhanced status, and one or more lines of text."""

    code: int
    text: str  # lines are separated by "\n"; no CR
    status: tuple[int, int] | None = None  # subject and detail of RFC 3463; None: sent without one
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # RFC 5321 §4.2: replies are ASCII; none of ours quotes what a client wrote in UTF-8.
        prefix = "" if self.status is None else f"{self.enhanced} "
        if "\n" not in self.text:
            wire = f"{self.code} {prefix}{self.text}\r\n".encode("ascii", "replace")
            object.__setattr__(self, "wire", wire)
            return
        lines = self.text.split("\n")
        rendered = [f"{self.code}-{prefix}{line}\r\n" for line in lines[:-1]]
        rendered.append(f"{self.code} {prefix}{lines[-1]}\r\n")
        object.__setattr__(self, "wire", "".join(rendered).encode("ascii", "replace"))

    @property
    def enhanced(self) -> str:
        """The enhanced status code, for example ``5.1.1``; x.0.0 when none was given."""
        subject, detail = self.status or (0, 0)
        return f"{self.code // 100}.{subject}.{detail}"

    @property
    def is_positive(self) -> bool:
        """2xx or 3xx."""
        return self.code < 400

    @property
    def is_transient(self) -> bool:
        """4xx: the same again later may succeed."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5xx."""
        return self.code >= 500

    def __str__(self) -> str:
        return self.wire.decode().rstrip("\r\n").replace("\r\n", " / ")

    @classmethod
    def received(cls, code: int, lines: list[str]) -> Reply:
        """A peer's reply: the enhanced code is taken out of the text where it stands."""
        return _received(code, tuple(lines))


# A peer says the same few things all day.
@lru_cache(maxsize=1024)
def _received(code: int, lines: tuple[str, ...]) -> Reply:
    status: tuple[int, int] | None = None
    texts: list[str] = []
    for line in lines:
        found = _ENHANCED.match(line)
        if found is not None and line[0] == str(code // 100):
            status = status or (int(found[1]), int(found[2]))
            line = line[found.end() :]
        # A peer's controls must not reach a log line, a report or a terminal.
        words = line.replace("\t", " ").strip()
        texts.append("".join(c if c.isprintable() else "?" for c in words))
    return Reply(code, "\n".join(texts), status)


OK = Reply(250, "Ok", (0, 0))
RESET = Reply(250, "Ok", (0, 0))
SENDER_OK = Reply(250, "Sender ok", (1, 0))
RECIPIENT_OK = Reply(250, "Recipient ok", (1, 5))
START_CONTENT = Reply(354, "Send the message, end with <CRLF>.<CRLF>")
CANNOT_VERIFY = Reply(252, "Send some mail, I will try to deliver it", (1, 5))
HELP = Reply(
    214,
    "Commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP\nRFC 5321; this is Waypost",
    (0, 0),
)

REQUIRETLS_NEEDS_TLS = Reply(555, "REQUIRETLS is for sessions over TLS (RFC 8689)", (5, 4))
READY_FOR_TLS = Reply(220, "Ready to start TLS", (0, 0))
NOTHING_BEFORE_TLS = Reply(554, "Something followed STARTTLS in clear, closing", (5, 1))
NOT_IN_THIS_ORDER = Reply(503, "Bad sequence of commands", (5, 1))
GREET_FIRST = Reply(503, "Say EHLO or HELO first", (5, 1))
UNKNOWN_COMMAND = Reply(500, "Command not recognised", (5, 2))
NOT_IMPLEMENTED = Reply(502, "Command not implemented", (5, 1))
LINE_TOO_LONG = Reply(500, "Line too long", (5, 2))
NOT_UTF8 = Reply(500, "Not UTF-8", (5, 2))
BAD_LINE_END = Reply(500, "A command line holds a bare CR, a bare LF or a control", (5, 2))
NO_VALID_RECIPIENTS = Reply(554, "No valid recipients", (5, 1))
BINARY_NEEDS_BDAT = Reply(503, "BODY=BINARYMIME needs BDAT", (5, 1))
TOO_MANY_ERRORS = Reply(421, "Too many errors, closing", (7, 0))
IDLE_TOO_LONG = Reply(421, "Idle too long, closing", (4, 2))
SHUTTING_DOWN = Reply(421, "Going down, come back soon", (3, 2))
TOO_BUSY = Reply(421, "Too many connections, come back soon", (3, 2))
TOO_MANY_CONNECTIONS = Reply(421, "Too many connections from your address, close some", (7, 0))
TOO_MANY_CONNECTIONS_A_MINUTE = Reply(
    421, "Too many connections from your address in a minute, come back later", (7, 0)
)
TOO_MANY_MESSAGES_A_MINUTE = Reply(
    450, "Too many messages from your address in a minute, come back later", (7, 1)
)
TOO_MANY_RECIPIENTS_A_MINUTE = Reply(
    450, "Too many recipients from your address in a minute, come back later", (7, 1)
)
SPOKE_TOO_EARLY = Reply(554, "You spoke before the greeting (RFC 5321 3.1), closing", (5, 1))
OUT_OF_STEP = Reply(
    554, "You went on before the answer you had to wait for (RFC 2920), closing", (5, 1)
)
TOO_LONG_WITHOUT_MAIL = Reply(421, "A session without mail for too long, closing", (4, 2))
NO_END_MARK = Reply(421, "Your mail had no CRLF.CRLF at its end: only QUIT now, closing", (5, 2))
TOO_SLOW = Reply(421, "The content comes too slowly, closing", (4, 2))
NOT_ALLOWED_TO_CONNECT = Reply(554, "This listener does not serve your network", (7, 1))
MESSAGE_TOO_BIG = Reply(552, "The message is larger than the limit here", (3, 4))
TOO_MANY_RECIPIENTS = Reply(452, "Too many recipients, send the rest separately", (5, 3))
BARE_LINE_ENDS = Reply(
    550, "The content holds a bare CR, a bare LF or a NUL (RFC 5321 2.3.8)", (6, 0)
)
LOOP = Reply(554, "Too many Received fields, this is a loop", (4, 6))
NO_SUCH_MAILBOX = Reply(550, "No such mailbox here", (1, 1))
# Not which: a stranger is not to learn who has a mailbox here.
AMBIGUOUS = Reply(550, "Several domains share this address; write the domain's name", (1, 4))
RELAY_DENIED = Reply(550, "Relaying is not allowed for you", (7, 1))
LOGIN_NEEDED = Reply(530, "Authentication required", (7, 0))
LOGIN_NEEDS_TLS = Reply(538, "Say STARTTLS first: logins go over TLS only", (7, 11))
LOGGED_IN = Reply(235, "Logged in", (7, 0))
LOGIN_REFUSED = Reply(535, "Name or password is wrong", (7, 8))
LOGIN_UNREADABLE = Reply(501, "The login cannot be read", (5, 2))
LOGIN_GIVEN_UP = Reply(501, "The login was given up", (7, 0))
UNKNOWN_MECHANISM = Reply(504, "This way to log in is not offered here", (5, 4))
TOO_MANY_LOGINS = Reply(421, "Too many failed logins, closing", (7, 0))
LOGIN_LATER = Reply(454, "Too many logins now, try again later", (7, 0))
LITERAL_NOT_PROVEN = Reply(
    550, "You are not the host of this sender's address (policy.literal_sender)", (7, 1)
)
SENDER_NOT_YOURS = Reply(553, "This login may not use that sender", (7, 1))
QUEUE_FULL = Reply(452, "No room to keep the message now", (3, 1))
STORE_AWAY = Reply(451, "The message store is not available now", (3, 0))
NO_SUCH_ROUTE = Reply(550, "There is no route of that name", (3, 5))
NEEDS_SMTPUTF8 = Reply(553, "This address needs SMTPUTF8 (RFC 6531)", (6, 7))
