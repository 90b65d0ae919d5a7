"""Mail from MQTT: messages go in by the door, and the broker may forget them when they are durable.

One after the other, each topic in its turn: one that floods does not hold up the rest. So
acknowledgements have the order of messages within a topic only; MQTT 5 §4.6 wants it for all, and
brokers go by packet ids. A message the hub cannot keep now waits without one, as do the others;
what can never be taken is acknowledged and told of.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import NamedTuple

from waypost.intake.door import Door
from waypost.intake.mqtt_mail import FIELD, answer_to, mark_of, request_of
from waypost.intake.requests import RequestRefused
from waypost.intake.topic_rates import (
    MAX_TOPIC,
    PER_MINUTE,
    REQUESTS_PER_MINUTE,
    TopicRates,
)
from waypost.mail.envelope import Arrival
from waypost.mail.reply import Reply
from waypost.mqtt.inbound import Purpose, Request, answer_topic
from waypost.mqtt.message import MAX_IN_HAND, Message, Received
from waypost.mqtt.settings import MqttSettings
from waypost.observe import Log

# What traces and routes call it.
PROTOCOL = "MQTT"
LISTENER = "mqtt"
# Local part of the sender, where none is named.
SENDER = "mqtt"

# Messages that wait here, and their octets together; one may always.
MAX_WAITING = MAX_IN_HAND
MAX_HELD = 32 << 20
# Between tries, when the store is full or away: twice as long after each.
FIRST_WAIT_S = 0.5
MAX_WAIT_S = 30.0
# Messages that were durable when their connection was lost.
_MAX_TAKEN = 16

_FAULT = Reply(554, "A fault here; the log has it", (3, 0))


class _Waiting(NamedTuple):
    """A message, and what holds for it."""

    received: Received
    purpose: Purpose
    settings: MqttSettings

    @property
    def octets(self) -> int:
        """What it takes to keep it; all of this is as long as others like."""
        one = self.received
        beside = len(one.response_topic or "") + len(one.correlation or b"")
        return len(one.topic) + len(one.payload) + beside

    def is_lost(self) -> bool:
        """True when the broker will send it again, by another connection."""
        return self.received.qos > 0 and self.received.is_void()


class MqttSubscriber:
    """Takes messages of the bridge."""

    def __init__(
        self,
        door: Door,
        *,
        say: Callable[[Message], None],
        connect_again: Callable[[], Awaitable[None]],
        log: Log,
    ) -> None:
        """`say` publishes an answer; `connect_again` has the broker send what it still has."""
        self._door = door
        self._say = say
        self._connect_again = connect_again
        self._log = log
        self._rates = TopicRates(log)
        self._waiting: OrderedDict[str, deque[_Waiting]] = OrderedDict()  # by topic, in turn
        self._count = 0  # of those, and of the one under way
        self._held = 0  # octets of those
        self._news = asyncio.Event()
        self._closing = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_told = False  # that mail waits
        # Of a message that found no room and was not acknowledged: is its connection over?
        self._let_go: Callable[[], bool] | None = None  # None: there was room for all
        self._taken: OrderedDict[tuple[int, str, bytes], Message | None] = OrderedDict()

    def take(self, received: Received, purpose: Purpose, settings: MqttSettings) -> None:
        """Have it become mail, in its turn; it is acknowledged then."""
        if self._closing.is_set():
            return
        if received.is_again:
            key = _key(received)
            if key in self._taken:
                self._end(received, self._taken.pop(key))
                return
        elif not self._rates.takes(received.topic, _per_minute(purpose)):
            received.acknowledge()
            return
        one = _Waiting(received, purpose, settings)
        if not self._has_room(one.octets):
            if received.qos:
                self._let_go = received.is_void
            return
        self._waiting.setdefault(received.topic, deque()).append(one)
        self._count += 1
        self._held += one.octets
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                topic, row = self._waiting.popitem(last=False)
                one = row.popleft()
                if row:
                    self._waiting[topic] = row
                self._idle.clear()
                try:
                    await self._settle(one)
                finally:
                    self._drop(one)
                    self._idle.set()
            if self._is_letting_go():
                await self._connect_again()

    async def close(self, limit_s: float) -> None:
        """Take nothing more; what is under way may end, the rest comes again."""
        self._closing.set()
        self._waiting.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()

    def _has_room(self, octets: int) -> bool:
        if self._is_letting_go():
            return False  # in order, all behind one that was let go
        if self._is_full(octets):
            for topic, row in list(self._waiting.items()):
                for one in [one for one in row if one.is_lost()]:
                    row.remove(one)
                    self._drop(one)
                if not row:
                    del self._waiting[topic]
        return not self._is_full(octets)

    def _is_full(self, octets: int) -> bool:
        return bool(self._count) and (self._count >= MAX_WAITING or self._held + octets > MAX_HELD)

    def _drop(self, one: _Waiting) -> None:
        self._count -= 1
        self._held -= one.octets

    def _is_letting_go(self) -> bool:
        if self._let_go is not None and self._let_go():
            self._let_go = None  # by the next connection it comes again
        return self._let_go is not None

    async def _settle(self, one: _Waiting) -> None:
        """Try until the message is mail, or is known not to become any."""
        received = one.received
        topic = received.topic[:MAX_TOPIC]
        wait_s = FIRST_WAIT_S
        while not (one.is_lost() or self._closing.is_set()):
            reply, transaction = await self._submit(one)
            # RFC 3463 §3.4: x.3.z is about this mail system, not about the message.
            if reply.is_transient and reply.status is not None and reply.status[0] == 3:
                if not self._is_told:
                    self._is_told = True
                    self._log.event("mqtt-mail-waits", topic=topic, why=reply)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._closing.wait()
                wait_s = min(2 * wait_s, MAX_WAIT_S)
                continue
            self._is_told = False
            if not reply.is_positive:
                self._log.event("mqtt-mail-refused", topic=topic, why=reply)
            answer: Message | None = None
            if isinstance(one.purpose, Request):
                answer = Message(
                    answer_topic(one.settings, received.response_topic),
                    *(answer_to(reply, transaction), False, received.correlation),
                )
            if one.is_lost():
                self._taken[_key(received)] = answer
                if len(self._taken) > _MAX_TAKEN:
                    self._taken.popitem(last=False)
            else:
                self._end(received, answer)
            return

    async def _submit(self, one: _Waiting) -> tuple[Reply, object]:
        """The door's reply, and the request's transaction."""
        received = one.received
        arrival = Arrival(PROTOCOL, received.peer_ip, received.local_ip, "", LISTENER, trusted=True)
        try:
            request = await asyncio.to_thread(request_of, one.purpose, received)
            reply = await self._door.submit(
                request, arrival, default_sender=SENDER, fields=[(FIELD, mark_of(received))]
            )
        except RequestRefused as refused:
            return Reply(501, str(refused), (5, 4)), refused.transaction
        except Exception as error:  # or a message that hits a fault would stop the hub for ever
            self._log.event("bug", task="mail from MQTT", why=repr(error))
            return _FAULT, None
        return reply, request.transaction

    def _end(self, received: Received, answer: Message | None) -> None:
        # In this order: a connection lost between both has the answer come twice, not never.
        if answer is not None:
            self._say(answer)
        received.acknowledge()


def _per_minute(purpose: Purpose) -> int:
    return REQUESTS_PER_MINUTE if isinstance(purpose, Request) else PER_MINUTE


def _key(received: Received) -> tuple[int, str, bytes]:
    return received.packet_id, received.topic, sha256(received.payload).digest()
