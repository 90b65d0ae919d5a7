"""route --message: where a mail that is there would go, and what each target would be sent."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from email.utils import getaddresses
from pathlib import Path
from typing import Any, NamedTuple

from waypost.app import make_preview
from waypost.cli.output import EXIT_LATER, EXIT_NO, EXIT_YES, paint, printable, say, say_json
from waypost.cli.route_shown import say_delivery
from waypost.cli.scene import THIS_HOST, Scene, Steps, UsageFault, path_of, scene_of, sender_of
from waypost.errors import WaypostError
from waypost.intake.rehearsal import Rehearsed, rehearse
from waypost.mail.address import Address, AddressLiteral, ip_text
from waypost.mail.message import decoded_fields, header_fields
from waypost.mail.reply import Reply
from waypost.mail.sizes import size_text
from waypost.mail.submission import authors_of
from waypost.routing.table import ContentFacts

_RECIPIENT_FIELDS = ("to", "cc", "bcc")
# Acceptance keeps about so much of a large mail in memory.
_HEAD_BYTES = 131_072


class _Mail(NamedTuple):
    """What is sent, as the command line and the file say."""

    content: bytes
    sender: Address | None
    sender_from: str  # where the sender stands
    recipients: list[Address | str]
    recipients_from: str


class _Told(NamedTuple):
    """What one recipient is told."""

    recipient: str
    reply: Reply | None  # the refusal; None: it is taken
    targets: list[str]
    steps: Steps


def explain_message(parsed: argparse.Namespace) -> int:
    """Tell; nothing is sent. Raises UsageFault, WaypostError."""
    mail = _mail(parsed)
    scene = scene_of(parsed, parsed.client or _host_of(mail.sender))
    return asyncio.run(_explained(mail, scene, as_json=parsed.json))


async def _explained(mail: _Mail, scene: Scene, *, as_json: bool) -> int:
    settings = scene.settings
    rehearsed = await rehearse(
        *(mail.content, mail.sender, mail.recipients),
        arrival=scene.arrival,
        role=scene.role,
        table=scene.table,
        own=scene.own,
        hostname=settings.hostname,
        senders=scene.senders,
        max_octets=settings.limits.message_bytes,
    )
    told = [
        _told(scene, mail, rehearsed, number, path) for number, path in enumerate(mail.recipients)
    ]
    deliveries: list[dict[str, Any]] = []
    if rehearsed.message is not None:
        async with make_preview(settings, scene.table, scene.names, scene.smtp()) as preview:
            deliveries = await preview.of(rehearsed.message)
    if as_json:
        say_json(_as_json(mail, scene, told, deliveries))
    else:
        _say(mail, scene, told, deliveries)
    if any(one["taken"] and "trouble" not in one for one in deliveries):
        return EXIT_YES
    return EXIT_LATER if any(one["taken"] for one in deliveries) else EXIT_NO


def _told(
    scene: Scene, mail: _Mail, rehearsed: Rehearsed, number: int, path: Address | str
) -> _Told:
    """The steps to what the rehearsal came to, by the same table."""
    steps = scene.first_steps()
    scene.judge(mail.sender, steps)
    facts = ContentFacts(len(mail.content), decoded_fields(mail.content[:_HEAD_BYTES]))
    routing = scene.table.route(path, scene.arrival, mail.sender, steps.add, facts)
    reply = rehearsed.to_sender
    if reply is None and rehearsed.to_recipients[number].code >= 400:
        reply = rehearsed.to_recipients[number]
    if reply is None and rehearsed.message is None:
        reply = rehearsed.to_content
    if reply is None:
        reply = routing.refusal
    targets = [] if reply is not None else [str(route.target) for route in routing.routes]
    return _Told(str(routing.recipient), reply, targets, steps)


def _mail(parsed: argparse.Namespace) -> _Mail:
    """Raises UsageFault, WaypostError."""
    content = re.sub(rb"\r?\n", b"\r\n", _read(parsed.message))
    sender, sender_from = sender_of(parsed.sender), "--from"
    if parsed.sender is None:
        authors = authors_of(content)
        sender, sender_from = (authors[0], "From") if authors else (None, "From names nobody")
    recipients = [path_of(text) for text in parsed.address]
    recipients_from = "command line"
    if not recipients:
        recipients, recipients_from = _recipients_in(content)
    return _Mail(content, sender, sender_from, recipients, recipients_from)


def _host_of(sender: Address | None) -> str:
    """The client that would send it: who is at a literal has to prove it by the address."""
    if sender is not None and isinstance(sender.domain, AddressLiteral):
        return ip_text(sender.domain.ip)
    return THIS_HOST


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise WaypostError(f"--message {path}: {error.strerror}") from error


def _recipients_in(content: bytes) -> tuple[list[Address | str], str]:
    """Those that the mail's own fields name, and the fields. Raises UsageFault."""
    found: dict[str, Address | str] = {}
    names: list[str] = []
    for name, value in header_fields(content):
        if name not in _RECIPIENT_FIELDS:
            continue
        for _, text in getaddresses([value.decode("utf-8", "replace")]):
            if not text:
                continue
            try:
                found[text] = path_of(text)
            except UsageFault as fault:
                raise UsageFault(
                    f"{name.capitalize()} names no address: {fault}; name the recipients yourself"
                ) from None
            names.append(name.capitalize())
    if not found:
        raise UsageFault(
            "the mail names no recipient in To, Cc or Bcc: name one, as in"
            " waypost route --message FILE alerts@[192.168.1.10]"
        )
    return list(found.values()), ", ".join(dict.fromkeys(names))


def _as_json(
    mail: _Mail, scene: Scene, told: Sequence[_Told], deliveries: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    device = scene.names.device_of(scene.arrival)
    refused = [one.reply for one in told if one.reply is not None]
    is_accepted = len(refused) < len(told)
    return {
        "accepted": is_accepted,
        "reply": None if is_accepted else str(refused[0]),
        "sender": "<>" if mail.sender is None else str(mail.sender),
        "sender_from": mail.sender_from,
        "recipients_from": mail.recipients_from,
        "size": len(mail.content),
        "client": str(scene.arrival.client_ip),
        "device": {"slug": device.slug, "name": device.name, "kind": device.kind},
        "needs_content": False,
        "targets": list(dict.fromkeys(target for one in told for target in one.targets)),
        "recipients": [
            {
                "recipient": one.recipient,
                "accepted": one.reply is None,
                "reply": None if one.reply is None else str(one.reply),
                "targets": one.targets,
                "steps": one.steps.taken,
            }
            for one in told
        ],
        "deliveries": deliveries,
    }


def _say(
    mail: _Mail, scene: Scene, told: Sequence[_Told], deliveries: Sequence[dict[str, Any]]
) -> None:
    device = scene.names.device_of(scene.arrival)
    sender = "<>" if mail.sender is None else str(mail.sender)
    say(f"sender: {printable(sender)}  {paint(f'({mail.sender_from})', 'dim')}")
    number = len(mail.recipients)
    say(
        f"recipients: {number}  {paint(f'({mail.recipients_from})', 'dim')},"
        f" {size_text(len(mail.content))}"
    )
    say(f"device: {printable(device.name)}" + (f", {device.kind}" if device.kind else ""))
    for one in told:
        say()
        say(paint(printable(one.recipient), "bold"))
        one.steps.say()
        if one.reply is not None:
            say(paint(f"refused: {one.reply}", "red"))
        else:
            say(paint(f"accepted: {', '.join(one.targets)}", "green"))
    for delivery in deliveries:
        say()
        say_delivery(delivery)
