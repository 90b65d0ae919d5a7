"""device list, show, set, forget: the hosts that send mail here, and what is expected of them."""

from __future__ import annotations

import argparse
import re
from typing import Any

from waypost.app import make_registry
from waypost.cli.context import settings_of
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
from waypost.devices.desk import device_row
from waypost.devices.device import DeviceSettings
from waypost.devices.registry import Registry
from waypost.devices.visits import NOTE
from waypost.devices.watch import span_text
from waypost.errors import HubUnreachable
from waypost.smtp.quirks import quirk_words

# What takes a setting away.
NOTHING = "none"

_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    device = verbs.add_parser("device", help="hosts that send mail here: see, name, watch them")
    actions = device.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", parents=[common], help="all of them, the latest first")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", parents=[common], help="all that is known of one")
    show.add_argument(
        "--dialogue", action="store_true", help="what was said in its last session, line by line"
    )
    show.set_defaults(run=_show)
    change = actions.add_parser(
        "set", parents=[common], help="name it, say what is expected; 'none' takes a setting away"
    )
    change.add_argument("--name", metavar="NAME", help="what to call it")
    change.add_argument("--kind", metavar="TEXT", help="what it is: camera, printer, …")
    change.add_argument(
        "--mailbox", metavar="NAME", help="for its mail to addresses here that have none"
    )
    change.add_argument(
        "--expect",
        type=_span,
        metavar="SPAN",
        help="it sends mail at least this often: 90s, 15m, 24h, 7d; silence raises an alarm",
    )
    change.add_argument(
        "--quiet", metavar="HH:MM-HH:MM", help="hours in which its silence is no matter"
    )
    change.add_argument(
        "--hush",
        metavar="HH:MM-HH:MM",
        help="hours in which notify: targets wait, for one digest at their end",
    )
    change.add_argument(
        "--failure",
        action="append",
        metavar="WORD",
        help="mail with it in subject or text raises an alarm; may be repeated",
    )
    change.add_argument(
        "--success",
        action="append",
        metavar="WORD",
        help="mail with none of these raises an alarm; may be repeated",
    )
    change.add_argument(
        "--alarm",
        metavar="TARGET",
        help="where alarms go, as a target of [[route]] (default: the mailbox of postmaster)",
    )
    change.add_argument(
        "--command-topic",
        metavar="TOPIC",
        help="mail to the device's own address is published there; pump/set, or pump/set#line",
    )
    change.set_defaults(run=_set)
    forget = actions.add_parser(
        "forget", parents=[common], help="know nothing of it, until it comes again"
    )
    forget.set_defaults(run=_forget)
    for parser in (show, change, forget):
        parser.add_argument("device", metavar="IP|NAME")
    for parser in (listing, show, change, forget):
        parser.add_argument("--json", action="store_true", help="as JSON")


def _span(text: str) -> float | str:
    if text == NOTHING:
        return text
    match = _SPAN.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("expected a span of time: 90s, 15m, 24h, 7d")
    return float(match[1]) * _UNITS[match[2]]


def _list(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    try:
        rows: list[dict[str, Any]] = ask_hub(settings.data_dir, "devices")["devices"]
    except HubUnreachable:
        rows = [device_row(device) for device in _registry(settings).all()]
    rows.sort(key=lambda row: row["last_at"] or 0.0, reverse=True)
    if parsed.json:
        for row in rows:
            say_json(_as_json(row))
        return EXIT_YES
    if not rows:
        say("No device has been here yet.")
        return EXIT_YES
    table(
        [
            (
                row["name"] or "-",
                row["ip"],
                printable(row["kind"] or "-"),
                local_time(row["last_at"]) or "never",
                local_time(row["mail_at"]) or "never",
                str(row["messages"]),
                (row["tls"] or "-").partition(" ")[0],
                _state(row),
            )
            for row in rows
        ],
        ("name", "address", "kind", "last seen", "last mail", "mails", "tls", "state"),
    )
    return EXIT_YES


def _state(row: dict[str, Any]) -> str:
    words = [word for word in ("silent", "failing") if row[f"is_{word}"]]
    if words:
        return paint(", ".join(words), "red")
    if row["quirks"]:
        return "quirks"
    return "ok"


def _show(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    if parsed.dialogue:
        return _show_dialogue(parsed, settings)
    try:
        row = ask_hub(settings.data_dir, "device", device=parsed.device)["device"]
    except HubUnreachable:
        row = device_row(_registry(settings).find(parsed.device))
    _say_device(row, as_json=parsed.json)
    return EXIT_YES


def _show_dialogue(parsed: argparse.Namespace, settings: Settings) -> int:
    answer = ask_hub(settings.data_dir, "device-dialogue", device=parsed.device)
    lines = answer["lines"]
    if parsed.json:
        say_json(
            {
                "began_at": iso_time(answer["began_at"]),
                "lines": [{"after_s": at, "who": who, "text": text} for at, who, text in lines],
            }
        )
    elif lines:
        say(f"began {local_time(answer['began_at'])}")
        for after_s, who, text in lines:
            said = f"({printable(text)})" if who == NOTE else printable(text)
            say(f"{after_s:9.3f}  {who}  {said}")
    else:
        complain(f"nothing is kept of a session of {parsed.device} since the hub started")
    return EXIT_YES if lines else EXIT_NO


def _set(parsed: argparse.Namespace) -> int:
    given = {
        "name": parsed.name,
        "kind": parsed.kind,
        "mailbox": parsed.mailbox,
        "expect_s": parsed.expect,
        "quiet": parsed.quiet,
        "hush": parsed.hush,
        "failure": parsed.failure,
        "success": parsed.success,
        "alarm": parsed.alarm,
        "command_topic": parsed.command_topic,
    }
    wanted = {
        key: None if value in (NOTHING, [NOTHING]) else value
        for key, value in given.items()
        if value is not None
    }
    if not wanted:
        complain("nothing to set; see: waypost device set --help")
        return EXIT_USAGE
    try:
        DeviceSettings().changed(wanted)
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    settings = settings_of(parsed)
    try:
        row = ask_hub(settings.data_dir, "device-set", device=parsed.device, settings=wanted)
        row = row["device"]
    except HubUnreachable:
        registry = _registry(settings)
        try:
            row = device_row(registry.change(parsed.device, wanted))
        except ValueError as error:
            complain(str(error))
            return EXIT_NO
        registry.write_now()
    _say_device(row, as_json=parsed.json)
    return EXIT_YES


def _forget(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    try:
        row = ask_hub(settings.data_dir, "device-forget", device=parsed.device)["device"]
    except HubUnreachable:
        registry = _registry(settings)
        row = device_row(registry.forget(parsed.device))
        registry.write_now()
    if parsed.json:
        say_json(_as_json(row))
    else:
        say(f"{row['name'] or row['ip']} is forgotten")
    return EXIT_YES


def _registry(settings: Settings) -> Registry:
    """What is on disk, where no hub runs."""
    registry = make_registry(settings)
    registry.load()
    return registry


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    times = {key: iso_time(row[key]) for key in ("first_at", "last_at", "mail_at")}
    return {**row, **times, "quirks": quirk_words(row["quirks"])}


def _say_device(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(_as_json(row))
        return
    say(paint(row["name"] or row["ip"], "bold"))
    expect = None if row["expect_s"] is None else f"every {span_text(row['expect_s'])}"
    lines = {
        "address": row["ip"],
        "kind": row["kind"],
        "mailbox": row["mailbox"],
        "expected": expect,
        "quiet": row["quiet"],
        "hush": row["hush"],
        "failure": ", ".join(row["failure"] or ()),
        "success": ", ".join(row["success"] or ()),
        "alarms to": row["alarm"],
        "hears by": None if row["command_topic"] is None else f"publish:{row['command_topic']}",
        "first seen": local_time(row["first_at"]) or "never",
        "last seen": local_time(row["last_at"]),
        "last mail": local_time(row["mail_at"]) or "never",
        "sessions": str(row["sessions"]),
        "mails": str(row["messages"]),
        "held back": str(row["held_back"] or ""),
        "duplicates": str(row["duplicates"] or ""),
        "sender": row["sender"],
        "subject": row["subject"],
        "HELO": row["helo"],
        "protocol": row["protocol"],
        "TLS": row["tls"] or ("in clear" if row["messages"] else ""),
        "quirks": "; ".join(quirk_words(row["quirks"])),
        "state": _state(row) if row["is_silent"] or row["is_failing"] else "",
    }
    for head, text in lines.items():
        if text:
            say(f"  {head:<10}  {text if head == 'state' else printable(text)}")
