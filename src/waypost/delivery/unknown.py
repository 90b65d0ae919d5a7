"""What happens to mail whose target this Waypost does not know: it waits."""

from __future__ import annotations

from waypost.delivery.transport import DeliveryJob, deferred
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.routing.targets import Target


class UnknownTransport:
    """Defers everything: the queue may have been written by another version."""

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport."""
        return 1

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport."""
        reply = deferred(f"No transport is known here for {job.target.argument}", (3, 5))
        return [Outcome.of(reply, success=OutcomeKind.RELAYED)] * len(job.recipients)
