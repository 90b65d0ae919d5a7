"""What ``publish:`` targets name: a topic of others, and what of a mail is published there."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

# Octets: more than any address can name (RFC 5321 §4.5.3.1.1 allows 64), and any list of topics
# can show.
MAX_TOPIC = 256

_MARK = "#"  # in no topic one may publish on (MQTT 5 §4.7.1)


class Payload(StrEnum):
    """What of a mail is published."""

    TEXT = "text"  # without blanks and blank lines around it
    LINE = "line"  # the first line of the text that is not blank: no signature, nothing quoted
    SUBJECT = "subject"
    EVENT = "event"  # the whole event as JSON


class Publication(NamedTuple):
    """One topic, and what is published there; `str()` gives back what `parse` reads."""

    topic: str
    payload: Payload = Payload.TEXT

    @classmethod
    def parse(cls, text: str) -> Publication:
        """Read ``pump/set`` or ``pump/set#line``. Raises ValueError."""
        topic, mark, word = text.partition(_MARK)
        if mark and word not in tuple(Payload):
            raise ValueError(f"behind # expected one of: {', '.join(Payload)}")
        check_topic(topic)
        return cls(topic, Payload(word) if mark else Payload.TEXT)

    def __str__(self) -> str:
        return self.topic if self.payload is Payload.TEXT else f"{self.topic}{_MARK}{self.payload}"


def check_topic(topic: str) -> None:
    """Raises ValueError for what nobody may, or should, publish on (MQTT 5 §1.5.4, §4.7)."""
    if not topic:
        raise ValueError("a topic is missing")
    if "+" in topic or "#" in topic:
        raise ValueError("+ and # stand for many topics, and one is needed")
    if topic.startswith("$"):
        raise ValueError("topics that begin with $ are the broker's own")
    if not topic.isprintable():
        raise ValueError("a topic has no control characters")
    if len(topic.encode()) > MAX_TOPIC:
        raise ValueError(f"a topic has {MAX_TOPIC} octets at most")


def check_foreign(topic: str, base: str, prefix: str) -> None:
    """Raises ValueError for topics the hub itself publishes on, below `base` and `prefix`.

    `prefix`: empty where nothing is discovered.
    """
    for own in (base, prefix):
        if own and f"{topic}/".startswith(f"{own}/"):
            raise ValueError(f"topics below {own}/ are the hub's own")
