"""The engine between octets and the hub: whatever a broker says, it is no crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.errors import PeerUnreachable
from waypost.mqtt.message import Message, PublishRefused, Received
from waypost.mqtt.session import Session
from waypost.mqtt.settings import BrokerUrl, MqttSettings

CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_3 = b"\x20\x02\x00\x00"


class Sink:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False

    def write(self, octets: bytes) -> None:
        self.written += octets

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return {"peername": ("10.0.0.1", 1883), "sockname": ("10.0.0.2", 40000)}[name]


def opened(
    version: str = "5",
    *,
    requests: bool = False,
    on_message: Callable[[Received], None] = lambda _: None,
) -> tuple[Session, Sink]:
    settings = MqttSettings(BrokerUrl.parse("mqtt://10.0.0.1"), version=version, requests=requests)
    session = Session(settings, "hub", Message("a/b", b"offline", True), on_message)
    sink = Sink()
    session.connection_made(cast(asyncio.Transport, sink))
    return session, sink


@given(st.lists(st.binary(max_size=40), max_size=5), st.sampled_from(["5", "3.1.1"]), st.booleans())
def test_no_octets_are_a_crash(pieces: list[bytes], version: str, is_in: bool) -> None:
    async def run() -> None:
        session, _ = opened(version)
        if is_in:
            session.data_received(CONNACK_5 if version == "5" else CONNACK_3)
            await session.begin()
            session.publish(Message("a/c", b"x", False)).add_done_callback(
                lambda one: one.exception()
            )
        for piece in pieces:
            session.data_received(piece)
        session.connection_lost(None)
        assert await session.over()

    asyncio.run(run())


def test_what_is_under_way_fails_with_the_connection() -> None:
    async def run() -> None:
        session, _ = opened()
        session.data_received(CONNACK_5)
        await session.begin()
        sent = session.publish(Message("a/c", b"x", False))
        session.connection_lost(None)
        with pytest.raises(PeerUnreachable) as caught:
            await sent
        assert caught.value.has_sent_content
        with pytest.raises(PeerUnreachable):
            session.publish(Message("a/c", b"x", False))

    asyncio.run(run())


@pytest.mark.parametrize("piece_size", [1, 2, 100])
def test_the_broker_s_word_is_the_result(piece_size: int) -> None:
    async def run() -> None:
        session, sink = opened()
        # Maximum Packet Size 500 (MQTT 5 §3.2.2.3.6).
        octets = b"\x20\x08\x00\x00\x05\x27\x00\x00\x01\xf4"
        for at in range(0, len(octets), piece_size):
            session.data_received(octets[at : at + piece_size])
        await session.begin()
        assert session.max_packet == 500
        good, bad = (session.publish(Message("a/c", b"x", False)) for _ in range(2))
        assert sink.written.count(b"a/c") == 2
        # PUBACK; PUBACK with reason 0x87, not authorised.
        session.data_received(b"\x40\x02\x00\x01\x40\x03\x00\x02\x87")
        await good
        with pytest.raises(PublishRefused, match="a/c"):
            await bad
        await session.leave(0)
        assert sink.is_closed
        assert bytes(sink.written).endswith(b"\xe0\x00")

    asyncio.run(run())


def publish_packet(topic: bytes, payload: bytes, packet_id: int, version: str) -> bytes:
    """QoS 1, without properties (MQTT 5 §3.3)."""
    beyond = b"\0" if version == "5" else b""
    rest = len(topic).to_bytes(2) + topic + packet_id.to_bytes(2) + beyond + payload
    return b"\x32" + bytes([len(rest)]) + rest


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_nothing_is_acknowledged_unless_told_so(version: str) -> None:
    async def run() -> None:
        heard: list[Received] = []
        session, sink = opened(version, requests=True, on_message=heard.append)
        session.data_received(CONNACK_5 if version == "5" else CONNACK_3)
        sink.written.clear()
        session.data_received(publish_packet(b"waypost/send/x", b"hi", 9, version))
        assert not sink.written
        [received] = heard
        assert (received.topic, received.payload, received.packet_id) == (
            "waypost/send/x",
            b"hi",
            9,
        )
        assert (str(received.peer_ip), str(received.local_ip)) == ("10.0.0.1", "10.0.0.2")
        received.acknowledge()
        assert bytes(sink.written) == b"\x40\x02\0\x09"
        # No topic at all (MQTT 5 §1.5.4): it must not come for ever.
        session.data_received(publish_packet(b"a\xff", b"hi", 10, version))
        assert bytes(sink.written).endswith(b"\x40\x02\0\x0a")
        assert len(heard) == 1
        assert not received.is_void()
        session.connection_lost(None)
        assert received.is_void()
        sink.written.clear()
        received.acknowledge()
        assert not sink.written

    asyncio.run(run())


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_sessions_last_only_where_messages_become_mail(version: str) -> None:
    async def run() -> None:
        for requests in (False, True):
            session, sink = opened(version, requests=requests)
            # Connect Flags (MQTT 5 §3.1.2.3): clean start, or clean session.
            assert bool(sink.written[9] & 2) is not requests
            # Session Expiry Interval: a week.
            is_five = version == "5"
            assert (b"\x11\0\x09\x3a\x80" in sink.written) is (requests and is_five)
            session.data_received(b"\x20\x03\x01\0\0" if is_five else b"\x20\x02\x01\0")
            assert session.is_resumed
            await session.leave(0, for_good=True)
            # DISCONNECT; with an interval of 0 (§3.14.2.2.2).
            end = b"\xe0\x07\0\x05\x11\0\0\0\0" if is_five else b"\xe0\0"
            assert bytes(sink.written).endswith(end)

    asyncio.run(run())


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_what_others_say_is_asked_for(version: str) -> None:
    async def run() -> None:
        session, sink = opened(version, requests=True)
        is_five = version == "5"
        session.data_received(CONNACK_5 if is_five else CONNACK_3)
        sink.written.clear()
        refused, gone = session.hear_others("a/#", 1), session.hear_no_more("b")
        # No Local, and nothing kept (MQTT 5 §3.8.3.1).
        assert (b"a/#\x25" if is_five else b"a/#\x01") in sink.written
        session.data_received(b"\x90\x04\0\x01\0\x87" if is_five else b"\x90\x03\0\x01\x80")
        session.data_received(b"\xb0\x04\0\x02\0\0" if is_five else b"\xb0\x02\0\x02")
        with pytest.raises(PublishRefused, match="to let us hear a/#"):
            await refused
        await gone

    asyncio.run(run())


def test_a_broker_without_no_local_gives_back_what_is_no_mail() -> None:
    async def run() -> None:
        heard: list[Received] = []
        session, sink = opened("3.1.1", requests=True, on_message=heard.append)
        session.data_received(CONNACK_3)
        session.publish(Message("waypost/send/x", b"ours", False))
        sink.written.clear()
        for packet_id, payload in enumerate((b"theirs", b"ours", b"ours"), 1):
            session.data_received(publish_packet(b"waypost/send/x", payload, packet_id, "3.1.1"))
        assert [one.payload for one in heard] == [b"theirs", b"ours"]
        assert bytes(sink.written) == b"\x40\x02\0\x02"
        session.end("over")

    asyncio.run(run())
