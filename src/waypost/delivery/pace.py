"""How fast a relay is fed: its limits, what it has had, and for how long it asked to be left alone.

One Pace for each relay, over all its hosts and connections. Times are read from two clocks: waits
and minutes from one that never jumps, the day's hours from the wall's, as they outlive a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from waypost.delivery.patience import Ask, what_is_asked
from waypost.durable import write_secret
from waypost.mail.envelope import Outcome, OutcomeKind
from waypost.mail.reply import Reply
from waypost.observe import Log
from waypost.routing.hops import PaceSettings, Relay
from waypost.routing.targets import Target

MINUTE_S = 60.0
HOUR_S = 3_600.0
HOURS = 24
# No relay is left alone for longer at a time; a quota of a day is asked for this often.
LONGEST_WAIT_S = 3_600.0
# Counts are written down this long after the first that is not.
SAVE_AFTER_S = 2.0
# Mail that would wait longer than this for its relay goes by the relay's fallback.
FALLBACK_S = 300.0

Clock = Callable[[], float]


class Pace:
    """One relay's."""

    def __init__(
        self,
        relay: Relay,
        *,
        on_taken: Callable[[], None] = lambda: None,
        monotonic: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        """`on_taken` is called when the day's count has changed."""
        self.name = relay.name
        self._relay = relay
        self.hours: dict[int, int] = {}  # messages by hour of the epoch
        self.reason: Reply | None = None  # what it said when it asked to wait; None: it did not
        self._on_taken = on_taken
        self._monotonic = monotonic
        self._wall = wall
        self._starts: deque[float] = deque()  # of the last minute
        self._wait_until = 0.0
        self.wait_s = 0.0  # how long it is left alone, or was last; 0: it has taken mail since
        self._booked_until = 0.0  # mail that was sent away comes back until then

    @property
    def settings(self) -> PaceSettings:
        """Its limits."""
        return self._relay.pace

    @property
    def fallback(self) -> str | None:
        """The relay for when this one cannot take mail; None: there is none."""
        return self._relay.fallback

    def configure(self, relay: Relay) -> None:
        """The configuration was read again; one that changed may have mended what it waits for."""
        if relay != self._relay:
            self._relay = relay
            self.forget()

    def delay_s(self, ahead: int = 0, *, is_new: bool = False) -> float:
        """Seconds until a message may go that has `ahead` others before it.

        `is_new`: it has not been sent away before, and queues behind those that were.
        """
        now = self._monotonic()
        delay = max(self._wait_until - now, self._minute_s(now, ahead), self._day_s(ahead), 0.0)
        if is_new and self._booked_until > now:
            delay = max(delay, self._booked_until - now + self._spacing_s())
        return delay

    def book(self, delay_s: float) -> None:
        """A message is sent away and comes back after this long."""
        self._booked_until = max(self._booked_until, self._monotonic() + delay_s)

    def take(self) -> None:
        """A message goes."""
        if self.settings.messages_per_minute is not None:
            self._starts.append(self._monotonic())
        if self.settings.messages_per_day is not None:
            hour = self._hour()
            self.hours[hour] = self.hours.get(hour, 0) + 1
            self._on_taken()

    def give_back(self) -> None:
        """It did not get there."""
        if self._starts:
            self._starts.pop()
        hour = self._hour()
        if self.hours.get(hour):
            self.hours[hour] -= 1

    def judged(
        self, outcomes: Sequence[Outcome], *, first_s: float, longest_s: float
    ) -> tuple[list[Outcome], bool]:
        """What the relay's replies mean for the message, and whether it begins to wait now.

        What asks to wait is no failure, whatever its code. `first_s`: how long the first wait is;
        `longest_s`: how long any.
        """
        judged: list[Outcome] = []
        asked, reply = Ask.NOTHING, None
        for outcome in outcomes:
            ask = what_is_asked(outcome.reply)
            if ask > asked:
                asked, reply = ask, outcome.reply
            if ask and outcome.kind is OutcomeKind.FAILED:
                transient = _as_transient(outcome.reply)
                outcome = outcome._replace(kind=OutcomeKind.DEFERRED, reply=transient)
            judged.append(outcome)
        if reply is not None:
            longest_s = min(longest_s, LONGEST_WAIT_S)
            wait_s = longest_s if asked is Ask.HOURS else min(first_s, longest_s)
            return judged, self._begin_to_wait(wait_s, longest_s, reply)
        if any(outcome.reply.is_positive for outcome in outcomes):
            self.wait_s = 0.0
            self.reason = None
        return judged, False

    def forget(self) -> None:
        """An operator says: try again. Its limits stay."""
        self._wait_until = self.wait_s = self._booked_until = 0.0
        self.reason = None

    def why(self) -> Reply:
        """Why mail has to wait, for the queue and the trace."""
        if self._wait_until > self._monotonic() and self.reason is not None:
            return Reply(
                451, f"Waiting for the relay {self.name}, which said: {self.reason}", (4, 5)
            )
        return Reply(451, f"Waiting for the relay {self.name}: its limits are reached", (4, 5))

    def _begin_to_wait(self, wait_s: float, longest_s: float, reply: Reply) -> bool:
        now = self._monotonic()
        is_waiting = self._wait_until > now
        if is_waiting and self._wait_until >= now + wait_s:
            return False  # another connection has heard it before
        # Several that hear it at once make one wait, and one that grows.
        self.wait_s = wait_s if is_waiting else max(wait_s, min(2 * self.wait_s, longest_s))
        self._wait_until = now + self.wait_s
        self.reason = reply
        return True

    def _spacing_s(self) -> float:
        limit = self.settings.messages_per_minute
        return 0.0 if limit is None else MINUTE_S / limit

    def _minute_s(self, now: float, ahead: int) -> float:
        limit = self.settings.messages_per_minute
        if limit is None:
            return 0.0
        while self._starts and self._starts[0] <= now - MINUTE_S:
            self._starts.popleft()
        place = len(self._starts) + ahead  # of this message, counted from the oldest of the minute
        if place < limit:
            return 0.0
        # It may go a minute after the one `limit` places before it, and so on back.
        rounds, first = divmod(place, limit)
        if first < len(self._starts):
            return self._starts[first] + rounds * MINUTE_S - now
        return rounds * MINUTE_S

    def _day_s(self, ahead: int) -> float:
        limit = self.settings.messages_per_day
        if limit is None:
            return 0.0
        hour = self._hour()
        for old in [one for one in self.hours if one < hour - HOURS]:
            del self.hours[old]
        surplus = sum(self.hours.values()) + ahead + 1 - limit
        if surplus <= 0:
            return 0.0
        for one in sorted(self.hours):
            surplus -= self.hours[one]
            if surplus <= 0:
                return (one + HOURS + 1) * HOUR_S - self._wall()
        return (HOURS + 1) * HOUR_S  # behind more than a day's mail that has not gone yet

    def _hour(self) -> int:
        return int(self._wall() // HOUR_S)


class Paces:
    """Of all relays; the counts of a day are kept in a file."""

    def __init__(self, relays: Iterable[Relay], path: Path, log: Log) -> None:
        """`path`: where counts outlive the process. Raises OSError."""
        self._path = path
        self._log = log
        self._paces: dict[str, Pace] = {}
        self._is_changed = False
        self._closing = asyncio.Event()
        self._saving: asyncio.Task[None] | None = None  # None: nothing is to be saved
        self.configure(relays)
        self._load()

    def configure(self, relays: Iterable[Relay]) -> None:
        """The relays there are now; what is known of those that stay is kept."""
        paces: dict[str, Pace] = {}
        for relay in relays:
            pace = self._paces.get(relay.name) or Pace(relay, on_taken=self._changed)
            pace.configure(relay)
            paces[relay.name] = pace
        self._paces = paces

    def of(self, target: Target) -> Pace | None:
        """The pace of a target; None: it is no relay."""
        return self._paces.get(target.argument) if target.kind == "relay" else None

    def forget_waits(self) -> None:
        """An operator says: try again."""
        for pace in self._paces.values():
            pace.forget()

    async def close(self) -> None:
        """Write down what is not."""
        self._closing.set()
        if self._saving is not None:
            await self._saving

    def _load(self) -> None:
        try:
            kept = json.loads(self._path.read_bytes())
            for name, hours in kept.items():
                if name in self._paces:
                    self._paces[name].hours = {int(hour): int(hours[hour]) for hour in hours}
        except FileNotFoundError:
            return
        except (ValueError, TypeError, AttributeError) as error:
            # Counting anew costs a refusal of the relay at most.
            self._log.event("counts-lost", file=self._path.name, why=error)

    def _changed(self) -> None:
        self._is_changed = True
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_task(self._save_later())

    async def _save_later(self) -> None:
        while self._is_changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_AFTER_S):
                    await self._closing.wait()
            await self._save()
        self._saving = None

    async def _save(self) -> None:
        self._is_changed = False
        hours = {name: pace.hours for name, pace in self._paces.items() if pace.hours}
        try:
            await asyncio.to_thread(write_secret, self._path, json.dumps(hours).encode())
        except OSError as error:
            self._log.event("counts-lost", file=self._path.name, why=error.strerror)


def _as_transient(reply: Reply) -> Reply:
    """The same reply, as something that passes."""
    return Reply(451, f"The relay said {reply.code} {reply.enhanced} {reply.text}", (4, 5))
