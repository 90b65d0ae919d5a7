"""queue list, show, retry, hold, release, cancel."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

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
    table,
)
from waypost.config.settings import Settings
from waypost.control import ask_hub
from waypost.errors import HubUnreachable
from waypost.mail.envelope import OVER, QueueId, RecipientStatus
from waypost.mail.sizes import size_text
from waypost.queue.history import Entry, Search
from waypost.queue.spool import Spool
from waypost.queue.sqlite import SqliteStore
from waypost.queue.store import Action, decode_queue_id

_HELP = {
    Action.RETRY: "try again now",
    Action.HOLD: "keep, but do not deliver",
    Action.RELEASE: "deliver what was held",
    Action.CANCEL: "drop without a report to the sender",
}


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    queue = verbs.add_parser("queue", help="see and steer mail that waits")
    actions = queue.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="what waits, newest first")
    listing.add_argument("--limit", type=int, default=100, metavar="N", help="at most N messages")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", parents=[common], help="all about one message")
    show.add_argument("id", metavar="QUEUE_ID")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(run=_show)
    for action, text in _HELP.items():
        act = actions.add_parser(action, parents=[common], help=text)
        act.add_argument("ids", nargs="*", metavar="QUEUE_ID")
        all_text = "every message that waits"
        if action is Action.HOLD:
            all_text = "stop all delivery, of mail to come too, until release --all"
        elif action is Action.RELEASE:
            all_text = "all that is held, and let delivery go on"
        act.add_argument("--all", action="store_true", help=all_text)
        act.add_argument("--json", action="store_true", help="as JSON")
        act.set_defaults(run=_act, queue_action=action)


def _list(parsed: argparse.Namespace) -> int:
    history = history_of(settings_of(parsed))
    entries = history.find(Search(only_unfinished=True, limit=parsed.limit))
    if parsed.json:
        for entry in entries:
            say_json(entry_as_json(entry))
        return EXIT_YES
    if history.is_held():
        say(paint("All delivery is on hold; end that with: waypost queue release --all", "yellow"))
    if not entries:
        say("The queue is empty.")
        return EXIT_YES
    rows = []
    for entry in entries:
        for recipient in entry.recipients:
            if recipient.status is RecipientStatus.FINISHED:
                continue
            rows.append(
                (
                    entry.queue_id,
                    local_time(entry.accepted_at),
                    size_text(entry.size),
                    _sender(entry),
                    printable(recipient.address),
                    _status_text(recipient.status),
                    local_time(recipient.next_attempt_at) or "-",
                    printable(recipient.last_reply or ""),
                )
            )
    table(rows, ("ID", "ACCEPTED", "SIZE", "FROM", "TO", "STATUS", "NEXT ATTEMPT", "LAST REPLY"))
    return EXIT_YES


def _show(parsed: argparse.Namespace) -> int:
    entries = _find(settings_of(parsed), parsed.id)
    if not entries:
        complain(f"no message {parsed.id} is known; see: waypost queue list")
        return EXIT_NO
    if parsed.json:
        say_json(entry_as_json(entries[0]))
    else:
        say_entry(entries[0])
    return EXIT_YES


def _find(settings: Settings, queue_id: str) -> list[Entry]:
    try:
        return history_of(settings).find(Search(queue_id=QueueId(queue_id)))
    except ValueError:
        return []


def _act(parsed: argparse.Namespace) -> int:
    action: Action = parsed.queue_action
    if bool(parsed.ids) == parsed.all:
        complain(f"name messages by QUEUE_ID, or say --all: waypost queue {action} …")
        return EXIT_USAGE
    for queue_id in parsed.ids:
        try:
            decode_queue_id(queue_id)
        except ValueError as error:
            complain(str(error))
            return EXIT_USAGE
    settings = settings_of(parsed)
    history_of(settings)
    ids = None if parsed.all else [QueueId(queue_id.lower()) for queue_id in parsed.ids]
    try:
        changed = _ask(settings, action, ids)
    except HubUnreachable:
        changed = asyncio.run(_act_alone(settings, action, ids))
    if parsed.json:
        say_json({"action": action, "recipients": changed})
    elif parsed.all and action is Action.HOLD:
        say("Nothing is delivered now, and mail is still accepted; go on with: queue release --all")
    else:
        say(f"{action}: {changed} recipient{'' if changed == 1 else 's'}")
    return EXIT_YES if changed or parsed.all else EXIT_NO


def _ask(settings: Settings, action: Action, ids: list[QueueId] | None) -> int:
    if ids is None and action in (Action.HOLD, Action.RELEASE):
        ask_hub(settings.data_dir, "hold-new", held=action is Action.HOLD)
    if ids is None and action is Action.HOLD:
        return 0
    answer = ask_hub(settings.data_dir, "act", action=action, ids=ids)
    return int(answer["recipients"])


async def _act_alone(settings: Settings, action: Action, ids: list[QueueId] | None) -> int:
    """No hub runs: work on the queue directly, with the hub's own code and lock."""
    spool = Spool(settings.data_dir / "content")
    store = SqliteStore(settings.data_dir, spool)
    try:
        if ids is None and action in (Action.HOLD, Action.RELEASE):
            await store.hold_all_new(held=action is Action.HOLD)
        if ids is None and action is Action.HOLD:
            return 0
        return await store.act(action, ids)
    finally:
        await store.close()
        await spool.close()


def _sender(entry: Entry) -> str:
    return "<>" if entry.sender is None else printable(entry.sender)


def _status_text(status: RecipientStatus) -> str:
    return {
        RecipientStatus.WAITING: "waiting",
        RecipientStatus.LEASED: "under way",
        RecipientStatus.HELD: "held",
        RecipientStatus.FINISHED: "finished",
    }[status]


def entry_as_json(entry: Entry) -> dict[str, Any]:
    """A message and its story for programs."""
    return {
        "id": entry.queue_id,
        "accepted_at": iso_time(entry.accepted_at),
        "finished_at": iso_time(entry.finished_at),
        "sender": entry.sender or "",
        "size": entry.size,
        "client_ip": entry.client_ip,
        "local_ip": entry.local_ip,
        "helo": entry.helo,
        "protocol": entry.protocol,
        "tls": entry.tls,
        "listener": entry.listener,
        "trusted": entry.trusted,
        "login": entry.login,
        "auth_results": entry.auth_results,
        "reports_allowed": entry.reports_allowed,
        "recipients": [
            {
                "address": recipient.address,
                "target": recipient.target,
                "rule": recipient.rule,
                "status": _status_text(recipient.status),
                "outcome": recipient.outcome,
                "attempts": recipient.attempts,
                "next_attempt_at": iso_time(recipient.next_attempt_at),
                "last_reply": recipient.last_reply,
                "last_hop": _hop(recipient.last_hop),
                "tls": _tls(recipient.last_hop),
                "finished_at": iso_time(recipient.finished_at),
                "story": [
                    {
                        "at": iso_time(attempt.at),
                        "outcome": attempt.outcome,
                        "reply": attempt.reply,
                        "hop": _hop(attempt.hop),
                        "tls": _tls(attempt.hop),
                    }
                    for attempt in entry.attempts
                    if attempt.number == recipient.number
                ],
            }
            for recipient in entry.recipients
        ],
    }


def _hop(way: str | None) -> str | None:
    """The hop of what Outcome.way says; a path of a Unix socket may hold anything."""
    return way if way is None or way.startswith("/") else way.partition(f" {OVER} ")[0]


def _tls(way: str | None) -> str | None:
    """What was negotiated with it; None: nothing was."""
    if way is None or way.startswith("/"):
        return None
    return way.partition(f" {OVER} ")[2] or None


def say_entry(entry: Entry) -> None:
    """A message and its story for people."""
    client = "this hub" if entry.is_report else entry.client_ip or "a Unix socket"
    known = "trusted" if entry.trusted else "stranger"
    say(paint(entry.queue_id, "bold"))
    say(
        f"  {local_time(entry.accepted_at)}  received from {client} ({known})"
        f" as {printable(entry.helo) or '-'}, {entry.protocol} on {entry.listener}"
        + (f", {entry.tls}" if entry.tls else "")
    )
    if entry.login is not None:
        say(f"  logged in as {printable(entry.login)}")
    if entry.auth_results:
        say(f"  checks {printable(entry.auth_results)}")
    say(f"  sender {_sender(entry)}, {size_text(entry.size)}")
    for recipient in entry.recipients:
        say(f"  to {printable(recipient.address)}")
        say(f"    route {recipient.target} (by {recipient.rule})")
        for attempt in entry.attempts:
            if attempt.number == recipient.number:
                where = f" {attempt.hop}" if attempt.hop else ""
                reply = f": {printable(attempt.reply)}" if attempt.reply else ""
                say(f"    {local_time(attempt.at)}  {attempt.outcome}{where}{reply}")
        if recipient.outcome is not None:
            colour = (
                "green" if recipient.outcome in ("delivered", "relayed", "suppressed") else "red"
            )
            where = f" {recipient.last_hop}" if recipient.last_hop else ""
            say(
                f"    {local_time(recipient.finished_at)}  {paint(recipient.outcome, colour)}"
                f"{where}: {printable(recipient.last_reply or '')}"
            )
        else:
            due = local_time(recipient.next_attempt_at)
            say(
                f"    now {_status_text(recipient.status)}"
                + (f", next attempt {due}" if due else "")
                + (f": {printable(recipient.last_reply)}" if recipient.last_reply else "")
            )
