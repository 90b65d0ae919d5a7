"""Values into rows of queue.db and back, and what the hub asks of the writer's process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from waypost.mail.address import Address, IPAddress, ip_text
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
from waypost.queue.requests import Accept, Act, Settle
from waypost.queue.spool import FileContent, InlineContent, Spool, StoredContent
from waypost.queue.store import Action, Settlement, decode_queue_id, encode_queue_id


@lru_cache(maxsize=4096)
def _ip_value(text: str) -> IPAddress:
    return ip_address(text)


_WAITING, _LEASED = int(RecipientStatus.WAITING), int(RecipientStatus.LEASED)


def accept_request(message: QueuedMessage, *, is_lent: bool) -> Accept:
    """Keep a message; `is_lent`: it goes straight to the dispatcher, from memory."""
    envelope, arrival, content = message.envelope, message.arrival, message.content
    number = decode_queue_id(message.queue_id)
    status = _LEASED if is_lent else _WAITING
    due_at = None if is_lent else message.accepted_at
    return Accept(
        (
            number,
            message.accepted_at,
            None,
            None if envelope.reverse_path is None else str(envelope.reverse_path),
            None if envelope.body is None else envelope.body.value,
            envelope.smtputf8,
            envelope.envid,
            None if envelope.ret is None else envelope.ret.value,
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
            arrival.login,
            arrival.tls,
            envelope.requiretls,
            message.auth_results,
        ),
        content.inline,
        [
            (
                number,
                queued.number,
                str(queued.recipient.forward_path),
                queued.recipient.original_recipient,
                None if queued.recipient.notify is None else int(queued.recipient.notify),
                queued.target,
                queued.rule,
                status,
                due_at,
            )
            for queued in message.recipients
        ],
    )


def settle_request(settlements: Sequence[Settlement]) -> Settle:
    """Record outcomes and keep the reports about them."""
    request = Settle([], [], [], [], [])
    for settlement in settlements:
        _add_settlement(request, settlement)
    return request


def _add_settlement(request: Settle, settlement: Settlement) -> None:
    finished, waiting, attempts = request.finished, request.waiting, request.attempts
    number = decode_queue_id(settlement.message.queue_id)
    at = settlement.at
    for result in settlement.results:
        outcome, recipient = result.outcome, result.recipient
        reply = str(outcome.reply)
        hop = outcome.way
        kind = outcome.kind
        is_held = recipient.status is RecipientStatus.HELD
        if result.next_attempt_at is None and not is_held:
            if kind is OutcomeKind.DEFERRED:
                kind = OutcomeKind.CANCELLED
            row = (int(result.is_attempt), reply, hop, kind.value, at, number, recipient.number)
            finished.append(row)
        else:
            status = RecipientStatus.HELD if is_held else RecipientStatus.WAITING
            waiting.append(
                (
                    *(int(status), int(result.is_attempt), result.next_attempt_at),
                    *(recipient.warned or result.warned, reply, hop, number, recipient.number),
                )
            )
            if result.is_attempt:
                attempts.append((number, recipient.number, at, kind.value, reply, hop))
        if outcome.changes and kind in (OutcomeKind.RELAYED, OutcomeKind.DELIVERED):
            changes = ", ".join(outcome.changes)
            attempts.append((number, recipient.number, at, "rewritten", changes, hop))
    request.reports.extend(accept_request(report, is_lent=True) for report in settlement.reports)
    if settlement.message.content.inline is None:
        request.in_files.append(number)


# What an action makes of recipients, which it applies to, and how the trace names it.
_ACTIONS = {
    Action.RETRY: (RecipientStatus.WAITING, (RecipientStatus.WAITING,), "retried"),
    Action.RELEASE: (RecipientStatus.WAITING, (RecipientStatus.HELD,), "released"),
    Action.HOLD: (RecipientStatus.HELD, (RecipientStatus.WAITING,), "held"),
    Action.CANCEL: (
        RecipientStatus.FINISHED,
        (RecipientStatus.WAITING, RecipientStatus.HELD),
        "cancelled",
    ),
}


def act_request(
    action: Action, numbers: list[int] | None, unlent: list[tuple[int, int]], now: float
) -> Act:
    """Do what an operator asks; see Act."""
    status, eligible, word = _ACTIONS[action]
    return Act(word, int(status), tuple(map(int, eligible)), numbers, unlent, now)


def hold_unreadable(numbers: list[int], now: float) -> Act:
    """Put away leased messages that cannot be read, so that they do not come up again and again."""
    held, leased = int(RecipientStatus.HELD), int(RecipientStatus.LEASED)
    return Act("unreadable", held, (leased,), numbers, [], now)


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
    spool: Spool,
    recipients: Sequence[QueuedRecipient],
) -> QueuedMessage:
    """A message from its row, as SELECT_MESSAGE gives it.

    `octets` None: the content is in the spool or gone.
    """
    content: StoredContent = InlineContent(octets or b"")
    if octets is None and row[17] is not None:
        content = FileContent(spool.path_of(row[17]), row[16])
    return QueuedMessage(
        queue_id=encode_queue_id(row[0]),
        envelope=Envelope(
            reverse_path=None if row[3] is None else Address.parse(row[3]),
            body=None if row[4] is None else Body(row[4]),
            smtputf8=bool(row[5]),
            envid=row[6],
            ret=None if row[7] is None else Ret(row[7]),
            requiretls=bool(row[21]),
        ),
        arrival=Arrival(
            protocol=row[8],
            client_ip=None if row[9] is None else _ip_value(row[9]),
            local_ip=None if row[10] is None else _ip_value(row[10]),
            helo=row[11],
            listener=row[12],
            trusted=bool(row[13]),
            login=row[19],
            tls=row[20],
        ),
        content=content,
        prepend=row[18],
        accepted_at=row[1],
        is_eight_bit=bool(row[15]),
        reports_allowed=bool(row[14]),
        recipients=tuple(recipients),
        auth_results=row[22],
    )
