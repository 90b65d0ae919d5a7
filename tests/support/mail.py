"""Messages for tests: writing them, handing them over, reading what became of them."""

from __future__ import annotations

import re
import smtplib
from email import message_from_bytes, policy
from email.message import EmailMessage

from waypost.reading.transfer import unwrapped
from waypost.reading.values import Attachment

# What a Waypost puts before content on its way into a Maildir, and nothing else.
_TRACE = re.compile(
    rb"Return-Path: <[^\r\n]*>\r\n"
    rb"(?:Delivered-To: [^\r\n]*\r\n)+"
    rb"Received: [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*"
    rb"(?:Authentication-Results: [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*)?"
)


def wire(*lines: str) -> bytes:
    """Lines with the ends they have on the wire."""
    return "".join(f"{line}\r\n" for line in lines).encode()


def message(subject: str = "test", *body: str) -> bytes:
    """A small message."""
    return wire("From: <ann@[127.0.0.1]>", f"Subject: {subject}", "", *(body or ("Hello.",)))


def submit(
    smtp: smtplib.SMTP,
    recipient: str,
    *more: str,
    sender: str = "ann@[127.0.0.1]",
    content: bytes | None = None,  # None: any
    mail: str = "",  # parameters of MAIL, as in "RET=FULL ENVID=x"
    rcpt: str = "",  # parameters of every RCPT
) -> str:
    """Hand a message over in a session that is open; its queue id."""
    accepted(smtp, f"MAIL FROM:<{sender}> {mail}".rstrip())
    for path in (recipient, *more):
        accepted(smtp, f"RCPT TO:<{path}> {rcpt}".rstrip())
    return submit_content(smtp, message() if content is None else content)


def submit_content(smtp: smtplib.SMTP, content: bytes) -> str:
    """DATA and canonical content, after the envelope; the queue id."""
    assert smtp.docmd("DATA")[0] == 354
    smtp.send(stuffed(content))
    code, text = smtp.getreply()
    assert code == 250, text
    return queue_id_in(text.decode())


def stuffed(content: bytes) -> bytes:
    """Content as it follows DATA, with its end mark."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def accepted(smtp: smtplib.SMTP, command: str) -> str:
    """Say a command that must succeed; the text of the reply."""
    smtp.ehlo_or_helo_if_needed()
    smtp.send(command.encode() + b"\r\n")
    code, text = smtp.getreply()
    assert 200 <= code < 300, f"{command}: {code} {text!r}"
    return text.decode()


def reply_to(smtp: smtplib.SMTP, command: str) -> str:
    """Say a command; the reply with its code, as in "550 5.1.1 No such mailbox"."""
    smtp.send(command.encode() + b"\r\n")
    return next_reply(smtp)


def next_reply(smtp: smtplib.SMTP) -> str:
    """The reply to what was sent."""
    code, text = smtp.getreply()
    return f"{code} {text.decode()}"


def queue_id_in(text: str) -> str:
    """The queue id of a hub's reply."""
    found = re.search(r"queued as ([0-9a-z]{13})", text)
    assert found is not None, text
    return found[1]


def content_of(stored: bytes) -> bytes:
    """A message of a Maildir as it was sent: without what the hub put before it."""
    trace = _TRACE.match(stored)
    assert trace is not None, stored[:500]
    return stored[trace.end() :]


def fields_of(octets: bytes, name: str) -> list[str]:
    """The values of a header field, in order, each on one line."""
    return [" ".join(str(value).split()) for value in parsed(octets).get_all(name) or ()]


def parsed(octets: bytes) -> EmailMessage:
    """A message as the standard library reads it."""
    return message_from_bytes(octets, policy=policy.default)


def octets_of(content: bytes, attachment: Attachment) -> bytes:
    """The octets of one attachment that was read out of `content`."""
    return unwrapped(content[attachment.start : attachment.end], attachment.encoding)[0]
