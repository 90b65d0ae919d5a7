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

from waypost.devices.visits import Visits
from waypost.intake.acceptance import Acceptance, Limits
from waypost.intake.doorway import BACKLOG, Doorway
from waypost.intake.logins import Logins
from waypost.intake.session import Caller, IncomingSession
from waypost.intake.visitors import Visitors
from waypost.mail import reply as replies
from waypost.mail.address import IPAddress
from waypost.mail.reply import Reply
from waypost.net.networks import Networks
from waypost.observe import Log
from waypost.smtp.events import LoginOffer, ServerSettings
from waypost.smtp.sasl import ScramKeys
from waypost.tls.hello import is_old, offered_versions

# All sessions of a listener are looked at this often; nothing needs to be more exact.
SWEEP_S = 5.0
# The share of the connections that strangers get, and that from which they have less time: trusted
# clients always find room.
STRANGERS_SHARE = 0.9
STRESSED_SHARE = 0.8


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
    proxy_protocol: tuple[str, ...] = ()  # networks whose PROXY header is required, and believed


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
        visitors: Visitors,
        visits: Visits,
        log: Log,
    ) -> None:
        """`tls` gives the context for a handshake that begins now, by our address and the client's.

        None: there is no TLS. `visitors` counts strangers, over all listeners; `visits` are
        those of trusted clients.
        """
        self.settings = settings
        self.tls = tls
        self.acceptance = acceptance
        self.logins = logins
        self._clear = Networks(settings.login_in_clear)
        self._careless = Networks(settings.any_login)
        self.log = log
        self.visitors = visitors
        self.visits = visits
        self.networks = Networks(settings.networks)
        self.proxies = Networks(settings.proxy_protocol)
        self.doorway = Doorway(self)
        self.sessions: set[IncomingSession] = set()
        self.is_draining = False
        self._unsent: list[IncomingSession] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
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
                in_step=not lenient,
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
                listening = listening or listen_at(host, port)
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
            elif self.is_tls_first or self.settings.proxy_protocol:
                self.doorway.open(listening)
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
        self.doorway.close()

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

    def login_offer(self, client: IPAddress, *, is_trusted: bool) -> LoginOffer | None:
        """How a client may log in; None: it may not."""
        if self.takes_any_login(client, is_trusted=is_trusted):
            return _ANY_LOGIN
        if self.settings.role == "lmtp":
            return None
        return self.logins.offer(needs_tls=client not in self._clear)

    def takes_any_login(self, client: IPAddress, *, is_trusted: bool) -> bool:
        """True for a device that has to log in, and is trusted by its address anyway."""
        return is_trusted and client in self._careless

    def flush_soon(self, session: IncomingSession) -> None:
        """Have a session send what it has to say at the end of this turn of the loop.

        Replies that go out one right after the other find the clients' host awake: each by
        itself would wake it anew.
        """
        if self.is_draining:
            session.flush()  # there may be no other turn
            return
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

    def say_tls_failed(self, client: IPAddress | None, error: OSError, hello: bytes) -> str:
        """Log a handshake that came to nothing, with what the client offered; the same in words,
        for people.
        """
        why = (
            getattr(error, "reason", None) or error.strerror or str(error) or "the client went away"
        )
        versions = offered_versions(hello)
        offered = " ".join(versions) or None
        self.log.event(
            "tls-failed", client=client, listener=self.settings.name, why=why, offered=offered
        )
        text = f"the TLS handshake failed: {why}"
        if offered is not None:
            text += f"; the client offers TLS {offered}"
        if is_old(versions) and self.settings.tls_profile != "legacy":
            text += '; a listener with tls_profile = "legacy" for its network would help'
        return text

    def heard_hello(self, client: IPAddress) -> None:
        """A client said a TLS hello where it cannot be answered.

        Our greeting may be out, which that client takes for a broken handshake; held back, the
        next one will work.
        """
        if self.offers_tls:
            self.doorway.began_with_tls(client)
            why = "it came behind the greeting; the next one of this client will be waited for"
        else:
            why = 'TLS is off here: set the device to no TLS, or this listener to tls = "starttls"'
        self.log.event("tls-hello", client=client, listener=self.settings.name, why=why)

    def note_turned_away(self, client: IPAddress, reply: Reply) -> None:
        """Log a refusal that a flood may repeat."""
        self.visitors.turned_away(client, self.settings.name, reply)

    # Who may come in.

    @property
    def _there(self) -> int:
        return len(self.sessions) + self.doorway.count

    @property
    def refusal(self) -> Reply | None:
        """Why nobody at all may come in; None: that depends."""
        if self.is_draining:
            return replies.SHUTTING_DOWN
        return replies.TOO_BUSY if self._there >= self.limits.connections else None

    def meet(self, client: IPAddress, local: IPAddress) -> Caller | Reply:
        """Who has come to `local`, counted if it is a stranger; or why it must go."""
        is_trusted = client in self.trusted
        refusal = self.refusal
        if refusal is None and client not in self.networks:
            refusal = replies.NOT_ALLOWED_TO_CONNECT
        if refusal is None and not is_trusted:
            is_full = self._there >= STRANGERS_SHARE * self.limits.connections
            refusal = replies.TOO_BUSY if is_full else self.visitors.arrive(client)
        if refusal is None:
            return Caller(client, local, is_trusted, is_counted=not is_trusted)
        if refusal is not replies.SHUTTING_DOWN:
            self.note_turned_away(client, refusal)
        return refusal

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
        now = time.monotonic()
        is_stressed = self._there > STRESSED_SHARE * self.limits.connections
        for session in list(self.sessions):
            session.look(now, is_stressed=is_stressed)
        self.visitors.look()
        self.doorway.look()
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)


def listen_at(host: str, port: int) -> socket.socket:
    """A socket bound to an IP address. Raises OSError."""
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
