"""send: write a message and have it carried."""

from __future__ import annotations

import argparse
import getpass
import mimetypes
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

from waypost.cli.context import settings_of
from waypost.cli.output import (
    EXIT_LATER,
    EXIT_NO,
    EXIT_USAGE,
    EXIT_YES,
    complain,
    paint,
    printable,
    say,
    say_json,
)
from waypost.cli.submission import new_fields, running_hub, submit
from waypost.errors import AddressError, HubUnreachable, WaypostError
from waypost.mail.address import Address, AddressLiteral, Domain
from waypost.mail.composing import AttachedFile, compose
from waypost.mail.envelope import Outcome, OutcomeKind
from waypost.net.interfaces import source_towards
from waypost.routing.targets import HostPort


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    send = verbs.add_parser(
        "send",
        parents=[common],
        help="send a message: by the running hub, by --via, or else straight to the literals",
    )
    send.add_argument("--to", nargs="+", required=True, metavar="ADDR", help="recipients")
    send.add_argument("--from", dest="sender", metavar="A", help="sender; <> for none")
    send.add_argument("--subject", default="", metavar="S")
    send.add_argument("--body", default="", metavar="TEXT", help="the text; - reads it from stdin")
    send.add_argument(
        "--attach", action="append", default=[], type=Path, metavar="F", help="may be repeated"
    )
    send.add_argument("--via", metavar="HOST:PORT", help="hand it to this server")
    send.add_argument("--json", action="store_true", help="one JSON object for each recipient")
    send.set_defaults(run=_send)


def _send(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    try:
        recipients = [_address(text) for text in parsed.to]
        via = None if parsed.via is None else _host_port(parsed.via)
        if via is None:
            try:
                via = running_hub(settings)
            except HubUnreachable:
                via = None
        # Alone, each host is sent to by somebody it can see is there: a literal proves itself.
        parts = [[recipient] for recipient in recipients] if via is None else [recipients]
        senders = [_sender(parsed.sender, part, via, settings.hostname) for part in parts]
    except AddressError as error:
        complain(str(error))
        return EXIT_USAGE
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    outcomes: dict[Address, Outcome] = {}
    for sender in dict.fromkeys(senders):
        theirs = [
            recipient
            for part, its in zip(parts, senders, strict=True)
            for recipient in part
            if its == sender
        ]
        content = _compose(parsed, sender, recipients)
        outcomes.update(zip(theirs, submit(settings, content, sender, theirs, via), strict=True))
    return report(recipients, [outcomes[to] for to in recipients], as_json=parsed.json)


def report(recipients: list[Address], outcomes: list[Outcome], *, as_json: bool) -> int:
    """Say what became of each recipient; the exit status."""
    for recipient, outcome in zip(recipients, outcomes, strict=True):
        if as_json:
            say_json(
                {
                    "recipient": str(recipient),
                    "outcome": outcome.kind,
                    "hop": None if outcome.hop is None else str(outcome.hop),
                    "tls": outcome.tls,
                    "reply": str(outcome.reply),
                }
            )
            continue
        colour = "green" if outcome.kind is OutcomeKind.RELAYED else "red"
        where = f" by {outcome.way}" if outcome.way is not None else ""
        word = "accepted" if outcome.kind is OutcomeKind.RELAYED else str(outcome.kind)
        say(f"{recipient}: {paint(word, colour)}{where}: {printable(str(outcome.reply))}")
    kinds = {outcome.kind for outcome in outcomes}
    if OutcomeKind.FAILED in kinds:
        return EXIT_NO
    return EXIT_LATER if OutcomeKind.DEFERRED in kinds else EXIT_YES


def _address(text: str) -> Address:
    """An address as people type it; a bare IP after the @ is read as the literal."""
    address = Address.parse(text)
    if isinstance(address.domain, Domain):
        ip = address.domain.as_ip()
        if ip is not None:
            return Address(address.local_part, AddressLiteral(ip))
    return address


def _sender(
    text: str | None, recipients: list[Address], via: HostPort | None, hostname: str | None
) -> Address | None:
    if text in ("", "<>"):
        return None
    if text is not None:
        return _address(text)
    user = getpass.getuser()
    if hostname is not None:
        return Address(user, Domain(hostname))
    # The literal of the address we would be seen under, so that answers find the way back.
    domains = [recipient.domain for recipient in recipients]
    literals = [domain.ip for domain in domains if isinstance(domain, AddressLiteral)]
    if via is not None and isinstance(via.host, AddressLiteral):
        literals.append(via.host.ip)
    towards = literals[0] if literals else None
    if towards is None:
        raise ValueError("say who sends, with --from")
    try:
        return Address(user, AddressLiteral(source_towards(towards)))
    except OSError as error:
        raise ValueError(f"there is no way to {towards}: {error.strerror}") from error


def _host_port(text: str) -> HostPort:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--via {text}: expected HOST:PORT, as in 127.0.0.1:2525")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"--via {text}: {error.strerror}") from error
    return HostPort(AddressLiteral(ip_address(found[0][4][0])), int(port))


def _compose(parsed: argparse.Namespace, sender: Address | None, to: list[Address]) -> bytes:
    attachments: list[AttachedFile] = []
    for path in parsed.attach:
        kind, _ = mimetypes.guess_type(path.name)
        try:
            octets = path.read_bytes()
        except OSError as error:
            raise WaypostError(f"--attach {path}: {error.strerror}") from error
        attachments.append(AttachedFile(path.name, kind or "", octets))
    return compose(
        sender=sender,
        to=to,
        subject=parsed.subject,
        text=sys.stdin.read() if parsed.body == "-" else parsed.body,
        attachments=attachments,
        fields=new_fields(sender),
    )
