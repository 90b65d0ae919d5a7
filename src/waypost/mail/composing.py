"""New messages (RFC 5322, RFC 2045): a text, perhaps as HTML too, and files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from email import policy
from email.message import EmailMessage
from typing import NamedTuple

from waypost.mail.address import Address

_OCTETS = "application/octet-stream"
# A media type (RFC 2045 §5.1) that a file can have: messages and multiparts are more than octets.
_TYPE = re.compile(
    r"(?!message/|multipart/)[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}"
)
# RFC 5322 §2.2: what a field's body may not hold; and lone halves of characters, which JSON can.
_NOT_IN_FIELDS = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_NOT_IN_TEXT = re.compile(r"[\0\ud800-\udfff]")


class AttachedFile(NamedTuple):
    """A file to go along."""

    name: str
    type: str  # media type
    octets: bytes


def compose(
    *,
    sender: Address | None,
    to: Iterable[Address],
    subject: str,
    text: str,
    html: str | None = None,
    attachments: Sequence[AttachedFile] = (),
    fields: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The message, with CRLF at the ends of its lines. Slow for large files.

    `sender` None: there is no From, as in mail from nobody. What a field or a text cannot hold is
    replaced. `fields` are added to the header section; Date and Message-ID, where acceptance does
    not add them (RFC 6409 §8), are among them.
    """
    addresses = [*to] if sender is None else [sender, *to]
    is_ascii = all(address.is_ascii for address in addresses)
    message = EmailMessage(policy=policy.SMTP if is_ascii else policy.SMTPUTF8)
    if sender is not None:
        message["From"] = str(sender)
    message["To"] = ", ".join(map(str, to))
    message["Subject"] = in_field(subject)
    for name, value in fields:
        message[name] = in_field(value)
    message.set_content(_NOT_IN_TEXT.sub("\ufffd", text))
    if html is not None:
        message.add_alternative(_NOT_IN_TEXT.sub("\ufffd", html), subtype="html")
    for file in attachments:
        kind = file.type.lower()
        main, _, sub = (kind if _TYPE.fullmatch(kind) else _OCTETS).partition("/")
        message.add_attachment(
            file.octets, maintype=main, subtype=sub, filename=in_field(file.name)
        )
    return message.as_bytes()


def in_field(text: str) -> str:
    """On one line, without what a header field cannot hold."""
    return _NOT_IN_FIELDS.sub(" ", text).strip()
