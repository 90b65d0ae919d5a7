"""Mail that is published instead of delivered: which topics addresses may name, by themselves or
through the device they lead to.
"""

from __future__ import annotations

from dataclasses import dataclass

from waypost.mqtt.filters import matches
from waypost.mqtt.publication import Publication, check_foreign, check_topic
from waypost.routing.targets import Target


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """What the table has to know of [mqtt]."""

    base: str
    prefix: str  # of discovery; empty: none
    mailbox: str = ""  # in front of a topic in an address; empty: no address names a topic
    filters: tuple[str, ...] = ()  # what topics in addresses may be

    def target_of(self, topic: str) -> Target:
        """Of a topic that a sender names. Raises ValueError where it may not be published on."""
        check_topic(topic)
        check_foreign(topic, self.base, self.prefix)
        if "" in topic.split("/"):
            raise ValueError("a topic in an address has no empty level")
        if not any(matches(entry, topic) for entry in self.filters):
            raise ValueError("this topic is none of mqtt.topics")
        return Target("publish", topic)


def command_target(command: str, topics: TopicSettings | None) -> Target:
    """Of what the operator gave a device, see Publication. Raises ValueError."""
    if topics is None:
        raise ValueError("mqtt.url is not set")
    check_foreign(Publication.parse(command).topic, topics.base, topics.prefix)
    return Target("publish", command)
