"""The server's side of an SMTP or LMTP session, without I/O (RFC 5321, RFC 2033).

Owns order and state: which command may come now, what it means, and that the stream stays in
step whatever a client sends. Decisions are the caller's: `next_event()` gives an event, and the
engine reads no further until `answer()` (content chunks alone need no answer).

A session is built in layers, each in a module of its own: lines, logins, content, and here the
commands.
"""

from __future__ import annotations

from collections.abc import Callable

from waypost.mail import reply as replies
from waypost.mail.envelope import Body
from waypost.mail.raw_octets import text_of
from waypost.mail.reply import Reply
from waypost.smtp import command as grammar
from waypost.smtp.command import CommandRefused, MailRequested, RcptRequested
from waypost.smtp.content import ContentSession
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
)
from waypost.smtp.greeting import closing, extensions, greeting
from waypost.smtp.lines import MAX_COMMAND_LINE, MAX_PATH_COMMAND_LINE, ODD_QUIT
from waypost.smtp.phase import Phase
from waypost.smtp.quirks import Quirk
from waypost.smtp.sasl import MAX_LOGIN_LINE


class ServerSession(ContentSession):
    """One session; see the module text for the protocol of use."""

    __slots__ = ("_name", "_table", "extended", "helo", "offers_tls")

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
        super().__init__(settings, login_offer, is_encrypted=is_encrypted)
        self._table = _LMTP if settings.is_lmtp else _SMTP
        self._name = name
        self.offers_tls = offers_tls
        self.helo = ""
        self.extended = False  # greeted with EHLO or LHLO

    # What the caller does.

    def greet(self) -> None:
        """Say 220; LMTP says so in its greeting (RFC 2033 §4.1)."""
        self._out.append(greeting(self._name, self._settings.is_lmtp, self._settings.software))

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

    # Commands.

    def _command(self, line: bytes) -> Event | None:
        is_lenient = self._settings.lenient
        if is_lenient:
            line = line.strip(b" \t")
        raw_verb, _, raw_argument = line.partition(b" ")
        verb = raw_verb.upper()
        if is_lenient and ODD_QUIT.match(verb) is not None:
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
            argument = raw_argument.decode("utf-8")
        except UnicodeDecodeError:
            # UTF-8 is the only charset beyond ASCII (RFC 6531 §3.1).
            if not is_lenient:
                self._say_junk(replies.NOT_UTF8)
                return None
            self.quirks |= Quirk.RAW_OCTETS
            argument = text_of(raw_argument)
        try:
            return action(self, argument.strip(" "))
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
                extensions(
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

    def _not_implemented(self, argument: str) -> Event | None:
        self._say_junk(replies.NOT_IMPLEMENTED)
        return None

    def _quit(self, argument: str) -> Event | None:
        self.refuse(closing(self._name))
        return None


_Action = Callable[[ServerSession, str], Event | None]

# Verbs whose lines may be longer than others; AUTH with an initial response (RFC 4954 §4).
_LONGER = {
    b"MAIL": MAX_PATH_COMMAND_LINE,
    b"RCPT": MAX_PATH_COMMAND_LINE,
    b"AUTH": MAX_LOGIN_LINE,
}
# RFC 2920 §3.1 has more of them; these change how what follows is read. STARTTLS has its own rule.
_LAST_OF_GROUP = frozenset({b"EHLO", b"HELO", b"LHLO", b"AUTH", b"DATA"})


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
