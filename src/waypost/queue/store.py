"""The seam between the hub and what makes its mail durable.

`accept` returns only when the message would survive a power cut. Work is lent, not given:
`lease` hands out recipients that are due, `settle` takes back what became of them in one
transaction, reports included. What was lent by a process that died is due again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from waypost.mail.address import IPAddress
from waypost.mail.envelope import Outcome, QueuedRecipient, QueueId
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply


@dataclass(slots=True)
class Result:
    """What one attempt did to one leased recipient."""

    recipient: QueuedRecipient
    outcome: Outcome
    next_attempt_at: float | None = None  # None: finished
    warned: bool = False  # a report in the same settlement tells of the delay
    is_attempt: bool = True  # False: nobody was asked, it only has to wait


@dataclass(slots=True)
class Settlement:
    """All that became of a lease, or a part of it, to be recorded at once."""

    message: QueuedMessage
    results: Sequence[Result]
    at: float
    # To enqueue with it: DSNs, and what lists send to their members.
    reports: Sequence[QueuedMessage] = field(default_factory=tuple)


class Action(StrEnum):
    """What an operator does to messages in the queue."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"


@dataclass(slots=True)
class Refusal:
    """A recipient or sender refused in a session: kept for the trace, not made durable."""

    at: float
    client_ip: IPAddress | None
    listener: str
    helo: str
    reverse_path: str
    forward_path: str
    reply: Reply


class Intake(Protocol):
    """The part of the contract that mail comes in by. Failures: QueueFull, StoreUnavailable."""

    def next_id(self) -> QueueId:
        """A queue id nobody has."""
        ...

    def refusal(self, size: int) -> Reply | None:
        """Why a message of `size` octets cannot be kept now; None: it can. Cheap."""
        ...

    def accept(self, message: QueuedMessage) -> asyncio.Future[None]:
        """Keep a message; done only when it is durable."""
        ...

    def note_refusal(self, refusal: Refusal) -> None:
        """Remember a refusal for the trace, when there is time."""
        ...


class QueueStore(Intake, Protocol):
    """The contract; see the module text. Failures as of Intake."""

    async def lease(self, limit: int) -> list[QueuedMessage]:
        """Up to `limit` messages with recipients that are due, each with just those."""
        ...

    async def wait(self) -> None:
        """Return when something may be due. A hint: `lease` says what is."""
        ...

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Record what became of leased recipients, in one transaction."""
        ...

    def settle_together(self, settlements: Sequence[Settlement]) -> asyncio.Future[None]:
        """As `settle`, of several messages: all of it is recorded, or nothing."""
        ...

    async def act(self, action: Action, ids: Sequence[QueueId] | None) -> int:
        """An operator's action on some messages, or on all (None); how many recipients."""
        ...

    async def hold_all_new(self, *, held: bool) -> None:
        """Lend nothing any more, or lend again; kept over a restart."""
        ...

    async def close(self) -> None:
        """Finish what waits and let go of the files."""
        ...


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [high + low for high, low in itertools.product(_ALPHABET, repeat=2)]
# To Python's digits of base 32; what is no character of ours becomes no digit of theirs.
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_TO_DIGITS = bytes(
    ord(_DIGITS[_ALPHABET.index(character)]) if (character := chr(octet).lower()) in _ALPHABET
    else ord("!")
    for octet in range(256)
)  # fmt: skip
# Microseconds since 2020 in 51 bits last until 2091; twelve bits below tell processes apart.
_EPOCH_S = 1_577_836_800


class QueueIdSource:
    """Queue ids that grow with time, unique over restarts; thirteen characters."""

    def __init__(self) -> None:
        self._low = random.getrandbits(12)
        self._last = 0

    def next_id(self) -> QueueId:
        """A new id, later in order than all before it."""
        number = first_number_at(time.time()) | self._low
        if number <= self._last:
            number = self._last + 4096
        self._last = number
        return encode_queue_id(number)


def first_number_at(at: float) -> int:
    """The smallest number of an id made at `at` (UTC epoch seconds)."""
    return int((at - _EPOCH_S) * 1_000_000) << 12


def encode_queue_id(number: int) -> QueueId:
    """The text form of a 63-bit number."""
    return QueueId(
        _ALPHABET[number >> 60]
        + _PAIRS[number >> 50 & 1023]
        + _PAIRS[number >> 40 & 1023]
        + _PAIRS[number >> 30 & 1023]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )


def decode_queue_id(queue_id: str) -> int:
    """The number of a queue id; raises ValueError for a text that is none."""
    if len(queue_id) != 13:
        raise ValueError(f"{queue_id!r} is no queue id: it has thirteen characters")
    try:
        number = int(queue_id.encode("ascii").translate(_TO_DIGITS), 32)
    except ValueError:
        number = 1 << 63
    if number >= 1 << 63:
        raise ValueError(f"{queue_id!r} is no queue id")
    return number
