"""What is published, and what the broker may answer."""

from __future__ import annotations

from typing import NamedTuple

from waypost.errors import TemporaryError

# The user property (MQTT 5 §3.3.2.3.7) that says which mail a message was made of.
MARK = "waypost-id"


class PublishRefused(TemporaryError):
    """The broker does not take a message; the operator has to let it."""

    status = (7, 1)


class Message(NamedTuple):
    """What is published, always with QoS 1."""

    topic: str
    payload: bytes
    is_retained: bool
    mark: str | None = None  # of the mail it was made of, in the user property MARK; None: of none
