"""SMTP and LMTP listeners: sockets, who may connect, and limits common to all sessions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from waypost.intake.acceptance import Acceptance, Limits
from waypost.intake.logins import Logins
from waypost.intake.session import GOODBYE_S, HANDSHAKE_S, IncomingSession, ip_of
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress
from waypost.net.networks import Networks
from waypost.observe import Log
from waypost.smtp.sasl import ScramKeys
from waypost.smtp.server import LoginOffer, ServerSettings

# RFC 5321 §4.5.3.2.7: a server waits five minutes for the next command.
IDLE_S = 300.0
# All sessions of a listener are looked at this often; nothing needs to be more exact.
SWEEP_S = 5.0
# When no descriptor was left for a connection, the next try comes after this.
ACCEPT_AGAIN_S = 1.0
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
    login_in_clear: tuple[str, ...] = ()  # networks that may log in without TLS
    any_login: tuple[str, ...] = ()  # trusted networks whose logins are taken without a look


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


def _no_keys(name: str) -> ScramKeys:
    raise AssertionError("SCRAM is not offered")


_ANY_LOGIN = LoginOffer(("PLAIN", "LOGIN"), _no_keys, needs_tls=False)


class SmtpListener:
    """One listener with its sockets and sessions."""

    def __init__(
        self,
        settings: ListenerSettings,
        *,
        acceptance: Acceptance,
        logins: Logins,
        trusted: Networks,
        limits: Limits,
        hostname: str | None,
        tls: Callable[[IPAddress | None, IPAddress | None], ssl.SSLContext] | None,
        log: Log,
    ) -> None:
        """`tls` gives the context for a handshake that begins now, by our address and the client's.

        None: there is no TLS.
        """
        self.settings = settings
        self.tls = tls
        self.acceptance = acceptance
        self.logins = logins
        self._clear = Networks(settings.login_in_clear)
        self._careless = Networks(settings.any_login)
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

    def login_offer(self, client: IPAddress) -> LoginOffer | None:
        """How a client may log in; None: it may not."""
        if self.takes_any_login(client):
            return _ANY_LOGIN
        if self.settings.role == "lmtp":
            return None
        return self.logins.offer(needs_tls=client not in self._clear)

    def takes_any_login(self, client: IPAddress) -> bool:
        """True for a device that has to log in, and is trusted by its address anyway."""
        return client in self._careless and client in self.trusted

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
            if there >= self.limits.connections or ip_of(peer[0]) not in self.networks:
                connected.close()  # a refusal in clear would be of no use
                continue
            task = loop.create_task(self._arrive(connected, ip_of(peer[0])))
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
                ssl=self.tls(ip_of(connected.getsockname()[0]), client),
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
        context = self.tls(session.local_ip, session.client_ip)
        task = asyncio.get_running_loop().create_task(session.encrypt(context))
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
