"""route: what would happen to mail, step by step, sending nothing."""

from __future__ import annotations

import argparse
from ipaddress import ip_address

from waypost.app import make_gate, make_mailbox_names, make_own_addresses, make_table
from waypost.cli.context import settings_of
from waypost.cli.output import (
    EXIT_NO,
    EXIT_USAGE,
    EXIT_YES,
    complain,
    paint,
    printable,
    say,
    say_json,
)
from waypost.errors import AddressError
from waypost.mail.address import Address, IPAddress, as_value
from waypost.mail.envelope import Arrival, Hop
from waypost.net.interfaces import source_towards
from waypost.net.networks import Networks
from waypost.routing.hops import hops_direct, hops_to
from waypost.routing.table import Route
from waypost.routing.targets import parse_next_hop


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
    gate = make_gate(settings, own)
    table = make_table(settings, own, make_mailbox_names(settings), gate)
    arrival = Arrival(
        protocol="ESMTP",
        client_ip=client,
        local_ip=_local_ip(client),
        helo="",
        listener=parsed.listener or settings.listeners[0].name,
        trusted=client in Networks(settings.trusted),
    )
    steps = [
        {
            "step": f"{client} is {'trusted' if arrival.trusted else 'a stranger'}",
            "because": "networks.trusted",
        }
    ]

    def explain(because: str, step: str, *values: object) -> None:
        steps.append({"step": step.format(*values), "because": because})

    routing = table.route(recipient, arrival, sender, explain)
    port = settings.routing.delivery_port
    hops = {
        str(route.target): [str(hop) for hop in _hops(route, routing.recipient, port)]
        for route in routing.routes
    }
    if parsed.json:
        say_json(
            {
                "recipient": str(routing.recipient),
                "accepted": routing.refusal is None,
                "reply": None if routing.refusal is None else str(routing.refusal),
                "targets": [str(route.target) for route in routing.routes],
                "hops": hops,
                "steps": steps,
            }
        )
        return EXIT_YES if routing.refusal is None else EXIT_NO
    for step in steps:
        because = paint(f"({step['because']})", "dim")
        say(f"  {printable(step['step'])}  {because}")
    if routing.refusal is not None:
        say(paint(f"refused: {routing.refusal}", "red"))
        return EXIT_NO
    for target, places in hops.items():
        tries = f", tries {', then '.join(places)}" if places else ""
        say(paint(f"accepted: {target}{tries}", "green"))
    return EXIT_YES


def _local_ip(client: IPAddress) -> IPAddress | None:
    """The address of ours such a client would connect to; None: there is no way to it."""
    try:
        return source_towards(client)
    except OSError:
        return None


def _hops(route: Route, recipient: Address, delivery_port: int) -> list[Hop]:
    """The hosts a route would try, in order."""
    if route.target.kind == "direct":
        return hops_direct(recipient, delivery_port)
    if route.target.kind in ("smtp", "lmtp"):
        return hops_to(parse_next_hop(route.target))
    return []
