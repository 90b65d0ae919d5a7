"""The transport of ``mqtt:KIND`` targets: a mail becomes an event of its device."""

from __future__ import annotations

from typing import NamedTuple

from waypost.delivery.attachments import BASE64, EventSettings, LeftOut, attached, enclosed
from waypost.delivery.events import EventReader
from waypost.delivery.transport import DeliveryJob
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.mqtt.bridge import Bridge
from waypost.mqtt.happening import Happening, Picture
from waypost.routing.targets import Target

# In mail that was made of a message from MQTT: published again, it would go round.
FROM_MQTT = "x-waypost-mqtt"

_PICTURES = frozenset({"image/jpeg", "image/png"})
_PUBLISHED = Outcome(OutcomeKind.DELIVERED, Reply(250, "Published", (0, 0)))
_CAME_FROM_THERE = Outcome(OutcomeKind.DELIVERED, Reply(250, "It came from MQTT", (0, 0)))


class Published(NamedTuple):
    """A mail as it is to be published."""

    happening: Happening
    is_smaller: bool = False  # the picture was too large


async def published(
    events: EventReader, settings: EventSettings, message: QueuedMessage, kind: str
) -> Published | None:
    """What is published of a mail; nothing is sent here. None: it came from MQTT itself.

    Raises TemporaryError.
    """
    if await events.has_field(message, FROM_MQTT):
        return None
    device = events.device_of(message)
    event = await events.read(message, settings.max_text, kind)
    entries = event.attachments
    if settings.attachments == BASE64:
        entries = await attached(events, message, event, settings.rules)
    picture, is_smaller = None, False
    for entry, attachment in zip(entries, event.mail.attachments, strict=True):
        if attachment.type not in _PICTURES:
            continue
        found = await enclosed(events, message, attachment, settings.rules)
        if not isinstance(found, LeftOut):
            picture, is_smaller = Picture(found.type, found.octets), found.is_smaller
            break
        entry["left_out"] = found.why
    happening = Happening(
        *(device.slug, device.name, device.source, device.kind, kind),
        *(message.accepted_at, {**event.json, "attachments": entries}, picture),
    )
    return Published(happening, is_smaller)


class MqttTransport:
    """One mail for one target becomes one event, whoever its recipients are."""

    def __init__(self, bridge: Bridge, events: EventReader) -> None:
        self._bridge = bridge
        self._events = events
        self.settings = EventSettings()  # may be replaced while running (reload)

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport. Each holds a picture in memory, and one process reads them all."""
        return 8

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport. Raises TemporaryError for the job as a whole."""
        made = await published(self._events, self.settings, job.message, job.target.argument)
        if made is None:
            return [_CAME_FROM_THERE] * len(job.recipients)
        await self._bridge.tell(made.happening)
        return [_PUBLISHED] * len(job.recipients)
