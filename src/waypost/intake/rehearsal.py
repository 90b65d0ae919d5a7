"""A mail is taken by the hub's own code, and kept nowhere: what `waypost route --message` asks.

Acceptance does the work, so that what is told is what would happen; only its store forgets.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from waypost.devices.names import DeviceNames
from waypost.intake.acceptance import Acceptance
from waypost.intake.duplicates import Duplicates
from waypost.intake.senders import Senders
from waypost.mail import reply as replies
from waypost.mail.address import Address
from waypost.mail.envelope import Arrival, Body, QueueId
from waypost.mail.message import QueuedMessage
from waypost.mail.reply import Reply
from waypost.net.interfaces import OwnAddresses
from waypost.observe import Log
from waypost.queue.spool import InlineContent, Spool
from waypost.queue.store import QueueIdSource, Refusal
from waypost.routing.table import RoutingTable
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.events import ContentEnded

_PIECE_BYTES = 65_536


class Rehearsed(NamedTuple):
    """What came of it."""

    message: QueuedMessage | None  # None: it would not be taken
    to_sender: Reply | None  # the refusal of the sender; None: it is welcome
    to_recipients: tuple[Reply, ...]  # in their order, at RCPT
    to_content: Reply | None  # None: it did not come to that


class _Forgetful:
    """A store that has room for all, and keeps the one message in memory."""

    def __init__(self) -> None:
        self._ids = QueueIdSource()
        self.message: QueuedMessage | None = None

    def next_id(self) -> QueueId:
        return self._ids.next_id()

    def refusal(self, size: int) -> Reply | None:
        return None

    def accept(self, message: QueuedMessage) -> asyncio.Future[None]:
        self.message = message
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def note_refusal(self, refusal: Refusal) -> None:
        """It is in the answer, which is all that anybody asks for."""


async def rehearse(
    content: bytes,
    sender: Address | None,
    recipients: Sequence[Address | str],
    *,
    arrival: Arrival,
    role: str,
    table: RoutingTable,
    own: OwnAddresses,
    hostname: str | None,
    senders: Senders,
    max_octets: int,
) -> Rehearsed:
    """As if a client that `arrival` describes sent this; `content` has CRLF line ends."""
    store = _Forgetful()
    with tempfile.TemporaryDirectory(prefix="waypost-") as directory:
        spool = Spool(Path(directory))
        quiet = os.open(os.devnull, os.O_WRONLY)
        log = Log(quiet)
        acceptance = Acceptance(
            store=store,
            spool=spool,
            table=table,
            own=own,
            hostname=hostname,
            senders=senders,
            on_received=lambda message, head: None,
            duplicates=Duplicates(DeviceNames),  # nothing came before
            log=log,
        )
        try:
            found = await _sent(acceptance, content, sender, recipients, arrival, role, max_octets)
            message = store.message
            if message is not None:
                with message.content.open() as source:  # a file only for so long
                    kept = InlineContent(await asyncio.to_thread(source.read))
                message = message._replace(content=kept)
        finally:
            await spool.close()
            log.close()
            os.close(quiet)
    return found._replace(message=message)


async def _sent(
    acceptance: Acceptance,
    content: bytes,
    sender: Address | None,
    recipients: Sequence[Address | str],
    arrival: Arrival,
    role: str,
    max_octets: int,
) -> Rehearsed:
    """What a session would be told, which is what is told here."""
    addresses = [sender, *recipients]
    envelope = MailRequested(
        sender,
        body=None if content.isascii() else Body.EIGHT_BIT_MIME,
        smtputf8=not all(isinstance(one, str) or one.is_ascii for one in addresses if one),
    )
    transaction = acceptance.mail(arrival, envelope, role)
    if isinstance(transaction, Reply):
        return Rehearsed(None, transaction, (), None)
    told = tuple(acceptance.rcpt(transaction, RcptRequested(path)) for path in recipients)
    if not any(reply.is_positive for reply in told):
        return Rehearsed(None, None, told, None)
    if len(content) > max_octets:
        return Rehearsed(None, None, told, replies.MESSAGE_TOO_BIG)
    acceptance.content(transaction, lambda: None)  # the store has room
    for at in range(0, len(content), _PIECE_BYTES):
        transaction.write(content[at : at + _PIECE_BYTES])
    answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    acceptance.finish(transaction, ContentEnded(None, was_mended=False), answered.set_result)
    return Rehearsed(None, None, told, await answered)
