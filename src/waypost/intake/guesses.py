"""Wrong guesses of passwords and tokens: counted, slowed down, forgiven after a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

# The first wrong guess costs this, each further one twice as much.
FIRST_DELAY_S = 2.0
MAX_DELAY_S = 15.0
# One is forgiven each minute.
FORGIVEN_AFTER_S = 60.0
# How many clients and accounts are remembered, each.
REMEMBERED = 10_000


def delay_of(guesses: int) -> float:
    """How long a client with so many wrong guesses waits for its answer, in seconds."""
    return min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** (guesses - 1))


class Guesses:
    """Wrong guesses, by client or by account; each is forgiven after a while."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def count(self, key: Hashable) -> int:
        """How many are not forgiven yet."""
        guesses, since = self._counts.get(key, (0, 0.0))
        return max(0, guesses - int((time.monotonic() - since) / FORGIVEN_AFTER_S))

    def add(self, key: Hashable) -> int:
        """One more; how many there are now."""
        guesses = self.count(key) + 1
        self._counts[key] = (guesses, time.monotonic())
        forget_oldest(self._counts, key)
        return guesses

    def forgive(self, key: Hashable) -> None:
        """Forget all of them."""
        self._counts.pop(key, None)


def forget_oldest(memory: OrderedDict[Any, Any], newest: Hashable) -> None:
    """Make `newest` the last of a memory, which has no more than REMEMBERED."""
    memory.move_to_end(newest)
    if len(memory) > REMEMBERED:
        memory.popitem(last=False)
