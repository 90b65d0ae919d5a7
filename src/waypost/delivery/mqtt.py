"""The transport of ``mqtt:KIND`` targets: a mail becomes an event of its device."""

from __future__ import annotations

from waypost.delivery.events import EventReader
from waypost.delivery.transport import DeliveryJob
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.mqtt.bridge import Bridge, Happening, Picture
from waypost.reading.values import ReadMail
from waypost.routing.targets import Target

# In mail that was made of a message from MQTT: published again, it would go round.
FROM_MQTT = "x-waypost-mqtt"

_PICTURES = frozenset({"image/jpeg", "image/png"})
_PUBLISHED = Outcome(OutcomeKind.DELIVERED, Reply(250, "Published", (0, 0)))
_CAME_FROM_THERE = Outcome(OutcomeKind.DELIVERED, Reply(250, "It came from MQTT", (0, 0)))


class MqttTransport:
    """One mail for one target becomes one event, whoever its recipients are."""

    def __init__(self, bridge: Bridge, events: EventReader) -> None:
        self._bridge = bridge
        self._events = events

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport. Each holds a picture in memory, and one process reads them all."""
        return 8

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport. Raises TemporaryError for the job as a whole."""
        if await self._events.has_field(job.message, FROM_MQTT):
            return [_CAME_FROM_THERE] * len(job.recipients)
        message, kind = job.message, job.target.argument
        device = self._events.device_of(message)
        event = await self._events.read(message, event_type=kind)
        picture = await self._picture(message, event.mail)
        await self._bridge.tell(
            Happening(
                *(device.slug, device.name, device.source, device.kind, kind),
                *(message.accepted_at, event.json, picture),
            )
        )
        return [_PUBLISHED] * len(job.recipients)

    async def _picture(self, message: QueuedMessage, mail: ReadMail) -> Picture | None:
        """The first that may be shown; None: there is none."""
        settings = self._bridge.settings
        for one in mail.attachments:
            if settings is None or one.type not in _PICTURES or one.size > settings.image_bytes:
                continue
            octets = await self._events.octets(message, one)
            if octets:
                return Picture(one.type, octets)
        return None
