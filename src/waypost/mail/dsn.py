"""Delivery status notifications (RFC 3464, RFC 6533) built from what became of recipients.

A pure function of its arguments: who asked for a report, and whether one may go out at all, is
decided by the caller (dispatcher).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from textwrap import wrap

from waypost.mail.address import Address
from waypost.mail.envelope import Recipient
from waypost.mail.message import date_field_value, header_section
from waypost.mail.reply import Reply

# Returned content larger than this goes back as headers only, even when RET=FULL asked for all:
# a report must not be a way to fill somebody's mailbox (RFC 3461 §6.2 allows it).
MAX_RETURNED_BYTES = 1_048_576
_MAX_LINE = 998  # octets without CRLF, RFC 5322 §2.1.1
# BINARYMIME content may hold these, a report never: it travels by DATA.
_NOT_CANONICAL = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")


class Action(StrEnum):
    """RFC 3464 §2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """What a report says of one recipient."""

    recipient: Recipient
    action: Action
    reply: Reply
    remote_mta: str | None  # None: the reply is our own
    will_retry_until: float | None = None  # None: no more attempts


@dataclass(frozen=True, slots=True)
class Report:
    """All a DSN is made of."""

    reporting_mta: str  # name or literal of this hub
    sender: Address  # From: of the report
    to: Address
    queue_id: str  # of the message reported on
    arrived_at: float
    written_at: float
    envid: str | None  # None: MAIL had none
    recipients: Sequence[ReportedRecipient]
    returned: bytes  # canonical head of the message, or all of it
    returned_whole: bool
    token: str  # makes Message-ID and boundary unique


_SUBJECTS = {
    Action.FAILED: "Mail not delivered",
    Action.DELAYED: "Mail delayed, still trying",
    Action.DELIVERED: "Mail delivered",
    Action.RELAYED: "Mail passed on",
}

_OPENINGS = {
    Action.FAILED: (
        "Your message could not be delivered to the recipients below.\r\n"
        "No more attempts will be made.\r\n"
    ),
    Action.DELAYED: (
        "Your message has not been delivered yet to the recipients below.\r\n"
        "You need do nothing: delivery is tried again until {until}.\r\n"
    ),
    Action.DELIVERED: (
        "Your message was delivered to the recipients below, as you asked to be told.\r\n"
    ),
    Action.RELAYED: (
        "Your message was passed on for the recipients below, to a host that does not\r\n"
        "report deliveries. This is the last you hear of it from here.\r\n"
    ),
}


def build_report(report: Report) -> bytes:
    """The whole message, canonical, without trace fields."""
    action = report.recipients[0].action
    utf8 = not all(
        entry.recipient.forward_path.is_ascii
        and (entry.recipient.original_recipient or "").isascii()
        for entry in report.recipients
    )
    boundary = f"=_waypost_{report.token}"
    until = report.recipients[0].will_retry_until
    opening = _OPENINGS[action].format(until=date_field_value(until) if until else "")
    status_type = "message/global-delivery-status" if utf8 else "message/delivery-status"
    words = "".join(_in_words(entry) for entry in report.recipients)
    if report.returned_whole and _NOT_CANONICAL.search(report.returned) is None:
        returned = report.returned
        returned_type = "message/global" if utf8 else "message/rfc822"
    else:
        returned = _NOT_CANONICAL.sub(b" ", header_section(report.returned))
        returned_type = "message/global-headers" if utf8 else "text/rfc822-headers"
    encoding = "8bit" if utf8 else "7bit"
    returned_encoding = "7bit" if returned.isascii() else "8bit"
    words_encoding = "7bit" if words.isascii() else "8bit"
    overall = "8bit" if "8bit" in (encoding, words_encoding, returned_encoding) else "7bit"
    head = (
        f"From: Mail Delivery <{report.sender}>\r\n"
        f"To: <{report.to}>\r\n"
        f"Subject: {_SUBJECTS[action]}\r\n"
        f"Date: {date_field_value(report.written_at)}\r\n"
        f"Message-ID: <{report.token}@{report.sender.domain}>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=delivery-status;\r\n"
        f'\tboundary="{boundary}"\r\n'
        f"Content-Transfer-Encoding: {overall}\r\n"
        "\r\n"
        f"--{boundary}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: {words_encoding}\r\n"
        "\r\n"
        f"{opening}\r\n"
        f"{words}"
        f"The message came to {report.reporting_mta} on "
        f"{date_field_value(report.arrived_at)}; its queue id here is {report.queue_id}.\r\n"
        f"--{boundary}\r\n"
        f"Content-Type: {status_type}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
        "\r\n"
        f"{_status(report, utf8=utf8)}"
        f"--{boundary}\r\n"
        f"Content-Type: {returned_type}\r\n"
        f"Content-Transfer-Encoding: {returned_encoding}\r\n"
        "\r\n"
    )
    separator = b"" if returned.endswith(b"\r\n") else b"\r\n"
    return head.encode() + returned + separator + f"--{boundary}--\r\n".encode()


def _in_words(entry: ReportedRecipient) -> str:
    said = f"{entry.remote_mta} said" if entry.remote_mta else "Reason"
    reply = _one_line(f"{said}: {entry.reply.code} {entry.reply.enhanced} {entry.reply.text}")
    lines = wrap(reply, 76, initial_indent="    ", subsequent_indent="      ")
    return f"  {_one_line(str(entry.recipient.forward_path))}\r\n" + "\r\n".join(lines) + "\r\n\r\n"


def _status(report: Report, *, utf8: bool) -> str:
    fields = [f"Reporting-MTA: dns; {report.reporting_mta}"]
    if report.envid is not None:
        fields.append(f"Original-Envelope-Id: {report.envid}")
    fields.append(f"Arrival-Date: {date_field_value(report.arrived_at)}")
    for entry in report.recipients:
        recipient = entry.recipient
        fields.append("")
        if recipient.original_recipient is not None:
            kind, _, address = recipient.original_recipient.partition(";")
            fields.append(f"Original-Recipient: {kind}; {address}")
        kind = "rfc822" if recipient.forward_path.is_ascii else "utf-8"
        fields.append(f"Final-Recipient: {kind}; {recipient.forward_path}")
        fields.append(f"Action: {entry.action}")
        fields.append(f"Status: {entry.reply.enhanced}")
        if entry.remote_mta is not None:
            fields.append(f"Remote-MTA: dns; {entry.remote_mta}")
            reply = entry.reply
            fields.append(f"Diagnostic-Code: smtp; {reply.code} {reply.enhanced} {reply.text}")
        fields.append(f"Last-Attempt-Date: {date_field_value(report.written_at)}")
        if entry.will_retry_until is not None:
            fields.append(f"Will-Retry-Until: {date_field_value(entry.will_retry_until)}")
    fields.append("")
    return "".join(f"{_folded(_one_line(field), utf8=utf8)}\r\n" for field in fields)


def _folded(field: str, *, utf8: bool) -> str:
    """Within the line limit, and ASCII but in the global form (RFC 6533 §4)."""
    if not utf8:
        field = field.encode("ascii", "replace").decode()
    if len(field.encode()) <= _MAX_LINE:
        return field
    # A character has up to four octets.
    return "\r\n ".join(wrap(field, _MAX_LINE // 4 - 1, break_on_hyphens=False))


def _one_line(text: str) -> str:
    """A peer's words may hold controls; none may start a new line or field."""
    words = text.replace("\n", " ").replace("\t", " ")
    return "".join(character if character.isprintable() else "?" for character in words)
