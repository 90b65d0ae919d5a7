"""The engine between octets and the hub: whatever a broker says, it is no crash."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.errors import PeerUnreachable
from waypost.mqtt.message import Message, PublishRefused
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


def opened(version: str = "5") -> tuple[Session, Sink]:
    settings = MqttSettings(BrokerUrl.parse("mqtt://10.0.0.1"), version=version)
    session = Session(settings, "hub", Message("a/b", b"offline", True), lambda *_: None)
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
