"""Which URLs of a notification were told already, for as long as others of the same one were not.

In a file, so that a restart tells nobody again. Whoever was told when the power went may be told
twice: a notification is sent once at least.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from pathlib import Path

from waypost.durable import write_secret
from waypost.smtp.auth import Secret

# Notifications under way whose state is remembered; the oldest go first.
MAX_REMEMBERED = 10_000


class ToldUrls:
    """What is remembered."""

    def __init__(self, path: Path) -> None:
        """`path`: where it outlives the process."""
        self._path = path
        self._told: dict[str, list[str]] | None = None  # None: not read yet

    async def of(self, key: str) -> frozenset[str]:
        """The marks of the URLs that were told of this notification."""
        return frozenset((await self._known()).get(key, ()))

    async def add(self, key: str, url: Secret) -> None:
        """One more was told, and others are not yet; durable when it returns, if it can be."""
        told = await self._known()
        told.setdefault(key, []).append(mark_of(url))
        while len(told) > MAX_REMEMBERED:
            del told[next(iter(told))]
        octets = json.dumps(told).encode("ascii")
        with contextlib.suppress(OSError):  # no room: known for as long as the hub runs
            await asyncio.to_thread(write_secret, self._path, octets)

    async def forget(self, key: str) -> None:
        """All were told. The file follows with the next that is added: ids come but once."""
        (await self._known()).pop(key, None)

    async def _known(self) -> dict[str, list[str]]:
        if self._told is None:
            found = await asyncio.to_thread(self._read)
            self._told = found if self._told is None else self._told
        return self._told

    def _read(self) -> dict[str, list[str]]:
        try:
            kept = json.loads(self._path.read_bytes())
            return {str(key): [str(mark) for mark in kept[key]] for key in kept}
        except (OSError, ValueError, TypeError, KeyError):
            return {}  # at worst somebody is told twice


def mark_of(url: Secret) -> str:
    """What a URL is known by, without the key in it."""
    return hashlib.sha256(url.revealed.encode()).hexdigest()
