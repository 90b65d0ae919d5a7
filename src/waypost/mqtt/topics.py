"""What is published of a device, and where: topics and payloads, Home Assistant's included.

States are kept by the broker, events never: a kept event would set off automations again with
each restart. Topics are one level of the device's slug; the name for people is in the payloads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from waypost import __version__
from waypost.mqtt.message import Message
from waypost.mqtt.notes import Noted

ONLINE = b"online"
OFFLINE = b"offline"
ON = b"ON"
OFF = b"OFF"
# Kinds that Home Assistant shows with a picture and words of their own
# (home-assistant.io/integrations/binary_sensor, device class).
DEVICE_CLASSES = frozenset(
    [
        *("battery", "carbon_monoxide", "cold", "connectivity", "door", "garage_door", "gas"),
        *("heat", "light", "lock", "moisture", "motion", "moving", "occupancy", "opening", "plug"),
        *("power", "presence", "problem", "running", "safety", "smoke", "sound", "tamper"),
        *("update", "vibration", "window"),
    ]
)


def bridge_state(base: str, payload: bytes) -> Message:
    """Is the hub there? With OFFLINE also the last will."""
    return Message(f"{base}/bridge/state", payload, True)


def bridge_info(base: str, devices: int, lost_logins: Sequence[str]) -> Message:
    """What the hub says of itself; `lost_logins`: of relays, by name."""
    info = {"version": __version__, "devices": devices, "lost_logins": list(lost_logins)}
    return _json(f"{base}/bridge/info", info, True)


def happened(base: str, device: Noted, payload: Mapping[str, object]) -> Message:
    """A mail; never kept."""
    return _json(f"{base}/{device.slug}/event", payload, False)


def image(base: str, device: Noted, octets: bytes, *, is_retained: bool) -> Message:
    """A picture, as it came."""
    return Message(f"{base}/{device.slug}/image", octets, is_retained)


def availability(base: str, device: Noted, *, is_retained: bool) -> Message:
    """A device is there unless its mail is overdue."""
    said = OFFLINE if device.is_silent else ONLINE
    return Message(f"{base}/{device.slug}/availability", said, is_retained)


def state(base: str, device: Noted, *, is_retained: bool) -> Message:
    """What is known of a device."""
    seen = datetime.fromtimestamp(device.last_seen, UTC).isoformat(timespec="milliseconds")
    known = {
        "name": device.name,
        "last_seen": seen.replace("+00:00", "Z"),
        "last_event": device.last_event,
        "count": device.count,
    }
    return _json(f"{base}/{device.slug}/state", known, is_retained)


def kind_state(base: str, device: Noted, kind: str, *, is_retained: bool) -> Message:
    """ON or OFF."""
    return Message(f"{base}/{device.slug}/{kind}", ON if device.is_on(kind) else OFF, is_retained)


def kept_topics(base: str, prefix: str, device: Noted) -> Iterator[str]:
    """All the broker may have kept of a device."""
    if prefix:
        yield _discovery_topic(prefix, base, device.slug)
    for level in ("state", "availability", "image", *device.kinds):
        yield level_topic(base, device, level)


def level_topic(base: str, device: Noted, level: str) -> str:
    """One topic of a device."""
    return f"{base}/{device.slug}/{level}"


def bridge_topics(base: str, prefix: str) -> Iterator[str]:
    """The same of the hub."""
    if prefix:
        yield _discovery_topic(prefix, base, "bridge")
    yield f"{base}/bridge/state"
    yield f"{base}/bridge/info"


def forgotten(topic: str) -> Message:
    """Makes the broker forget what it has kept (MQTT 5 §3.3.1.3)."""
    return Message(topic, b"", True)


def status_topic(prefix: str) -> str:
    """Where Home Assistant says that it has come up."""
    return f"{prefix}/status"


def bridge_discovery(base: str, prefix: str, page: str | None) -> Message:
    """The hub as a device of Home Assistant, which the others hang on. `page`: its web page; None:
    it has none.
    """
    own = f"{base}_bridge"
    connected = {
        "p": "binary_sensor",
        "unique_id": f"{own}_connected",
        "name": "Connected",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "state_topic": f"{base}/bridge/state",
        "payload_on": ONLINE.decode(),
        "payload_off": OFFLINE.decode(),
    }
    device: dict[str, Any] = {"ids": [own], "name": f"Waypost ({base})", "sw": __version__}
    if page is not None:
        device["cu"] = page
    return _json(
        _discovery_topic(prefix, base, "bridge"),
        {"dev": device, "o": _origin(), "cmps": {"connected": connected}},
        True,
    )


def discovery(base: str, prefix: str, device: Noted, dropped: Sequence[str] = ()) -> Message:
    """A device as Home Assistant's discovery has it (device form, MQTT integration).

    `dropped`: kinds it has no more. Their entities go by being named once with nothing but their
    platform (MQTT integration, "Removing components").
    """
    own = f"{base}_{device.slug}"
    below = f"{base}/{device.slug}"
    components: dict[str, Any] = {
        "event": {
            "p": "event",
            "name": "Mail",
            "state_topic": f"{below}/event",
            "event_types": sorted(device.kinds),
        },
        "last_seen": {
            "p": "sensor",
            "name": "Last seen",
            "state_topic": f"{below}/state",
            "value_template": "{{ value_json.last_seen }}",
            "device_class": "timestamp",
            "entity_category": "diagnostic",
        },
        "count": {
            "p": "sensor",
            "name": "Mails",
            "state_topic": f"{below}/state",
            "value_template": "{{ value_json.count }}",
            "state_class": "total_increasing",
            "entity_category": "diagnostic",
        },
    }
    for kind in sorted(device.kinds):
        components[f"is_{kind}"] = {
            "p": "binary_sensor",
            "name": kind.replace("_", " ").capitalize(),
            "state_topic": f"{below}/{kind}",
            "payload_on": ON.decode(),
            "payload_off": OFF.decode(),
            **({"device_class": kind} if kind in DEVICE_CLASSES else {}),
        }
    if device.image_type is not None:
        components["image"] = {
            "p": "image",
            "name": "Picture",
            "image_topic": f"{below}/image",
            "content_type": device.image_type,
        }
    for name, component in components.items():
        component["unique_id"] = f"{own}_{name}"
    for kind in dropped:
        components.setdefault(f"is_{kind}", {"p": "binary_sensor"})
    about = {"ids": [own], "name": device.name, "via_device": f"{base}_bridge"}
    if device.model is not None:
        about["mdl"] = device.model
    there = [{"t": f"{base}/bridge/state"}, {"t": f"{below}/availability"}]
    return _json(
        _discovery_topic(prefix, base, device.slug),
        {"dev": about, "o": _origin(), "avty": there, "avty_mode": "all", "cmps": components},
        True,
    )


def _origin() -> dict[str, str]:
    return {"name": "Waypost", "sw": __version__}


def _discovery_topic(prefix: str, base: str, slug: str) -> str:
    return f"{prefix}/device/{base}_{slug}/config"


def _json(topic: str, payload: Mapping[str, object], is_retained: bool) -> Message:
    # ASCII only: what a small device cannot show, it can still parse.
    return Message(topic, json.dumps(payload, ensure_ascii=True).encode(), is_retained)
