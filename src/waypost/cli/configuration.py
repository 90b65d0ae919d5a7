"""config check, config show, config init."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

from waypost.cli.context import settings_of
from waypost.cli.output import EXIT_NO, EXIT_YES, complain, say, say_json
from waypost.config.settings import Settings
from waypost.net.networks import Networks
from waypost.routing.table import describe_rules

_EXAMPLE = """\
# Waypost's configuration. Every key has a default: this file may be empty.
# All keys: docs/reference/config.md

# data_dir = "/var/lib/waypost"
# hostname = "hub.lan"

[networks]
trusted = ["loopback", "private"]

# [[mailbox]]
# name = "alerts"
# aliases = ["root"]

# [[route]]
# name = "cameras"
# match = { recipient = "cam*@*", client = ["192.168.1.0/24"] }
# to = ["mailbox:alerts", "smtp:[192.168.1.30]:25"]
"""


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    config = verbs.add_parser("config", help="check, show or begin the configuration")
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", parents=[common], help="report every fault, with its line")
    check.add_argument("--json", action="store_true", help="as JSON")
    check.set_defaults(run=_check)
    show = actions.add_parser("show", parents=[common], help="what holds, defaults included")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(run=_show)
    init = actions.add_parser("init", help="write a file to start from")
    init.add_argument("file", nargs="?", type=Path, default=Path("waypost.toml"))
    init.set_defaults(run=_init)


def _check(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    if parsed.json:
        say_json({"ok": True, "source": settings.source})
    else:
        say(f"{settings.source or 'no configuration file: defaults'}: no faults")
    return EXIT_YES


def _show(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    values = _plain(settings)
    if parsed.json:
        say_json(values)
        return EXIT_YES
    for key, value in values.items():
        say(f"{key} = {value}")
    for line in describe_rules(settings.routing.rules):
        say(f"route: {line}")
    return EXIT_YES


def _plain(value: Any) -> Any:
    """Settings as JSON can hold them."""
    if isinstance(value, Settings) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    ):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, list | tuple | frozenset):
        return [_plain(entry) for entry in value]
    if isinstance(value, Networks):
        return list(value.words)
    if isinstance(value, re.Pattern):
        return value.pattern
    return value if isinstance(value, int | float | bool | None) else str(value)


def _init(parsed: argparse.Namespace) -> int:
    try:
        with parsed.file.open("x", encoding="utf-8") as file:
            file.write(_EXAMPLE)
    except FileExistsError:
        complain(f"{parsed.file} exists already; it was left alone")
        return EXIT_NO
    say(f"wrote {parsed.file}")
    return EXIT_YES
