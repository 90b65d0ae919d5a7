"""Values for the contract suites: messages as acceptance would hand them to a store."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, ParamSpec

from waypost.mail.address import Address
from waypost.mail.envelope import (
    Arrival,
    Envelope,
    Outcome,
    OutcomeKind,
    QueuedRecipient,
    QueueId,
    Recipient,
)
from waypost.mail.message import Content, QueuedMessage
from waypost.mail.reply import Reply
from waypost.queue.spool import InlineContent
from waypost.queue.store import Result, Settlement, decode_queue_id, first_number_at

SENDER = Address.parse("ann@[127.0.0.1]")
TEXT = b"Subject: contract\r\n\r\nWhat is kept is kept.\r\n"

TAKEN = Reply(250, "Taken", (0, 0))
LATER = Reply(451, "Not now", (3, 0))
NEVER = Reply(550, "No such mailbox", (1, 1))

# No step of a contract takes this long on any machine; without it a failure would be a hang.
LIMIT_S = 20.0

Parameters = ParamSpec("Parameters")


def on_loop(
    test: Callable[Parameters, Coroutine[Any, Any, None]],
) -> Callable[Parameters, None]:
    """Run an async test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT_S):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


def arrival() -> Arrival:
    """A client on this host."""
    return Arrival(
        protocol="ESMTP",
        client_ip=ip_address("127.0.0.1"),
        local_ip=ip_address("127.0.0.1"),
        helo="client.test",
        listener="smtp",
        trusted=True,
    )


def new_message(
    queue_id: QueueId,
    *,
    to: Sequence[str] = ("bob@[127.0.0.1]",),
    content: Content | None = None,  # None: TEXT
    reverse_path: Address | None = SENDER,
) -> QueuedMessage:
    """A message for mailboxes named as the local parts of `to`."""
    return QueuedMessage(
        queue_id=queue_id,
        envelope=Envelope(reverse_path),
        arrival=arrival(),
        content=InlineContent(TEXT) if content is None else content,
        prepend=b"Received: from client.test by hub.test\r\n",
        accepted_at=accepted_at(queue_id),
        is_eight_bit=False,
        reports_allowed=True,
        recipients=tuple(
            QueuedRecipient(
                number,
                Recipient(Address.parse(path)),
                f"mailbox:{path.partition('@')[0]}",
                "own address",
            )
            for number, path in enumerate(to)
        ),
    )


def accepted_at(queue_id: QueueId) -> float:
    """When a message with this id would have been accepted."""
    per_second = first_number_at(1_600_000_001.0) - first_number_at(1_600_000_000.0)
    return 1_600_000_000.0 + (
        (decode_queue_id(queue_id) - first_number_at(1_600_000_000.0)) / per_second
    )


def result(
    message: QueuedMessage,
    index: int,
    reply: Reply,
    *,
    again_at: float | None = None,  # None: finished
) -> Result:
    """What an attempt did to the `index`-th leased recipient."""
    outcome = Outcome.of(reply, success=OutcomeKind.DELIVERED)
    return Result(message.recipients[index], outcome, again_at)


def settlement(
    message: QueuedMessage, *results: Result, reports: Sequence[QueuedMessage] = ()
) -> Settlement:
    """All that became of a lease."""
    return Settlement(message, results, message.accepted_at + 1, reports)


def delivered(message: QueuedMessage) -> Settlement:
    """Every leased recipient got it."""
    return settlement(
        message, *(result(message, index, TAKEN) for index in range(len(message.recipients)))
    )


def deferred(message: QueuedMessage, again_at: float) -> Settlement:
    """No leased recipient got it; all are to be tried again."""
    return settlement(
        message,
        *(
            result(message, index, LATER, again_at=again_at)
            for index in range(len(message.recipients))
        ),
    )


def numbers(message: QueuedMessage) -> list[int]:
    """Which recipients are in a lease."""
    return [recipient.number for recipient in message.recipients]
