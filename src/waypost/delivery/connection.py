"""One outgoing SMTP or LMTP connection: sockets and time limits around smtp/client."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import time
from typing import NamedTuple, cast

from waypost.errors import PeerUnreachable, StoreUnavailable
from waypost.mail.envelope import Hop
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.smtp.client import (
    ClientEvent,
    ClientSession,
    ContentWanted,
    SessionReady,
    SessionRefused,
    TlsWanted,
    Transaction,
    TransactionEnded,
)
from waypost.smtp.data import DataEncoder
from waypost.smtp.replies import PeerOutOfStep

# RFC 5321 §4.5.3.2, in seconds. The commands of a transaction are waited for together.
GREETING_S = 300.0
ENVELOPE_S = 300.0
BLOCK_S = 180.0
CONTENT_S = 600.0

_PIECE_BYTES = 262_144


# A TLS handshake is waited for this long, and the peer's part in the end of a TLS session.
HANDSHAKE_S = 30.0
GOODBYE_S = 2.0


class TlsFirst(NamedTuple):
    """How a session is encrypted: the context, and the name or address the peer has to prove."""

    context: ssl.SSLContext
    name: str


class TlsFailed(PeerUnreachable):
    """No handshake came about, or the certificate is not the one of this host."""

    hop: Hop | None = None  # where, when TLS came first

    def __init__(self, name: str, error: Exception) -> None:
        why = getattr(error, "verify_message", None) or getattr(error, "reason", None)
        why = why or getattr(error, "strerror", None) or str(error) or type(error).__name__
        super().__init__(f"TLS with {name} failed: {why}")


class NotCanonical(Exception):
    """The content holds a bare CR or LF: it must not leave (SMTP smuggling)."""


class SmtpConnection(asyncio.Protocol):
    """A connection that carries one transaction after the other."""

    def __init__(self, session: ClientSession, tls: TlsFirst | None) -> None:
        self.session = session
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._broken: Exception | None = None  # None: the connection is sound
        self._writable = asyncio.Event()
        self._writable.set()
        self.has_sent_content = False  # in the transaction begun last
        self.deadline = math.inf  # monotonic; when to stop waiting for the peer
        self.idle_since = math.inf  # monotonic; when it was put aside for the next message

    @classmethod
    async def open(
        cls,
        connected: socket.socket,
        session: ClientSession,
        tls: TlsFirst | None = None,
        *,
        is_tls_first: bool = False,
    ) -> SmtpConnection:
        """Take over a connected socket. Raises TlsFailed, OSError.

        `tls` is for a session that asks for it, or with `is_tls_first` for all that is said.
        """
        loop = asyncio.get_running_loop()
        if tls is None or not is_tls_first:
            _, connection = await loop.create_connection(lambda: cls(session, tls), sock=connected)
            return connection
        try:
            _, connection = await loop.create_connection(
                lambda: cls(session, None),
                sock=connected,
                ssl=tls.context,
                server_hostname=tls.name,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=GOODBYE_S,
            )
        except (OSError, ValueError) as error:  # ValueError: a name no certificate can have
            connected.close()
            raise TlsFailed(tls.name, error) from error
        return connection

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        try:
            self.session.receive(data)
        except PeerOutOfStep as error:
            # It may get into a report, and what other services say is none of a sender's business.
            self._break(f"the peer is out of step: {error.reason}")
            return
        self._flush()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._break("the connection was lost")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What the transport asks for.

    @property
    def is_usable(self) -> bool:
        """True when another transaction may start."""
        session = self.session
        limit = session.max_transactions
        return (
            self._broken is None
            and session.is_ready
            and not session.is_closing
            and (limit is None or session.transactions < limit)
        )

    @property
    def is_closed(self) -> bool:
        """True once nothing more can be said or heard."""
        return self._broken is not None or (
            self._transport is not None and self._transport.is_closing()
        )

    @property
    def encryption(self) -> str | None:
        """What was negotiated, as "TLSv1.3 TLS_AES_256_GCM_SHA384"; None: clear."""
        found = None if self._transport is None else self._transport.get_extra_info("cipher")
        return None if found is None else f"{found[1]} {found[0]}"

    async def greet(self) -> Reply | None:
        """Wait for the peer's greeting; its refusal, or None: transactions may start.

        Raises PeerUnreachable, TlsFailed.
        """
        event = await self._next(GREETING_S)
        if isinstance(event, TlsWanted):
            assert self._tls is not None  # the session was told to ask
            await self._encrypt(self._tls)
            event = await self._next(GREETING_S)
        if isinstance(event, SessionRefused):
            return event.reply
        assert isinstance(event, SessionReady)
        return None

    async def transact(self, transaction: Transaction, message: QueuedMessage) -> list[Reply]:
        """Carry one message; one reply for each recipient.

        Raises PeerUnreachable, StoreUnavailable when the content cannot be read, NotCanonical.
        """
        self.has_sent_content = False
        self.session.start(transaction)
        self._flush()
        event = await self._next(ENVELOPE_S)
        if isinstance(event, ContentWanted):
            await self._send_content(message, is_chunked=event.is_chunked)
            self.session.content_sent()
            try:
                event = await self._next(CONTENT_S)
            except PeerUnreachable as error:
                replies = self.session.lost(Reply(451, str(error), (4, 2)))
                if replies is None:
                    raise
                return replies
        assert isinstance(event, TransactionEnded)
        self._flush()
        return event.replies

    def quit(self) -> None:
        """Say QUIT and close; the peer's answer is of no interest."""
        if self._broken is None and self._transport is not None:
            self.session.quit()
            self._flush()
            self._transport.close()

    def expire(self) -> None:
        """The deadline has passed: whoever waits gets PeerUnreachable."""
        self._break("the peer did not answer in time")

    def abort(self) -> None:
        """Drop the connection; unsent content never becomes a whole message."""
        if self._transport is not None:
            self._transport.abort()

    # Inside.

    async def _encrypt(self, tls: TlsFirst) -> None:
        assert self._transport is not None
        try:
            if self._broken is not None:
                raise self._broken
            transport = await asyncio.get_running_loop().start_tls(
                *(self._transport, self, tls.context),
                server_hostname=tls.name,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=GOODBYE_S,
            )
            if transport is None:
                raise PeerUnreachable("the connection was lost")
        # ValueError: a name no certificate can have
        except (OSError, ValueError, PeerUnreachable) as error:
            self.abort()
            raise TlsFailed(tls.name, error) from error
        self._transport = transport
        self.session.encrypted()
        self._flush()

    async def _send_content(self, message: QueuedMessage, *, is_chunked: bool) -> None:
        transport = self._transport
        assert transport is not None
        if self._broken is not None:
            raise self._broken
        self.has_sent_content = True
        encoder = None if is_chunked else DataEncoder()
        if is_chunked:
            transport.write(self.session.chunk_header(message.size))
        inline = message.content.inline
        if inline is not None:
            octets = message.prepend + inline
            if encoder is None:
                transport.write(octets)
                return
            octets = encoder.encode(octets)
            if not encoder.is_canonical:
                self.abort()
                raise NotCanonical
            transport.write(octets + encoder.end())
            return
        await self._stream(message, encoder, transport)

    async def _stream(
        self, message: QueuedMessage, encoder: DataEncoder | None, transport: asyncio.Transport
    ) -> None:
        try:
            source = await asyncio.to_thread(message.content.open)
        except OSError as error:
            self.abort()
            raise StoreUnavailable(f"the content cannot be read: {error.strerror}") from error
        with source:
            piece = message.prepend
            while piece:
                if self._broken is not None:
                    raise self._broken
                transport.write(piece if encoder is None else encoder.encode(piece))
                self.deadline = time.monotonic() + BLOCK_S
                await self._writable.wait()
                self.deadline = math.inf
                try:
                    piece = await asyncio.to_thread(source.read, _PIECE_BYTES)
                except OSError as error:
                    self.abort()
                    raise StoreUnavailable("the content cannot be read") from error
        if self._broken is not None:
            raise self._broken
        if encoder is not None:
            if not encoder.is_canonical:
                self.abort()
                raise NotCanonical
            transport.write(encoder.end())

    async def _next(self, limit_s: float) -> ClientEvent:
        while True:
            event = self.session.next_event()
            if event is not None:
                return event
            if self._broken is not None:
                raise self._broken
            self._waiter = asyncio.get_running_loop().create_future()
            self.deadline = time.monotonic() + limit_s
            try:
                await self._waiter
            finally:
                self._waiter = None
                self.deadline = math.inf

    def _flush(self) -> None:
        octets = self.session.data_to_send()
        if octets and self._transport is not None:
            self._transport.write(octets)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _break(self, why: str) -> None:
        if self._broken is None:
            self._broken = PeerUnreachable(why, has_sent_content=self.has_sent_content)
        self._writable.set()
        self.abort()
        self._wake()
