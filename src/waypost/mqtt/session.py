"""One session with the broker: paho's MQTT engine, which is given octets and no socket.

paho speaks MQTT 5 and 3.1.1; connecting, TLS and waiting are asyncio's and ours. The one hook of
paho that is replaced is `_create_socket`: see docs/decisions/0019.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any, cast

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from waypost.errors import PeerUnreachable
from waypost.mail.address import as_value
from waypost.mqtt.inbound import purpose_of
from waypost.mqtt.message import MARK, MAX_IN_HAND, MAX_PACKET, Message, PublishRefused, Received
from waypost.mqtt.settings import MqttSettings

# Without traffic the broker hears from us this often, and then sends our will after half as long
# again (MQTT 5 §3.1.2.10).
KEEPALIVE_S = 30
_LOOK_S = 5.0
# The broker keeps what comes for a hub that is away for so long.
LASTING_S = 7 * 86_400
_MAX_ECHOES = 64
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
            clean_session=None if is_five else not settings.hears_mail,
            protocol=_PROTOCOLS[settings.version],
            manual_ack=True,
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
        on_message: Callable[[Received], None],
    ) -> None:
        """`on_message` gets what others publish, and sees to it that it is acknowledged."""
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._on_message = on_message
        self.will = will
        self._client_id = client_id
        self._transport: asyncio.Transport | None = None
        self._engine: _Engine | None = None
        self._wire: _Wire | None = None
        self._pending: dict[int, tuple[str, asyncio.Future[None]]] = {}  # what, by packet id
        self._timer: asyncio.TimerHandle | None = None
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[str] = loop.create_future()  # why it ended
        self.max_packet: int | None = None  # octets the broker takes at once; None: not said
        self._farewell = ""  # why we have said it
        # What of ours a broker without "no local" will send us.
        self._echoes: deque[tuple[str, bytes]] = deque(maxlen=_MAX_ECHOES)
        self.is_resumed = False  # True: the broker knew us, and kept what came meanwhile

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
        if self._settings.version != "5" and purpose_of(self._settings, message.topic) is not None:
            self._echoes.append((message.topic, message.payload))
        given: dict[str, object] = {}
        if message.correlation is not None:
            given["CorrelationData"] = message.correlation
        if message.mark is not None:
            given["UserProperty"] = (MARK, message.mark)
        properties: Properties | None = None
        if given and self._settings.version == "5":
            properties = _properties(PacketTypes.PUBLISH, **given)
        info = self._engine.publish(
            message.topic, message.payload, 1, message.is_retained, properties
        )
        # Those beyond the window of what is under way wait within paho.
        if info.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE):
            raise PeerUnreachable("the connection to the MQTT broker is lost")
        return self._pending_result(info.mid, message.topic)

    def subscribe(self, topic: str) -> None:
        """Hear of messages there."""
        if self._engine is not None and not self._over.done():
            self._engine.subscribe(topic, 1)

    def hear_others(self, topic_filter: str, qos: int) -> asyncio.Future[None]:
        """Hear of what others publish from now on. Raises as `publish`, as does the result."""
        if self._engine is None or self._over.done():
            raise PeerUnreachable("the connection to the MQTT broker is lost")
        if self._settings.version == "5":
            options = SubscribeOptions(
                qos, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND
            )
            _, packet_id = self._engine.subscribe(topic_filter, options=options)
        else:
            _, packet_id = self._engine.subscribe(topic_filter, qos)
        return self._pending_result(packet_id, f"to let us hear {topic_filter}")

    def hear_no_more(self, topic_filter: str) -> asyncio.Future[None]:
        """Undo `hear_others` of this session, or of an earlier connection. Raises as that."""
        if self._engine is None or self._over.done():
            raise PeerUnreachable("the connection to the MQTT broker is lost")
        _, packet_id = self._engine.unsubscribe(topic_filter)
        return self._pending_result(packet_id, f"to forget {topic_filter}")

    def end(self, why: str) -> None:
        """Close the connection; without a farewell the broker sends our will."""
        self._finish(why)

    async def leave(self, limit_s: float, *, for_good: bool = False, why: str = "ended") -> None:
        """Say farewell, so that the broker forgets our will, and wait until it has closed.

        `for_good`: it need not keep anything for us any more (MQTT 5 only; §3.14.2.2.2).
        """
        if self._engine is None or self._over.done():
            return
        properties: Properties | None = None
        if for_good and self._settings.version == "5":
            properties = _properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0)
        self._farewell = why
        self._engine.disconnect(properties=properties)
        await asyncio.wait({self._over}, timeout=limit_s)
        self._finish(why)

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
        engine.on_subscribe = self._subscribed
        engine.on_unsubscribe = self._subscribed
        engine.on_message = self._heard
        url = self._settings.url
        options: dict[str, Any] = {}
        if self._settings.version == "5":
            # What goes out waits in the queue, so without mail from the broker nothing is left
            # there between sessions.
            options["clean_start"] = not self._settings.hears_mail
            if self._settings.hears_mail:
                options["properties"] = _properties(
                    PacketTypes.CONNECT,
                    SessionExpiryInterval=LASTING_S,
                    ReceiveMaximum=MAX_IN_HAND,
                    MaximumPacketSize=MAX_PACKET,
                )
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
        lost = "the connection was lost" + (f": {exc}" if exc else "")
        self._finish(self._farewell or lost)

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
        self.is_resumed = flags.session_present
        self._accepted.set_result(None)

    def _published(
        self,
        engine: Client,
        userdata: object,
        mid: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._settle(mid, reason)

    def _subscribed(
        self,
        engine: Client,
        userdata: object,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        # A broker of MQTT 3.1.1 gives no reasons with its UNSUBACK.
        self._settle(mid, reasons[0] if reasons else None)

    def _heard(self, engine: Client, userdata: object, message: MQTTMessage) -> None:
        acknowledge = partial(self._acknowledge, message.mid, message.qos)
        try:
            topic = message.topic
        except UnicodeDecodeError:  # no topic (MQTT 5 §4.7.3), and it would come again and again
            acknowledge()
            return
        payload = bytes(message.payload)
        if (topic, payload) in self._echoes:
            self._echoes.remove((topic, payload))
            acknowledge()
            return
        properties = message.properties
        assert self._transport is not None
        self._on_message(
            Received(
                *(topic, payload, message.qos, message.retain),
                *(message.mid, message.dup),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                as_value(ip_address(self._transport.get_extra_info("peername")[0])),
                as_value(ip_address(self._transport.get_extra_info("sockname")[0])),
                acknowledge,
                self._over.done,
            )
        )

    def _acknowledge(self, packet_id: int, qos: int) -> None:
        if self._engine is not None and not self._over.done():
            self._engine.ack(packet_id, qos)

    def _pending_result(self, packet_id: int | None, what: str) -> asyncio.Future[None]:
        if packet_id is None:
            raise PeerUnreachable("the connection to the MQTT broker is lost")
        result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending[packet_id] = (what, result)
        return result

    def _settle(self, packet_id: int, reason: ReasonCode | None) -> None:
        """The broker's word on what it was asked."""
        found = self._pending.pop(packet_id, None)
        if found is None or found[1].done():
            return
        what, result = found
        if reason is not None and reason.is_failure:
            result.set_exception(PublishRefused(f"the broker refuses {what}: {reason}"))
        else:
            result.set_result(None)


def _properties(packet_type: int, **values: object) -> Properties:
    """Properties as MQTT 5 §2.2.2 has them, under paho's names."""
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
