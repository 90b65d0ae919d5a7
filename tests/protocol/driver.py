"""A ServerSession with simple answers: what each address gets is said by its local part."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from waypost.mail import reply as replies
from waypost.mail.address import Address
from waypost.mail.reply import Reply
from waypost.smtp.events import (
    ContentChunk,
    ContentEnded,
    ContentRequested,
    ServerSettings,
    TransactionDropped,
)
from waypost.smtp.phase import Phase
from waypost.smtp.server import MailRequested, RcptRequested, ServerSession

# One whole reply: lines with a hyphen, then one with a space (RFC 5321 §4.2.1).
REPLY = re.compile(rb"(?:([2-5][0-9]{2})-[ -~]*\r\n)*([2-5][0-9]{2}) [ -~]*\r\n")

ANSWERS = {
    "refused": Reply(550, "Not you", (7, 1)),
    "nobody": Reply(550, "No such mailbox here", (1, 1)),
    "later": Reply(450, "Not now", (2, 1)),
    "bye": Reply(421, "Going down", (3, 2)),
}


@dataclass
class Message:
    """One transaction as the server saw it."""

    mail: MailRequested
    recipients: list[RcptRequested] = field(default_factory=list)
    content: bytes = b""
    is_accepted: bool = False
    was_mended: bool = False


class Server:
    """Feeds octets to a session and answers its events."""

    def __init__(self, settings: ServerSettings, name: str = "hub.example") -> None:
        self.settings = settings
        self.session = ServerSession(settings, name)
        self.session.greet()
        self.ended: list[Message] = []  # content was read to its end, accepted or not
        self.dropped = 0
        self._message: Message | None = None

    @property
    def accepted(self) -> list[Message]:
        """The messages taken for good."""
        return [message for message in self.ended if message.is_accepted]

    @property
    def is_closed(self) -> bool:
        return self.session.phase is Phase.CLOSED

    def feed(self, octets: bytes) -> bytes:
        """What the server says to these octets."""
        session = self.session
        session.receive(octets)
        while (event := session.next_event()) is not None:
            assert session.is_answering == (
                not isinstance(event, ContentChunk | TransactionDropped)
            )
            self._on(event)
        assert not session.is_answering
        return session.data_to_send()

    def _on(self, event: object) -> None:
        session = self.session
        if isinstance(event, MailRequested):
            answer = _answer(event.reverse_path, replies.SENDER_OK)
            if answer.is_positive:
                self._message = Message(event)
            session.answer(answer)
            return
        if isinstance(event, TransactionDropped):
            self.dropped += 1
            self._message = None
            return
        message = self._message
        assert message is not None, event
        if isinstance(event, RcptRequested):
            answer = _answer(event.forward_path, replies.RECIPIENT_OK)
            if answer.is_positive:
                message.recipients.append(event)
            session.answer(answer)
        elif isinstance(event, ContentRequested):
            assert message.recipients
            names = [_local_part(recipient.forward_path) for recipient in message.recipients]
            if "nodisk" in names:
                session.answer(replies.QUEUE_FULL)
            elif "overload" in names:
                session.answer(replies.TOO_BUSY)
            else:
                session.answer(replies.START_CONTENT)
        elif isinstance(event, ContentChunk):
            assert event.content
            message.content += event.content
        else:
            assert isinstance(event, ContentEnded)
            self._message = None
            message.was_mended = event.was_mended
            message.is_accepted = event.fault is None
            self.ended.append(message)
            queued = Reply(250, f"queued as Q{len(self.ended)}", (0, 0))
            # LMTP answers for each recipient (RFC 2033 §4.2).
            each = message.recipients if self.settings.is_lmtp else message.recipients[:1]
            answers = [
                event.fault
                or (
                    Reply(452, "Mailbox full", (2, 2))
                    if self.settings.is_lmtp and _local_part(recipient.forward_path) == "full"
                    else queued
                )
                for recipient in each
            ]
            session.answer(*answers)


def _local_part(path: Address | str | None) -> str:
    return path.local_part if isinstance(path, Address) else path or ""


def _answer(path: Address | str | None, otherwise: Reply) -> Reply:
    return ANSWERS.get(_local_part(path), otherwise)


def split_replies(octets: bytes) -> list[bytes]:
    """The replies in `octets`; fails where there is anything else (RFC 5321 §4.2)."""
    found = []
    position = 0
    while position < len(octets):
        match = REPLY.match(octets, position)
        assert match is not None, f"not a reply: {octets[position : position + 80]!r}"
        reply = match[0]
        codes = {line[:3] for line in reply.split(b"\r\n")[:-1]}
        assert len(codes) == 1, f"one reply, two codes: {reply!r}"
        # RFC 5321 §4.5.3.1.5.
        assert all(len(line) <= 510 for line in reply.split(b"\r\n"))
        found.append(reply)
        position = match.end()
    return found
