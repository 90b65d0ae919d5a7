"""Jobs that share a next hop: how many of them may run, which wait, and whether it is down."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from waypost.delivery.pace import Pace
from waypost.delivery.transport import DeliveryJob, Transport
from waypost.mail.reply import Reply

FIRST_WINDOW = 5


class Destination:
    """Jobs that share a next hop."""

    __slots__ = (
        "answered_at",
        "down_reply",
        "down_until",
        "key",
        "pace",
        "running",
        "transport",
        "waiting",
        "wake",
        "window",
    )

    def __init__(self, key: str, transport: Transport, pace: Pace | None) -> None:
        self.key = key
        self.transport = transport
        self.pace = pace  # None: mail goes as it comes
        self.wake: asyncio.TimerHandle | None = None  # None: nothing waits for its minute
        self.waiting: deque[DeliveryJob] = deque()
        self.running = 0
        self.window = min(FIRST_WINDOW, self.limit)
        self.answered_at = time.monotonic()  # when an attempt has ended last, or its creation
        self.down_until = 0.0  # monotonic
        self.down_reply: Reply | None = None  # None: not known to be down

    @property
    def limit(self) -> int:
        """How large the window may become."""
        limit = None if self.pace is None else self.pace.settings.connections
        return min(self.transport.window(), limit or self.transport.window())

    @property
    def is_down(self) -> bool:
        """True while its mail is deferred unasked."""
        return self.down_reply is not None and time.monotonic() < self.down_until
