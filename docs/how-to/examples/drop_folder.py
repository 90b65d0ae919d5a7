"""A transport that puts each message as a file into a directory, for another program."""

import asyncio
import os
from pathlib import Path

from waypost.delivery.transport import DeliveryJob, deferred
from waypost.durable import sync_directory
from waypost.mail.envelope import Outcome, OutcomeKind, QueuedRecipient
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.routing.targets import Target


class DropFolder:
    """The transport of ``drop:/directory`` targets."""

    def destination(self, target: Target, recipient: QueuedRecipient) -> str:
        return str(target)  # one directory, one destination

    def window(self) -> int:
        return 4

    async def deliver(self, job: DeliveryJob) -> list[Outcome]:
        try:
            await asyncio.to_thread(_write, Path(job.target.argument), job.message)
            reply = Reply(250, "In the folder", (0, 0))
        except OSError as error:
            reply = deferred(f"cannot write: {error.strerror}", (2, 0))
        return [Outcome.of(reply, success=OutcomeKind.DELIVERED)] * len(job.recipients)


def _write(directory: Path, message: QueuedMessage) -> None:
    # Named by the queue id, so that a second attempt replaces the first and adds no copy.
    partial = directory / f".{message.queue_id}.part"
    with message.content.open() as source, partial.open("wb") as file:
        file.write(message.prepend)
        while piece := source.read(262_144):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(directory / f"{message.queue_id}.eml")
    sync_directory(directory)
