"""route: what would happen to mail, step by step, sending nothing."""

from __future__ import annotations

import argparse
import asyncio
import re
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from waypost.app import (
    configured_places,
    make_accounts,
    make_gate,
    make_mailbox_names,
    make_own_addresses,
    make_registry,
    make_smtp,
    make_table,
    trusted_clients,
)
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
from waypost.cli.submission import draft
from waypost.delivery.smtp import SmtpTransport
from waypost.delivery.transport import DeliveryJob, reply_to
from waypost.errors import AddressError, PermanentError, TemporaryError, WaypostError
from waypost.intake.senders import Senders
from waypost.mail.address import Address, IPAddress, as_value
from waypost.mail.authentication import LITERAL
from waypost.mail.envelope import Arrival, QueuedRecipient, Recipient
from waypost.mail.message import decoded_fields
from waypost.mail.reply import Reply
from waypost.net.interfaces import source_towards
from waypost.routing.table import ContentFacts, Routing
from waypost.tls.policy import Choice


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    route = verbs.add_parser(
        "route", parents=[common], help="what would happen to mail, and why; sends nothing"
    )
    route.add_argument("address", metavar="ADDR")
    route.add_argument("--from", dest="sender", metavar="A", help="the sender (default: <>)")
    route.add_argument(
        "--client", metavar="IP", default="127.0.0.1", help="who would send (default: this host)"
    )
    route.add_argument("--listener", metavar="NAME", help="where it would come in")
    route.add_argument(
        "--message",
        type=Path,
        metavar="FILE",
        help="the mail itself, for routes that match by subject, header or size",
    )
    route.add_argument("--login", metavar="NAME", help="who is logged in (default: nobody)")
    route.add_argument("--json", action="store_true", help="as JSON")
    route.set_defaults(run=_route)


def _route(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    try:
        client = as_value(ip_address(parsed.client))
        recipient = Address.parse(parsed.address) if "@" in parsed.address else parsed.address
        sender = Address.parse(parsed.sender) if parsed.sender else None
    except AddressError as error:
        complain(str(error))
        return EXIT_USAGE
    except ValueError:
        complain(f"--client {parsed.client}: not an IP address")
        return EXIT_USAGE
    own = make_own_addresses(settings)
    gate = make_gate(settings, own, lambda: configured_places(settings))
    devices = make_registry(settings)
    devices.load()
    table = make_table(settings, own, make_mailbox_names(settings), gate, devices)
    arrival = Arrival(
        protocol="ESMTP",
        client_ip=client,
        local_ip=_local_ip(client),
        helo="",
        listener=parsed.listener or settings.listeners[0].name,
        trusted=parsed.login is not None or client in trusted_clients(settings),
        login=parsed.login,
    )
    who = "trusted" if arrival.trusted else "a stranger"
    if parsed.login is not None:
        who = f"logged in as {parsed.login}"
    steps = [{"step": f"{client} is {who}", "because": "networks.trusted"}]

    def explain(because: str, step: str, *values: object) -> None:
        steps.append({"step": step.format(*values), "because": because})

    content = None if parsed.message is None else _facts(parsed.message)
    find = make_accounts(settings).find
    senders = Senders(settings.senders, own=own, account_of=find, table=lambda: table)
    results, refusal = senders.judge(arrival, sender)
    for result in results:
        because = "policy.literal_sender" if result.method == LITERAL else "[[mailbox]] or user"
        explain(because, "the sender: {}", result)
    routing = table.route(recipient, arrival, sender, explain, content)
    if refusal is not None:
        routing = Routing(routing.recipient, refusal=refusal)
    transport = make_smtp(settings, own, gate)
    ways = asyncio.run(_ways(transport, routing, arrival, sender))
    if parsed.json:
        say_json(
            {
                "recipient": str(routing.recipient),
                "accepted": routing.refusal is None,
                "reply": None if routing.refusal is None else str(routing.refusal),
                "needs_content": routing.needs_content,
                "targets": list(ways),
                "hops": {target: way.hops for target, way in ways.items()},
                "tls": {t: _as_json(way.tls) for t, way in ways.items() if way.tls is not None},
                "trouble": {t: str(way.trouble) for t, way in ways.items() if way.trouble},
                "steps": steps,
            }
        )
        return _status(routing, ways)
    for step in steps:
        because = paint(f"({step['because']})", "dim")
        say(f"  {printable(step['step'])}  {because}")
    if routing.refusal is not None:
        say(paint(f"refused: {routing.refusal}", "red"))
        return EXIT_NO
    if routing.needs_content:
        say(paint("accepted for now: the content decides; give it with --message", "yellow"))
    for target, way in ways.items():
        tries = f", tries {', then '.join(way.hops)}" if way.hops else ""
        if way.trouble is not None:
            say(paint(f"accepted: {target}, but now: {way.trouble}", "yellow"))
            continue
        say(paint(f"accepted: {target}{tries}", "green"))
        if way.tls is not None:
            more = ", or more if its host asks for it" if way.tls.may_rise else ""
            say(f"  TLS: {way.tls.level}{more}  {paint(f'({way.tls.because})', 'dim')}")
        for why in way.forbidden:
            say(f"  not tried: {why}  {paint('(net/gate)', 'dim')}")
    return _status(routing, ways)


class _Way(NamedTuple):
    """What a route would try."""

    hops: list[str]
    forbidden: list[str]
    trouble: Reply | None  # None: there is somewhere to go
    tls: Choice | None = None  # None: it is no host


def _as_json(tls: Choice) -> dict[str, str]:
    return {"level": tls.level, "because": tls.because}


def _status(routing: Routing, ways: dict[str, _Way]) -> int:
    """No where a target cannot be reached at all, later where one cannot be now."""
    troubles = [way.trouble for way in ways.values() if way.trouble is not None]
    if routing.refusal is not None or any(trouble.is_permanent for trouble in troubles):
        return EXIT_NO
    return EXIT_LATER if troubles else EXIT_YES


async def _ways(
    transport: SmtpTransport, routing: Routing, arrival: Arrival, sender: Address | None
) -> dict[str, _Way]:
    """For each target, the hosts in order, found by the same code that delivers."""
    ways: dict[str, _Way] = {}
    for number, route in enumerate(routing.routes):
        ways[str(route.target)] = _Way([], [], None)
        if route.target.kind in ("smtp", "lmtp", "relay", "direct"):
            queued = QueuedRecipient(
                number, Recipient(routing.recipient), str(route.target), route.rule
            )
            message = draft(arrival, sender, [queued])
            job = DeliveryJob(message, [queued], route.target)
            try:
                hosts, forbidden = await transport.places(job)
                tls = transport.choice(job)
            except (TemporaryError, PermanentError) as error:
                ways[str(route.target)] = _Way([], [], reply_to(error))
                continue
            ways[str(route.target)] = _Way([str(host) for host in hosts], forbidden, None, tls)
    return ways


def _facts(path: Path) -> ContentFacts:
    """What routes ask of a message in a file."""
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise WaypostError(f"--message {path}: {error.strerror}") from error
    octets = re.sub(rb"\r?\n", b"\r\n", octets)
    return ContentFacts(len(octets), decoded_fields(octets))


def _local_ip(client: IPAddress) -> IPAddress | None:
    """The address of ours such a client would connect to; None: there is no way to it."""
    try:
        return source_towards(client)
    except OSError:
        return None
