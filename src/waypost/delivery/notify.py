"""The transport of ``notify`` targets: people are told by services that Apprise speaks to.

What failed is tried again by the schedule, and only where it failed: who was told is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from waypost.delivery.attachments import (
    MAX_ATTACHED,
    PICTURE_PX,
    AttachmentRules,
    Enclosed,
    LeftOut,
    enclosed,
    left_out_line,
)
from waypost.delivery.events import EventReader
from waypost.delivery.notice import PICTURES, Notice, notice_of
from waypost.delivery.notifier import Notifier, Told
from waypost.delivery.told import ToldUrls, mark_of
from waypost.delivery.transport import DeliveryJob, deferred
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.mail.template import Template
from waypost.reading.values import Attachment
from waypost.routing.patterns import Glob
from waypost.routing.targets import Target
from waypost.smtp.auth import Secret

TITLE = Template("$subject")
TEXT = Template("$text")
MAX_TEXT = 2_000
# Octets; a larger picture is made smaller.
MAX_ATTACHMENT = 1_048_576
RULES = AttachmentRules(types=(), max_octets=MAX_ATTACHMENT, picture_px=PICTURE_PX)
# The first picture needs no type of the list.
_ANY = (Glob("*"),)


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """One [notify.NAME]."""

    name: str
    urls: tuple[Secret, ...]
    title: Template = TITLE
    text: Template = TEXT
    rules: AttachmentRules = field(default_factory=lambda: RULES)  # beside the first picture
    max_text: int = MAX_TEXT


class Notification(NamedTuple):
    """What people are told of a mail."""

    notices: list[Notice]  # one for each recipient
    files: list[Enclosed]
    left_out: list[tuple[Attachment, LeftOut]]


async def notification(
    events: EventReader,
    settings: NotifySettings,
    message: QueuedMessage,
    recipients: Sequence[QueuedRecipient],
) -> Notification:
    """What is told of a mail; nobody is told here. Raises TemporaryError."""
    event = await events.read(message, settings.max_text)
    files: list[Enclosed] = []
    left_out: list[tuple[Attachment, LeftOut]] = []
    wants_picture = settings.rules.takes_pictures
    room = MAX_ATTACHED
    for attachment in event.mail.attachments:
        is_the_picture = wants_picture and attachment.type in PICTURES
        rules = replace(settings.rules, types=_ANY) if is_the_picture else settings.rules
        found = await enclosed(events, message, attachment, rules, room)
        if isinstance(found, LeftOut):
            left_out.append((attachment, found))
            continue
        wants_picture = wants_picture and not is_the_picture
        room -= len(found.octets)
        files.append(found)
    last_line = left_out_line([attachment for attachment, _ in left_out], event.url)
    notices = [
        notice_of(
            event,
            str(recipient.recipient.forward_path),
            title=settings.title,
            text=settings.text,
            max_text=settings.max_text,
            has_picture=bool(files),
            left_out=last_line,
        )
        for recipient in recipients
    ]
    return Notification(notices, files, left_out)


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
        made = await notification(self._events, settings, job.message, job.recipients)
        replies = [
            await self._notified(settings, job, recipient, notice, made.files)
            for recipient, notice in zip(job.recipients, made.notices, strict=True)
        ]
        return [Outcome.of(reply, success=OutcomeKind.DELIVERED) for reply in replies]

    async def _notified(
        self,
        settings: NotifySettings,
        job: DeliveryJob,
        recipient: QueuedRecipient,
        notice: Notice,
        files: Sequence[Enclosed],
    ) -> Reply:
        notifier = self._notifiers.setdefault(settings.name, Notifier())
        key = f"{settings.name} {job.message.queue_id} {recipient.number}"
        before = await self._told.of(key)
        failures: list[tuple[int, Told]] = []
        for number, url in enumerate(settings.urls, 1):
            if mark_of(url) in before:
                continue
            told = await notifier.tell(url, notice, files)
            if not told.is_done:
                failures.append((number, told))
            elif failures or number < len(settings.urls):
                await self._told.add(key, url)
        if failures:
            return refusal(settings.name, failures)
        await self._told.forget(key)
        return Reply(250, f"notify {settings.name}: {len(settings.urls)} told", (0, 0))


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
