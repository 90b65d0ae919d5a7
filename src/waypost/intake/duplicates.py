"""Which mail was here a moment ago: the same content, from the same device, for the same people.

In memory only: after a start, or when more has come than is remembered, a copy passes for new and
is told of once more, which harms less than not being told. Only mail that is durable counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import NamedTuple

from waypost.devices.names import DeviceNames
from waypost.mail.envelope import Arrival, QueueId

MAX_MAILS = 20_000
# Requests under one key of their programs are one for so long, whatever routes say.
DEDUPE_S = 600.0


class _Seen(NamedTuple):
    queue_id: QueueId
    at: float


class Duplicates:
    """See the module text."""

    def __init__(self, names: Callable[[], DeviceNames], max_mails: int = MAX_MAILS) -> None:
        """`names` gives what devices are called now."""
        self._names = names
        self._max_mails = max_mails
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()

    def key_of(self, content: bytes, arrival: Arrival, recipients: Iterable[str]) -> bytes:
        """What copies of a mail have in common, besides the `content` or what stands for it."""
        parts = "\0".join((self._names().device_of(arrival).source, *sorted(recipients)))
        return blake2b(content + b"\0" + parts.encode("utf-8", "replace"), digest_size=16).digest()

    def original(self, key: bytes, now: float, within_s: float) -> QueueId | None:
        """The id of the mail that came first, at most so long ago; None: this is the first."""
        seen = self._seen.get(key)
        return None if seen is None or not 0 <= now - seen.at < within_s else seen.queue_id

    def remember(self, key: bytes, queue_id: QueueId, at: float) -> None:
        """A first mail is ours."""
        self._seen[key] = _Seen(queue_id, at)
        self._seen.move_to_end(key)
        while len(self._seen) > self._max_mails:
            self._seen.popitem(last=False)
