"""What the hub writes to its operator: mail to postmaster, always there (RFC 5321 §4.5.1)."""

from __future__ import annotations

from textwrap import wrap

from waypost.mail.address import Address
from waypost.mail.envelope import (
    REPORT,
    Arrival,
    Body,
    Envelope,
    Notify,
    QueuedRecipient,
    QueueId,
    Recipient,
)
from waypost.mail.message import QueuedMessage, date_field_value
from waypost.queue.spool import InlineContent
from waypost.routing.targets import Target

_WIDTH = 76


def notice(
    postmaster: Address,
    target: Target,
    queue_id: QueueId,
    now: float,
    subject: str,
    paragraphs: list[str],
) -> QueuedMessage:
    """A message to postmaster, ready for the queue; `subject` is one line of ASCII.

    It goes to `target` whatever the routes say: one of them may be what it complains of.
    """
    content = _content(postmaster, queue_id, now, subject, paragraphs)
    is_eight_bit = not content.isascii()
    return QueuedMessage(
        queue_id=queue_id,
        envelope=Envelope(None, Body.EIGHT_BIT_MIME if is_eight_bit else None),
        arrival=Arrival(
            protocol="local", client_ip=None, local_ip=None, helo="", listener=REPORT, trusted=True
        ),
        content=InlineContent(content),
        prepend=b"",
        accepted_at=now,
        is_eight_bit=is_eight_bit,
        reports_allowed=False,
        recipients=(
            QueuedRecipient(
                0, Recipient(postmaster, None, Notify.NEVER), str(target), "a notice of the hub"
            ),
        ),
    )


def _content(
    postmaster: Address, queue_id: QueueId, now: float, subject: str, paragraphs: list[str]
) -> bytes:
    lines = [
        f"From: Waypost <{postmaster}>",
        f"To: <{postmaster}>",
        f"Subject: {subject}",
        f"Date: {date_field_value(now)}",
        f"Message-ID: <{queue_id}@{postmaster.domain}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    ]
    for paragraph in paragraphs:
        lines += ["", *wrap(paragraph, _WIDTH, break_long_words=False, break_on_hyphens=False)]
    return "".join(f"{line}\r\n" for line in lines).encode()
