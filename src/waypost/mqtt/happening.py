"""One mail of a device as it is published: what is true with it, and the messages that say so.

Values only, so that `waypost route --message` tells what the bridge does, by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from waypost.mqtt import topics
from waypost.mqtt.message import Message
from waypost.mqtt.notes import Noted
from waypost.mqtt.settings import MqttSettings


class Picture(NamedTuple):
    """Raw octets of an image file."""

    type: str  # media type
    octets: bytes


class Happening(NamedTuple):
    """One mail of a device, as it is to be published."""

    slug: str
    name: str
    source: str  # what the device is known by
    model: str | None
    kind: str
    at: float  # when it was accepted
    event: Mapping[str, object]
    picture: Picture | None


def note(device: Noted, happening: Happening, now: float, reset_after_s: float) -> bool:
    """Put what is true with this mail into a device's notes; True: others are to be told anew.

    It is news when the device, or a kind of event, was not known so.
    """
    at = min(happening.at, now)
    until = at + reset_after_s
    before = device.kinds.get(happening.kind)
    is_news = before is None or (not before and until > now)
    if before is None:
        device.kinds[happening.kind] = 0.0
    if until > now:
        # Mail that waited in the queue for longer is no motion now.
        device.kinds[happening.kind] = max(until, before or 0.0)
    image_type = device.image_type if happening.picture is None else happening.picture.type
    looks = (happening.name, happening.source, happening.model, image_type)
    if (device.name, device.source, device.model, device.image_type) != looks:
        is_news = True
        device.name, device.source, device.model, device.image_type = looks
    if at >= device.last_seen:
        device.last_seen, device.last_event = at, happening.kind
    return is_news


def messages_of(
    happening: Happening, device: Noted, settings: MqttSettings, takes: Callable[[int], bool]
) -> list[Message]:
    """In an order in which the event comes last: what it sets off may look at the rest.

    `takes`: whether the broker takes so many octets; a picture it does not take is not among them.
    """
    base, kept = settings.base, settings.retain
    messages = [topics.availability(base, device, is_retained=kept)]
    picture = happening.picture
    if picture is not None and takes(len(picture.octets)):
        messages.append(topics.image(base, device, picture.octets, is_retained=kept))
    messages.append(topics.state(base, device, is_retained=kept))
    messages.append(topics.kind_state(base, device, happening.kind, is_retained=kept))
    event = topics.happened(base, device, happening.event)
    if not takes(len(event.payload)):
        event = topics.happened(base, device, _shortened(happening.event))
    messages.append(event)
    return messages


def _shortened(event: Mapping[str, object]) -> dict[str, object]:
    """Without what a sender can make long."""
    return {
        **event,
        "subject": str(event["subject"])[:100],
        "text": "",
        "text_truncated": True,
        "from": None,
        "to": [],
        "message_id": None,
        "attachments": [],
    }
