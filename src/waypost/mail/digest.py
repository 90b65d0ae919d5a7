"""The content of a mail that stands for many."""

from __future__ import annotations

import base64
from email.header import Header

from waypost.mail.address import Address
from waypost.mail.envelope import QueueId


def digest_content(
    *, queue_id: QueueId, sender: Address, to: Address, date: str, subject: str, text: str
) -> bytes:
    """The whole message, canonical; `date` as RFC 5322 writes it.

    Marked as automatic (RFC 3834 §5). The text may hold what devices wrote, in any script, and
    lines of any length, so it is in base64.
    """
    encoded = base64.encodebytes(text.replace("\n", "\r\n").encode("utf-8", "replace"))
    charset = "us-ascii" if subject.isascii() else "utf-8"
    header = Header(subject, charset, header_name="Subject")
    encoded_subject = header.encode(linesep="\r\n")
    return (
        f"From: Waypost <{sender}>\r\n"
        f"To: <{to}>\r\n"
        f"Subject: {encoded_subject}\r\n"
        f"Date: {date}\r\n"
        f"Message-ID: <{queue_id}@{sender.domain}>\r\n"
        "Auto-Submitted: auto-generated\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: base64\r\n"
        "\r\n"
    ).encode() + encoded.replace(b"\n", b"\r\n")
