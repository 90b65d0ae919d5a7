"""The transport of ``discard`` targets."""

from __future__ import annotations

from waypost.delivery.transport import DeliveryJob
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.reply import Reply
from waypost.routing.targets import Target

_DISCARDED = Outcome(OutcomeKind.DELIVERED, Reply(250, "Discarded, as the route says", (0, 0)))


class DiscardTransport:
    """Takes everything and keeps nothing, as a route of the operator says."""

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return "discard"

    def window(self) -> int:
        """See Transport."""
        return 1

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport."""
        return [_DISCARDED] * len(job.recipients)
