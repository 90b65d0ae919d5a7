"""The only way in: every message, from whatever listener, becomes ours here or is refused here.

MAIL and RCPT are judged from memory; content goes to a writer; the end hands the message to the
store and answers 250 when, and only when, the store says it is durable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from waypost.errors import AddressError, QueueFull, StoreLost, TemporaryError
from waypost.intake.duplicates import DEDUPE_S, Duplicates
from waypost.intake.senders import Senders
from waypost.mail import reply as replies
from waypost.mail.address import Address, AddressLiteral, ip_text, parse_literal
from waypost.mail.authentication import AuthResult, results_field, results_text
from waypost.mail.envelope import (
    Arrival,
    Envelope,
    QueuedRecipient,
    QueueId,
    Recipient,
    sender_is_proven,
)
from waypost.mail.fingerprint import Fingerprint, has_dedupe
from waypost.mail.header_filter import HeaderFilter
from waypost.mail.message import (
    MAX_RECEIVED,
    QueuedMessage,
    count_received,
    decoded_fields,
    header_section,
    received_field,
    trace_name,
)
from waypost.mail.reply import Reply
from waypost.mail.standing import duplicate_field
from waypost.mail.submission import missing_fields
from waypost.net.interfaces import OwnAddresses
from waypost.observe import Log
from waypost.queue.spool import ContentWriter, InlineContent, Spool, StoredContent
from waypost.queue.store import Intake, Refusal
from waypost.routing.table import ContentFacts, Route, Routing, RoutingTable
from waypost.routing.targets import Target
from waypost.smtp.command import MailRequested, RcptRequested
from waypost.smtp.events import ContentEnded

Answer = Callable[[Reply], None]
# Is given a message that is durable, and the beginning of its content.
OnReceived = Callable[[QueuedMessage, bytes], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """[limits] of the configuration."""

    message_bytes: int = 52_428_800
    recipients: int = 1_000
    connections: int = 12_000
    # Of strangers, by address.
    connections_per_client: int = 50
    connections_per_minute: int = 300
    messages_per_minute: int = 300
    recipients_per_minute: int = 1_000
    greet_delay_s: float = 2.0


class _Taken(NamedTuple):
    """One recipient that RCPT has taken."""

    path: Address | str  # as the client said it
    recipient: Recipient
    routing: Routing


class Transaction:
    """One message on its way in."""

    __slots__ = (
        "arrival",
        "envelope",
        "filter",
        "fingerprint",
        "is_submission",
        "queue_id",
        "recipients",
        "reports_allowed",
        "results",
        "writer",
    )

    def __init__(
        self,
        arrival: Arrival,
        envelope: Envelope,
        *,
        is_submission: bool,
        reports_allowed: bool,
        results: list[AuthResult],
    ) -> None:
        self.arrival = arrival
        self.envelope = envelope
        self.is_submission = is_submission
        self.reports_allowed = reports_allowed
        self.results = results
        self.filter: HeaderFilter | None = None  # None: the content is not in its header
        self.fingerprint: Fingerprint | None = None  # None: nobody asks whether it was here before
        self.recipients: list[_Taken] = []
        self.queue_id = QueueId("")
        self.writer: ContentWriter | None = None  # None: no content asked for yet, or refused

    def write(self, piece: bytes) -> bool:
        """Take a piece of the content; False: let the client wait."""
        if self.writer is None:
            return True
        if self.filter is not None:
            piece = self.filter.feed(piece)
            if self.filter.is_done:
                self.filter = None
        if self.fingerprint is not None:
            self.fingerprint.update(piece)
        return self.writer.write(piece)

    @property
    def was_relayed(self) -> bool:
        """True when the content so far says that another host has had it (RFC 5321 §4.4)."""
        return self.writer is not None and count_received(self.writer.first()) > 0

    def abort(self) -> None:
        """Forget what was received."""
        if self.writer is not None:
            self.writer.abort()
            self.writer = None


class Acceptance:
    """Decides about senders, recipients and content, and enqueues."""

    def __init__(
        self,
        *,
        store: Intake,
        spool: Spool,
        table: RoutingTable,
        own: OwnAddresses,
        hostname: str | None,
        senders: Senders,
        on_received: OnReceived,
        duplicates: Duplicates,
        log: Log,
    ) -> None:
        """`table` and `hostname` may be replaced while running (reload)."""
        self._senders = senders
        self._store = store
        self._spool = spool
        self._own = own
        self._on_received = on_received
        self._duplicates = duplicates
        self._log = log
        self.table = table
        self.hostname = hostname

    def mail(self, arrival: Arrival, request: MailRequested, role: str) -> Transaction | Reply:
        """A transaction for an acceptable sender, or the refusal; `role` is the listener's."""
        is_submission = role == "submission" or arrival.login is not None
        if is_submission and not arrival.trusted:
            return self._refused(arrival, request.reverse_path, "", replies.LOGIN_NEEDED)
        refusal = self._store.refusal(request.size or 0)
        if refusal is not None:
            return self._refused(arrival, request.reverse_path, "", refusal)
        reverse_path = request.reverse_path
        if reverse_path is not None:
            reverse_path = self.table.qualify(reverse_path, arrival)
        results: list[AuthResult] = []
        # Who speaks LMTP hands over what another host has accepted.
        if role != "lmtp":
            results, refusal = self._senders.judge(arrival, reverse_path)
            if refusal is not None:
                return self._refused(arrival, reverse_path, "", refusal)
        envelope = Envelope(
            *(reverse_path, request.body, request.smtputf8, request.envid, request.ret),
            request.requiretls,
        )
        proven = sender_is_proven(reverse_path, arrival.client_ip, self._own.current) or (
            reverse_path is not None
            and self._senders.is_another_of(reverse_path, arrival.client_ip)
        )
        return Transaction(
            arrival,
            envelope,
            is_submission=is_submission,
            reports_allowed=proven,
            results=results,
        )

    def rcpt(self, transaction: Transaction, request: RcptRequested) -> Reply:
        """Take a recipient, or say why not."""
        arrival = transaction.arrival
        sender = transaction.envelope.reverse_path
        routing = self.table.route(request.forward_path, arrival, sender)
        if routing.refusal is not None:
            return self._refused(arrival, sender, request.forward_path, routing.refusal)
        original = request.original_recipient
        if original is None and routing.has_moved:
            # Reports speak of what the sender wrote (RFC 6533 §3 on the type).
            kind = "rfc822" if routing.recipient.is_ascii else "utf-8"
            original = f"{kind};{request.forward_path}"
        if not routing.recipient.is_ascii and not transaction.envelope.smtputf8:
            # A trusted client that did not say so; the way on has to be one for UTF-8.
            transaction.envelope = transaction.envelope._replace(smtputf8=True)
        recipient = Recipient(routing.recipient, original, request.notify)
        transaction.recipients.append(_Taken(request.forward_path, recipient, routing))
        return replies.RECIPIENT_OK

    def to_route(self, transaction: Transaction, name: str) -> Reply:
        """Take a [[route]] for a recipient, or say why not."""
        arrival = transaction.arrival
        routing = self.table.route_named(name, arrival)
        if routing.refusal is not None:
            sender = transaction.envelope.reverse_path
            return self._refused(arrival, sender, f"route {name}", routing.refusal)
        recipient = Recipient(routing.recipient)
        transaction.recipients.append(_Taken(routing.recipient, recipient, routing))
        return replies.RECIPIENT_OK

    def content(self, transaction: Transaction, on_drained: Callable[[], None]) -> Reply:
        """354, or why the content cannot be kept."""
        refusal = self._store.refusal(0)
        if refusal is not None:
            return self._refused(
                transaction.arrival, transaction.envelope.reverse_path, "", refusal
            )
        transaction.queue_id = self._store.next_id()
        transaction.writer = self._spool.create(transaction.queue_id, on_drained)
        transaction.filter = HeaderFilter(
            partial(self._is_our_name, transaction.arrival), without_bcc=transaction.is_submission
        )
        if transaction.arrival.trusted and self._looks_for_duplicates(transaction):
            transaction.fingerprint = Fingerprint()
        return replies.START_CONTENT

    def finish(self, transaction: Transaction, ended: ContentEnded, answer: Answer) -> None:
        """Enqueue the message; `answer` is called once, at once or when it is durable."""
        writer = transaction.writer
        refusal = ended.fault
        if writer is None or refusal is not None:
            transaction.abort()
            answer(self._refused_content(transaction, refusal or replies.STORE_AWAY))
            return
        if transaction.filter is not None:
            rest = transaction.filter.end()
            writer.write(rest)
            if transaction.fingerprint is not None:
                transaction.fingerprint.update(rest)
        transaction.writer = None
        content = writer.finish()
        if isinstance(content, InlineContent):
            self._enqueue(transaction, writer, content, content.inline, answer)
            return

        def stored(done: asyncio.Future[StoredContent]) -> None:
            error = done.exception()
            if error is None:
                self._enqueue(transaction, writer, done.result(), writer.head, answer)
            else:
                answer(self._refused_content(transaction, _trouble(error)))

        content.add_done_callback(stored)

    def _enqueue(
        self,
        transaction: Transaction,
        writer: ContentWriter,
        content: StoredContent,
        head: bytes,
        answer: Answer,
    ) -> None:
        section = header_section(head)
        if count_received(section) >= MAX_RECEIVED:
            writer.discard()
            answer(self._refused_content(transaction, replies.LOOP))
            return
        refusal = self._route_by_content(transaction, content, head)
        if refusal is not None:
            writer.discard()
            answer(self._refused_content(transaction, refusal))
            return
        message = self._message(transaction, writer, content, section)
        message, key = self._marked(transaction, message, head, section)

        def kept(done: asyncio.Future[None]) -> None:
            error = done.exception()
            if error is None:
                if key is not None:
                    self._duplicates.remember(key, message.queue_id, message.accepted_at)
                self._log_received(message)
                self._on_received(message, head)
                answer(Reply(250, f"queued as {message.queue_id}", (0, 0)))
            else:
                # After an I/O error the commit may yet turn out to have happened; then the file
                # is needed, and if not it is swept at the next start.
                if isinstance(error, QueueFull):
                    writer.discard()
                answer(self._refused_content(transaction, _trouble(error)))

        self._store.accept(message).add_done_callback(kept)

    def _route_by_content(
        self, transaction: Transaction, content: StoredContent, head: bytes
    ) -> Reply | None:
        """Ask again for recipients whose rules waited for the content.

        A refusal when all are refused; one of several gets a report instead, as SMTP has one
        reply for all of them.
        """
        if not any(taken.routing.needs_content for taken in transaction.recipients):
            return None
        facts = ContentFacts(content.size, decoded_fields(head))
        sender = transaction.envelope.reverse_path
        decided: list[_Taken] = []
        refusal: Reply | None = None
        for taken in transaction.recipients:
            routing = taken.routing
            if routing.needs_content:
                routing = self.table.route(taken.path, transaction.arrival, sender, content=facts)
                if routing.refusal is not None:
                    refusal = routing.refusal
                    reject = Target("reject", f"{refusal.enhanced} {refusal.text}")
                    routing = routing._replace(routes=(Route(reject, "refused by its content"),))
            decided.append(taken._replace(routing=routing))
        if all(taken.routing.refusal is not None for taken in decided):
            return refusal
        transaction.recipients = decided
        return None

    def _message(
        self,
        transaction: Transaction,
        writer: ContentWriter,
        content: StoredContent,
        section: bytes,
    ) -> QueuedMessage:
        """`section` is its header section."""
        now = time.time()
        arrival = transaction.arrival
        results = [*transaction.results, *self._senders.judge_authors(arrival, section)]
        added = b""
        if results:
            name = self._name_on(arrival)
            added = results_field(name, results, smtputf8=transaction.envelope.smtputf8)
        if transaction.is_submission:
            added += missing_fields(
                section,
                queue_id=transaction.queue_id,
                at=now,
                host=self._name_on(arrival),
                sender=None if arrival.login is None else transaction.envelope.reverse_path,
                is_theirs=partial(self._senders.is_theirs, arrival),
            )
        queued: list[QueuedRecipient] = []
        for taken in transaction.recipients:
            for route in taken.routing.routes:
                queued.append(
                    QueuedRecipient(len(queued), taken.recipient, str(route.target), route.rule)
                )
        only = transaction.recipients[0].recipient if len(transaction.recipients) == 1 else None
        return QueuedMessage(
            queue_id=transaction.queue_id,
            envelope=transaction.envelope,
            arrival=transaction.arrival,
            content=content,
            prepend=received_field(
                transaction.queue_id,
                arrival,
                now,
                self.hostname,
                None if only is None else only.forward_path,
            )
            + added,
            accepted_at=now,
            is_eight_bit=writer.is_eight_bit,
            reports_allowed=transaction.reports_allowed,
            recipients=tuple(queued),
            auth_results=results_text(results) if results else "",
        )

    def _looks_for_duplicates(self, transaction: Transaction) -> bool:
        """True when a route that takes the mail, or may yet, asks for them."""
        wanted = self.table.duplicates_s
        return bool(wanted) and any(
            taken.routing.needs_content
            or any(route.rule in wanted for route in taken.routing.routes)
            for taken in transaction.recipients
        )

    def _marked(
        self, transaction: Transaction, message: QueuedMessage, head: bytes, section: bytes
    ) -> tuple[QueuedMessage, bytes | None]:
        """The message, marked when the same was here before; else what to remember it by.

        None beside a message without a mark: nobody will ask.
        """
        fingerprint, arrival = transaction.fingerprint, message.arrival
        within_s = 0.0
        if fingerprint is not None:
            wanted = self.table.duplicates_s
            asked = [wanted.get(queued.rule, 0.0) for queued in message.recipients]
            within_s = max(asked, default=0.0)
        elif not arrival.trusted or not has_dedupe(section):
            return message, None
        else:
            fingerprint = Fingerprint()
            fingerprint.update(head)
        content = fingerprint.digest()
        if fingerprint.dedupe is not None:
            within_s = max(within_s, DEDUPE_S)
            content = b"by key " + fingerprint.dedupe
        if not within_s:
            return message, None  # the content has ruled out the routes that asked
        recipients = {str(queued.recipient.forward_path) for queued in message.recipients}
        key = self._duplicates.key_of(content, arrival, recipients)
        original = self._duplicates.original(key, message.accepted_at, within_s)
        if original is None:
            return message, key
        return message._replace(prepend=message.prepend + duplicate_field(original)), None

    def _is_our_name(self, arrival: Arrival, authserv_id: str) -> bool:
        """True for whatever this hub calls itself in Authentication-Results, to any client."""
        if authserv_id.lower() in ("localhost", (self.hostname or "").lower()):
            return True
        try:
            literal = parse_literal(authserv_id)
        except AddressError:
            return False
        if not isinstance(literal, AddressLiteral):
            return False
        return literal.ip == arrival.local_ip or literal.ip in self._own

    def _name_on(self, arrival: Arrival) -> str:
        """What the hub calls itself to this client."""
        return trace_name(arrival.local_ip, self.hostname)

    def _log_received(self, message: QueuedMessage) -> None:
        arrival = message.arrival
        self._log.event(
            "received",
            id=message.queue_id,
            client=None if arrival.client_ip is None else ip_text(arrival.client_ip),
            listener=arrival.listener,
            sender=message.envelope.reverse_path or "<>",
            recipients=len(message.recipients),
            size=message.content.size,
        )

    def _refused(
        self,
        arrival: Arrival,
        sender: Address | str | None,
        recipient: Address | str,
        reply: Reply,
    ) -> Reply:
        """Note a refusal in the log and the trace; gives the reply back."""
        refusal = Refusal(
            at=time.time(),
            client_ip=arrival.client_ip,
            listener=arrival.listener,
            helo=arrival.helo,
            reverse_path="<>" if sender is None else str(sender),
            forward_path=str(recipient),
            reply=reply,
        )
        self._store.note_refusal(refusal)
        self._log.event(
            "refused",
            client=None if arrival.client_ip is None else ip_text(arrival.client_ip),
            listener=arrival.listener,
            sender=refusal.reverse_path,
            recipient=refusal.forward_path or None,
            reply=reply,
        )
        return reply

    def _refused_content(self, transaction: Transaction, reply: Reply) -> Reply:
        recipients = ", ".join(
            str(taken.recipient.forward_path) for taken in transaction.recipients[:3]
        )
        more = len(transaction.recipients) - 3
        if more > 0:
            recipients += f" and {more} more"
        return self._refused(
            transaction.arrival, transaction.envelope.reverse_path, recipients, reply
        )


def _trouble(error: BaseException) -> Reply:
    """A store's trouble as the client is to hear it: always temporary, so that it tries again."""
    if isinstance(error, QueueFull):
        return replies.QUEUE_FULL
    if isinstance(error, StoreLost):
        return replies.SHUTTING_DOWN
    if isinstance(error, TemporaryError):
        return replies.STORE_AWAY
    return replace(replies.STORE_AWAY, text="A fault here, please try again")
