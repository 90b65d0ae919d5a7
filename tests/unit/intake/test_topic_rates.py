"""A topic gone wild makes no more mail than it may, and the log says so once a minute."""

from __future__ import annotations

import os
from typing import Any

from waypost.intake.topic_rates import (
    AT_ONCE,
    MAX_TOPIC,
    MAX_TOPICS,
    PER_MINUTE,
    REQUESTS_PER_MINUTE,
    TopicRates,
)
from waypost.observe import Log


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Lines(Log):
    def __init__(self) -> None:
        super().__init__(os.open(os.devnull, os.O_WRONLY))
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))


def made() -> tuple[TopicRates, Clock, Lines]:
    clock, lines = Clock(), Lines()
    return TopicRates(lines, clock), clock, lines


def test_so_many_at_once_and_so_many_a_minute() -> None:
    rates, clock, lines = made()
    assert sum(rates.takes("a") for _ in range(AT_ONCE + 500)) == AT_ONCE
    assert lines.events == [("mqtt-flood", {"topic": "a", "left_out": 1})]
    assert rates.takes("b")
    clock.now += 59
    assert sum(rates.takes("a") for _ in range(AT_ONCE)) == PER_MINUTE * 59 // 60
    assert len(lines.events) == 1
    clock.now += 1
    while rates.takes("a"):
        pass
    assert lines.events[-1][1]["left_out"] == 499 + AT_ONCE - PER_MINUTE * 59 // 60 + 1


def test_topics_without_end_take_no_more_memory() -> None:
    rates, clock, _ = made()
    for number in range(MAX_TOPICS):
        rates.takes(f"t{number}")
    # All of these are counted as one.
    assert sum(rates.takes(f"u{number}") for number in range(2 * AT_ONCE)) == AT_ONCE
    assert rates.takes("t1")
    clock.now += 3600
    assert all(rates.takes(f"v{number}") for number in range(10))


def test_long_topics_are_known_by_their_beginning() -> None:
    rates, _, lines = made()
    assert sum(rates.takes("x" * 60_000 + str(number)) for number in range(AT_ONCE + 1)) == AT_ONCE
    assert len(lines.events[0][1]["topic"]) == MAX_TOPIC


def test_requests_may_be_more() -> None:
    rates, clock, _ = made()
    while rates.takes("a", REQUESTS_PER_MINUTE):
        pass
    clock.now += 1
    assert sum(rates.takes("a", REQUESTS_PER_MINUTE) for _ in range(AT_ONCE)) == 100
