"""Which messages become mail, and of which kind: requests, text for a route, other topics."""

from __future__ import annotations

from dataclasses import dataclass

from waypost.mqtt.filters import matches
from waypost.mqtt.settings import MqttSettings, Subscription

_REQUEST = "bridge/request/send"
_ANSWERS = "bridge/response/"


@dataclass(frozen=True, slots=True)
class Request:
    """Asks for mail in JSON, and gets an answer."""


@dataclass(frozen=True, slots=True)
class ForRoute:
    """Plain text for a [[route]]."""

    name: str


Purpose = Request | ForRoute | Subscription


def filters_of(settings: MqttSettings) -> dict[str, int]:
    """What to subscribe to, and with which QoS."""
    found = {entry.topic: entry.qos for entry in settings.subscribe}
    if settings.requests:
        found[f"{settings.base}/{_REQUEST}"] = 1
        found[f"{settings.base}/send/+"] = 1
    return found


def purpose_of(settings: MqttSettings, topic: str) -> Purpose | None:
    """What a message there is for; None: no mail comes of it.

    What the hub itself publishes is never heard, whatever the filters: MQTT 5 brokers keep it from
    us (no local), those of 3.1.1 cannot.
    """
    own = f"{settings.base}/"
    if topic.startswith(own):
        below = topic.removeprefix(own)
        if not settings.requests:
            return None
        if below == _REQUEST:
            return Request()
        first, _, name = below.partition("/")
        return ForRoute(name) if first == "send" and name and "/" not in name else None
    if settings.discovery and topic.startswith(f"{settings.discovery}/device/{settings.base}_"):
        return None
    return next((entry for entry in settings.subscribe if matches(entry.topic, topic)), None)


def answer_topic(settings: MqttSettings, asked_for: str | None) -> str:
    """Where the answer to a request goes.

    Only below the topics of answers. The hub may be allowed to publish where whoever asks is not,
    and must not be made to do it for them: in topics of other devices, or as a request of its own.
    """
    answers = f"{settings.base}/{_ANSWERS}"
    if (
        asked_for is not None
        and asked_for.startswith(answers)
        and not set(asked_for) & set("+#\0")
        and all(asked_for.split("/"))
    ):
        return asked_for
    return f"{answers}send"
