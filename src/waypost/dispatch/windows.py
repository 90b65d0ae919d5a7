"""How much mail of a device a route has let through: pure counting, without clock or I/O.

A window begins with the first mail and lasts a fixed time, so that all that is held back in it
is due at one moment, known when the first of it is held.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from waypost.routing.storms import StormSettings

# Windows remembered; of more, those that began first are forgotten, and their devices start anew.
MAX_WINDOWS = 40_000


class WindowKey(NamedTuple):
    """Whose mail, and by which route."""

    source: str
    route: str


class Window:
    """One key's, from its first mail on."""

    __slots__ = ("began_at", "failures", "held", "passed", "until")

    def __init__(self, began_at: float, until: float) -> None:
        self.began_at = began_at
        self.until = until
        self.passed = 0  # mails let through
        self.failures = 0  # of mails that say failure, those let through beyond the cap
        self.held = 0  # mails kept back

    def lasts(self, now: float) -> bool:
        """False when it is over, or the clock was set back to before it."""
        return self.began_at <= now < self.until


class Windows:
    """Of all devices and routes. Times are UTC epoch seconds, as they are kept in the store."""

    def __init__(self, max_windows: int = MAX_WINDOWS) -> None:
        self._max_windows = max_windows
        self._windows: OrderedDict[WindowKey, Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def is_full(self, key: WindowKey, settings: StormSettings, now: float) -> bool:
        """True when the next mail would be held back, were it like any other."""
        window = self._windows.get(key)
        return window is not None and window.lasts(now) and window.passed >= settings.messages

    def has_room_for_failure(self, key: WindowKey, settings: StormSettings) -> bool:
        """True when a mail that says failure would be let through beyond the cap."""
        window = self._windows.get(key)
        return window is None or window.failures < settings.messages

    def take(
        self, key: WindowKey, settings: StormSettings, now: float, *, is_failure: bool = False
    ) -> Window | None:
        """Count a mail; None: it goes. Else the window it is held back in."""
        window = self._windows.get(key)
        if window is None or not window.lasts(now):
            window = self._begin(key, now, now + settings.per_s)
        if window.passed < settings.messages:
            window.passed += 1
            return None
        if is_failure and window.failures < settings.messages:
            window.failures += 1
            return None
        window.held += 1
        return window

    def resume(self, key: WindowKey, settings: StormSettings, until: float, held: int) -> Window:
        """Go on with a window of an earlier run, in which mail is held back."""
        window = self._begin(key, until - settings.per_s, until)
        window.passed, window.held = settings.messages, held
        return window

    def _begin(self, key: WindowKey, began_at: float, until: float) -> Window:
        window = self._windows[key] = Window(began_at, until)
        self._windows.move_to_end(key)
        while len(self._windows) > self._max_windows:
            self._windows.popitem(last=False)
        return window
