"""The tables of queue.db, and rows into values and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from waypost.mail.address import Address, IPAddress
from waypost.mail.envelope import (
    Arrival,
    Body,
    Envelope,
    Notify,
    OutcomeKind,
    QueuedRecipient,
    Recipient,
    RecipientStatus,
    Ret,
)
from waypost.mail.message import QueuedMessage
from waypost.queue.spool import FileContent, InlineContent, Spool, StoredContent
from waypost.queue.store import encode_queue_id

VERSION = 1

# Content stands apart from the small rows about it, so that those stay dense when it goes.
# WAITING recipients alone have next_attempt_at, so the index holds just what may become due.
TABLES = """
CREATE TABLE message (
    queue_id INTEGER PRIMARY KEY,
    accepted_at REAL NOT NULL,
    finished_at REAL,
    reverse_path TEXT,
    body TEXT,
    smtputf8 INTEGER NOT NULL,
    envid TEXT,
    ret TEXT,
    protocol TEXT NOT NULL,
    client_ip TEXT,
    local_ip TEXT,
    helo TEXT NOT NULL,
    listener TEXT NOT NULL,
    trusted INTEGER NOT NULL,
    reports_allowed INTEGER NOT NULL,
    is_eight_bit INTEGER NOT NULL,
    size INTEGER NOT NULL,
    content_name TEXT,
    prepend BLOB NOT NULL
);
CREATE INDEX message_by_client ON message (client_ip);
CREATE TABLE content (
    queue_id INTEGER PRIMARY KEY,
    octets BLOB NOT NULL
);
CREATE TABLE recipient (
    queue_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    forward_path TEXT NOT NULL,
    original_recipient TEXT,
    notify INTEGER,
    target TEXT NOT NULL,
    rule TEXT NOT NULL,
    status INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at REAL,
    warned INTEGER NOT NULL,
    last_reply TEXT,
    last_hop TEXT,
    outcome TEXT,
    finished_at REAL,
    PRIMARY KEY (queue_id, number)
) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE TABLE attempt (
    queue_id INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at REAL NOT NULL,
    outcome TEXT NOT NULL,
    reply TEXT,
    hop TEXT
);
CREATE INDEX attempt_by_message ON attempt (queue_id, number);
CREATE TABLE refusal (
    at REAL NOT NULL,
    client_ip TEXT,
    listener TEXT NOT NULL,
    helo TEXT NOT NULL,
    reverse_path TEXT NOT NULL,
    forward_path TEXT NOT NULL,
    reply TEXT NOT NULL
);
CREATE INDEX refusal_by_client ON refusal (client_ip);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

MESSAGE_COLUMNS = 19
RECIPIENT_COLUMNS = 15
_RECIPIENT_FIELDS = (
    "queue_id, number, forward_path, original_recipient, notify, target, rule, status, attempts,"
    " next_attempt_at, warned, last_reply, last_hop, outcome, finished_at"
)
SELECT_MESSAGE = (
    "SELECT message.queue_id, accepted_at, finished_at, reverse_path, body, smtputf8, envid, ret,"
    " protocol, client_ip, local_ip, helo, listener, trusted, reports_allowed, is_eight_bit, size,"
    " content_name, prepend"
)
SELECT_RECIPIENT = f"SELECT {_RECIPIENT_FIELDS} FROM recipient"


@lru_cache(maxsize=4096)
def ip_text(ip: IPAddress) -> str:
    """The text of an address, made once for each client."""
    return str(ip)


@lru_cache(maxsize=4096)
def _ip_value(text: str) -> IPAddress:
    return ip_address(text)


def message_row(number: int, message: QueuedMessage) -> tuple[Any, ...]:
    """The row of the table message, columns in order."""
    envelope, arrival, content = message.envelope, message.arrival, message.content
    return (
        number,
        message.accepted_at,
        None,
        None if envelope.reverse_path is None else str(envelope.reverse_path),
        envelope.body,
        envelope.smtputf8,
        envelope.envid,
        envelope.ret,
        arrival.protocol,
        None if arrival.client_ip is None else ip_text(arrival.client_ip),
        None if arrival.local_ip is None else ip_text(arrival.local_ip),
        arrival.helo,
        arrival.listener,
        arrival.trusted,
        message.reports_allowed,
        message.is_eight_bit,
        content.size,
        content.path.name if isinstance(content, FileContent) else None,
        message.prepend,
    )


def recipient_rows(
    number: int, message: QueuedMessage, status: RecipientStatus, next_attempt_at: float | None
) -> list[tuple[Any, ...]]:
    """The rows of the table recipient for a new message."""
    return [
        (
            number,
            queued.number,
            str(queued.recipient.forward_path),
            queued.recipient.original_recipient,
            queued.recipient.notify,
            queued.target,
            queued.rule,
            int(status),
            0,
            next_attempt_at,
            0,
            None,
            None,
            None,
            None,
        )
        for queued in message.recipients
    ]


def read_recipient(row: Sequence[Any]) -> QueuedRecipient:
    """A recipient from its row, as SELECT_RECIPIENT gives it."""
    return QueuedRecipient(
        number=row[1],
        recipient=Recipient(
            Address.parse(row[2]), row[3], None if row[4] is None else Notify(row[4])
        ),
        target=row[5],
        rule=row[6],
        status=RecipientStatus(row[7]),
        attempts=row[8],
        next_attempt_at=row[9],
        warned=bool(row[10]),
        last_reply=row[11],
        last_hop=row[12],
        outcome=None if row[13] is None else OutcomeKind(row[13]),
        finished_at=row[14],
    )


def read_message(
    row: Sequence[Any],
    octets: bytes | None,
    spool: Spool | None,
    recipients: Sequence[QueuedRecipient],
) -> QueuedMessage:
    """A message from its row, as SELECT_MESSAGE gives it.

    `octets` None: the content is in the spool or gone; `spool` None: it is not wanted.
    """
    content: StoredContent = InlineContent(octets or b"")
    if octets is None and spool is not None and row[17] is not None:
        content = FileContent(spool.path_of(row[17]), row[16])
    return QueuedMessage(
        queue_id=encode_queue_id(row[0]),
        envelope=Envelope(
            reverse_path=None if row[3] is None else Address.parse(row[3]),
            body=None if row[4] is None else Body(row[4]),
            smtputf8=bool(row[5]),
            envid=row[6],
            ret=None if row[7] is None else Ret(row[7]),
        ),
        arrival=Arrival(
            protocol=row[8],
            client_ip=None if row[9] is None else _ip_value(row[9]),
            local_ip=None if row[10] is None else _ip_value(row[10]),
            helo=row[11],
            listener=row[12],
            trusted=bool(row[13]),
        ),
        content=content,
        prepend=row[18],
        accepted_at=row[1],
        is_eight_bit=bool(row[15]),
        reports_allowed=bool(row[14]),
        recipients=tuple(recipients),
    )
