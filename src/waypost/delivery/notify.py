"""The transport of ``notify`` targets: people are told by services that Apprise speaks to.

What failed is tried again by the schedule, and only where it failed: who was told is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waypost.delivery.events import Event, EventReader
from waypost.delivery.notice import notice_of, picture_in
from waypost.delivery.notifier import Notifier, Picture, Told
from waypost.delivery.told import ToldUrls, mark_of
from waypost.delivery.transport import DeliveryJob, deferred
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.routing.targets import Target
from waypost.smtp.auth import Secret

TITLE = "$subject"
TEXT = "$text"
MAX_TEXT = 2_000
# Octets of a picture that goes as it is; a larger one is made smaller.
MAX_PICTURE = 1_048_576
PICTURE_PX = 1_280


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """One [notify.NAME]."""

    name: str
    urls: tuple[Secret, ...]
    title: str = TITLE
    text: str = TEXT
    picture: bool = True
    max_text: int = MAX_TEXT


class NotifyTransport:
    """Notifies people."""

    def __init__(self, events: EventReader, told: Path) -> None:
        """`told`: the file where it is remembered who was."""
        self._events = events
        self._settings: dict[str, NotifySettings] = {}
        self._notifiers: dict[str, Notifier] = {}
        self._told = ToldUrls(told)

    def configure(self, notify: Sequence[NotifySettings]) -> None:
        """From now on these."""
        self._settings = {settings.name: settings for settings in notify}

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport. In order, and no faster than services like it."""
        return 1

    async def close(self) -> None:
        """End the processes, after what is under way."""
        for notifier in self._notifiers.values():
            await notifier.close()

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport."""
        name = job.target.argument
        settings = self._settings.get(name)
        if settings is None:
            reply = deferred(f"no [notify.{name}] is configured any more", (3, 5))
            return [Outcome.of(reply, success=OutcomeKind.DELIVERED)] * len(job.recipients)
        event = await self._events.read(job.message, settings.max_text)
        picture = await self._picture(job.message, event) if settings.picture else None
        replies = [
            await self._notified(settings, job, recipient, event, picture)
            for recipient in job.recipients
        ]
        return [Outcome.of(reply, success=OutcomeKind.DELIVERED) for reply in replies]

    async def _notified(
        self,
        settings: NotifySettings,
        job: DeliveryJob,
        recipient: QueuedRecipient,
        event: Event,
        picture: Picture | None,
    ) -> Reply:
        notice = notice_of(
            event,
            str(recipient.recipient.forward_path),
            title=settings.title,
            text=settings.text,
            max_text=settings.max_text,
            has_picture=picture is not None,
        )
        notifier = self._notifiers.setdefault(settings.name, Notifier())
        key = f"{settings.name} {job.message.queue_id} {recipient.number}"
        before = await self._told.of(key)
        failures: list[tuple[int, Told]] = []
        for number, url in enumerate(settings.urls, 1):
            if mark_of(url) in before:
                continue
            told = await notifier.tell(url, notice, picture)
            if not told.is_done:
                failures.append((number, told))
            elif failures or number < len(settings.urls):
                await self._told.add(key, url)
        if failures:
            return refusal(settings.name, failures)
        await self._told.forget(key)
        return Reply(250, f"notify {settings.name}: {len(settings.urls)} told", (0, 0))

    async def _picture(self, message: QueuedMessage, event: Event) -> Picture | None:
        found = picture_in(event)
        octets = None if found is None else await self._events.octets(message, found)
        if found is None or octets is None:
            return None
        if len(octets) <= MAX_PICTURE:
            return Picture(found.name, found.type, octets)
        smaller = await self._events.thumbnail(octets, PICTURE_PX)
        if smaller is None:
            return None
        return Picture(f"{found.name.rpartition('.')[0] or found.name}.jpg", "image/jpeg", smaller)


def refusal(name: str, failures: Sequence[tuple[int, Told]]) -> Reply:
    """Which URLs failed and why. All may pass: what a service refuses, the operator can mend."""
    words: list[str] = []
    for number, told in failures[:3]:
        service = f" ({told.service})" if told.service else ""
        words.append(f"URL {number}{service}: {told.why}{_advice(told)}")
    if len(failures) > len(words):
        words.append(f"and {len(failures) - len(words)} more")
    return deferred(f"notify {name}: {'; '.join(words)}", _status(failures[0][1]))


def _advice(told: Told) -> str:
    if not told.is_known or (told.status in _REFUSED):
        return " (the URL, or the key in it, is wrong)"
    return ""


# The service knows what was asked of it, and will not do it (RFC 9110 §15.5).
_REFUSED = frozenset({400, 401, 403, 404, 410, 422})


def _status(told: Told) -> tuple[int, int]:
    """Subject and detail (RFC 3463): configuration, refusal, congestion, no answer."""
    if not told.is_known:
        return (3, 5)
    if told.status in _REFUSED:
        return (7, 0)
    return (4, 1) if told.status is None else (4, 5)
