"""The transport of ``mqtt:KIND`` targets: a mail becomes an event of its device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import BinaryIO

from waypost.delivery.transport import DeliveryJob
from waypost.devices.names import DeviceNames
from waypost.errors import TemporaryError
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import Content, header_fields
from waypost.mail.reply import Reply
from waypost.mqtt.bridge import Bridge, Happening, Picture
from waypost.reading.event import event_of
from waypost.reading.process import MailReader
from waypost.reading.values import ReadMail
from waypost.routing.targets import Target

# In mail that was made of a message from MQTT: published again, it would go round.
FROM_MQTT = "x-waypost-mqtt"

_HEAD_OCTETS = 65_536
_PICTURES = frozenset({"image/jpeg", "image/png"})
_PUBLISHED = Outcome(OutcomeKind.DELIVERED, Reply(250, "Published", (0, 0)))
_CAME_FROM_THERE = Outcome(OutcomeKind.DELIVERED, Reply(250, "It came from MQTT", (0, 0)))


class MqttTransport:
    """One mail for one target becomes one event, whoever its recipients are."""

    def __init__(
        self, bridge: Bridge, reader: MailReader, names: Callable[[], DeviceNames]
    ) -> None:
        self._bridge = bridge
        self._reader = reader
        self._names = names

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport. Each holds a picture in memory, and one process reads them all."""
        return 8

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport. Raises TemporaryError for the job as a whole."""
        try:
            content = await asyncio.to_thread(_opened, job.message.content)
        except OSError as error:
            raise TemporaryError(f"the content cannot be read: {error.strerror}") from error
        try:
            outcome = await self._publish(job, content)
        finally:
            if not isinstance(content, bytes):
                content.close()
        return [outcome] * len(job.recipients)

    async def _publish(self, job: DeliveryJob, content: bytes | BinaryIO) -> Outcome:
        message, kind = job.message, job.target.argument
        if await asyncio.to_thread(_is_from_mqtt, content):
            return _CAME_FROM_THERE
        device = self._names().device_of(message.arrival)
        mail = await self._reader.read(content)
        event = event_of(
            mail,
            message.arrival,
            queue_id=message.queue_id,
            received_at=message.accepted_at,
            device=device.name,
            event_type=kind,
        )
        picture = await self._picture(mail, content)
        await self._bridge.tell(
            Happening(
                *(device.slug, device.name, device.source, device.kind, kind),
                *(message.accepted_at, event, picture),
            )
        )
        return _PUBLISHED

    async def _picture(self, mail: ReadMail, content: bytes | BinaryIO) -> Picture | None:
        """The first that may be shown; None: there is none."""
        settings = self._bridge.settings
        for one in mail.attachments:
            if settings is None or one.type not in _PICTURES or one.size > settings.image_bytes:
                continue
            octets = await self._reader.octets(content, one)
            if octets:
                return Picture(one.type, octets)
        return None


def _opened(content: Content) -> bytes | BinaryIO:
    return content.inline if content.inline is not None else content.open()


def _is_from_mqtt(content: bytes | BinaryIO) -> bool:
    head = content[:_HEAD_OCTETS] if isinstance(content, bytes) else content.read(_HEAD_OCTETS)
    return any(name == FROM_MQTT for name, _ in header_fields(head))
