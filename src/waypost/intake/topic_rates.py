"""How much mail a topic may make: a device gone wild, or somebody who means harm, is held back."""

from __future__ import annotations

import time
from collections.abc import Callable

from waypost.observe import Log

# What comes of one topic at once, and in a minute from then on. Brokers keep about a thousand
# messages for a hub that is away, and they are to get through.
AT_ONCE = 1_000
PER_MINUTE = 300
# Of requests, which programs mean: as many as the hub can well keep.
REQUESTS_PER_MINUTE = 6_000
# Topics beyond these are counted as one, and so are those that begin with the same characters.
MAX_TOPICS = 1_000
MAX_TOPIC = 200
# A topic's messages that are left out are told of so often, and counted in between.
TELL_S = 60.0

_OTHERS = "#"  # no topic is called so


class _Rate:
    """Of one topic."""

    __slots__ = ("left", "left_out", "seen_at", "told_at")

    def __init__(self, now: float) -> None:
        self.left = float(AT_ONCE)
        self.seen_at = now
        self.left_out = 0
        self.told_at = now - TELL_S

    def look(self, now: float, per_minute: int) -> None:
        """Some may come again."""
        self.left = min(self.left + (now - self.seen_at) * per_minute / 60, AT_ONCE)
        self.seen_at = now


class TopicRates:
    """Counts messages by topic."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._rates: dict[str, _Rate] = {}

    def takes(self, topic: str, per_minute: int = PER_MINUTE) -> bool:
        """Count a message; False: there are too many, and this one is to be left out."""
        now = self._clock()
        topic = topic[:MAX_TOPIC]
        rate = self._rates.get(topic)
        if rate is None:
            rate = self._new(topic, now)
        rate.look(now, per_minute)
        if rate.left >= 1:
            rate.left -= 1
            return True
        rate.left_out += 1
        if now - rate.told_at >= TELL_S:
            rate.told_at = now
            self._log.event("mqtt-flood", topic=topic, left_out=rate.left_out)
            rate.left_out = 0
        return False

    def _new(self, topic: str, now: float) -> _Rate:
        if len(self._rates) >= MAX_TOPICS:
            # Those that have been quiet need no counts.
            for name, rate in list(self._rates.items()):
                rate.look(now, PER_MINUTE)
                if rate.left >= AT_ONCE:
                    del self._rates[name]
        if len(self._rates) >= MAX_TOPICS:
            topic = _OTHERS
        return self._rates.setdefault(topic, _Rate(now))
