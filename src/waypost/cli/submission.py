"""Handing a message to a hub, or straight to its recipients' hosts, with the hub's own code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from ipaddress import ip_address

from waypost.app import loop_factory, make_gate, make_own_addresses
from waypost.config.settings import Settings
from waypost.control import ask_hub
from waypost.delivery.smtp import SmtpTransport
from waypost.delivery.transport import DeliveryJob
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
from waypost.mail.reply import Reply
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

    `via` None: straight to each recipient's own host, which an address literal names.
    """
    target = Target("direct") if via is None else Target("smtp", str(via))
    queued = [
        QueuedRecipient(number, Recipient(recipient), str(target), "command line")
        for number, recipient in enumerate(recipients)
    ]
    is_eight_bit = not content.isascii()
    message = QueuedMessage(
        queue_id=QueueIdSource().next_id(),
        envelope=Envelope(
            reverse_path=sender,
            body=Body.EIGHT_BIT_MIME if is_eight_bit else None,
            smtputf8=not all(
                address.is_ascii for address in (*recipients, *filter(None, [sender]))
            ),
        ),
        arrival=Arrival("local", None, None, "", "command line", trusted=True),
        content=InlineContent(content),
        prepend=b"",
        accepted_at=time.time(),
        is_eight_bit=is_eight_bit,
        reports_allowed=False,
        recipients=tuple(queued),
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_deliver(settings, message, queued, target))


async def _deliver(
    settings: Settings, message: QueuedMessage, queued: list[QueuedRecipient], target: Target
) -> list[Outcome]:
    own = make_own_addresses(settings)
    transport = SmtpTransport(
        make_gate(settings, own),
        helo=lambda ip: (
            settings.hostname or ("localhost" if ip is None else str(AddressLiteral(ip)))
        ),
        delivery_port=settings.routing.delivery_port,
    )
    groups: dict[str, list[QueuedRecipient]] = {}
    for recipient in queued:
        groups.setdefault(transport.destination(target, recipient), []).append(recipient)
    outcomes: dict[int, Outcome] = {}
    for group in groups.values():
        try:
            results = await transport.deliver(DeliveryJob(message, group, target))
        except (TemporaryError, PermanentError) as error:
            code = 451 if isinstance(error, TemporaryError) else 550
            reply = Reply(code, str(error), (4, 4))
            results = [Outcome.of(reply, success=OutcomeKind.RELAYED)] * len(group)
        for recipient, outcome in zip(group, results, strict=True):
            outcomes[recipient.number] = outcome
    await transport.close()
    return [outcomes[recipient.number] for recipient in queued]
