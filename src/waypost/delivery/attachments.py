"""Which attachments of a mail go along with an event or a notification, and why others do not.

The rules stand under the same keys for every target: [webhook.NAME], [notify.NAME] and [mqtt].
What does not go along is never dropped in silence: programs get the reason, people a line.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from waypost.delivery.events import Event, EventReader
from waypost.mail.message import QueuedMessage
from waypost.mail.sizes import size_text
from waypost.reading.event import MAX_TEXT
from waypost.reading.values import Attachment
from waypost.routing.patterns import Glob

# How attachments go into an event's JSON.
BASE64 = "base64"
NONE = "none"
MAX_ATTACHMENT = 5_242_880
# Octets of all attachments of one event together, whatever each may have.
MAX_ATTACHED = 20_971_520
# Width and height of pictures that were too large.
PICTURE_PX = 1_280
# A picture that is still too large is made smaller again, to half the width and height.
_TRIES = 4
# Attachments that a notification names.
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class AttachmentRules:
    """What goes along."""

    types: tuple[Glob, ...] = (Glob("*"),)
    max_octets: int = MAX_ATTACHMENT
    takes_pictures: bool = True
    picture_px: int | None = None  # None: a picture that is too large is left out


_PUBLISHED = AttachmentRules(picture_px=PICTURE_PX)


@dataclass(frozen=True, slots=True)
class EventSettings:
    """What of a mail is published by MQTT; the part of [mqtt] that is not about the broker."""

    attachments: str = NONE  # in the event's JSON; the picture has a topic of its own
    rules: AttachmentRules = field(default_factory=lambda: _PUBLISHED)
    max_text: int = MAX_TEXT


class Enclosed(NamedTuple):
    """An attachment as it goes along."""

    name: str
    type: str  # media type
    octets: bytes
    is_smaller: bool  # it is a picture, and was too large


class LeftOut(NamedTuple):
    """Why an attachment does not go along."""

    why: str


async def enclosed(
    events: EventReader,
    message: QueuedMessage,
    attachment: Attachment,
    rules: AttachmentRules,
    room: int = MAX_ATTACHED,
) -> Enclosed | LeftOut:
    """One attachment by the rules; `room` is what others have left. Raises TemporaryError."""
    is_picture = attachment.type.startswith("image/")
    if is_picture and not rules.takes_pictures:
        return LeftOut("pictures are not sent along")
    if not any(glob.matches(attachment.type) for glob in rules.types):
        return LeftOut("not one of the types that are sent along")
    too_large: LeftOut | None = None
    if attachment.size > rules.max_octets:
        too_large = LeftOut(f"larger than {rules.max_octets} octets")
    elif attachment.size > room:
        too_large = LeftOut(f"the attachments have more than {MAX_ATTACHED} octets")
    if too_large is not None and not (is_picture and rules.picture_px):
        return too_large
    octets = await events.octets(message, attachment)
    if octets is None:
        return LeftOut("it cannot be read")
    if too_large is None:
        return Enclosed(attachment.name, attachment.type, octets, False)
    px = rules.picture_px or 0
    for halvings in range(_TRIES):
        smaller = await events.thumbnail(octets, max(px >> halvings, 1))
        if smaller is None:
            break
        if len(smaller) <= min(rules.max_octets, room):
            name = f"{attachment.name.rpartition('.')[0] or attachment.name}.jpg"
            return Enclosed(name, "image/jpeg", smaller, True)
    return too_large


async def attached(
    events: EventReader, message: QueuedMessage, event: Event, rules: AttachmentRules
) -> list[dict[str, Any]]:
    """The event's attachments with their octets, or why these do not go along."""
    entries = event.attachments
    room = MAX_ATTACHED
    for entry, attachment in zip(entries, event.mail.attachments, strict=True):
        found = await enclosed(events, message, attachment, rules, room)
        if isinstance(found, LeftOut):
            entry["left_out"] = found.why
            continue
        room -= len(found.octets)
        if found.is_smaller:
            entry["made_smaller"] = True
        encoded = await asyncio.to_thread(base64.b64encode, found.octets)
        entry["data_base64"] = encoded.decode("ascii")
    return entries


def left_out_line(attachments: Sequence[Attachment], url: str | None) -> str:
    """What people are told of attachments that did not go along; empty: all did."""
    if not attachments:
        return ""
    named = [f"{one.name} {size_text(one.size)}" for one in attachments[:_MAX_NAMED]]
    if len(attachments) > _MAX_NAMED:
        named.append(f"and {len(attachments) - _MAX_NAMED} more")
    count = len(attachments)
    line = f"{count} attachment{'s' if count > 1 else ''} left out: {', '.join(named)}"
    return line if url is None else f"{line}; see {url}"
