"""Topic filters: which topics they match, and whether two may match the same one (MQTT 5 §4.7)."""

from __future__ import annotations

MAX_OCTETS = 65_535

_ONE = "+"
_REST = "#"


def read_filter(text: str) -> str:
    """A topic filter. Raises ValueError."""
    levels = text.split("/")
    if not text or "\0" in text or len(text.encode()) > MAX_OCTETS:
        raise ValueError("expected a topic, perhaps with + for a level or # for all that follow")
    if _REST in text and (text.count(_REST) > 1 or levels[-1] != _REST):
        raise ValueError(f"{text!r}: # stands alone at the end, as in plant/#")
    if any(_ONE in level and level != _ONE for level in levels):
        raise ValueError(f"{text!r}: + stands for a whole level, as in plant/+/alarm")
    return text


def matches(topic_filter: str, topic: str) -> bool:
    """True when a message of this topic is for whoever has subscribed to the filter."""
    # MQTT 5 §4.7.2: what begins with $ is the broker's own.
    if topic.startswith("$") and topic_filter[:1] in (_ONE, _REST):
        return False
    return _meet(topic_filter.split("/"), topic.split("/"))


def overlap(first: str, second: str) -> bool:
    """True when there is a topic that both match."""
    return _meet(first.split("/"), second.split("/"))


def _meet(first: list[str], second: list[str]) -> bool:
    for one, other in zip(first, second, strict=False):
        if _REST in (one, other):
            return True
        if one != other and _ONE not in (one, other):
            return False
    if len(first) == len(second):
        return True
    # MQTT 5 §4.7.1.2: "a/#" is for "a", too.
    shorter, longer = sorted((first, second), key=len)
    return longer[len(shorter)] == _REST and len(longer) == len(shorter) + 1
