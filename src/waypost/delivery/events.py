"""Queued mail as the event that programs get (reading/event), for targets that take no mail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO, NamedTuple

from waypost.devices.names import DeviceName, DeviceNames
from waypost.errors import TemporaryError
from waypost.mail.message import QueuedMessage, decoded_fields, header_fields
from waypost.mail.standing import standing_of
from waypost.reading.event import MAX_TEXT, event_of, page_of
from waypost.reading.process import MailReader
from waypost.reading.values import Attachment, ReadMail

# What `event_type` says of mail that nothing more is known of.
MAIL = "mail"

_HEAD_OCTETS = 65_536


class Event(NamedTuple):
    """A mail that was read, and what programs get of it."""

    mail: ReadMail
    json: dict[str, Any]

    @property
    def attachments(self) -> list[dict[str, Any]]:
        """A copy of what the event says of attachments, to add to."""
        return [dict(entry) for entry in self.json["attachments"]]

    @property
    def url(self) -> str | None:
        """Where a person reads the mail; None: nowhere."""
        url: str | None = self.json["url"]
        return url


def _no_page() -> str | None:
    return None


class EventReader:
    """Reads queued mail; the work is done in the reader's process."""

    def __init__(
        self,
        reader: MailReader,
        names: Callable[[], DeviceNames],
        web_url: Callable[[], str | None] = _no_page,
    ) -> None:
        """`names` gives what devices are called now, `web_url` where the web page is; None: it
        cannot be linked to.
        """
        self._reader = reader
        self._names = names
        self._web_url = web_url

    async def read(
        self, message: QueuedMessage, max_text: int = MAX_TEXT, event_type: str = MAIL
    ) -> Event:
        """Raises TemporaryError when the content cannot be opened."""
        mail = await self.read_mail(message)
        standing = standing_of(message.prepend)
        web_url = self._web_url()
        return Event(
            mail,
            event_of(
                mail,
                message.arrival,
                queue_id=message.queue_id,
                received_at=message.accepted_at,
                device=self.device_of(message).name,
                event_type=event_type,
                url=None if web_url is None else page_of(web_url, message.queue_id),
                max_text=max_text,
                more=standing.more,
                suppressed=standing.suppressed,
                duplicate_of=standing.duplicate_of,
            ),
        )

    async def read_mail(self, message: QueuedMessage) -> ReadMail:
        """The mail alone. Raises as `read`."""
        async with _opened(message) as source:
            return await self._reader.read(source)

    async def has_field(self, message: QueuedMessage, name: str) -> bool:
        """Whether the start of the header has a field (lower case). Raises as `read`."""
        return bool(await self.values(message, name))

    async def values(self, message: QueuedMessage, name: str) -> list[str]:
        """What fields of that name (lower case) in the start of the header say, decoded.

        Raises as `read`.
        """
        async with _opened(message) as source:
            if isinstance(source, bytes):
                head = source[:_HEAD_OCTETS]
            else:
                head = await asyncio.to_thread(source.read, _HEAD_OCTETS)
        if not any(found == name for found, _ in header_fields(head)):
            return []
        return [value for found, value in decoded_fields(head) if found == name]

    def device_of(self, message: QueuedMessage) -> DeviceName:
        """Who sent it."""
        return self._names().device_of(message.arrival)

    async def octets(self, message: QueuedMessage, attachment: Attachment) -> bytes | None:
        """One attachment; None: it cannot be read. Raises as `read`."""
        async with _opened(message) as source:
            return await self._reader.octets(source, attachment)

    async def thumbnail(self, octets: bytes, max_px: int) -> bytes | None:
        """As `Reader.thumbnail`."""
        return await self._reader.thumbnail(octets, max_px)


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
