"""Times of the week."""

from __future__ import annotations

from datetime import datetime

import pytest

from waypost.routing.hours import Hours


def at(text: str) -> datetime:
    """A time of the week that begins on Monday, 23 November 2026."""
    day, clock = text.split()
    number = ("mon", "tue", "wed", "thu", "fri", "sat", "sun").index(day)
    return datetime.fromisoformat(f"2026-11-{23 + number}T{clock}")


@pytest.mark.parametrize(
    ("hours", "within", "beyond"),
    [
        ("08:00-17:00", ["mon 08:00", "sun 16:59"], ["mon 07:59", "mon 17:00"]),
        ("22:00-06:00", ["mon 22:00", "tue 05:59", "sun 23:59"], ["mon 06:00", "mon 21:59"]),
        ("Mon-Fri 08:00-17:00", ["mon 08:00", "fri 16:59"], ["sat 12:00", "sun 12:00"]),
        ("fri 22:00-06:00", ["fri 22:00", "sat 05:59"], ["fri 05:00", "sat 22:00", "sun 05:00"]),
        ("sun 22:00-06:00", ["sun 22:00", "mon 05:59"], ["tue 05:00", "sun 05:00"]),
        ("sat-mon 00:00-24:00", ["sat 00:00", "sun 12:00", "mon 23:59"], ["tue 00:00"]),
    ],
)
def test_hours(hours: str, within: list[str], beyond: list[str]) -> None:
    parsed = Hours.parse(hours)
    assert [text for text in within if not parsed.holds(at(text))] == []
    assert [text for text in beyond if parsed.holds(at(text))] == []


@pytest.mark.parametrize(
    "text", ["", "8:00-17:00", "08:00", "24:00-08:00", "08:00-08:00", "day 08:00-09:00", "08:60-9"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected times|begins when"):
        Hours.parse(text)
