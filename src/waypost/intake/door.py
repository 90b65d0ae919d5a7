"""Where mail of programs comes in that speak no SMTP: written here, it goes through acceptance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from waypost.errors import AddressError
from waypost.intake.acceptance import Acceptance, Limits, Transaction
from waypost.intake.requests import SendRequest
from waypost.mail import reply as replies
from waypost.mail.address import Address
from waypost.mail.composing import compose, in_field
from waypost.mail.envelope import Arrival, Body
from waypost.mail.reply import Reply
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.events import ContentEnded

# By which two requests, or a request and its repetition, are one.
DEDUPE_FIELD = "X-Waypost-Dedupe"

# Messages that are written at once; each is in memory as a whole.
_AT_ONCE = 4
_PIECE_OCTETS = 65_536


class Door:
    """Takes requests of programs as the mail they ask for."""

    def __init__(self, acceptance: Acceptance, limits: Callable[[], Limits]) -> None:
        """`limits` gives those that hold now."""
        self._acceptance = acceptance
        self._limits = limits
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def submit(
        self,
        request: SendRequest,
        arrival: Arrival,
        *,
        default_sender: str,
        fields: Iterable[tuple[str, str]] = (),
    ) -> Reply:
        """The reply a client of SMTP would get: 250 when the message is durable, "queued as ID".

        All recipients are taken, or none. `default_sender` is a local part of ours, for requests
        that name no sender. `fields` are added to the header section.
        """
        async with self._turns:
            transaction = self._begin(request, arrival, default_sender)
            if isinstance(transaction, Reply):
                return transaction
            content = await asyncio.to_thread(_written, request, transaction, fields)
            if len(content) > self._limits().message_bytes:
                return replies.MESSAGE_TOO_BIG
            return await self._finish(transaction, content)

    def _begin(
        self, request: SendRequest, arrival: Arrival, default_sender: str
    ) -> Transaction | Reply:
        """A transaction with all recipients, or the refusal of one."""
        sender = _path(request.sender or default_sender)
        if isinstance(sender, Reply):
            return sender
        # A submission: acceptance adds what a message needs and this one lacks (RFC 6409 §8).
        transaction = self._acceptance.mail(
            arrival, MailRequested(sender, Body.EIGHT_BIT_MIME, smtputf8=True), "submission"
        )
        if isinstance(transaction, Reply):
            return _about(sender, transaction)
        if request.route is not None:
            reply = self._acceptance.to_route(transaction, request.route)
            return transaction if reply.is_positive else _about(request.route, reply)
        if len(request.to) > self._limits().recipients:
            return replies.TOO_MANY_RECIPIENTS
        for text in request.to:
            path = _path(text)
            if isinstance(path, Reply):
                return path
            reply = self._acceptance.rcpt(transaction, RcptRequested(path))
            if not reply.is_positive:
                return _about(path, reply)
        addresses = [taken.recipient.forward_path for taken in transaction.recipients]
        if transaction.envelope.reverse_path is not None:
            addresses.append(transaction.envelope.reverse_path)
        transaction.envelope = transaction.envelope._replace(
            smtputf8=not all(address.is_ascii for address in addresses)
        )
        return transaction

    async def _finish(self, transaction: Transaction, content: bytes) -> Reply:
        drained = asyncio.Event()
        reply = self._acceptance.content(transaction, drained.set)
        if not reply.is_positive:
            return reply
        try:
            for at in range(0, len(content), _PIECE_OCTETS):
                drained.clear()
                if not transaction.write(content[at : at + _PIECE_OCTETS]):
                    await drained.wait()
        except BaseException:
            transaction.abort()
            raise
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answered(reply: Reply) -> None:
            if not answer.done():  # whoever asked may have gone
                answer.set_result(reply)

        self._acceptance.finish(transaction, ContentEnded(None, was_mended=False), answered)
        return await answer


def _path(text: str) -> Address | str | Reply:
    """An address, or a local part of ours; else the refusal."""
    is_bare = "@" not in text
    try:
        address = Address.parse(f"{text}@localhost" if is_bare else text)
    except AddressError as error:
        return _about(text, Reply(501, str(error), (1, 3)))
    return address.local_part if is_bare else address


def _about(what: Address | str, reply: Reply) -> Reply:
    """A refusal that says which of several it means."""
    return replace(reply, text=f"{in_field(str(what))[:200]}: {reply.text}")


def _written(
    request: SendRequest, transaction: Transaction, fields: Iterable[tuple[str, str]]
) -> bytes:
    # RFC 3834 §5: nobody is to answer a program.
    added = [("Auto-Submitted", "auto-generated"), *fields]
    if request.priority is not None:
        added.append(("Importance", request.priority))
    if request.dedupe_key is not None:
        added.append((DEDUPE_FIELD, request.dedupe_key))
    return compose(
        sender=transaction.envelope.reverse_path,
        to=[taken.recipient.forward_path for taken in transaction.recipients],
        subject=request.subject,
        text=request.text,
        html=request.html,
        attachments=request.attachments,
        fields=added,
    )
