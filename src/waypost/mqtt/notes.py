"""What the hub has said of its devices at the broker, kept through restarts: mqtt.json.

So a device that was ON when the hub stopped goes OFF, a broker that lost what it kept is told
again, and devices that are no more are taken away.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from waypost.durable import write_secret
from waypost.errors import TemporaryError

NOTES_FILE = "mqtt.json"
# More are not kept: the one not heard of for longest goes.
MAX_DEVICES = 1_000
_OFF = 0.0


@dataclass(slots=True)
class Noted:
    """One device."""

    slug: str
    name: str
    source: str
    model: str | None = None
    kinds: dict[str, float] = field(default_factory=dict)  # ON until (epoch seconds); 0: OFF
    last_seen: float = 0.0
    last_event: str = ""
    count: int = 0
    image_type: str | None = None  # None: it has sent no picture
    is_silent: bool = False  # for longer than its mail is expected
    dropped: list[str] = field(default_factory=list)  # kinds it has no more, and Home Assistant has

    def is_on(self, kind: str) -> bool:
        return self.kinds[kind] != _OFF

    def over(self, now: float, longest_s: float) -> list[str]:
        """The kinds that go OFF now. Nothing stays ON longer than `longest_s`, whatever became
        of the clock.
        """
        ended = [
            kind
            for kind, until in self.kinds.items()
            if until != _OFF and not 0 < until - now <= longest_s
        ]
        for kind in ended:
            self.kinds[kind] = _OFF
        return ended


class Notes:
    """All of it. Changes are made on the loop, and written when `save` is called."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.client_id = f"waypost-{secrets.token_hex(6)}"
        self.broker = ""  # where it was said; empty: nowhere yet
        self.base = ""  # what was said lies below it
        self.prefix = ""  # discovery, as above
        self.devices: dict[str, Noted] = {}  # by slug
        self.gone: list[str] = []  # topics the broker has to forget
        self.filters: list[str] = []  # what it may have us subscribed to
        self._changes = 0
        self._saved = 0
        self._lock = asyncio.Lock()

    def load(self) -> str | None:
        """Read what was kept; blocks. What is wrong with it, in words; None: nothing."""
        try:
            found = json.loads(self._path.read_bytes())
            devices = [Noted(**entry) for entry in found["devices"]]
            for device in devices:
                _check(device)
            self.client_id, self.base = str(found["client_id"]), str(found["base"])
            self.prefix, self.broker = str(found["prefix"]), str(found.get("broker", ""))
            self.gone = [str(topic) for topic in found["gone"]]
            self.filters = [str(topic) for topic in found.get("filters", [])]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            return f"{self._path} cannot be read, so it begins anew: {error}"
        self.devices = {device.slug: device for device in devices}
        return None

    def touch(self) -> None:
        """Something has changed."""
        self._changes += 1

    @property
    def is_dirty(self) -> bool:
        return self._changes != self._saved

    async def save(self) -> None:
        """Write down what has changed so far. Raises TemporaryError."""
        mine = self._changes
        async with self._lock:
            if self._saved >= mine:
                return  # somebody else's writing had it
            now = self._changes
            octets = json.dumps(self._as_json(), ensure_ascii=True).encode()
            try:
                await asyncio.to_thread(write_secret, self._path, octets)
            except OSError as error:
                why = error.strerror or error
                raise TemporaryError(f"{self._path.name} cannot be written: {why}") from error
            self._saved = now

    def oldest(self) -> Noted:
        """The device not heard of for longest."""
        return min(self.devices.values(), key=lambda device: device.last_seen)

    def next_end(self) -> float | None:
        """When the next kind goes OFF; None: none is ON."""
        return min(self._ends(), default=None)

    def _ends(self) -> Iterator[float]:
        for device in self.devices.values():
            yield from (until for until in device.kinds.values() if until != _OFF)

    def _as_json(self) -> dict[str, Any]:
        return {
            "client_id": self.client_id,
            "broker": self.broker,
            "base": self.base,
            "prefix": self.prefix,
            "gone": self.gone,
            "filters": self.filters,
            "devices": [asdict(device) for device in self.devices.values()],
        }


def _check(device: Noted) -> None:
    texts = [device.slug, device.name, device.source, device.last_event]
    texts += [*device.kinds, *device.dropped]
    numbers = (device.last_seen, device.count, *device.kinds.values())
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(number, int | float) for number in numbers
    ):
        raise ValueError("a device is noted in another way")
