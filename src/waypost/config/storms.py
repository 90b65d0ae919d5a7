"""Storm control, out of the keys of a [[route]]."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from waypost.config.readers import read_count, read_seconds
from waypost.config.relays import Fault
from waypost.routing.storms import HELD_KINDS, KEEPING_KINDS, StormSettings, Then
from waypost.routing.targets import parse_target

# Longer is no storm, and mail that waits has to be told of some day.
MAX_S = 86_400.0


def read_storm(value: Any) -> StormSettings:
    """As in { messages = 5, per_s = 300, then = "digest" }."""
    if not isinstance(value, dict):
        raise ValueError("expected a table, as in { messages = 5, per_s = 300 }")
    unknown = sorted(set(value) - {"messages", "per_s", "then"})
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; expected: messages, per_s, then")
    missing = sorted({"messages", "per_s"} - set(value))
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing")
    try:
        messages = read_count(value["messages"])
    except ValueError as error:
        raise ValueError(f"messages: {error}") from None
    try:
        per_s = read_span(value["per_s"])
    except ValueError as error:
        raise ValueError(f"per_s: {error}") from None
    try:
        return StormSettings(messages, per_s, Then(value.get("then", Then.DIGEST)))
    except ValueError:
        raise ValueError(f"then: expected one of: {', '.join(Then)}") from None


def read_span(value: Any) -> float:
    """Seconds, a day at most."""
    seconds = read_seconds(value)
    if seconds > MAX_S:
        raise ValueError(f"expected {MAX_S:g} seconds at most")
    return seconds


def storm_faults(route: dict[str, Any]) -> Iterator[Fault]:
    """What is wrong between the keys of a route; a value at fault itself is None."""
    storm: StormSettings | None = route["storm"]
    if storm is None or route["to"] is None:
        return
    kinds = {parse_target(target).kind for target in route["to"]}
    if not kinds & HELD_KINDS:
        yield "storm", "there is nothing to hold back: its targets always get all mail"
    elif not kinds & KEEPING_KINDS:
        yield (
            "storm",
            "mail that is held back would be lost but for its subject: add a mailbox: or lmtp:"
            " target to the route, which gets all",
        )
