"""One client's session: octets in, replies out, between a transport and acceptance.

A session has no task and no timer of its own. Octets go from the transport into the engine, its
events to acceptance, and all replies of one batch out in one write.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar, cast

from waypost.accounts.accounts import Account
from waypost.intake.acceptance import Transaction
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress, as_value
from waypost.mail.envelope import Arrival
from waypost.mail.message import trace_name
from waypost.mail.reply import Reply
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.server import (
    ContentChunk,
    ContentEnded,
    ContentRequested,
    LoginRequested,
    Phase,
    ServerSession,
    TlsRequested,
    TransactionDropped,
)

if TYPE_CHECKING:
    from waypost.intake.smtp_listener import SmtpListener

# A TLS handshake is waited for this long, and the client's part in the end of a TLS session.
HANDSHAKE_S = 30.0
GOODBYE_S = 2.0
# A client that sends on while it waits for an answer is not read beyond this.
MAX_UNREAD_BYTES = 65_536


@lru_cache(maxsize=8192)
def ip_of(host: str) -> IPAddress:
    """The value of an address as a socket gives it, without its zone."""
    return as_value(ip_address(host.partition("%")[0]))


class IncomingSession(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_arrival",
        "_client_ip",
        "_early",
        "_is_local",
        "_is_paused",
        "_is_trusted",
        "_listener",
        "_local_ip",
        "_session",
        "_transaction",
        "_transport",
        "last_heard_at",
    )

    def __init__(self, listener: SmtpListener, *, is_local: bool = False) -> None:
        """`is_local`: it comes by a Unix socket."""
        self._listener = listener
        self._is_local = is_local
        self._transport: asyncio.Transport = None  # type: ignore[assignment] # until connected
        self._session: ServerSession = None  # type: ignore[assignment] # until connected
        self._client_ip: IPAddress | None = None  # None: a Unix socket
        self._local_ip: IPAddress | None = None  # None: as above
        self._is_trusted = False
        self._is_paused = False
        self._early: bytearray | None = None  # None: no handshake is under way
        self._arrival: Arrival | None = None  # None: no MAIL yet
        self._transaction: Transaction | None = None
        self.last_heard_at = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._listener
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.last_heard_at = time.monotonic()
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._client_ip = ip_of(peer[0])
            self._local_ip = ip_of(transport.get_extra_info("sockname")[0])
            self._is_trusted = self._client_ip in listener.trusted
        else:
            self._is_trusted = self._is_local
        is_encrypted = transport.get_extra_info("ssl_object") is not None
        self._session = ServerSession(
            listener.lenient if self._is_trusted else listener.strict,
            trace_name(self._local_ip, listener.hostname),
            offers_tls=listener.offers_tls and not self._is_local,
            is_encrypted=is_encrypted,
            login_offer=(
                None if self._client_ip is None else listener.login_offer(self._client_ip)
            ),
        )
        listener.sessions.add(self)
        if self._client_ip is None and not self._is_local:
            # It has gone, and with it its address; what it sent may be here already.
            self._session.phase = Phase.CLOSED
            self._transport.abort()
        elif listener.is_draining:
            self.say_and_close(replies.SHUTTING_DOWN)
        elif len(listener.sessions) > listener.limits.connections:
            self.say_and_close(replies.TOO_BUSY)
        elif self._client_ip is not None and self._client_ip not in listener.networks:
            self.say_and_close(replies.NOT_ALLOWED_TO_CONNECT)
        else:
            self._session.greet()
            self._listener.flush_soon(self)

    def data_received(self, data: bytes) -> None:
        self.last_heard_at = time.monotonic()
        if self._early is not None:
            self._early += data  # the first of what is encrypted, before we have heard that it is
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
        return self._session.is_answering and not self._session.is_encrypted

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        self._listener.forget(self)
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

    def expire(self) -> None:
        """Nothing heard for too long; a client that waits for us is not idle."""
        if not self._session.is_answering:
            self.say_and_close(replies.IDLE_TOO_LONG)

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
        if session.is_answering and session.buffered_bytes > MAX_UNREAD_BYTES:
            self._pause()

    def flush(self) -> None:
        """Send what there is to say, and close if that was the last."""
        session = self._session
        octets = session.data_to_send()
        if octets and not self._transport.is_closing():  # the client may have gone meanwhile
            self._transport.write(octets)
        if session.phase is Phase.CLOSED:
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
        try:
            if self._transport.is_closing() or self._early:
                raise ConnectionAbortedError("it closed, or went on in clear")
            transport = await asyncio.get_running_loop().start_tls(
                *(self._transport, self, context),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=GOODBYE_S,
            )
            if transport is None or self._session.phase is Phase.CLOSED:
                raise ConnectionAbortedError("it closed in the handshake")
        except OSError as error:  # and ssl.SSLError, ConnectionError, TimeoutError with it
            self._listener.say_tls_failed(self._client_ip, error)
            self._transport.abort()
            self._end()  # asyncio does not say so of a connection that ends in its handshake
            return
        self._transport = transport
        self._is_paused = False
        self._session.encrypted()
        early, self._early = bytes(self._early or b""), None
        if early:
            self.data_received(early)

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

        if self._listener.takes_any_login(self._client_ip):
            answer(None, replies.LOGGED_IN)
        else:
            name = self._listener.settings.name
            self._listener.logins.judge(self._client_ip, name, event.claim, answer)
        is_waiting = True

    def _on_mail(self, event: MailRequested) -> None:
        session = self._session
        arrival = self._arrival
        if arrival is None or arrival.helo != session.helo or arrival.protocol != session.protocol:
            arrival = self._arrival = Arrival(
                protocol=session.protocol,
                client_ip=self._client_ip,
                local_ip=self._local_ip,
                helo=session.helo,
                listener=self._listener.settings.name,
                trusted=self._is_trusted or session.login is not None,
                login=session.login,
            )
        role = self._listener.settings.role
        result = self._listener.acceptance.mail(arrival, event, role)
        if isinstance(result, Reply):
            session.answer(result)
        else:
            self._transaction = result
            session.answer(replies.SENDER_OK)

    def _on_rcpt(self, event: RcptRequested) -> None:
        assert self._transaction is not None
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
        is_waiting = False

        def answer(reply: Reply) -> None:
            if self._session.phase is Phase.CLOSED:
                return  # the client has gone; the message stands
            self._transaction = None
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
