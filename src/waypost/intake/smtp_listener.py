"""SMTP and LMTP listeners: sockets, time limits and back-pressure around smtp/server.

A session has no task and no timer of its own. Octets go from the transport into the engine, its
events to acceptance, and all replies of one batch out in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, ClassVar, cast

from waypost.intake.acceptance import Acceptance, Limits, Transaction
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress, as_value
from waypost.mail.envelope import Arrival
from waypost.mail.message import trace_name
from waypost.mail.reply import Reply
from waypost.net.networks import Networks
from waypost.observe import Log
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.server import (
    ContentChunk,
    ContentEnded,
    ContentRequested,
    Phase,
    ServerSession,
    ServerSettings,
    TlsRequested,
    TransactionDropped,
)

# RFC 5321 §4.5.3.2.7: a server waits five minutes for the next command.
IDLE_S = 300.0
# All sessions of a listener are looked at this often; nothing needs to be more exact.
SWEEP_S = 5.0
# A TLS handshake is waited for this long, and the client's part in the end of a TLS session.
HANDSHAKE_S = 30.0
GOODBYE_S = 2.0
# When no descriptor was left for a connection, the next try comes after this.
ACCEPT_AGAIN_S = 1.0
# A client that sends on while it waits for an answer is not read beyond this.
MAX_UNREAD_BYTES = 65_536
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One [[listener]]."""

    name: str
    bind: tuple[str, ...]  # "address:port", "[v6]:port", or the path of a Unix socket
    role: str = "hub"  # hub | submission | lmtp
    networks: tuple[str, ...] = ("any",)
    tls: str = "starttls"  # off | starttls | implicit
    tls_profile: str = "modern"  # modern | legacy


def split_bind(bind: str) -> tuple[str, int]:
    """Address and port of a bind; raises ValueError. For a Unix socket: its path and 0."""
    if bind.startswith("/"):
        return bind, 0
    host, colon, port = bind.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{bind!r}: an IPv6 address stands in brackets, as in [::]:2525")
    if not colon or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ValueError(f"{bind!r}: expected address:port, [v6]:port or /path/to/socket")
    try:
        ip_address(host)
    except ValueError:
        raise ValueError(f"{bind!r}: {host!r} is no IP address") from None
    return host, int(port)


class SmtpListener:
    """One listener with its sockets and sessions."""

    def __init__(
        self,
        settings: ListenerSettings,
        *,
        acceptance: Acceptance,
        trusted: Networks,
        limits: Limits,
        hostname: str | None,
        tls: Callable[[], ssl.SSLContext] | None,
        log: Log,
    ) -> None:
        """`tls` gives the context for a handshake that begins now; None: there is no TLS."""
        self.settings = settings
        self.tls = tls
        self.acceptance = acceptance
        self.log = log
        self.networks = Networks(settings.networks)
        self.sessions: set[IncomingSession] = set()
        self.is_draining = False
        self._unsent: list[IncomingSession] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._arrivals: set[asyncio.Task[None]] = set()  # in a handshake that comes first
        self._servers: list[asyncio.Server] = []
        self._tls_sockets: list[socket.socket] = []  # of an implicit listener, in place of servers
        self._sweeper: asyncio.TimerHandle | None = None  # None: not started
        self._paths: list[str] = []
        self._gone: asyncio.Event | None = None  # None: nobody waits for sessions to end
        self.places: list[tuple[IPAddress, int]] = []  # addresses and ports as bound
        self.configure(trusted=trusted, limits=limits, hostname=hostname)

    def configure(self, *, trusted: Networks, limits: Limits, hostname: str | None) -> None:
        """Settings for sessions that begin from now on."""
        self.trusted = trusted
        self.limits = limits
        self.hostname = hostname
        is_lmtp = self.settings.role == "lmtp"
        self.lenient, self.strict = (
            ServerSettings(
                max_message_bytes=limits.message_bytes,
                max_recipients=limits.recipients,
                is_lmtp=is_lmtp,
                lenient=lenient,
            )
            for lenient in (True, False)
        )

    async def start(self) -> None:
        """Bind and listen. Raises OSError that names the address."""
        loop = asyncio.get_running_loop()
        for bind in self.settings.bind:
            host, port = split_bind(bind)
            try:
                listening = self._listen_unix(host) if not port and host[0] == "/" else None
                listening = listening or _listen(host, port)
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"listener {self.settings.name!r} cannot bind {bind}: {error.strerror}",
                ) from error
            if listening.family == socket.AF_UNIX:
                server = await loop.create_unix_server(
                    lambda: IncomingSession(self, is_local=True), sock=listening, backlog=BACKLOG
                )
                self._servers.append(server)
            elif self.is_tls_first:
                listening.listen(BACKLOG)
                listening.setblocking(False)
                self._tls_sockets.append(listening)
                self._accept_from(listening)
            else:
                server = await loop.create_server(
                    lambda: IncomingSession(self), sock=listening, backlog=BACKLOG
                )
                self._servers.append(server)
            if listening.family != socket.AF_UNIX:
                ip = ip_address(host)
                self.places.append((ip, listening.getsockname()[1]))
            self.log.event("listening", listener=self.settings.name, bind=bind)
        self._sweeper = loop.call_later(SWEEP_S, self._sweep)

    @property
    def bound(self) -> list[tuple[IPAddress | None, int]]:
        """Addresses and ports for the gate; None: every address."""
        return [(None if ip.is_unspecified else ip, port) for ip, port in self.places]

    def stop_listening(self) -> None:
        """Take no new connections."""
        self.is_draining = True
        for server in self._servers:
            server.close()
        loop = asyncio.get_running_loop()
        for listening in self._tls_sockets:
            loop.remove_reader(listening)
            listening.close()
        self._tls_sockets.clear()
        for task in self._arrivals:
            task.cancel()

    async def drain(self, limit_s: float) -> None:
        """Take no new connections, let transactions end within `limit_s`, close."""
        self.stop_listening()
        for session in list(self.sessions):
            session.close_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._all_gone()
        for session in list(self.sessions):
            session.say_and_close(replies.SHUTTING_DOWN)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    async def _all_gone(self) -> None:
        self._gone = asyncio.Event()
        if self.sessions:
            await self._gone.wait()

    def flush_soon(self, session: IncomingSession) -> None:
        """Have a session send what it has to say at the end of this turn of the loop.

        Replies that go out one right after the other find the clients' host awake: each by
        itself would wake it anew.
        """
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(session)

    def _flush(self) -> None:
        sessions, self._unsent = self._unsent, []
        for session in sessions:
            session.flush()

    @property
    def offers_tls(self) -> bool:
        """STARTTLS is there for the asking."""
        return self.tls is not None and self.settings.tls == "starttls"

    @property
    def is_tls_first(self) -> bool:
        """Nothing is said before TLS (RFC 8314 §3)."""
        return self.tls is not None and self.settings.tls == "implicit"

    def _accept_from(self, listening: socket.socket) -> None:
        # asyncio's own server would do, were it not silent about handshakes that fail, and late
        # with limits: a session is made when its handshake is done.
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(BACKLOG):
            try:
                connected, peer = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors are left: some sessions have to end first
                self.log.event("accept-failed", listener=self.settings.name, why=error.strerror)
                loop.remove_reader(listening)
                loop.call_later(ACCEPT_AGAIN_S, self._accept_again, listening)
                return
            there = len(self.sessions) + len(self._arrivals)
            if there >= self.limits.connections or _ip_of(peer[0]) not in self.networks:
                connected.close()  # a refusal in clear would be of no use
                continue
            task = loop.create_task(self._arrive(connected, _ip_of(peer[0])))
            self._arrivals.add(task)
            task.add_done_callback(self._arrivals.discard)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._tls_sockets:
            self._accept_from(listening)

    async def _arrive(self, connected: socket.socket, client: IPAddress) -> None:
        """Take over a connection that begins with TLS."""
        assert self.tls is not None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: IncomingSession(self),
                connected,
                ssl=self.tls(),
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=GOODBYE_S,
            )
        except OSError as error:
            connected.close()
            self.say_tls_failed(client, error)

    def say_tls_failed(self, client: IPAddress | None, error: OSError) -> None:
        """Log a handshake that came to nothing."""
        why = (
            getattr(error, "reason", None) or error.strerror or str(error) or "the client went away"
        )
        self.log.event("tls-failed", client=client, listener=self.settings.name, why=why)

    def handshake(self, session: IncomingSession) -> None:
        """Have a session go on over TLS."""
        assert self.tls is not None
        task = asyncio.get_running_loop().create_task(session.encrypt(self.tls()))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    def forget(self, session: IncomingSession) -> None:
        """A session has ended."""
        self.sessions.discard(session)
        if not self.sessions and self._gone is not None:
            self._gone.set()

    def _listen_unix(self, path: str) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(path)
        # Who may write to the socket is trusted, so the owner's group at most.
        os.chmod(path, 0o660)
        self._paths.append(path)
        return listening

    def _sweep(self) -> None:
        before = time.monotonic() - IDLE_S
        for session in list(self.sessions):
            if session.last_heard_at < before:
                session.expire()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # 0.0.0.0 has a socket of its own, so peers never come in v4-mapped form.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


@lru_cache(maxsize=8192)
def _ip_of(host: str) -> IPAddress:
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
            self._client_ip = _ip_of(peer[0])
            self._local_ip = _ip_of(transport.get_extra_info("sockname")[0])
            self._is_trusted = self._client_ip in listener.trusted
        else:
            self._is_trusted = self._is_local
        is_encrypted = transport.get_extra_info("ssl_object") is not None
        self._session = ServerSession(
            listener.lenient if self._is_trusted else listener.strict,
            trace_name(self._local_ip, listener.hostname),
            offers_tls=listener.offers_tls and not self._is_local,
            is_encrypted=is_encrypted,
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
                trusted=self._is_trusted,
            )
        result = self._listener.acceptance.mail(
            arrival, event, login_needed=self._listener.settings.role == "submission"
        )
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
        if transaction is not None and transaction.writer is not None:
            if not transaction.writer.write(event.content):
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
