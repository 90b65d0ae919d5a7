"""The transport of ``publish:`` targets: what a mail says, on a topic of others.

Nothing that was cut short is published: half a command may be another one.
"""

from __future__ import annotations

import json
import re

from waypost.delivery.events import Event, EventReader
from waypost.delivery.mqtt import FROM_MQTT
from waypost.delivery.transport import DeliveryJob, failed
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.mqtt.bridge import Bridge
from waypost.mqtt.message import Message
from waypost.mqtt.publication import Payload, Publication
from waypost.reading.values import Limits
from waypost.routing.targets import Target

# What a holiday responder writes (RFC 3834 §5); other automatic mail, cron's too, is published.
_AUTOMATIC_REPLY = "auto-replied"
# How the mark of mail made of a message ends: with the topic, or the beginning of a long one.
_BY_TOPIC = re.compile(r"\((.+)\)$")


class PublishTransport:
    """One mail for one topic becomes one message, whoever its recipients are."""

    def __init__(self, bridge: Bridge, events: EventReader) -> None:
        self._bridge = bridge
        self._events = events

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport. OFF must not overtake ON."""
        return 1

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport. Raises TemporaryError for the job as a whole."""
        made = await published(self._events, job.message, job.target.argument)
        reply = made if isinstance(made, Reply) else await self._publish(made)
        return [Outcome.of(reply, success=OutcomeKind.DELIVERED)] * len(job.recipients)

    async def _publish(self, made: Message) -> Reply:
        if not self._bridge.takes(len(made.payload)):
            return failed("not published, as the broker takes no message of this size", (3, 4))
        await self._bridge.publish(made)
        return Reply(250, f"Published, {len(made.payload)} octets", (0, 0))


async def published(events: EventReader, message: QueuedMessage, argument: str) -> Message | Reply:
    """What is published of a mail by the argument of a target, or why nothing is.

    Nothing is sent here. Raises TemporaryError.
    """
    publication = Publication.parse(argument)
    for value in await events.values(message, FROM_MQTT):
        if _may_come_from(publication.topic, value):
            return Reply(250, "It came from MQTT, by this topic: not published", (0, 0))
    for value in await events.values(message, "auto-submitted"):
        if value.partition(";")[0].strip().lower() == _AUTOMATIC_REPLY:
            return Reply(250, "An automatic reply: not published", (0, 0))
    event = await events.read(message, Limits().text)
    if publication.payload is not Payload.EVENT:
        if event.mail.fault is not None:
            return failed(f"not published, as not all can be read: {event.mail.fault}", (6, 0))
        if event.json["text_truncated"]:
            return failed("not published, as the text is too long", (3, 4))
    payload = _payload(event, publication.payload)
    return Message(publication.topic, payload, False, mark=message.queue_id)


def _may_come_from(topic: str, value: str) -> bool:
    """By the mark of a mail that was made of a message; one without a topic may be of any."""
    named = _BY_TOPIC.search(value)
    return named is None or topic.startswith(named[1])


def _payload(event: Event, payload: Payload) -> bytes:
    text = event.mail.text.strip()
    match payload:
        case Payload.TEXT:
            return text.encode("utf-8", "replace")
        case Payload.LINE:
            return text.partition("\n")[0].rstrip().encode("utf-8", "replace")
        case Payload.SUBJECT:
            return event.mail.subject.strip().encode("utf-8", "replace")
        case Payload.EVENT:
            return json.dumps(event.json, ensure_ascii=True).encode()
