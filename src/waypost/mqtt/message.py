"""What is published, what the broker may answer, and what comes from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from waypost.errors import TemporaryError
from waypost.mail.address import IPAddress

# What a broker may send us before it has to wait for an acknowledgement: many, so that those of one
# topic do not hold up the others. And how much at once: files of a message for mail are in base64.
MAX_IN_HAND = 1_000
MAX_PACKET = 24 << 20

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
    correlation: bytes | None = None  # of the request it answers (MQTT 5 §3.3.2.3.6); None: none
    mark: str | None = None  # of the mail it was made of, in the user property MARK; None: of none


class Received(NamedTuple):
    """What somebody else has published."""

    topic: str
    payload: bytes
    qos: int
    was_kept: bool  # the broker had it from before
    packet_id: int  # the same when it comes again in the same session; 0: QoS 0
    is_again: bool  # the broker has sent it before (DUP)
    response_topic: str | None  # None: none was given, as below
    correlation: bytes | None
    peer_ip: IPAddress  # the broker's
    local_ip: IPAddress  # ours, on the connection
    # The broker may forget it. Nothing happens when the connection it came by is over.
    acknowledge: Callable[[], None]
    # True when the connection is over: what is not acknowledged comes again.
    is_void: Callable[[], bool]
