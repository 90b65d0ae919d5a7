"""One client's session: octets in, replies out, between a transport and acceptance.

A session has no task and no timer of its own. Octets go from the transport into the engine, its
events to acceptance, and all replies of one batch out in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from waypost.accounts.accounts import Account
from waypost.devices.visits import Visit
from waypost.intake.acceptance import Transaction
from waypost.intake.peeking import first_octets
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress
from waypost.mail.envelope import Arrival
from waypost.mail.message import trace_name
from waypost.mail.reply import Reply
from waypost.net.peers import ip_of
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.events import (
    ContentChunk,
    ContentEnded,
    ContentRequested,
    LoginRequested,
    TlsRequested,
    TransactionDropped,
)
from waypost.smtp.phase import Phase
from waypost.smtp.quirks import Quirk
from waypost.smtp.server import ServerSession
from waypost.tls.hello import HANDSHAKE

if TYPE_CHECKING:
    from waypost.intake.smtp_listener import SmtpListener

# RFC 5321 §4.5.3.2.7: a server waits five minutes for the next command. A listener that is nearly
# full waits less for strangers.
IDLE_S = 300.0
STRESSED_IDLE_S = 10.0
# A stranger that brings no message is waited for this long in all, however it keeps awake.
WITHOUT_MAIL_S = 600.0
# A stranger's content has to come at this pace on average, once so many seconds have gone, and to
# be there within an hour.
PACE_BYTES_S = 500
PACE_AFTER_S = 60.0
CONTENT_S = 3_600.0
# A trusted client whose content ends in a line with one dot and a bare LF may wait for our answer,
# and gets it if it is silent for so many looks, each so long. The loop reads between two looks, so
# what has come meanwhile is seen.
SILENT_LOOKS = 2
SILENT_LOOK_S = 1.0
# A TLS handshake is waited for this long, and the client's part in the end of a TLS session.
HANDSHAKE_S = 30.0
GOODBYE_S = 2.0
# A client that sends on while it waits for an answer is not read beyond this.
MAX_UNREAD_BYTES = 65_536


class Caller(NamedTuple):
    """Who is at the other end of a connection."""

    client_ip: IPAddress
    local_ip: IPAddress
    is_trusted: bool
    is_counted: bool  # a stranger, with the limits of one; never true of the trusted


class IncomingSession(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_arrival",
        "_caller",
        "_client_ip",
        "_content_from",
        "_early",
        "_is_counted",
        "_is_half_closed",
        "_is_held",
        "_is_local",
        "_is_paused",
        "_is_trusted",
        "_listener",
        "_local_ip",
        "_peeked",
        "_received_bytes",
        "_session",
        "_since",
        "_tls",
        "_transaction",
        "_transport",
        "_visit",
        "last_heard_at",
    )

    def __init__(
        self, listener: SmtpListener, *, is_local: bool = False, caller: Caller | None = None
    ) -> None:
        """`is_local`: it comes by a Unix socket.

        `caller` has passed the doorway and may come in; None: that is to be seen.
        """
        self._listener = listener
        self._is_local = is_local
        self._caller = caller
        self._transport: asyncio.Transport = None  # type: ignore[assignment] # until connected
        self._session: ServerSession = None  # type: ignore[assignment] # until connected
        self._client_ip: IPAddress | None = None  # None: a Unix socket
        self._local_ip: IPAddress | None = None  # None: as above
        self._is_trusted = False
        self._is_counted = False  # among the listener's visitors
        self._is_half_closed = False  # nothing more comes, and there is an answer to give
        self._is_held = False  # its greeting is
        self._is_paused = False
        self._received_bytes = 0
        self._since = 0.0  # it began, or brought its last message
        # When its content began and what had come by then; None: no content is under way.
        self._content_from: tuple[float, int] | None = None
        self._tls: str | None = None  # None: in clear
        self._early: bytearray | None = None  # None: no handshake is under way
        self._peeked: socket.socket | None = None  # None: no handshake is waited for
        self._arrival: Arrival | None = None  # None: no MAIL yet
        self._transaction: Transaction | None = None
        self._visit: Visit | None = None  # None: not a device's, as far as is known
        self.last_heard_at = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._listener
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.last_heard_at = self._since = time.monotonic()
        caller = self._caller
        met: Caller | Reply | None = caller  # None: it came by a Unix socket, or has gone
        if self._is_local:
            met = listener.refusal
        elif caller is None:
            peer = transport.get_extra_info("peername")
            if isinstance(peer, tuple):
                met = listener.meet(ip_of(peer[0]), ip_of(transport.get_extra_info("sockname")[0]))
        if isinstance(met, Caller):
            self._client_ip, self._local_ip, self._is_trusted, self._is_counted = met
        else:
            self._is_trusted = self._is_local
        self._tls = _negotiated(self._transport)
        self._session = ServerSession(
            listener.lenient if self._is_trusted else listener.strict,
            trace_name(self._local_ip, listener.hostname),
            offers_tls=listener.offers_tls and self._tls is None and not self._is_local,
            is_encrypted=self._tls is not None,
            login_offer=(
                None
                if self._client_ip is None
                else listener.login_offer(self._client_ip, is_trusted=self._is_trusted)
            ),
        )
        listener.sessions.add(self)
        if isinstance(met, Reply):
            self.say_and_close(met)
        elif met is None and not self._is_local:
            # It has gone, and with it its address; what it sent may be here already.
            self._session.phase = Phase.CLOSED
            self._transport.abort()
        elif met is None or caller is not None:
            self._begin(met)
        elif hold_s := listener.doorway.hold_s(met):
            self._hand_over(met, hold_s)
        else:
            self._begin(None)

    def _begin(self, caller: Caller | None) -> None:
        """Greet; late, if it has not been held back yet."""
        if self._is_trusted and self._client_ip is not None:
            self._visit = self._session.transcript = self._listener.visits.begin(self._client_ip)
            if self._visit is not None and self._tls is not None:
                self._visit.note(self._tls)
        if caller is not None and self._tls is not None:
            hold_s = self._listener.doorway.delay_s(caller)
            if hold_s:
                self._is_held = True
                self._listener.doorway.hold_greeting(self, hold_s)
                return
        self._session.greet()
        self._listener.flush_soon(self)

    def _hand_over(self, caller: Caller, hold_s: float) -> None:
        """Let the doorway hold the connection, and be no session of it.

        Nothing has been read yet, and what the client sends first may not be for us.
        """
        try:
            connected: socket.socket = self._transport.get_extra_info("socket").dup()
        except OSError:
            self._begin(None)  # no descriptor is left to hold it by
            return
        self._is_counted = False  # it still is, and the doorway knows
        self._listener.sessions.discard(self)
        self._session.phase = Phase.CLOSED
        self._transport.abort()  # closes its own descriptor, not the connection
        connected.setblocking(False)
        self._listener.doorway.hold(connected, caller, hold_s)

    def data_received(self, data: bytes) -> None:
        self.last_heard_at = time.monotonic()
        self._received_bytes += len(data)
        if self._early is not None:
            self._early += data  # the first of what is encrypted, before we have heard that it is
            return
        if self._session.phase is Phase.CONNECTED and self._client_ip is not None:
            if self._is_held:
                self._listener.note_turned_away(self._client_ip, replies.SPOKE_TOO_EARLY)
                self.say_and_close(replies.SPOKE_TOO_EARLY)
                return
            if data[0] == HANDSHAKE and self._tls is None:
                self._session.quirks |= Quirk.TLS_HELLO
                self._listener.heard_hello(self._client_ip)
                self._transport.abort()
                return
        try:
            self._session.receive(data)
            self._advance()
        except Exception as error:
            # A bug of ours: this session cannot go on, all others can.
            self._listener.log.event("bug", client=self._client_ip, why=repr(error))
            self._transport.abort()

    def eof_received(self) -> bool:
        # A half-closed client still gets the answer to what it sent (RFC 5321 §4.1.1.10); TLS
        # cannot be half closed.
        self._is_half_closed = self._session.is_answering and not self._session.is_encrypted
        return self._is_half_closed

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        self._listener.forget(self)
        if self._peeked is not None:
            with contextlib.suppress(OSError):  # the client may have closed it
                self._peeked.shutdown(socket.SHUT_RDWR)
        if self._is_counted and self._client_ip is not None:
            self._is_counted = False
            self._listener.visitors.leave(self._client_ip)
        if self._visit is not None:
            if self._session.phase is not Phase.CLOSED:
                self._session.quirks |= Quirk.NO_QUIT
                self._visit.note("the client went away")
            if self._session.quirks:
                self._visit.forgave(self._session.quirks)
            self._visit = None
        self._session.phase = Phase.CLOSED
        # A message whose content has ended is the store's business now, whoever is listening.
        if self._transaction is not None and not self._session.is_answering:
            self._transaction.abort()
        self._transaction = None

    def pause_writing(self) -> None:
        self._pause()

    def resume_writing(self) -> None:
        self._resume()

    # What the listener asks for.

    @property
    def local_ip(self) -> IPAddress | None:
        """The address the client connected to; None: a Unix socket."""
        return self._local_ip

    @property
    def client_ip(self) -> IPAddress | None:
        """The client's address; None: as above."""
        return self._client_ip

    @property
    def _is_limited(self) -> bool:
        """A stranger, unless it has logged in meanwhile."""
        return self._is_counted and self._session.login is None

    @property
    def has_begun(self) -> bool:
        """True once there is a connection."""
        return self._transport is not None

    def greet_late(self) -> None:
        """The time a stranger had to wait is over."""
        if self._is_held and self._session.phase is Phase.CONNECTED:
            assert self._client_ip is not None
            self._is_held = False
            self._listener.doorway.was_patient(self._client_ip)
            self._session.greet()
            self._listener.flush_soon(self)

    def look(self, now: float, *, is_stressed: bool) -> None:
        """Close if it has used up its time; a client that waits for us uses up none."""
        phase = self._session.phase
        if self._session.is_answering or phase is Phase.CLOSED:
            return
        is_limited = self._is_limited
        idle_s = STRESSED_IDLE_S if is_stressed and is_limited else IDLE_S
        if now - self.last_heard_at > idle_s:
            self.say_and_close(replies.IDLE_TOO_LONG)
        elif not is_limited:
            return
        elif phase is not Phase.DATA and phase is not Phase.CHUNK:
            self._content_from = None
            if now - self._since > WITHOUT_MAIL_S:
                self.say_and_close(replies.TOO_LONG_WITHOUT_MAIL)
        elif self._content_from is None or self._is_paused:
            self._content_from = (now, self._received_bytes)
        else:
            began_at, before = self._content_from
            lasts_s = now - began_at
            pace = (self._received_bytes - before) / max(lasts_s, 1.0)
            if lasts_s > CONTENT_S or (lasts_s > PACE_AFTER_S and pace < PACE_BYTES_S):
                self.say_and_close(replies.TOO_SLOW)

    def close_when_idle(self) -> None:
        """The hub is going down: end now unless a transaction is under way."""
        if self._transaction is None:
            self.say_and_close(replies.SHUTTING_DOWN)

    def say_and_close(self, reply: Reply) -> None:
        """Say `reply` unasked and close; in a handshake nothing can be said."""
        if self._transaction is not None and not self._session.is_answering:
            self._transaction.abort()
            self._transaction = None
        if self._early is not None:
            self._transport.abort()
            self._end()
            return
        self._session.refuse(reply)
        self._listener.flush_soon(self)

    # Events.

    def _advance(self) -> None:
        session = self._session
        while (event := session.next_event()) is not None:
            self._ON[type(event)](self, event)
        self._listener.flush_soon(self)
        ended_by = session.ended_by
        if ended_by is not None and ended_by.code == 554 and self._client_ip is not None:
            self._listener.note_turned_away(self._client_ip, ended_by)
        if self._transaction is not None and session.may_have_ended:
            self._listen_for_more(SILENT_LOOKS)
        if session.is_answering and session.buffered_bytes > MAX_UNREAD_BYTES:
            self._pause()

    def _listen_for_more(self, looks: int) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(SILENT_LOOK_S, self._heard_no_more, self._received_bytes, looks - 1)

    def _heard_no_more(self, received_bytes: int, looks: int) -> None:
        """Take content for ended that lacks the end mark, if nothing speaks against it."""
        transaction, session = self._transaction, self._session
        if (
            transaction is None
            or received_bytes != self._received_bytes
            or not session.may_have_ended
            # What a relay passes on may be an attempt at two messages for one; and a relay says
            # that it is one.
            or transaction.was_relayed
        ):
            return
        if looks or self._is_paused:
            self._listen_for_more(max(looks, 1))
            return
        session.end_content()
        self._advance()

    def flush(self) -> None:
        """Send what there is to say, and close if that was the last."""
        session = self._session
        octets = session.data_to_send()
        if octets and not self._transport.is_closing():  # the client may have gone meanwhile
            self._transport.write(octets)
        if session.phase is Phase.CLOSED or (self._is_half_closed and not session.is_answering):
            self._transport.close()

    def _on_tls(self, event: TlsRequested) -> None:
        self._session.answer(replies.READY_FOR_TLS)
        self._early = bytearray()
        # The handshake is the next thing to be read, so nothing may be read before it begins.
        self._pause()
        self.flush()
        self._listener.handshake(self)

    async def encrypt(self, context: ssl.SSLContext) -> None:
        """Go on over TLS, or not at all."""
        hello = b""
        try:
            if self._transport.is_closing() or self._early:
                raise ConnectionAbortedError("it closed, or went on in clear")
            hello = await self._hello()
            if self._transport.is_closing():
                raise ConnectionAbortedError("it closed in the handshake")
            transport = await asyncio.get_running_loop().start_tls(
                *(self._transport, self, context),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=GOODBYE_S,
            )
            if transport is None or self._session.phase is Phase.CLOSED:
                raise ConnectionAbortedError("it closed in the handshake")
        except OSError as error:  # and ssl.SSLError, ConnectionError, TimeoutError with it
            text = self._listener.say_tls_failed(self._client_ip, error, hello)
            if self._visit is not None:
                self._visit.note(text)
            self._transport.abort()
            self._end()  # asyncio does not say so of a connection that ends in its handshake
            return
        self._transport = transport
        self._tls = _negotiated(transport)
        if self._visit is not None and self._tls is not None:
            self._visit.note(self._tls)
        self._is_paused = False
        self._arrival = None  # neither who it was nor how it came holds any more
        self._session.encrypted()
        early, self._early = bytes(self._early or b""), None
        if early:
            self.data_received(early)

    async def _hello(self) -> bytes:
        """The first of the client's part of the handshake, which TLS reads afterwards: it does not
        tell what was offered when nothing comes of it.
        """
        # A descriptor of our own: the transport lets nobody look at its.
        try:
            self._peeked = peeked = self._transport.get_extra_info("socket").dup()
        except OSError:
            return b""  # none is left, and the handshake needs none
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                return await first_octets(peeked)
        finally:
            peeked.close()
            self._peeked = None

    def _on_login(self, event: LoginRequested) -> None:
        assert self._client_ip is not None  # by a Unix socket nobody logs in
        is_waiting = False

        def answer(account: Account | None, reply: Reply) -> None:
            if self._session.phase is Phase.CLOSED:
                return  # the client has gone
            if account is not None:
                self._session.login = account.name
            self._session.answer(reply)
            if is_waiting:
                self._advance()
                self._resume()

        if self._listener.takes_any_login(self._client_ip, is_trusted=self._is_trusted):
            answer(None, replies.LOGGED_IN)
        else:
            name = self._listener.settings.name
            self._listener.logins.judge(self._client_ip, name, event.claim, answer)
        is_waiting = True

    def _on_mail(self, event: MailRequested) -> None:
        session = self._session
        arrival = self._arrival
        if arrival is None or (arrival.helo, arrival.protocol, arrival.login) != (
            *(session.helo, session.protocol, session.login),
        ):
            # The protocol alone does not tell: HELO has no word for TLS, nor for a login.
            arrival = self._arrival = Arrival(
                protocol=session.protocol,
                client_ip=self._client_ip,
                local_ip=self._local_ip,
                helo=session.helo,
                listener=self._listener.settings.name,
                trusted=self._is_trusted or session.login is not None,
                login=session.login,
                tls=self._tls,
            )
        if self._is_limited and self._client_ip is not None:
            refusal = self._listener.visitors.mail(self._client_ip)
            if refusal is not None:
                self._listener.note_turned_away(self._client_ip, refusal)
                session.answer(refusal)
                return
        role = self._listener.settings.role
        result = self._listener.acceptance.mail(arrival, event, role)
        if isinstance(result, Reply):
            session.answer(result)
        else:
            self._transaction = result
            session.answer(replies.SENDER_OK)

    def _on_rcpt(self, event: RcptRequested) -> None:
        assert self._transaction is not None
        if self._is_limited and self._client_ip is not None:
            refusal = self._listener.visitors.rcpt(self._client_ip)
            if refusal is not None:
                self._listener.note_turned_away(self._client_ip, refusal)
                self._session.answer(refusal)
                return
        self._session.answer(self._listener.acceptance.rcpt(self._transaction, event))

    def _on_content_requested(self, event: ContentRequested) -> None:
        assert self._transaction is not None
        self._session.answer(self._listener.acceptance.content(self._transaction, self._resume))

    def _on_chunk(self, event: ContentChunk) -> None:
        transaction = self._transaction
        if transaction is not None and not transaction.write(event.content):
            self._pause()

    def _on_content_ended(self, event: ContentEnded) -> None:
        transaction = self._transaction
        assert transaction is not None
        # LMTP answers for each recipient (RFC 2033 §4.2); the queue takes all or none.
        count = self._session.recipients if self._listener.settings.role == "lmtp" else 1
        is_bad_form = event.fault is replies.BARE_LINE_ENDS
        if self._visit is not None and self._session.quirks:
            self._visit.forgave(self._session.quirks)
        is_waiting = False

        def answer(reply: Reply) -> None:
            if self._session.phase is Phase.CLOSED:
                return  # the client has gone; the message stands
            self._transaction = None
            self._since = self.last_heard_at
            self._session.answer(reply, *[reply] * (count - 1))
            if is_bad_form:
                # Whoever sends this may be smuggling: nothing more is read from it.
                self._session.phase = Phase.CLOSED
            if self._listener.is_draining:
                self._session.refuse(replies.SHUTTING_DOWN)
            if is_waiting:
                self._advance()
                self._resume()

        self._listener.acceptance.finish(transaction, event, answer)
        is_waiting = True

    def _on_dropped(self, event: TransactionDropped) -> None:
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None

    _ON: ClassVar[dict[type, Callable[[IncomingSession, Any], None]]] = {
        MailRequested: _on_mail,
        RcptRequested: _on_rcpt,
        ContentRequested: _on_content_requested,
        ContentChunk: _on_chunk,
        ContentEnded: _on_content_ended,
        TlsRequested: _on_tls,
        LoginRequested: _on_login,
        TransactionDropped: _on_dropped,
    }

    # Back-pressure.

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()


def _negotiated(transport: asyncio.Transport) -> str | None:
    """What was agreed on, as "TLSv1.3 TLS_AES_256_GCM_SHA384"; None: it is in clear."""
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    cipher = tls.cipher()
    assert cipher is not None  # the handshake is done
    return sys.intern(f"{tls.version()} {cipher[0]}")  # the same few for all sessions
