"""Queued mail as the event that programs get (reading/event), for targets that take no mail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import BinaryIO, NamedTuple

from waypost.errors import TemporaryError
from waypost.mail.address import ip_text
from waypost.mail.envelope import Arrival
from waypost.mail.message import QueuedMessage
from waypost.reading.event import event_of
from waypost.reading.process import MailReader
from waypost.reading.values import Attachment, ReadMail

# What `event_type` says of mail that nothing more is known of.
MAIL = "mail"


class Event(NamedTuple):
    """A mail that was read, and what programs get of it."""

    mail: ReadMail
    json: dict[str, object]


class EventReader:
    """Reads queued mail; the work is done in the reader's process."""

    def __init__(self, reader: MailReader) -> None:
        self._reader = reader

    async def read(self, message: QueuedMessage, max_text: int) -> Event:
        """Raises TemporaryError when the content cannot be opened."""
        async with _opened(message) as source:
            mail = await self._reader.read(source)
        return Event(
            mail,
            event_of(
                mail,
                message.arrival,
                queue_id=message.queue_id,
                received_at=message.accepted_at,
                device=device_name(message.arrival),
                event_type=MAIL,
                max_text=max_text,
            ),
        )

    async def octets(self, message: QueuedMessage, attachment: Attachment) -> bytes | None:
        """One attachment; None: it cannot be read. Raises as `read`."""
        async with _opened(message) as source:
            return await self._reader.octets(source, attachment)

    async def thumbnail(self, octets: bytes, max_px: int) -> bytes | None:
        """As `Reader.thumbnail`."""
        return await self._reader.thumbnail(octets, max_px)


def device_name(arrival: Arrival) -> str:
    """What a sending device is called: its login, else its address."""
    if arrival.login is not None:
        return arrival.login
    return "localhost" if arrival.client_ip is None else ip_text(arrival.client_ip)


@contextlib.asynccontextmanager
async def _opened(message: QueuedMessage) -> AsyncIterator[bytes | BinaryIO]:
    content = message.content
    if content.inline is not None:
        yield content.inline
        return
    try:
        source = await asyncio.to_thread(content.open)
    except OSError as error:
        raise TemporaryError(f"the message cannot be read: {error.strerror}") from error
    with source:
        yield source
