"""The client's side of an SMTP or LMTP session, without I/O (RFC 5321, RFC 2033, RFC 2920).

One transaction at a time: `start()` queues MAIL, RCPT and DATA, in one burst where the peer
offers PIPELINING; `receive()` matches replies to commands; `next_event()` says what to do next.
A peer that answers out of step, or without end, raises PeerOutOfStep: drop the connection.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from waypost.mail.address import Address
from waypost.mail.envelope import Body, Envelope, Notify, Recipient
from waypost.mail.reply import Reply
from waypost.smtp.auth import Login
from waypost.smtp.command import encode_original_recipient, encode_xtext
from waypost.smtp.replies import PeerOutOfStep, ReplyReader

_NUMBER = re.compile(r"[0-9]{1,20}")  # RFC 1870 §4, RFC 9422 §3; int() itself takes more

# Refusals of our own, before the peer is asked: it lacks what the message needs.
NEEDS_SMTPUTF8 = Reply(550, "The next host does not offer SMTPUTF8, which this mail needs", (6, 7))
NEEDS_BINARYMIME = Reply(
    554, "The next host does not offer CHUNKING and BINARYMIME, which this mail needs", (6, 3)
)
NEEDS_8BITMIME = Reply(554, "The next host does not offer 8BITMIME, which this mail needs", (6, 3))
NO_TLS_THERE = Reply(451, "The next host does not offer TLS, which is required here", (7, 4))
NO_LOGIN_THERE = Reply(
    451, "The next host does not offer a way to log in that is known here", (7, 8)
)
NEEDS_REQUIRETLS = Reply(
    550, "The next host does not offer REQUIRETLS, which this mail needs", (7, 30)
)
TOO_BIG_FOR_PEER = Reply(552, "The message is larger than the next host accepts", (3, 4))


@dataclass(frozen=True, slots=True)
class Transaction:
    """One MAIL with its recipients; sizes in octets."""

    envelope: Envelope
    recipients: Sequence[Recipient]
    size: int  # of the content on the way out
    is_eight_bit: bool  # the content may hold octets above 127


@dataclass(slots=True)
class SessionReady:
    """Greeted; transactions may start."""


@dataclass(slots=True)
class SessionRefused:
    """The peer does not want to talk; `reply` says why."""

    reply: Reply


@dataclass(slots=True)
class ContentWanted:
    """Send the content now, then call `content_sent()`. With `is_chunked` send it bare (BDAT)."""

    is_chunked: bool


@dataclass(slots=True)
class TransactionEnded:
    """One reply for each recipient of the transaction, in order."""

    replies: list[Reply]


@dataclass(slots=True)
class TlsWanted:
    """The peer waits for a handshake; then call `encrypted()`."""


ClientEvent = SessionReady | SessionRefused | TlsWanted | ContentWanted | TransactionEnded


class TlsNeed(Enum):
    """Whether a session is to be encrypted (RFC 3207)."""

    NONE = "none"  # it is already, or need not be
    OFFERED = "offered"  # where the peer offers it
    REQUIRED = "required"


class _Await(Enum):
    """What the next reply answers."""

    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "content"
    VOID = "void"  # RSET, QUIT, or content nobody wanted: whatever it says


@dataclass(slots=True)
class _Progress:
    transaction: Transaction
    replies: list[Reply | None]  # by recipient; None: accepted so far
    is_chunked: bool
    next_command: int = 0  # of the commands, when they go one by one
    rcpt_answered: int = 0
    content_answered: int = 0
    commands: list[tuple[_Await, bytes]] = field(default_factory=list)


class ClientSession:
    """One session; see the module text for the protocol of use."""

    def __init__(
        self,
        helo: str,
        *,
        is_lmtp: bool = False,
        tls: TlsNeed = TlsNeed.NONE,
        login: Login | None = None,
    ) -> None:
        """`login` None: nobody logs in. What it says is only ever sent as it is given: whether
        the session is encrypted enough for it is for the caller to decide.
        """
        self._helo = helo
        self._is_lmtp = is_lmtp
        self._tls = tls
        self.login = login
        self._reader = ReplyReader()
        self._out: list[bytes] = []
        self._awaiting: deque[_Await] = deque([_Await.GREETING])
        self._unsent = 0  # of those awaited, how many have their command still in _out
        self._events: deque[ClientEvent] = deque()
        self._progress: _Progress | None = None
        self.extensions: dict[str, str] = {}  # keyword -> parameters, upper case
        self.is_ready = False
        self.is_closing = False  # the peer said 421 or refused us: no more transactions
        self.greeting: Reply | None = None  # None: there was none yet
        self.login_reply: Reply | None = None  # as it came; None: nobody has logged in
        self.transactions = 0

    # What the caller does.

    def receive(self, received: bytes) -> None:
        """Take octets as they came. Raises PeerOutOfStep."""
        for reply, lines in self._reader.receive(received):
            self._answered(reply, lines)

    def next_event(self) -> ClientEvent | None:
        """The next thing to do; None: wait for the peer."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """Everything to send now, in one piece."""
        out = b"".join(self._out)
        self._out.clear()
        self._unsent = 0
        return out

    def start(self, transaction: Transaction) -> None:
        """Begin a transaction; the session is ready and no other is under way."""
        assert self.is_ready
        assert self._progress is None
        assert transaction.recipients
        refusal = self._why_not(transaction)
        if refusal is not None:
            self._events.append(TransactionEnded([refusal] * len(transaction.recipients)))
            return
        self.transactions += 1
        is_chunked = transaction.envelope.body is Body.BINARY_MIME
        progress = _Progress(transaction, [None] * len(transaction.recipients), is_chunked)
        progress.commands.append((_Await.MAIL, self._mail_command(transaction)))
        for recipient in transaction.recipients:
            progress.commands.append((_Await.RCPT, self._rcpt_command(recipient)))
        if not is_chunked:
            progress.commands.append((_Await.DATA, b"DATA\r\n"))
        self._progress = progress
        if "PIPELINING" in self.extensions:
            for awaited, command in progress.commands:
                self._send(awaited, command)
            progress.next_command = len(progress.commands)
        else:
            self._send_next_command(progress)

    def chunk_header(self, size: int) -> bytes:
        """The BDAT line to send before the whole content of `size` octets."""
        return b"BDAT %d LAST\r\n" % size

    def content_sent(self) -> None:
        """The content and its end mark are on their way; the verdict comes next."""
        progress = self._progress
        if progress is None:
            return  # the peer said 421 meanwhile
        # LMTP answers once for each recipient it accepted (RFC 2033 §4.2).
        accepted = sum(reply is None for reply in progress.replies)
        self._awaiting.extend([_Await.CONTENT] * (accepted if self._is_lmtp else 1))

    def lost(self, reply: Reply) -> list[Reply] | None:
        """The connection is gone in the middle of LMTP's answers: those that came stand, and the
        rest is `reply`. None: no recipient has an answer yet.
        """
        progress = self._progress
        if progress is None or not progress.content_answered:
            return None
        return [answer or reply for answer in progress.replies]

    def encrypted(self) -> None:
        """The handshake is done: what the peer said before it does not count (RFC 3207 §4.2)."""
        self._reader = ReplyReader()
        self.extensions = {}
        self.is_closing = False
        self._tls = TlsNeed.NONE
        self._say_hello()

    def quit(self) -> None:
        """Say goodbye."""
        self._send(_Await.VOID, b"QUIT\r\n")
        self.is_closing = True

    @property
    def max_recipients(self) -> int | None:
        """RCPTMAX of the peer's LIMITS (RFC 9422 §4); None: it states none."""
        return self._limit("RCPTMAX")

    @property
    def max_transactions(self) -> int | None:
        """MAILMAX of the peer's LIMITS; None: it states none."""
        return self._limit("MAILMAX")

    def takes(self, envelope: Envelope) -> bool:
        """False when the peer does not promise what the sender asks of it (RFC 8689).

        A report goes on all the same (§5), and LMTP is where mail has arrived.
        """
        needs_it = envelope.requiretls and envelope.reverse_path is not None
        return self._is_lmtp or not needs_it or "REQUIRETLS" in self.extensions

    @property
    def is_login_refused(self) -> bool:
        """True when the peer will not take this login at another time either."""
        return self.login_reply is not None and self.login_reply.is_permanent

    @property
    def reports_deliveries(self) -> bool:
        """True when the peer takes over the duty of DSNs (RFC 3461)."""
        return "DSN" in self.extensions

    # Replies.

    def _answered(self, reply: Reply, raw_lines: list[str]) -> None:
        if reply.code == 421:
            self.is_closing = True
            if self._progress is not None:
                # RFC 5321 §3.8: the peer closes, so this is the last of its replies.
                progress = self._progress
                progress.replies = [answer or reply for answer in progress.replies]
                self._awaiting.clear()
                self._end(progress)
                return
        if len(self._awaiting) <= self._unsent:
            if reply.code == 421:
                return
            # Nor may an answer be there before its command: somebody may have fed the stream.
            raise PeerOutOfStep(f"a reply to nothing: {reply}")
        awaited = self._awaiting.popleft()
        if awaited is _Await.GREETING:
            self._greeted(reply)
        elif awaited is _Await.EHLO:
            self._extended(reply, raw_lines)
        elif awaited is _Await.HELO:
            self._settled(reply)
        elif awaited is _Await.STARTTLS:
            self._tls_answered(reply)
        elif awaited is _Await.AUTH:
            self._login_answered(reply)
        elif awaited is _Await.MAIL:
            self._mail_answered(reply)
        elif awaited is _Await.RCPT:
            self._rcpt_answered(reply)
        elif awaited is _Await.DATA:
            self._data_answered(reply)
        elif awaited is _Await.CONTENT:
            self._content_answered(reply)

    def _greeted(self, reply: Reply) -> None:
        self.greeting = reply
        if not 200 <= reply.code < 300:
            self._refused(reply)
            return
        self._say_hello()

    def _say_hello(self) -> None:
        verb = "LHLO" if self._is_lmtp else "EHLO"
        self._send(_Await.EHLO, f"{verb} {self._helo}\r\n".encode())

    def _extended(self, reply: Reply, raw_lines: list[str]) -> None:
        if 200 <= reply.code < 300:
            for line in raw_lines[1:]:
                keyword, _, parameters = line.strip().partition(" ")
                self.extensions[keyword.upper()] = parameters.upper()
            self._settled(reply)
        elif reply.is_permanent and not self._is_lmtp and not self.is_closing:
            # An old server (RFC 5321 §3.2): fall back to HELO.
            self._send(_Await.HELO, f"HELO {self._helo}\r\n".encode())
        else:
            self._refused(reply)

    def _settled(self, reply: Reply) -> None:
        """Greeted: then TLS, then a login, then transactions."""
        if not 200 <= reply.code < 300 or self.is_closing:
            self._refused(reply)
        elif self._tls is not TlsNeed.NONE and "STARTTLS" in self.extensions:
            self._send(_Await.STARTTLS, b"STARTTLS\r\n")
        elif self._tls is TlsNeed.REQUIRED:
            self._refused(NO_TLS_THERE)
        elif self.login is not None:
            self._log_in(self.login)
        else:
            self._ready()

    def _ready(self) -> None:
        self.is_ready = True
        self._events.append(SessionReady())

    def _tls_answered(self, reply: Reply) -> None:
        if reply.code == 220:
            self._events.append(TlsWanted())
        elif self._tls is TlsNeed.REQUIRED or self.is_closing:
            # 454 means "not now" (RFC 3207 §4), and a 5xx to it may be mended there.
            self._refused(Reply(451, f"TLS was refused: {reply}", (7, 4)))
        else:
            self._tls = TlsNeed.NONE
            self._settled(Reply(250, "", (0, 0)))

    def _log_in(self, login: Login) -> None:
        command = login.begin(self.extensions.get("AUTH", "").split())
        if command is None:
            self._refused(NO_LOGIN_THERE)
        else:
            self._send(_Await.AUTH, command)

    def _login_answered(self, reply: Reply) -> None:
        assert self.login is not None
        if reply.code == 334:
            answer = self.login.go_on(reply.text)
            if answer is None:
                raise PeerOutOfStep("challenges without end")
            self._send(_Await.AUTH, answer)
        elif reply.code == 235:
            self.login_reply = reply
            self._ready()
        else:
            self.login_reply = reply
            # Ours to mend, so mail waits rather than going back (RFC 4954 §6).
            said = self.login.masked(str(reply))
            if self.login.trouble:
                said += f" ({self.login.trouble})"
            self._refused(Reply(451, f"The login was refused: {said}", (7, 8)))

    def _refused(self, reply: Reply) -> None:
        if 200 <= reply.code < 400:
            raise PeerOutOfStep(f"a greeting must not be answered so: {reply}")
        self.is_closing = True
        self._events.append(SessionRefused(reply))

    def _mail_answered(self, reply: Reply) -> None:
        progress = self._transaction(reply, 2)
        if not reply.is_positive:
            progress.replies = [reply] * len(progress.replies)
        self._go_on(progress)

    def _rcpt_answered(self, reply: Reply) -> None:
        progress = self._transaction(reply, 2)
        index = progress.rcpt_answered
        progress.rcpt_answered += 1
        if not reply.is_positive and progress.replies[index] is None:
            progress.replies[index] = reply
        self._go_on(progress)

    def _data_answered(self, reply: Reply) -> None:
        progress = self._transaction(reply, 3)
        has_recipients = any(answer is None for answer in progress.replies)
        if reply.is_positive and has_recipients:
            self._events.append(ContentWanted(is_chunked=False))
        elif reply.is_positive:
            # All recipients were refused, yet DATA was taken (RFC 2920 §3.1): send nothing.
            self._send(_Await.VOID, b".\r\n")
            self._end(progress)
        else:
            progress.replies = [answer or reply for answer in progress.replies]
            self._end(progress, needs_reset=True)

    def _content_answered(self, reply: Reply) -> None:
        progress = self._transaction(reply, 2)
        if self._is_lmtp:
            while progress.replies[progress.content_answered] is not None:
                progress.content_answered += 1
            progress.replies[progress.content_answered] = reply
            progress.content_answered += 1
            if all(answer is not None for answer in progress.replies):
                self._end(progress)
        else:
            progress.replies = [answer or reply for answer in progress.replies]
            self._end(progress)

    def _transaction(self, reply: Reply, expected: int) -> _Progress:
        if self._progress is None or (reply.is_positive and reply.code // 100 != expected):
            raise PeerOutOfStep(f"not a reply to this command: {reply}")
        return self._progress

    # Commands.

    def _go_on(self, progress: _Progress) -> None:
        if progress.next_command < len(progress.commands):
            if all(answer is not None for answer in progress.replies):
                self._end(progress, needs_reset=True)
            else:
                self._send_next_command(progress)
        elif progress.is_chunked and progress.rcpt_answered == len(progress.replies):
            if all(answer is not None for answer in progress.replies):
                self._end(progress, needs_reset=True)
            else:
                self._events.append(ContentWanted(is_chunked=True))

    def _send_next_command(self, progress: _Progress) -> None:
        awaited, command = progress.commands[progress.next_command]
        progress.next_command += 1
        if awaited is _Await.DATA and all(answer is not None for answer in progress.replies):
            self._end(progress, needs_reset=True)
            return
        self._send(awaited, command)

    def _send(self, awaited: _Await, command: bytes) -> None:
        self._awaiting.append(awaited)
        self._out.append(command)
        self._unsent += 1

    def _end(self, progress: _Progress, *, needs_reset: bool = False) -> None:
        self._progress = None
        if needs_reset and not self.is_closing:
            self._send(_Await.VOID, b"RSET\r\n")
        replies = [answer for answer in progress.replies if answer is not None]
        self._events.append(TransactionEnded(replies))

    def _why_not(self, transaction: Transaction) -> Reply | None:
        """Our own refusal when the peer lacks what the message needs; None: it has all."""
        extensions = self.extensions
        envelope = transaction.envelope
        if "SMTPUTF8" not in extensions and (
            envelope.smtputf8
            or not all(recipient.forward_path.is_ascii for recipient in transaction.recipients)
            or not (envelope.reverse_path is None or envelope.reverse_path.is_ascii)
        ):
            return NEEDS_SMTPUTF8
        if envelope.body is Body.BINARY_MIME:
            if "BINARYMIME" not in extensions or "CHUNKING" not in extensions:
                return NEEDS_BINARYMIME
        elif envelope.body is Body.EIGHT_BIT_MIME and transaction.is_eight_bit:
            # RFC 6152 §3: convert or return. A body that never announced 8BITMIME is sent as it
            # came, as everybody does.
            if "8BITMIME" not in extensions:
                return NEEDS_8BITMIME
        if not self.takes(envelope):
            return NEEDS_REQUIRETLS
        limit = extensions.get("SIZE", "")
        if _NUMBER.fullmatch(limit) is not None and 0 < int(limit) < transaction.size:
            return TOO_BIG_FOR_PEER
        return None

    def _mail_command(self, transaction: Transaction) -> bytes:
        envelope = transaction.envelope
        extensions = self.extensions
        words = [f"MAIL FROM:<{'' if envelope.reverse_path is None else envelope.reverse_path}>"]
        if "SIZE" in extensions:
            words.append(f"SIZE={transaction.size}")
        if envelope.body is Body.BINARY_MIME:
            words.append("BODY=BINARYMIME")
        elif transaction.is_eight_bit and "8BITMIME" in extensions:
            words.append("BODY=8BITMIME")
        if envelope.smtputf8:
            words.append("SMTPUTF8")
        if envelope.requiretls and "REQUIRETLS" in extensions:
            words.append("REQUIRETLS")
        if "DSN" in extensions:
            if envelope.ret is not None:
                words.append(f"RET={envelope.ret}")
            if envelope.envid is not None:
                words.append(f"ENVID={encode_xtext(envelope.envid)}")
        return _command_line(words)

    def _rcpt_command(self, recipient: Recipient) -> bytes:
        words = [f"RCPT TO:<{recipient.forward_path}>"]
        if "DSN" in self.extensions:
            if recipient.notify is not None:
                words.append(f"NOTIFY={_notify_words(recipient.notify)}")
            original = recipient.original_recipient
            if original is None and recipient.notify is not None:
                original = _as_original(recipient.forward_path)
            if original is not None:
                words.append(f"ORCPT={encode_original_recipient(original)}")
        return _command_line(words)

    def _limit(self, name: str) -> int | None:
        for word in self.extensions.get("LIMITS", "").split():
            key, _, value = word.partition("=")
            if key == name and _NUMBER.fullmatch(value) is not None and int(value) > 0:
                return int(value)
        return None


def _notify_words(notify: Notify) -> str:
    return ",".join(word.name or "" for word in notify) or "NEVER"


def _as_original(address: Address) -> str:
    return f"{'rfc822' if address.is_ascii else 'utf-8'};{address}"


def _command_line(words: list[str]) -> bytes:
    """One command; commands are built from typed values, and still nothing may split the line."""
    line = " ".join(words).encode()
    if b"\r" in line or b"\n" in line or b"\0" in line:
        raise ValueError("a command must be one line")
    return line + b"\r\n"
