"""The transport of ``reject`` targets: a refusal that only the content could decide.

Where the route is known at RCPT the recipient is refused there, and nothing is queued.
"""

from __future__ import annotations

from waypost.delivery.transport import DeliveryJob
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.routing.targets import Target, rejection


class RejectTransport:
    """Fails everything with the route's reply, so that the sender gets a report."""

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        """See Transport."""
        return str(target)

    def window(self) -> int:
        """See Transport."""
        return 1

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        """See Transport."""
        outcome = Outcome(OutcomeKind.FAILED, rejection(job.target))
        return [outcome] * len(job.recipients)
