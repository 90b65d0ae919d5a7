"""Messages on their way to the door: when they are acknowledged, when they wait, what is let go."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, cast

import pytest

from waypost.intake import mqtt_subscriber
from waypost.intake.door import Door
from waypost.intake.mqtt_mail import MAX_TRANSACTION, answer_to, mark_of
from waypost.intake.mqtt_subscriber import MAX_HELD, MqttSubscriber
from waypost.intake.requests import RequestRefused, SendRequest, read_json
from waypost.mail import reply as replies
from waypost.mail.envelope import Arrival
from waypost.mail.reply import Reply
from waypost.mqtt.inbound import ForRoute, Purpose, Request
from waypost.mqtt.message import MAX_IN_HAND, Message, Received
from waypost.mqtt.settings import BrokerUrl, MqttSettings
from waypost.observe import Log

SETTINGS = MqttSettings(BrokerUrl.parse("mqtt://10.0.0.1"), requests=True)
OPS = ForRoute("ops")
TAKEN = Reply(250, "queued as q1", (0, 0))
IP = ip_address("10.0.0.1")


class Connection:
    """Of the broker, as far as messages know of it."""

    def __init__(self) -> None:
        self.is_over = False
        self.acknowledged: list[int] = []

    def message(
        self,
        number: int,
        payload: bytes = b"",
        *,
        topic: str = "waypost/send/ops",
        qos: int = 1,
        is_again: bool = False,
    ) -> Received:
        return Received(
            *(topic, payload, qos, False, number, is_again, None, b"c", IP, IP),
            acknowledge=lambda: None if self.is_over else self.acknowledged.append(number),
            is_void=lambda: self.is_over,
        )


class FakeDoor:
    """Answers in turn, the last for ever; a text for each mail it was given."""

    def __init__(self, *answers: Reply | Exception) -> None:
        self.answers = list(answers) or [TAKEN]
        self.texts: list[str] = []
        self.arrivals: list[Arrival] = []
        self.fields: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def submit(
        self,
        request: SendRequest,
        arrival: Arrival,
        *,
        default_sender: str,
        fields: Iterable[tuple[str, str]] = (),
    ) -> Reply:
        self.texts.append(request.text)
        self.arrivals.append(arrival)
        self.fields += fields
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Desk:
    """A subscriber and all around it."""

    def __init__(self, door: FakeDoor) -> None:
        self.said: list[Message] = []
        self.reconnects = 0
        self.connection = Connection()
        self.subscriber = MqttSubscriber(
            cast(Door, door),
            say=self.said.append,
            connect_again=self.connect_again,
            log=Log(os.open(os.devnull, os.O_WRONLY)),
        )

    async def connect_again(self) -> None:
        self.reconnects += 1
        self.connection.is_over = True

    def take(self, received: Received, purpose: Purpose = OPS) -> None:
        self.subscriber.take(received, purpose, SETTINGS)


@asynccontextmanager
async def running(door: FakeDoor) -> AsyncIterator[Desk]:
    desk = Desk(door)
    task = asyncio.create_task(desk.subscriber.run())
    try:
        yield desk
    finally:
        task.cancel()


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not look():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_subscriber, "FIRST_WAIT_S", 0.01)


def test_acknowledged_when_durable_and_not_before() -> None:
    async def run() -> None:
        door = FakeDoor(replies.QUEUE_FULL, replies.STORE_AWAY, TAKEN)
        async with running(door) as desk:
            desk.take(desk.connection.message(1, b"x"))
            door.gate.clear()
            await until(lambda: door.texts)
            assert not desk.connection.acknowledged
            door.gate.set()
            await until(lambda: desk.connection.acknowledged)
            assert door.texts == ["x"] * 3
            assert not desk.said
        [arrival] = set(door.arrivals)
        assert (arrival.protocol, arrival.listener, arrival.client_ip) == ("MQTT", "mqtt", IP)
        assert door.fields[0] == ("X-Waypost-MQTT", mark_of(desk.connection.message(1, b"x")))

    asyncio.run(run())


def test_a_fault_of_ours_stops_neither_the_hub_nor_what_follows() -> None:
    async def run() -> None:
        async with running(FakeDoor(RuntimeError("bug"), replies.RELAY_DENIED, TAKEN)) as desk:
            for number in range(3):
                desk.take(desk.connection.message(number, b'{"to":["a@b.test"]}'), Request())
            await until(lambda: len(desk.connection.acknowledged) == 3)
            said = [json.loads(one.payload) for one in desk.said]
            assert [one.get("enhanced") for one in said] == ["5.3.0", "5.7.1", None]
            assert said[2] == {"status": "ok", "id": "q1"}
            assert {one.correlation for one in desk.said} == {b"c"}

    asyncio.run(run())


def test_each_topic_has_its_turn() -> None:
    async def run() -> None:
        door = FakeDoor()
        async with running(door) as desk:
            for number in range(20):
                desk.take(desk.connection.message(number, b"wild%d" % number, topic="wild"))
            desk.take(desk.connection.message(20, b"calm", topic="calm"))
            await until(lambda: len(desk.connection.acknowledged) == 21)
            assert door.texts.index("calm") <= 2
            assert [text for text in door.texts if text != "calm"] == [
                f"wild{number}" for number in range(20)
            ]

    asyncio.run(run())


def test_durable_but_the_connection_is_lost_is_not_mail_twice() -> None:
    async def run() -> None:
        door = FakeDoor()
        async with running(door) as desk:
            payload = b'{"to":["a@b.test"],"transaction":1}'
            door.gate.clear()
            desk.take(desk.connection.message(7, payload), Request())
            desk.take(desk.connection.message(8, payload), Request())
            await until(lambda: door.texts)
            desk.connection.is_over = True
            door.gate.set()
            await asyncio.sleep(0.05)
            assert not desk.said
            second = Connection()
            desk.take(second.message(7, payload, is_again=True), Request())
            assert (second.acknowledged, len(desk.said)) == ([7], 1)
            # That one had not been under way.
            desk.take(second.message(8, payload, is_again=True), Request())
            await until(lambda: second.acknowledged == [7, 8])
            assert len(door.texts) == 2

    asyncio.run(run())


def test_more_than_there_is_room_for_is_let_go_and_asked_for_again() -> None:
    async def run() -> None:
        door = FakeDoor()
        async with running(door) as desk:
            door.gate.clear()
            large = bytes(MAX_HELD // 4)
            for number in range(6):
                desk.take(desk.connection.message(number, large))
            desk.take(desk.connection.message(6, b"small"))
            desk.take(desk.connection.message(0, b"small", qos=0))
            await until(lambda: door.texts)
            door.gate.set()
            await until(lambda: desk.reconnects)
            assert len(desk.connection.acknowledged) == len(door.texts) < 5
            again = Connection()
            for number in range(len(door.texts), 7):
                desk.take(again.message(number, b"x", is_again=True))
            await until(lambda: len(again.acknowledged) + len(desk.connection.acknowledged) == 7)
            assert desk.reconnects == 1

    asyncio.run(run())


def test_what_waits_of_a_lost_connection_takes_no_room() -> None:
    async def run() -> None:
        door = FakeDoor(replies.STORE_AWAY)
        async with running(door) as desk:
            for _ in range(3):
                connection = Connection()
                for number in range(MAX_IN_HAND):
                    desk.take(connection.message(number, b"x", is_again=True))
                await asyncio.sleep(0.02)
                connection.is_over = True
            last = Connection()
            door.answers = [TAKEN]
            for number in range(5):
                desk.take(last.message(number, b"x", is_again=True))
            await until(lambda: len(last.acknowledged) == 5)

    asyncio.run(run())


def test_at_the_end_what_is_under_way_ends_and_the_rest_is_left() -> None:
    async def run() -> None:
        door = FakeDoor()
        async with running(door) as desk:
            door.gate.clear()
            for number in range(3):
                desk.take(desk.connection.message(number))
            await until(lambda: door.texts)
            closing = asyncio.create_task(desk.subscriber.close(20))
            await asyncio.sleep(0.01)
            desk.take(desk.connection.message(3))
            door.gate.set()
            await closing
            assert desk.connection.acknowledged == [0]

    asyncio.run(run())


def test_answers_are_json_whatever_was_asked() -> None:
    refused = answer_to(replies.RELAY_DENIED, {"a": 1})
    assert json.loads(refused) == {
        "status": "error",
        "error": replies.RELAY_DENIED.text,
        "code": 550,
        "enhanced": "5.7.1",
        "transaction": {"a": 1},
    }
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    for transaction in (deep, float("inf"), "x" * MAX_TRANSACTION, None):
        assert json.loads(answer_to(TAKEN, transaction)) == {"status": "ok", "id": "q1"}
    while deep:  # or freeing it would go as deep
        deep = deep.pop()


def test_json_of_very_many_values_is_not_read() -> None:
    with pytest.raises(RequestRefused, match="fewer values"):
        read_json(b"[" + b"[]," * 2_000_000 + b"[]]")
