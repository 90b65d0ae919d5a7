"""The hub's one connection to the broker, made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from waypost.dns.addresses import addresses_of
from waypost.dns.resolver import Resolver
from waypost.errors import ConnectForbidden, PeerUnreachable, TemporaryError
from waypost.mail.address import Domain
from waypost.mqtt.message import Message, PublishRefused, Received
from waypost.mqtt.settings import BrokerUrl, MqttSettings
from waypost.net.gate import Gate, Origin, connect
from waypost.observe import Log
from waypost.tls.contexts import client_context

if TYPE_CHECKING:
    from waypost.mqtt.session import Session

# One try may take this long: name, connection, TLS and the broker's word; each address of a name
# this long.
CONNECT_S = 20.0
ADDRESS_S = 5.0
# After a loss or a failure; twice as long after each, up to the last.
FIRST_WAIT_S = 0.5
MAX_WAIT_S = 60.0
# A session that lasted so long was a good one.
STEADY_S = 10.0
# A PUBACK that does not come by then means that the connection is dead, or too slow for pictures.
ACK_S = 60.0
GOODBYE_S = 2.0


class Broker:
    """Connects, and again; what is published goes by the connection there is."""

    def __init__(
        self,
        gate: Gate,
        *,
        resolver: Callable[[], Resolver],
        on_connected: Callable[[], None],
        on_message: Callable[[Received], None],
        log: Log,
    ) -> None:
        """`on_connected` is called on the loop before anybody else can publish."""
        self._gate = gate
        self._resolver = resolver
        self._on_connected = on_connected
        self._on_message = on_message
        self._log = log
        self._settings: MqttSettings | None = None  # None: there is no broker
        self._client_id = ""
        self._will = Message("", b"", True)
        self._session: Session | None = None  # None: not connected
        self._hurry = asyncio.Event()  # there is another broker to connect to
        self._wanted = asyncio.Event()  # there is a broker to connect to
        self._is_there = asyncio.Event()
        self._trouble = "not connected yet"  # why there is no session
        self._refused: set[str] = set()  # topics, each told once

    @property
    def is_connected(self) -> bool:
        return self._session is not None

    @property
    def max_packet(self) -> int | None:
        """Octets the broker takes at once; None: it has not said."""
        return None if self._session is None else self._session.max_packet

    @property
    def is_resumed(self) -> bool:
        """True when the broker knew us, and still has what we subscribed to."""
        return self._session is not None and self._session.is_resumed

    async def configure(self, settings: MqttSettings | None, client_id: str, will: Message) -> None:
        """Connect to this broker from now on; None: to none."""
        old = self._settings
        if settings == old:
            return
        await self.leave(for_good=old is not None and _is_elsewhere(old, settings))
        self._settings, self._client_id, self._will = settings, client_id, will
        if settings is None:
            self._wanted.clear()
        else:
            self._wanted.set()
            self._hurry.set()

    async def run(self) -> None:
        """Until cancelled."""
        wait_s = FIRST_WAIT_S
        while True:
            await self._wanted.wait()
            settings = self._settings
            assert settings is not None
            self._hurry.clear()
            try:
                async with asyncio.timeout(CONNECT_S):
                    session = await self._open(settings)
            except TimeoutError:
                self._failed(settings, f"no session in {CONNECT_S:.0f} s")
            except (TemporaryError, ConnectForbidden, OSError) as error:
                self._failed(settings, _why(error))
            else:
                if settings is self._settings:
                    began = time.monotonic()
                    self._failed(settings, await self._live(session, settings))
                    if time.monotonic() - began > STEADY_S:
                        wait_s = FIRST_WAIT_S
                else:
                    session.end("the configuration has changed")
            if settings is self._settings:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s * random.uniform(0.5, 1.0)):
                        await self._hurry.wait()
                wait_s = min(2 * wait_s, MAX_WAIT_S)
            else:
                wait_s = FIRST_WAIT_S

    async def ready(self, limit_s: float) -> None:
        """Until there is a session. Raises PeerUnreachable after `limit_s`, saying why not."""
        try:
            async with asyncio.timeout(limit_s):
                await self._is_there.wait()
        except TimeoutError:
            text = f"no session with the MQTT broker: {self._trouble}"
            raise PeerUnreachable(text, never_connected=True) from None

    def publish(self, message: Message) -> asyncio.Future[None]:
        """As Session.publish."""
        if self._session is None:
            raise PeerUnreachable(
                f"no session with the MQTT broker: {self._trouble}", never_connected=True
            )
        result = self._session.publish(message)
        result.add_done_callback(self._note_refusal)
        return result

    async def publish_all(self, messages: list[Message]) -> None:
        """In this order; back when the broker has all. Raises as Session.publish."""
        session = self._session
        results = [self.publish(message) for message in messages]
        try:
            async with asyncio.timeout(ACK_S):
                await asyncio.gather(*results)
        except TimeoutError:
            text = f"the MQTT broker took nothing for {ACK_S:.0f} s"
            if session is not None:
                session.end(text)
            raise PeerUnreachable(text, has_sent_content=True) from None

    def subscribe(self, topic: str) -> None:
        """For this session."""
        if self._session is not None:
            self._session.subscribe(topic)

    def hear_others(self, topic_filter: str, qos: int) -> None:
        """As Session.hear_others, for this session; the log has a refusal."""
        if self._session is not None:
            with contextlib.suppress(PeerUnreachable):
                result = self._session.hear_others(topic_filter, qos)
                result.add_done_callback(self._note_refusal)

    def hear_no_more(self, topic_filter: str) -> asyncio.Future[None]:
        """As Session.hear_no_more."""
        if self._session is None:
            raise PeerUnreachable("no session with the MQTT broker", never_connected=True)
        return self._session.hear_no_more(topic_filter)

    async def connect_again(self) -> None:
        """So that the broker sends again what was not acknowledged."""
        session = self._session
        if session is not None:
            await session.leave(GOODBYE_S, why="ended, to be sent again what had no room here")

    async def leave(self, *, is_said: bool = False, for_good: bool = False) -> None:
        """End the session in good order, saying what the will would, unless that `is_said`.

        `for_good`: see Session.leave.
        """
        session = self._session
        if session is None:
            return
        self._settings = None
        self._wanted.clear()
        if not is_said:
            try:
                async with asyncio.timeout(GOODBYE_S):
                    await session.publish(session.will)
            except (TimeoutError, TemporaryError):
                session.end("ended")  # then the broker says it: the will
                return
        await session.leave(GOODBYE_S, for_good=for_good)

    async def _open(self, settings: MqttSettings) -> Session:
        # paho takes a while to load, which hubs without a broker need not wait for.
        from waypost.mqtt.session import Session

        url = settings.url
        context = None
        if url.is_secure:
            context = await asyncio.to_thread(_context, settings)
        connected = await self._connect(url)
        session = Session(settings, self._client_id, self._will, self._on_message)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: session,
                sock=connected,
                ssl=context,
                server_hostname=None if context is None else url.name,
            )
        except BaseException:
            connected.close()
            raise
        try:
            await session.begin()
        except BaseException:
            session.end("given up")
            raise
        return session

    async def _connect(self, url: BrokerUrl) -> socket.socket:
        """The first address that answers. Raises ConnectForbidden, TemporaryError or OSError."""
        addresses = [url.host] if not isinstance(url.host, Domain) else []
        if isinstance(url.host, Domain):
            addresses = await addresses_of(self._resolver(), url.host.ascii)
        trouble: Exception = PeerUnreachable(f"{url.host} has no address", never_connected=True)
        for ip in addresses:
            try:
                async with asyncio.timeout(ADDRESS_S):
                    return await connect(self._gate, ip, url.port, Origin.OPERATOR)
            except (OSError, ConnectForbidden) as error:
                trouble = error
        raise trouble

    async def _live(self, session: Session, settings: MqttSettings) -> str:
        """Serve by this session until it ends; why it has."""
        self._session = session
        self._refused.clear()
        self._trouble = ""
        self._log.event("mqtt-connected", to=settings.url)
        self._on_connected()
        self._is_there.set()
        # Cancelled at the end of the hub: the session stays, for what is still to be published.
        why = await session.over()
        self._is_there.clear()
        self._session = None
        return why

    def _failed(self, settings: MqttSettings, why: str) -> None:
        """Each cause is told once: a broker may be away for days."""
        if settings is self._settings and why != self._trouble:
            self._log.event("mqtt-lost", to=settings.url, why=why)
        self._trouble = why

    def _note_refusal(self, result: asyncio.Future[None]) -> None:
        if result.cancelled():
            return
        error = result.exception()
        if isinstance(error, PublishRefused) and str(error) not in self._refused:
            self._refused.add(str(error))
            self._log.event("mqtt-refused", why=error)


def _is_elsewhere(old: MqttSettings, new: MqttSettings | None) -> bool:
    return new is None or new.url != old.url


def _context(settings: MqttSettings) -> ssl.SSLContext:
    """Blocks. Raises TemporaryError."""
    context = client_context(verifies=True, ca=settings.ca)
    if settings.certificate is not None:
        try:
            # Without a password OpenSSL would ask at the terminal for that of a locked key.
            context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
        except OSError as error:
            why = error.strerror or str(error)
            raise TemporaryError(f"mqtt.certificate or mqtt.key cannot be used: {why}") from error
    return context


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        why = getattr(error, "verify_message", None) or error.reason or error
        return f"TLS failed: {why}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
