"""route: what would happen to mail, step by step, sending nothing."""

from __future__ import annotations

import argparse
import asyncio
from typing import NamedTuple

from waypost.cli.output import (
    EXIT_LATER,
    EXIT_NO,
    EXIT_USAGE,
    EXIT_YES,
    complain,
    paint,
    say,
    say_json,
)
from waypost.cli.route_message import explain_message
from waypost.cli.scene import THIS_HOST, UsageFault, path_of, scene_of, sender_of
from waypost.cli.submission import draft
from waypost.delivery.smtp import SmtpTransport
from waypost.delivery.transport import DeliveryJob, reply_to
from waypost.errors import PermanentError, TemporaryError
from waypost.mail.address import Address
from waypost.mail.envelope import Arrival, QueuedRecipient, Recipient
from waypost.mail.reply import Reply
from waypost.routing.table import Routing
from waypost.tls.policy import Choice


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    route = verbs.add_parser(
        "route", parents=[common], help="what would happen to mail, and why; sends nothing"
    )
    route.add_argument(
        "address",
        metavar="ADDR",
        nargs="*",
        help="the recipient; with --message one or several (default: those of To, Cc and Bcc)",
    )
    route.add_argument(
        "--from",
        dest="sender",
        metavar="A",
        help="the sender (default: <>, with --message the author in From)",
    )
    route.add_argument(
        "--client",
        metavar="IP",
        help="who would send (default: this host; with --message the one that From names, if it is"
        " at an IP address)",
    )
    route.add_argument("--listener", metavar="NAME", help="where it would come in")
    route.add_argument("--helo", metavar="NAME", default="", help="what the client calls itself")
    route.add_argument(
        "--message",
        metavar="FILE",
        help="the mail itself: which routes match, and what each target would be sent; - reads"
        " standard input",
    )
    route.add_argument("--login", metavar="NAME", help="who is logged in (default: nobody)")
    route.add_argument("--json", action="store_true", help="as JSON")
    route.set_defaults(run=_route)


def _route(parsed: argparse.Namespace) -> int:
    try:
        return _explained(parsed) if parsed.message is None else explain_message(parsed)
    except UsageFault as fault:
        complain(str(fault))
        return EXIT_USAGE


def _explained(parsed: argparse.Namespace) -> int:
    if len(parsed.address) != 1:
        raise UsageFault("name one recipient, or give the mail with --message")
    scene = scene_of(parsed, parsed.client or THIS_HOST)
    recipient, sender = path_of(parsed.address[0]), sender_of(parsed.sender)
    steps = scene.first_steps()
    refusal = scene.judge(sender, steps)
    routing = scene.table.route(recipient, scene.arrival, sender, steps.add)
    if refusal is not None:
        routing = Routing(routing.recipient, refusal=refusal)
    ways = asyncio.run(_ways(scene.smtp(), routing, scene.arrival, sender))
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
                "steps": steps.taken,
            }
        )
        return _status(routing, ways)
    steps.say()
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
