"""trace: what became of mail, and what was refused."""

from __future__ import annotations

import argparse
import dataclasses
from ipaddress import ip_address

from waypost.cli.context import history_of, settings_of
from waypost.cli.output import (
    EXIT_NO,
    EXIT_USAGE,
    EXIT_YES,
    complain,
    iso_time,
    local_time,
    paint,
    printable,
    say,
    say_json,
)
from waypost.cli.queue import entry_as_json, say_entry
from waypost.mail.address import as_value
from waypost.mail.envelope import QueueId
from waypost.queue.history import Search


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    trace = verbs.add_parser(
        "trace", parents=[common], help="what became of mail, searchable by IP, address and id"
    )
    trace.add_argument("--client", metavar="IP", help="mail from this address")
    trace.add_argument("--address", metavar="A", help="mail with this in sender or recipient")
    trace.add_argument("--id", metavar="QUEUE_ID", help="this message")
    trace.add_argument("--limit", type=int, default=20, metavar="N", help="at most N of each kind")
    trace.add_argument("--json", action="store_true", help="one JSON object a line")
    trace.set_defaults(run=_trace)


def _trace(parsed: argparse.Namespace) -> int:
    client: str | None = None
    if parsed.client is not None:
        try:
            client = str(as_value(ip_address(parsed.client.strip("[]").removeprefix("IPv6:"))))
        except ValueError:
            complain(f"--client {parsed.client}: not an IP address")
            return EXIT_USAGE
    search = Search(
        queue_id=None if parsed.id is None else QueueId(parsed.id.lower()),
        client_ip=client,
        address=parsed.address,
        limit=parsed.limit,
    )
    history = history_of(settings_of(parsed))
    try:
        entries = history.find(search)
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    refusals = [] if parsed.id is not None else history.refusals(search)
    if parsed.json:
        for entry in entries:
            say_json({"kind": "message", **entry_as_json(entry)})
        for refusal in refusals:
            say_json({"kind": "refusal", **dataclasses.asdict(refusal), "at": iso_time(refusal.at)})
    else:
        for entry in entries:
            say_entry(entry)
        if refusals:
            say(paint("Refused:", "bold"))
        for refusal in refusals:
            say(
                f"  {local_time(refusal.at)}  {refusal.client_ip or 'a Unix socket'}"
                f" on {refusal.listener}: {printable(refusal.reverse_path)} ->"
                f" {printable(refusal.forward_path) or '-'}: {printable(refusal.reply)}"
            )
    if not entries and not refusals:
        if not parsed.json:
            say("Nothing matches.")
        return EXIT_NO
    return EXIT_YES
