"""One session with the broker: paho's MQTT engine, which is given octets and no socket.

paho speaks MQTT 5 and 3.1.1; connecting, TLS and waiting are asyncio's and ours. The one hook of
paho that is replaced is `_create_socket`: see docs/decisions/0019.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from waypost.errors import PeerUnreachable
from waypost.mqtt.message import MARK, Message, PublishRefused
from waypost.mqtt.settings import MqttSettings

# Without traffic the broker hears from us this often, and then sends our will after half as long
# again (MQTT 5 §3.1.2.10).
KEEPALIVE_S = 30
_LOOK_S = 5.0
_PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


class _Wire:
    """What paho takes for its socket: octets that have come, and a way for those that go."""

    def __init__(self, write: Callable[[bytes], None], close: Callable[[], None]) -> None:
        self._write = write
        self.close = close
        self.received = bytearray()

    def recv(self, buffer_size: int) -> bytes:
        if not self.received:
            raise BlockingIOError
        octets = bytes(self.received[:buffer_size])
        del self.received[:buffer_size]
        return octets

    def send(self, buffer: bytes | bytearray) -> int:
        self._write(bytes(buffer))
        return len(buffer)

    def fileno(self) -> int:
        return -1  # nobody waits for it

    def setblocking(self, flag: bool) -> None:
        """It never blocks."""


class _Engine(Client):
    """paho's client around a wire."""

    def __init__(self, wire: _Wire, client_id: str, settings: MqttSettings) -> None:
        is_five = settings.version == "5"
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if is_five else True,
            protocol=_PROTOCOLS[settings.version],
        )
        self._wire = wire

    def _create_socket(self) -> _Wire:
        return self._wire


class Session(asyncio.Protocol):
    """Of one connection; ends with it."""

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        will: Message,
        on_message: Callable[[str, bytes, bool], None],
    ) -> None:
        """`on_message` gets topic, payload, and whether the broker had kept it."""
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._on_message = on_message
        self.will = will
        self._client_id = client_id
        self._transport: asyncio.Transport | None = None
        self._engine: _Engine | None = None
        self._wire: _Wire | None = None
        self._pending: dict[int, tuple[Message, asyncio.Future[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[str] = loop.create_future()  # why it ended
        self.max_packet: int | None = None  # octets the broker takes at once; None: not said

    async def begin(self) -> None:
        """Until the broker has let us in. Raises PeerUnreachable."""
        ends: list[asyncio.Future[Any]] = [self._accepted, self._over]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._over.done():
            raise PeerUnreachable(self._over.result(), never_connected=True)

    async def over(self) -> str:
        """Why it has ended, once it has."""
        return await asyncio.shield(self._over)

    def publish(self, message: Message) -> asyncio.Future[None]:
        """Send it; the result comes with the broker's PUBACK.

        Raises PeerUnreachable; so does the result, or PublishRefused.
        """
        if self._engine is None or self._over.done():
            raise PeerUnreachable("the connection to the MQTT broker is lost")
        properties: Properties | None = None
        if message.mark is not None and self._settings.version == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.UserProperty = (MARK, message.mark)
        info = self._engine.publish(
            message.topic, message.payload, 1, message.is_retained, properties
        )
        # Those beyond the window of what is under way wait within paho.
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE):
            raise PeerUnreachable("the connection to the MQTT broker is lost")
        result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[info.mid] = (message, result)
        return result

    def subscribe(self, topic: str) -> None:
        """Hear of messages there."""
        if self._engine is not None and not self._over.done():
            self._engine.subscribe(topic, 1)

    def end(self, why: str) -> None:
        """Close the connection; without a farewell the broker sends our will."""
        self._finish(why)

    async def leave(self, limit_s: float) -> None:
        """Say farewell, so that the broker forgets our will, and wait until it has closed."""
        if self._engine is None or self._over.done():
            return
        self._engine.disconnect()
        await asyncio.wait({self._over}, timeout=limit_s)
        self._finish("ended")

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._wire = _Wire(self._transport.write, self._transport.close)
        engine = self._engine = _Engine(self._wire, self._client_id, self._settings)
        if self._settings.username is not None:
            password = self._settings.password
            engine.username_pw_set(
                self._settings.username, None if password is None else password.revealed
            )
        engine.will_set(self.will.topic, self.will.payload, 1, self.will.is_retained)
        engine.on_connect = self._connected
        engine.on_publish = self._published
        engine.on_message = self._heard
        url = self._settings.url
        is_five = self._settings.version == "5"
        # The queue keeps what matters, so nothing is left with the broker between sessions.
        options: dict[str, Any] = {"clean_start": True} if is_five else {}
        engine.connect_async(url.name, url.port, KEEPALIVE_S, **options)
        engine.reconnect()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        assert self._wire is not None
        assert self._engine is not None
        self._wire.received += data
        try:
            while self._wire.received and not self._over.done():
                code = self._engine.loop_read()
                if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    self._finish(f"the broker ended the session ({code.name})")
            # What was said within callbacks.
            while self._engine.want_write() and not self._over.done():
                self._engine.loop_write()
        except Exception as error:  # whatever paho makes of what is no MQTT
            self._finish(f"what answers speaks no MQTT ({type(error).__name__})")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._finish("the connection was lost" + (f": {exc}" if exc else ""))

    def _look(self) -> None:
        """Now and then: is the broker still there?"""
        assert self._engine is not None
        if self._over.done():
            return
        if self._engine.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._finish(f"the broker said nothing for {KEEPALIVE_S} s")
            return
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _finish(self, why: str) -> None:
        if self._over.done():
            return
        self._over.set_result(why)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        pending, self._pending = self._pending, {}
        for _, result in pending.values():
            if not result.done():
                text = "the connection to the MQTT broker was lost"
                result.set_exception(PeerUnreachable(text, has_sent_content=True))

    # What paho calls.

    def _connected(
        self,
        engine: Client,
        userdata: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._accepted.done():
            return
        if reason.is_failure:
            self._finish(f"the broker refuses us: {reason}")
            return
        self.max_packet = getattr(properties, "MaximumPacketSize", None)
        self._accepted.set_result(None)

    def _published(
        self,
        engine: Client,
        userdata: object,
        mid: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        found = self._pending.pop(mid, None)
        if found is None or found[1].done():
            return
        message, result = found
        if reason.is_failure:
            result.set_exception(PublishRefused(f"the broker refuses {message.topic}: {reason}"))
        else:
            result.set_result(None)

    def _heard(self, engine: Client, userdata: object, message: MQTTMessage) -> None:
        self._on_message(message.topic, bytes(message.payload), message.retain)
