"""The connection to the broker by itself: names, addresses that do not answer, other settings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from tests.support.mosquitto import Mosquitto
from tests.support.static_resolver import StaticResolver
from waypost.errors import PeerUnreachable
from waypost.mqtt.broker import Broker
from waypost.mqtt.message import Message
from waypost.mqtt.settings import BrokerUrl, MqttSettings
from waypost.net.gate import Gate
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks
from waypost.observe import Log

WILL = Message("base/bridge/state", b"offline", True)


@asynccontextmanager
async def running(resolver: StaticResolver) -> AsyncIterator[Broker]:
    own = OwnAddresses(follow_interfaces=False, extra=[ip_address("203.0.113.7")])
    log = Log(os.open(os.devnull, os.O_WRONLY))
    broker = Broker(
        Gate(trusted=Networks(()), own=own, listening=frozenset),
        resolver=lambda: resolver,
        on_connected=lambda: None,
        on_message=lambda *_: None,
        log=log,
    )
    task = asyncio.create_task(broker.run())
    try:
        yield broker
    finally:
        await broker.leave()
        task.cancel()
        log.close()


def settings(host: str, port: int) -> MqttSettings:
    return MqttSettings(BrokerUrl.parse(f"mqtt://{host}:{port}"))


def test_a_name_leads_to_the_address_that_answers() -> None:
    """The gate forbids the first, nobody listens at the second."""
    resolver = StaticResolver(
        {
            ("broker.test", "AAAA"): ["::1"],
            ("broker.test", "A"): ["255.255.255.255", "127.0.0.9", "127.0.0.1"],
        }
    )

    async def run(mosquitto: Mosquitto) -> None:
        async with running(resolver) as broker:
            await broker.configure(settings("broker.test", mosquitto.port), "hub", WILL)
            await broker.ready(10)
            await broker.publish_all([Message("base/x", b"1", True)])

    with Mosquitto() as mosquitto:
        asyncio.run(run(mosquitto))
        assert mosquitto.kept("base/#") == {"base/x": b"1", WILL.topic: WILL.payload}


def test_why_there_is_no_session_is_said() -> None:
    async def run() -> None:
        async with running(StaticResolver()) as broker:
            await broker.configure(settings("nowhere.test", 1883), "hub", WILL)
            await asyncio.sleep(0.2)
            with pytest.raises(PeerUnreachable, match=r"nowhere\.test has no address") as caught:
                await broker.ready(0)
            assert caught.value.never_connected
            with pytest.raises(PeerUnreachable):
                await broker.publish_all([Message("base/x", b"1", True)])

    asyncio.run(run())


def test_other_settings_count_at_once() -> None:
    """Also in the middle of a long pause."""

    async def run(first: Mosquitto, second: Mosquitto) -> None:
        async with running(StaticResolver()) as broker:
            await broker.configure(settings("127.0.0.1", first.port), "hub", WILL)
            await broker.ready(10)
            await broker.configure(settings("127.0.0.1", second.port), "hub", WILL)
            await broker.ready(10)
            await broker.publish_all([Message("base/x", b"1", True)])
            await broker.configure(None, "", WILL)
            with pytest.raises(PeerUnreachable):
                broker.publish(Message("base/x", b"2", True))

    with Mosquitto() as first, Mosquitto() as second:
        asyncio.run(run(first, second))
        assert first.kept("base/#") == {WILL.topic: WILL.payload}
        assert second.kept("base/#") == {"base/x": b"1", WILL.topic: WILL.payload}
