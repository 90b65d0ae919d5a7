"""The server's side of an SMTP or LMTP session, without I/O (RFC 5321, RFC 2033).

Owns order and state: which command may come now, what it means, and that the stream stays in
step whatever a client sends. Decisions are the caller's: `next_event()` gives an event, and the
engine reads no further until `answer()` (content chunks alone need no answer).

Extensions: PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152), BINARYMIME and CHUNKING (3030),
SMTPUTF8 (6531), ENHANCEDSTATUSCODES (2034), DSN (3461), LIMITS (9422), STARTTLS (3207), AUTH
(4954), REQUIRETLS (8689).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache

from waypost.mail import reply as replies
from waypost.mail.envelope import Body
from waypost.mail.reply import Reply
from waypost.smtp import command as grammar
from waypost.smtp.command import CommandRefused, MailRequested, RcptRequested
from waypost.smtp.data import ChunkDecoder, DataDecoder
from waypost.smtp.events import (
    ContentChunk,
    ContentEnded,
    ContentRequested,
    Event,
    LoginOffer,
    LoginRequested,
    ServerSettings,
    TlsRequested,
    TransactionDropped,
    Transcript,
)
from waypost.smtp.quirks import NO_QUIRK, Quirk
from waypost.smtp.sasl import MAX_LOGIN_LINE, LoginDialogue, Step

# RFC 5321 §4.5.3.1.4, CRLF included; MAIL and RCPT grow with their extensions (RFC 1870 §3,
# RFC 3461 §5.4, RFC 6531 §3.4), here with room to spare.
MAX_COMMAND_LINE = 512
MAX_PATH_COMMAND_LINE = 2048
MAX_JUNK_COMMANDS = 20
# RFC 4954 §4: a session may end after some failed logins.
MAX_FAILED_LOGINS = 3


class Phase(IntEnum):
    """Where the session stands; each value is a row of the table."""

    CONNECTED = 0  # no greeting from the client yet
    READY = 1  # greeted, no transaction
    SENDER = 2  # MAIL taken, no recipient taken yet
    RECIPIENTS = 3  # at least one recipient taken
    CHUNKS = 4  # between the BDAT chunks of one message
    FAILED = 5  # a BDAT message is lost; only RSET, EHLO or QUIT lead on (RFC 3030 §2)
    LOGIN = 6  # in an AUTH exchange: every line is an answer to a challenge
    DATA = 7  # reading content up to the end mark
    CHUNK = 8  # reading the octets of one BDAT chunk
    CLOSED = 9


class ServerSession:
    """One session; see the module text for the protocol of use."""

    __slots__ = (
        "_answering",
        "_bad_lines",
        "_buffer",
        "_chunk_is_last",
        "_chunk_left",
        "_chunk_size",
        "_chunks",
        "_data",
        "_dialogue",
        "_ended_in_silence",
        "_failed_logins",
        "_fault",
        "_junk",
        "_login_offer",
        "_name",
        "_out",
        "_overlong",
        "_position",
        "_refused_line",
        "_resume",
        "_settings",
        "_size",
        "_table",
        "body",
        "ended_by",
        "extended",
        "helo",
        "is_encrypted",
        "login",
        "offers_tls",
        "phase",
        "quirks",
        "recipients",
        "smtputf8",
        "transcript",
    )

    def __init__(
        self,
        settings: ServerSettings,
        name: str,
        *,
        offers_tls: bool = False,
        is_encrypted: bool = False,
        login_offer: LoginOffer | None = None,
    ) -> None:
        """`name` is what the hub calls itself: its host name, or the literal connected to.

        `offers_tls`: STARTTLS is there for the asking; `is_encrypted`: TLS came first;
        `login_offer` None: nobody can log in.
        """
        self._login_offer = login_offer
        self._dialogue: LoginDialogue | None = None  # None: no login is under way
        self._failed_logins = 0
        self.login: str | None = None  # who is logged in, as the caller has it; None: nobody
        self.offers_tls = offers_tls
        self.is_encrypted = is_encrypted
        self._settings = settings
        self._table = _LMTP if settings.is_lmtp else _SMTP
        self._name = name
        self._buffer = b""
        self._position = 0
        self._out: list[bytes] = []
        self._answering: Event | None = None
        self._resume: Phase = Phase.READY
        self._data: DataDecoder | None = None
        self._chunks: ChunkDecoder | None = None
        self._chunk_left = 0
        self._chunk_size = 0
        self._chunk_is_last = False
        self._fault: Reply | None = None
        self._size = 0
        self._junk = 0
        self._bad_lines = 0
        self._ended_in_silence = False
        self._overlong = False
        self._refused_line = False
        self.ended_by: Reply | None = None  # None: nothing was refused for good
        self.phase = Phase.CONNECTED
        self.helo = ""
        self.extended = False  # greeted with EHLO or LHLO
        self.body: Body | None = None
        self.smtputf8 = False
        self.recipients = 0
        self.quirks = NO_QUIRK  # what was forgiven so far
        self.transcript: Transcript | None = None  # None: nobody follows

    # What the caller does.

    def greet(self) -> None:
        """Say 220; LMTP says so in its greeting (RFC 2033 §4.1)."""
        self._out.append(_greeting(self._name, self._settings.is_lmtp, self._settings.software))

    def receive(self, received: bytes) -> None:
        """Take octets as they came; `next_event()` works on them."""
        if self.phase is Phase.CLOSED:
            self._buffer = b""  # nobody will look at them
        elif self._position < len(self._buffer):
            self._buffer = self._buffer[self._position :] + received
        else:
            self._buffer = received
        self._position = 0

    def next_event(self) -> Event | None:
        """The next thing to decide; None: more octets, or `answer()`, are needed first."""
        while self._answering is None and self.phase is not Phase.CLOSED:
            phase = self.phase
            if phase < Phase.DATA and self._position >= len(self._buffer):
                return None
            if phase is Phase.DATA:
                event = self._read_data()
            elif phase is Phase.CHUNK:
                event = self._read_chunk()
            else:
                line = self._next_line()
                if line is None:
                    return None
                # Asked anew: a line before this one may have ended the login by its form.
                is_response = self.phase is Phase.LOGIN
                if self.transcript is not None:
                    self.transcript.heard(line, is_response=is_response)
                event = self._response(line) if is_response else self._command(line)
            if event is None:
                if self.phase is phase and (phase is Phase.DATA or phase is Phase.CHUNK):
                    return None
                continue
            if type(event) is not ContentChunk and type(event) is not TransactionDropped:
                self._answering = event
            return event
        return None

    def answer(self, reply: Reply, *others: Reply) -> None:
        """Answer the event given last; `others` are LMTP's replies for further recipients."""
        event, self._answering = self._answering, None
        if type(event) is ContentRequested:
            self._answer_content_request(reply)
            return
        if type(event) is LoginRequested:
            assert self._dialogue is not None  # it made the claim
            self._went_on(self._dialogue.judged(event.claim, reply))
            return
        self._out.append(reply.wire)
        for other in others:
            self._out.append(other.wire)
        if reply.code == 421:
            self.phase = Phase.CLOSED
        elif type(event) is MailRequested:
            if reply.is_positive:
                self.phase = Phase.SENDER
            else:
                self._end_transaction()
        elif type(event) is RcptRequested:
            if reply.is_positive:
                self.recipients += 1
                self.phase = Phase.RECIPIENTS
            elif reply.is_permanent:
                self._count_junk()
        elif type(event) is ContentEnded:
            self._end_transaction()

    def refuse(self, reply: Reply) -> None:
        """Say `reply` unasked and close: 421 when idle, busy or going down."""
        self._out.append(reply.wire)
        self._answering = None
        self.ended_by = reply
        self.phase = Phase.CLOSED

    @property
    def may_have_ended(self) -> bool:
        """True when content stands where a trusted client may wait for our answer already."""
        return self._data is not None and self._data.may_be_ended

    def end_content(self) -> None:
        """The client does wait: what was sent is all of the content.

        If that is wrong, what follows is content still: no other command is obeyed but QUIT.
        """
        assert self._data is not None
        self._ended_in_silence = True
        self._data.end()

    def encrypted(self) -> None:
        """The handshake is done: what was said before it was never said (RFC 3207 §4.2)."""
        self.login = None
        self.offers_tls = False
        self.is_encrypted = True
        self._buffer = b""
        self._position = 0
        self._end_transaction()
        self.phase = Phase.CONNECTED
        self.helo = ""
        self.extended = False

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

    @property
    def protocol(self) -> str:
        """For "with" in Received (RFC 3848, RFC 6531 §4.3)."""
        base = "LMTP" if self._settings.is_lmtp else ("ESMTP" if self.extended else "SMTP")
        if self.smtputf8:
            base = "UTF8LMTP" if self._settings.is_lmtp else "UTF8SMTP"
        # RFC 3848 has no word for SMTP without EHLO over TLS, nor for a login there.
        if base == "SMTP":
            return base
        return f"{base}{'S' if self.is_encrypted else ''}{'A' if self.login is not None else ''}"

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
            elif self._settings.lenient and (b"\0" not in line or _QUIT.match(line) is not None):
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

    # Commands.

    def _command(self, line: bytes) -> Event | None:
        is_lenient = self._settings.lenient
        if is_lenient:
            line = line.strip(b" \t")
        raw_verb, _, raw_argument = line.partition(b" ")
        verb = raw_verb.upper()
        if is_lenient and _QUIT.match(verb) is not None:
            # A device that hears 500 at the end takes its mail for lost, and sends it again.
            verb = b"QUIT"
        if self._ended_in_silence and verb != b"QUIT":
            self.refuse(replies.NO_END_MARK)
            return None
        if verb == b"BDAT":
            return self._start_chunk(raw_argument)
        if self._goes_on_too_soon(verb):
            self.refuse(replies.OUT_OF_STEP)
            return None
        action = self._table[self.phase].get(verb)
        if action is None:
            self._out_of_order(verb)
            return None
        if len(line) + 2 > _LONGER.get(verb, MAX_COMMAND_LINE):
            self._say_junk(replies.LINE_TOO_LONG)
            return None
        try:
            if is_lenient and verb in _GREETINGS:
                # A name in GBK or Latin-1 is of no consequence, the mail behind it is.
                return action(self, raw_argument.decode("utf-8", "replace").strip(" "))
            return action(self, grammar.decode_line(raw_argument).strip(" "))
        except CommandRefused as refused:
            self._say_junk(refused.reply)
            return None

    def _goes_on_too_soon(self, verb: bytes) -> bool:
        """True when a stranger sent more behind a command whose answer it had to wait for.

        Programs that send blindly do so, and requests smuggled through others (RFC 2920 §3.1).
        """
        return (
            self._position < len(self._buffer)
            and self._settings.in_step
            and (not self.extended or verb in _LAST_OF_GROUP)
        )

    def _out_of_order(self, verb: bytes) -> None:
        if all(verb not in row for row in self._table):
            self._say_junk(replies.UNKNOWN_COMMAND)
        elif self.phase is Phase.CONNECTED:
            self._say_junk(replies.GREET_FIRST)
        elif verb == b"DATA":
            self._say_junk(self._why_no_content())
        else:
            self._say_junk(replies.NOT_IN_THIS_ORDER)

    def _why_no_content(self) -> Reply:
        # RFC 5321 §3.3: 554 when every RCPT was refused, 503 when none was tried; LMTP has 503
        # for both (RFC 2033 §4.2).
        if self.phase is Phase.SENDER and not self._settings.is_lmtp:
            return replies.NO_VALID_RECIPIENTS
        return replies.NOT_IN_THIS_ORDER

    def _helo(self, argument: str) -> Event | None:
        return self._greeted(argument, extended=False)

    def _ehlo(self, argument: str) -> Event | None:
        return self._greeted(argument, extended=True)

    def _greeted(self, argument: str, *, extended: bool) -> Event | None:
        # Devices greet with anything or nothing, and RFC 5321 §4.1.4 forbids refusing mail for
        # it; strangers at least have to say one printable word.
        if not self._settings.lenient and (not argument or not argument.isprintable()):
            raise CommandRefused(Reply(501, "Syntax: EHLO name-or-literal", (5, 4)))
        if not argument:
            self.quirks |= Quirk.EMPTY_HELO
        self.helo = argument
        self.extended = extended
        if extended:
            settings = self._settings
            self._out.append(
                _extensions(
                    *(self._name, settings.max_message_bytes, settings.max_recipients),
                    *(self.offers_tls, self._offered_mechanisms(), self.is_encrypted),
                )
            )
        else:
            self._out.append(f"250 {self._name}\r\n".encode())
        return self._drop_transaction()

    def _mail(self, argument: str) -> Event | None:
        settings = self._settings
        request = grammar.parse_mail(argument, lenient=settings.lenient)
        if request.size is not None and request.size > settings.max_message_bytes:
            raise CommandRefused(replies.MESSAGE_TOO_BIG)
        if request.requiretls and not self.is_encrypted:
            # Whatever else is mended for a trusted client: this would be a promise broken.
            raise CommandRefused(replies.REQUIRETLS_NEEDS_TLS)
        self.body = request.body
        self.smtputf8 = request.smtputf8
        if request.quirks:
            self.quirks |= request.quirks
        return request

    def _rcpt(self, argument: str) -> Event | None:
        settings = self._settings
        request = grammar.parse_rcpt(argument, lenient=settings.lenient, smtputf8=self.smtputf8)
        if self.recipients >= settings.max_recipients:
            self._out.append(replies.TOO_MANY_RECIPIENTS.wire)
            return None
        if request.quirks:
            self.quirks |= request.quirks
        return request

    def _data_command(self, argument: str) -> Event | None:
        if argument:
            raise CommandRefused(Reply(501, "DATA takes no argument", (5, 4)))
        if self.body is Body.BINARY_MIME:
            raise CommandRefused(replies.BINARY_NEEDS_BDAT)
        return ContentRequested(is_binary=False)

    def _rset(self, argument: str) -> Event | None:
        self._out.append(replies.RESET.wire)
        # RFC 5321 §4.1.1.5: before EHLO it is a NOOP, and stands for no greeting.
        return None if self.phase is Phase.CONNECTED else self._drop_transaction()

    def _noop(self, argument: str) -> Event | None:
        self._out.append(replies.OK.wire)
        return None

    def _vrfy(self, argument: str) -> Event | None:
        if not argument:
            raise CommandRefused(Reply(501, "Syntax: VRFY address", (5, 4)))
        # RFC 5321 §3.5.3: 252 tells nothing a stranger could use.
        self._out.append(replies.CANNOT_VERIFY.wire)
        return None

    def _help(self, argument: str) -> Event | None:
        self._out.append(replies.HELP.wire)
        return None

    def _starttls(self, argument: str) -> Event | None:
        if not self.offers_tls:
            raise CommandRefused(
                replies.NOT_IN_THIS_ORDER if self.is_encrypted else replies.NOT_IMPLEMENTED
            )
        if argument:
            raise CommandRefused(Reply(501, "STARTTLS takes no argument", (5, 4)))
        if self.buffered_bytes:
            # Nobody may have a say in both (RFC 3207 §6): somebody may have put them there.
            self.refuse(replies.NOTHING_BEFORE_TLS)
            return None
        return TlsRequested()

    # Logins.

    def _offered_mechanisms(self) -> tuple[str, ...]:
        offer = self._login_offer
        # RFC 4954 §4: once is enough.
        if offer is None or self.login is not None or not self._may_log_in(offer):
            return ()
        return offer.mechanisms

    def _may_log_in(self, offer: LoginOffer) -> bool:
        return self.is_encrypted or not offer.needs_tls

    def _auth(self, argument: str) -> Event | None:
        if self._login_offer is None:
            raise CommandRefused(replies.NOT_IMPLEMENTED)
        if not self._may_log_in(self._login_offer):
            raise CommandRefused(replies.LOGIN_NEEDS_TLS)
        if self.phase is Phase.CONNECTED:
            raise CommandRefused(replies.GREET_FIRST)
        if self.phase is not Phase.READY or self.login is not None:
            raise CommandRefused(replies.NOT_IN_THIS_ORDER)
        mechanism, _, initial = argument.partition(" ")
        mechanism = mechanism.upper()
        if mechanism not in self._login_offer.mechanisms:
            raise CommandRefused(replies.UNKNOWN_MECHANISM)
        self._dialogue = LoginDialogue(mechanism, self._login_offer.keys_of)
        self.phase = Phase.LOGIN
        return self._went_on(self._dialogue.begin(initial.strip(" ").encode()))

    def _response(self, line: bytes) -> Event | None:
        assert self._dialogue is not None  # the phase says so
        return self._went_on(self._dialogue.hear(line))

    def _went_on(self, step: Step) -> Event | None:
        """Put a challenge, or end the login; a claim is for the caller to judge."""
        if isinstance(step, bytes):
            self._out.append(step)
        elif isinstance(step, Reply):
            self._end_login(step)
        else:
            assert self._dialogue is not None  # it has just spoken
            return LoginRequested(self._dialogue.mechanism, step)
        return None

    def _end_login(self, reply: Reply) -> None:
        login = self.login
        self._leave_login()
        if reply.is_positive:
            self.login = login
        if reply.code == 421:
            self.refuse(reply)
            return
        self._out.append(reply.wire)
        if not reply.is_positive:
            self._failed_logins += 1
            if self._failed_logins >= MAX_FAILED_LOGINS:
                self.refuse(replies.TOO_MANY_LOGINS)

    def _leave_login(self) -> None:
        """End an exchange, if one is under way, with nobody logged in."""
        self._dialogue = None
        if self.phase is Phase.LOGIN:
            self.phase = Phase.READY
            self.login = None

    def _not_implemented(self, argument: str) -> Event | None:
        self._say_junk(replies.NOT_IMPLEMENTED)
        return None

    def _quit(self, argument: str) -> Event | None:
        self.refuse(_closing(self._name))
        return None

    # Content after DATA.

    def _answer_content_request(self, reply: Reply) -> None:
        if reply.code == 421:
            self.refuse(reply)
        elif self._chunks is None:
            if reply.code == 354:
                self._out.append(reply.wire)
                self._data = DataDecoder(lenient=self._settings.lenient)
                self._fault = None
                self._size = 0
                self.phase = Phase.DATA
            else:
                self._out.append(reply.wire)
                self._end_transaction()
        else:
            # BDAT: the octets come in any case; a refusal is given after them.
            if reply.code != 354:
                self._fault = reply
            self.phase = Phase.CHUNK

    def _read_data(self) -> Event | None:
        decoder = self._data
        assert decoder is not None
        if decoder.is_ended:
            self._data = None
            fault = self._fault
            if fault is None and decoder.is_faulty:
                fault = replies.BARE_LINE_ENDS
            if self.transcript is not None:
                self.transcript.content(self._size)
            return self._ended(fault, was_mended=decoder.was_mended)
        if self._position >= len(self._buffer):
            return None
        received = self._buffer[self._position :] if self._position else self._buffer
        content, rest = decoder.receive(received)
        self._buffer = rest
        self._position = 0
        self._count_content(len(content))
        if not content or self._fault is not None or decoder.is_faulty:
            return self._read_data()
        return ContentChunk(content)

    def _ended(self, fault: Reply | None, *, was_mended: bool) -> ContentEnded:
        if was_mended:
            self.quirks |= Quirk.CONTENT_MENDED
        return ContentEnded(fault, was_mended)

    def _count_content(self, octets: int) -> None:
        self._size += octets
        if self._size > self._settings.max_message_bytes and self._fault is None:
            self._fault = replies.MESSAGE_TOO_BIG

    # Content in BDAT chunks.

    def _start_chunk(self, raw_argument: bytes) -> Event | None:
        chunk = grammar.parse_chunk(raw_argument.decode("ascii", "replace"))
        if chunk is None:
            # How many octets follow is unknown, so nothing after this can be read safely.
            self.refuse(Reply(501, "Syntax: BDAT size [LAST]", (5, 4)))
            return None
        self._chunk_size, self._chunk_is_last = chunk
        self._chunk_left = self._chunk_size
        if self.phase is Phase.RECIPIENTS:
            self._chunks = ChunkDecoder(
                lenient=self._settings.lenient, is_binary=self.body is Body.BINARY_MIME
            )
            self._fault = None
            self._size = 0
            return ContentRequested(is_binary=self._chunks.is_binary)
        if self.phase is not Phase.CHUNKS:
            # The octets follow whether we like it or not: they are read past, then refused.
            self._fault = self._why_no_content()
            self._resume = self.phase
        self.phase = Phase.CHUNK
        return None

    def _read_chunk(self) -> Event | None:
        received = self._buffer[self._position : self._position + self._chunk_left]
        if not received and self._chunk_left:
            return None
        self._position += len(received)
        self._chunk_left -= len(received)
        decoder = self._chunks
        if decoder is not None:
            content = decoder.receive(received, is_end=self._chunk_is_last and not self._chunk_left)
            self._count_content(len(content))
            if content and self._fault is None and not decoder.is_faulty:
                return ContentChunk(content)
        return None if self._chunk_left else self._end_chunk()

    def _end_chunk(self) -> Event | None:
        decoder = self._chunks
        if decoder is None:
            assert self._fault is not None
            self.phase = self._resume
            fault, self._fault = self._fault, None
            self._say_junk(fault)
            return None
        if self._fault is None and decoder.is_faulty:
            self._fault = replies.BARE_LINE_ENDS
        if self._chunk_is_last:
            self._chunks = None
            return self._ended(self._fault, was_mended=decoder.was_mended)
        if self._fault is not None:
            self._out.append(self._fault.wire)
            self._end_transaction()
            self.phase = Phase.FAILED
            return TransactionDropped()
        self._out.append(Reply(250, f"{self._chunk_size} octets received", (0, 0)).wire)
        self.phase = Phase.CHUNKS
        return None

    # Transactions.

    def _drop_transaction(self) -> Event | None:
        had_one = self.phase not in (Phase.CONNECTED, Phase.READY)
        self._end_transaction()
        return TransactionDropped() if had_one else None

    def _end_transaction(self) -> None:
        self.phase = Phase.READY
        self.recipients = 0
        self.body = None
        self.smtputf8 = False
        self._chunks = None
        self._data = None
        self._fault = None


# What every session says, made once for each of our names.


@lru_cache(maxsize=256)
def _greeting(name: str, is_lmtp: bool, software: str) -> bytes:
    return f"220 {name} {'LMTP' if is_lmtp else 'ESMTP'} {software}\r\n".encode()


@lru_cache(maxsize=256)
def _extensions(
    name: str,
    max_message_bytes: int,
    max_recipients: int,
    offers_tls: bool,
    mechanisms: tuple[str, ...],
    is_encrypted: bool,
) -> bytes:
    keywords = (
        name,
        "PIPELINING",
        f"SIZE {max_message_bytes}",
        "8BITMIME",
        "BINARYMIME",
        "CHUNKING",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "DSN",
        f"LIMITS RCPTMAX={max_recipients}",
        *(("STARTTLS",) if offers_tls else ()),
        *(("REQUIRETLS",) if is_encrypted else ()),
        *((f"AUTH {' '.join(mechanisms)}",) if mechanisms else ()),
        "HELP",
    )
    lines = [f"250-{keyword}\r\n" for keyword in keywords[:-1]]
    return "".join([*lines, f"250 {keywords[-1]}\r\n"]).encode()


@lru_cache(maxsize=256)
def _closing(name: str) -> Reply:
    return Reply(221, f"{name} closing", (0, 0))


_Action = Callable[[ServerSession, str], Event | None]

# Verbs whose lines may be longer than others; AUTH with an initial response (RFC 4954 §4).
_LONGER = {
    b"MAIL": MAX_PATH_COMMAND_LINE,
    b"RCPT": MAX_PATH_COMMAND_LINE,
    b"AUTH": MAX_LOGIN_LINE,
}
# RFC 2920 §3.1 has more of them; these change how what follows is read. STARTTLS has its own rule.
_LAST_OF_GROUP = frozenset({b"EHLO", b"HELO", b"LHLO", b"AUTH", b"DATA"})
# What no command line of a stranger may hold; a tab is harmless.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_GREETINGS = frozenset({b"EHLO", b"HELO", b"LHLO"})
# What a trusted client may say for QUIT: anything that begins like it.
_QUIT = re.compile(rb"[ \t]*QUIT", re.IGNORECASE)


def _table(greetings: dict[bytes, _Action]) -> tuple[dict[bytes, _Action], ...]:
    """Every pair of phase and verb that is allowed; others are out of order (503) or unknown (500).

    BDAT is allowed wherever content may follow, and is read past everywhere else (`_start_chunk`).
    """
    anytime: dict[bytes, _Action] = {
        **greetings,
        b"RSET": ServerSession._rset,
        b"NOOP": ServerSession._noop,
        b"VRFY": ServerSession._vrfy,
        b"EXPN": ServerSession._not_implemented,
        b"HELP": ServerSession._help,
        b"QUIT": ServerSession._quit,
        b"AUTH": ServerSession._auth,
    }
    between: dict[bytes, _Action] = {**anytime, b"STARTTLS": ServerSession._starttls}
    rows = {
        Phase.CONNECTED: between,
        Phase.READY: {**between, b"MAIL": ServerSession._mail},
        Phase.SENDER: {**anytime, b"RCPT": ServerSession._rcpt},
        Phase.RECIPIENTS: {
            **anytime,
            b"RCPT": ServerSession._rcpt,
            b"DATA": ServerSession._data_command,
        },
        Phase.CHUNKS: anytime,
        Phase.FAILED: anytime,
    }
    return tuple(rows[phase] for phase in sorted(rows))


_SMTP = _table({b"HELO": ServerSession._helo, b"EHLO": ServerSession._ehlo})
_LMTP = _table({b"LHLO": ServerSession._ehlo})
