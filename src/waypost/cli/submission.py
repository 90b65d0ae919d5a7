"""Handing a message to a hub, or straight to its recipients' hosts, with the hub's own code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from email.utils import formatdate, make_msgid
from ipaddress import ip_address

from waypost.app import loop_factory, make_gate, make_own_addresses, make_resolver, make_smtp
from waypost.config.settings import Settings
from waypost.control import ask_hub
from waypost.delivery.transport import DeliveryJob, reply_to
from waypost.dns.later import LaterResolver
from waypost.errors import HubUnreachable, PermanentError, TemporaryError
from waypost.mail.address import Address, AddressLiteral
from waypost.mail.envelope import (
    Arrival,
    Body,
    Envelope,
    Outcome,
    OutcomeKind,
    QueuedRecipient,
    Recipient,
)
from waypost.mail.message import QueuedMessage
from waypost.queue.spool import InlineContent
from waypost.queue.store import QueueIdSource
from waypost.routing.targets import HostPort, Target


def running_hub(settings: Settings) -> HostPort:
    """Where the running hub takes mail from this host. Raises HubUnreachable."""
    answer = ask_hub(settings.data_dir, "status")
    for listener in answer["listeners"]:
        if listener["role"] == "lmtp":
            continue
        for host, port in listener["bound"]:
            ip = ip_address(host)
            if ip.is_unspecified:
                ip = ip_address("127.0.0.1" if ip.version == 4 else "::1")
            return HostPort(AddressLiteral(ip), port)
    raise HubUnreachable("the hub has no SMTP listener")


def submit(
    settings: Settings,
    content: bytes,
    sender: Address | None,
    recipients: Sequence[Address],
    via: HostPort | None,
) -> list[Outcome]:
    """Carry the message now; one outcome for each recipient.

    `via` None: straight to each recipient's own host, which an address literal names and DNS finds.
    """
    target = Target("direct") if via is None else Target("smtp", str(via))
    queued = [
        QueuedRecipient(number, Recipient(recipient), str(target), "command line")
        for number, recipient in enumerate(recipients)
    ]
    arrival = Arrival("local", None, None, "", "command line", trusted=True)
    message = draft(arrival, sender, queued, content)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_deliver(settings, message, queued, target))


def draft(
    arrival: Arrival,
    sender: Address | None,
    recipients: Sequence[QueuedRecipient],
    content: bytes = b"",
) -> QueuedMessage:
    """A message that is in no queue."""
    is_eight_bit = not content.isascii()
    addresses = [queued.recipient.forward_path for queued in recipients]
    return QueuedMessage(
        queue_id=QueueIdSource().next_id(),
        envelope=Envelope(
            reverse_path=sender,
            body=Body.EIGHT_BIT_MIME if is_eight_bit else None,
            smtputf8=not all(address.is_ascii for address in (*addresses, sender) if address),
        ),
        arrival=arrival,
        content=InlineContent(content),
        prepend=b"",
        accepted_at=time.time(),
        is_eight_bit=is_eight_bit,
        reports_allowed=False,
        recipients=tuple(recipients),
    )


def new_fields(sender: Address | None) -> list[tuple[str, str]]:
    """Date and Message-ID of a message that is written now."""
    domain = "waypost.invalid" if sender is None else str(sender.domain)
    return [("Date", formatdate(localtime=True)), ("Message-ID", make_msgid(domain=domain))]


async def _deliver(
    settings: Settings, message: QueuedMessage, queued: list[QueuedRecipient], target: Target
) -> list[Outcome]:
    own = make_own_addresses(settings)
    resolver = LaterResolver(lambda: make_resolver(settings))
    transport = make_smtp(settings, own, make_gate(settings, own), resolver=resolver)
    groups: dict[str, list[QueuedRecipient]] = {}
    for recipient in queued:
        groups.setdefault(transport.destination(target, recipient), []).append(recipient)
    outcomes: dict[int, Outcome] = {}
    for group in groups.values():
        try:
            results = await transport.deliver(DeliveryJob(message, group, target))
        except (TemporaryError, PermanentError) as error:
            outcome = Outcome.of(reply_to(error), success=OutcomeKind.RELAYED)
            results = [outcome] * len(group)
        for recipient, outcome in zip(group, results, strict=True):
            outcomes[recipient.number] = outcome
    await transport.close()
    await transport.credentials.close()
    return [outcomes[recipient.number] for recipient in queued]
