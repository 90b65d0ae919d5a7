"""Mail of the hub's own about itself, to whom the operator named: a login that is lost, or back.

As a DSN: null reverse-path, marked as automatic (RFC 3834 §5), and never a cause of more.
"""

from __future__ import annotations

import time
from base64 import encodebytes
from collections.abc import Callable
from email.header import Header
from textwrap import wrap

from waypost.delivery.credentials import LostLogin
from waypost.errors import TemporaryError
from waypost.mail.address import Address
from waypost.mail.envelope import (
    REPORT,
    Arrival,
    Envelope,
    Notify,
    QueuedRecipient,
    QueueId,
    Recipient,
)
from waypost.mail.message import QueuedMessage, date_field_value
from waypost.observe import Log
from waypost.queue.spool import InlineContent
from waypost.queue.store import QueueStore
from waypost.routing.hops import Relay
from waypost.routing.mailboxes import POSTMASTER, MailboxNames
from waypost.routing.table import RoutingTable
from waypost.routing.targets import Target
from waypost.tls.pins import Pin

_RULE = "alarm"


class Alarms:
    """Writes them into the queue."""

    def __init__(
        self,
        store: QueueStore,
        *,
        table: Callable[[], RoutingTable],
        mailboxes: Callable[[], MailboxNames],
        log: Log,
    ) -> None:
        """The callables give what holds now: settings may change while the hub runs."""
        self._store = store
        self._table = table
        self._mailboxes = mailboxes
        self._log = log

    async def tell(self, target: Target | None, subject: str, text: str) -> None:
        """Durable when it returns, unless the log says why not. `target` None: the mailbox of
        postmaster, whatever routes say: they may lead to what the alarm is about.
        """
        mailboxes = self._mailboxes()
        if target is None:
            target = Target("mailbox", mailboxes.resolve(POSTMASTER))
        elif target.kind == "mailbox":
            target = mailboxes.mailbox_of(target)
        queue_id = self._store.next_id()
        message = self._message(queue_id, target, subject, text)
        try:
            await self._store.accept(message)
        except TemporaryError as error:
            self._log.event("alarm-failed", id=queue_id, to=target, subject=subject, why=error)
        else:
            self._log.event("alarm", id=queue_id, to=target, subject=subject)

    async def pin_changed(self, pin: Pin) -> None:
        """A host shows another key: say so to whoever reads the log, and to postmaster."""
        self._log.event("pin-changed", place=pin.place, known=pin.key, offered=pin.offered)
        await self.tell(
            None,
            f"{pin.place} shows another key",
            f"{pin.place} shows another key than the one it is known by. Mail for it waits.\n\n"
            f"Known: {pin.key}\nShown now: {pin.offered}\n\n"
            "If its certificate was made anew, or another device has its address now, accept the"
            f" new key:\n\nwaypost tls pins accept '{pin.place}' --key {pin.offered}\n\n"
            "If not, somebody else may answer there.",
        )

    async def login_lost(self, relay: Relay, lost: LostLogin) -> None:
        """A relay does not let us in any more."""
        await self.tell(
            relay.alarm,
            f"Mail waits: the login of relay {relay.name} is lost",
            f"{lost.what}:\n\n{lost.why}\n\nNothing is lost: mail for the relay stays in"
            f" the queue until the login works again. What to do: {lost.advice}.\n\n"
            f"waypost relay test {relay.name} says, step by step, what comes of it.",
        )

    async def login_back(self, relay: Relay) -> None:
        """It does again."""
        await self.tell(
            relay.alarm,
            f"The login of relay {relay.name} is back",
            f"Relay {relay.name} can be used as {relay.username} again. Mail that waited for it is"
            " on its way.",
        )

    def _message(self, queue_id: QueueId, target: Target, subject: str, text: str) -> QueuedMessage:
        now = time.time()
        arrival = Arrival("local", None, None, "", REPORT, trusted=True)
        to = Address(POSTMASTER, self._table().own_domain(arrival))
        content = _content(to, subject, text, queue_id, now)
        recipient = Recipient(to, None, Notify.NEVER)
        return QueuedMessage(
            queue_id=queue_id,
            envelope=Envelope(reverse_path=None, body=None, smtputf8=False),
            arrival=arrival,
            content=InlineContent(content),
            prepend=b"",
            accepted_at=now,
            is_eight_bit=False,
            reports_allowed=False,
            recipients=(QueuedRecipient(0, recipient, str(target), _RULE),),
        )


def _content(to: Address, subject: str, text: str, queue_id: QueueId, now: float) -> bytes:
    """The whole message, canonical and in ASCII, whatever devices are called."""
    lines = [
        line
        for paragraph in text.split("\n")
        for line in wrap(paragraph, 76, break_long_words=False, break_on_hyphens=False) or [""]
    ]
    body = "".join(f"{line}\r\n" for line in lines)
    kind, encoding = "us-ascii", ""
    if not body.isascii():
        kind, encoding = "utf-8", "Content-Transfer-Encoding: base64\r\n"
        body = encodebytes(body.encode()).decode().replace("\n", "\r\n")
    if not subject.isascii():
        subject = Header(subject, "utf-8").encode(linesep="\r\n")
    return (
        f"From: Waypost <{to}>\r\n"
        f"To: <{to}>\r\n"
        f"Subject: {subject}\r\n"
        f"Date: {date_field_value(now)}\r\n"
        f"Message-ID: <{queue_id}@{to.domain}>\r\n"
        "Auto-Submitted: auto-generated\r\n"
        "MIME-Version: 1.0\r\n"
        f"Content-Type: text/plain; charset={kind}\r\n"
        f"{encoding}\r\n{body}"
    ).encode("ascii", "replace")  # an address may be of another script
