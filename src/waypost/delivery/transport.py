"""The seam between the dispatcher and what carries mail.

A transport is given one message and recipients that share a next hop, and answers with one
Outcome for each, in order. Refusals are Outcomes; an exception is a bug, and defers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from waypost.errors import NoWay, PermanentError, TemporaryError
from waypost.mail.envelope import Outcome, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.routing.targets import Target


@dataclass(frozen=True, slots=True)
class DeliveryJob:
    """One message for recipients with one target and, where it matters, one next hop.

    What a transport puts into `spawned` enters the queue in one transaction with the outcomes.
    """

    message: QueuedMessage
    recipients: Sequence[QueuedRecipient]
    target: Target
    spawned: list[QueuedMessage] = field(default_factory=list)


class Transport(Protocol):
    """The contract; see the module text."""

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """What recipients must share to travel together, and jobs to share a window."""
        ...

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """Try once; one Outcome for each recipient of the job, in order."""
        ...

    def window(self) -> int:
        """How many jobs for one destination may run at once."""
        ...


def deferred(text: str, status: tuple[int, int] = (4, 0)) -> Reply:
    """Our own temporary reply."""
    return Reply(451, text, status)


def failed(text: str, status: tuple[int, int] = (0, 0)) -> Reply:
    """Our own permanent reply."""
    return Reply(554, text, status)


def reply_to(error: TemporaryError | PermanentError) -> Reply:
    """What is said to the sender of what stopped a delivery as a whole."""
    if isinstance(error, NoWay):
        return Reply(error.code, str(error), error.status)
    if isinstance(error, TemporaryError):
        return deferred(str(error), error.status)
    return Reply(550, str(error), (4, 4))
