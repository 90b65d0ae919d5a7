"""Times of the week that routes match by, on the clock of the hub's host."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = "|".join(_DAYS)
_FORM = re.compile(
    rf"(?:({_DAY})(?:-({_DAY}))? )?([01][0-9]|2[0-3]):([0-5][0-9])"
    r"-(?:([01][0-9]|2[0-3]):([0-5][0-9])|24:00)"
)


class Hours(NamedTuple):
    """From one time to another, on some days; where it ends is no part of it."""

    text: str
    days: frozenset[int]  # on which it begins; 0: Monday
    start: int  # minutes after midnight
    end: int  # likewise; not after `start`: on the next day

    @classmethod
    def parse(cls, text: str) -> Hours:
        """Raises ValueError."""
        match = _FORM.fullmatch(text.lower())
        if match is None:
            raise ValueError(f'{text!r}: expected times as "22:00-06:00" or "mon-fri 08:00-17:00"')
        first = 0 if match[1] is None else _DAYS.index(match[1])
        last = 6 if match[1] is None else _DAYS.index(match[2] or match[1])
        days = frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))
        start = int(match[3]) * 60 + int(match[4])
        end = 1_440 if match[5] is None else int(match[5]) * 60 + int(match[6])
        if start == end:
            raise ValueError(f"{text!r} begins when it ends; the whole day is 00:00-24:00")
        return cls(text, days, start, end)

    def holds(self, at: datetime) -> bool:
        """True within these hours."""
        minute, day = at.hour * 60 + at.minute, at.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        begun = day in self.days and minute >= self.start
        return begun or ((day - 1) % 7 in self.days and minute < self.end)


def local_time() -> datetime:
    """Now, on the clock of this host."""
    return datetime.now().astimezone()
