"""tls trust, tls pins: by what other hosts are known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from waypost.app import make_pins
from waypost.cli.context import settings_of
from waypost.cli.output import (
    EXIT_NO,
    EXIT_USAGE,
    EXIT_YES,
    complain,
    iso_time,
    local_time,
    printable,
    say,
    say_json,
    table,
)
from waypost.routing.targets import Target, parse_next_hop
from waypost.tls.pins import Pin
from waypost.tls.policy import Scope

if TYPE_CHECKING:
    from waypost.tls.trusted import TrustedFile

_RETRY = "mail that waits goes with its next attempt, or now by: waypost queue retry --all"


def add_actions(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's actions to `tls`."""
    trust = actions.add_parser(
        "trust", parents=[common], help="take another site's authority for chosen networks"
    )
    trust.add_argument("file", nargs="?", type=Path, metavar="FILE", help="its certificate")
    trust.add_argument(
        "--for",
        dest="scope",
        action="append",
        default=[],
        metavar="NETWORK|DOMAIN",
        help="what it may vouch for, alone: 10.2.0.0/16, plant.example, *.plant.example",
    )
    trust.add_argument("--list", action="store_true", help="those that were taken")
    trust.add_argument("--forget", metavar="SHA256", help="trust this one no longer")
    trust.add_argument("--json", action="store_true", help="one JSON object a line")
    trust.set_defaults(run=_trust)
    pins = actions.add_parser("pins", help="keys that hosts are known by, where the level is pin")
    steps = pins.add_subparsers(dest="step", metavar="ACTION", required=True)
    listing = steps.add_parser("list", parents=[common], help="all of them")
    listing.set_defaults(run=_list)
    show = steps.add_parser("show", parents=[common], help="one of them")
    show.set_defaults(run=_show)
    accept = steps.add_parser("accept", parents=[common], help="the key it shows now is right")
    accept.add_argument("--key", metavar="SHA256", help="only if this is the one")
    accept.set_defaults(run=_accept)
    forget = steps.add_parser(
        "forget", parents=[common], help="know nothing of it: the next key counts as the first"
    )
    forget.set_defaults(run=_forget)
    for parser in (show, accept, forget):
        parser.add_argument(
            "place", type=_place, metavar="HOST[:PORT]", help="a literal or a name (port: 25)"
        )
    for parser in (listing, show, accept, forget):
        parser.add_argument("--json", action="store_true", help="as JSON")


def _place(text: str) -> str:
    try:
        return str(parse_next_hop(Target("smtp", text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# Trust.


def _trust(parsed: argparse.Namespace) -> int:
    asked = [parsed.file is not None, parsed.list, parsed.forget is not None]
    if asked.count(True) != 1 or (parsed.file is not None) != bool(parsed.scope):
        complain("expected FILE with --for NETWORK|DOMAIN, or --list, or --forget SHA256")
        return EXIT_USAGE
    from waypost.tls import trusted

    directory = settings_of(parsed).data_dir / "tls" / "trusted"
    if parsed.list:
        found = trusted.trusted_files(directory)
        for entry in found:
            _say_authority(entry, as_json=parsed.json)
        return EXIT_YES if found else EXIT_NO
    if parsed.forget is not None:
        digits = parsed.forget.replace(":", "").lower()
        found = [
            entry
            for entry in trusted.trusted_files(directory)
            if digits and entry.fingerprint.startswith(digits)
        ]
        if len(found) != 1:
            complain(f"{len(found)} trusted authorities have a SHA-256 that begins so")
            return EXIT_NO
        trusted.forget(directory, found[0])
        _say_authority(found[0], as_json=parsed.json)
        return EXIT_YES
    try:
        scope = Scope(parsed.scope)
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    certificate = trusted.read_authority(parsed.file.read_bytes())
    directory.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _say_authority(trusted.trust(directory, certificate, scope), as_json=parsed.json)
    if not parsed.json:
        say("compare the SHA-256 with what the other site says; `waypost reload` uses it")
    return EXIT_YES


def _say_authority(entry: TrustedFile, *, as_json: bool) -> None:
    certificate = entry.certificate
    if as_json:
        say_json(
            {
                "subject": certificate.subject.rfc4514_string(),
                "sha256": entry.fingerprint,
                "not_after": certificate.not_valid_after_utc.isoformat(),
                "for": list(entry.authority.scope.words),
                "file": str(entry.authority.certificate),
            }
        )
        return
    say(printable(certificate.subject.rfc4514_string()))
    say(f"  SHA-256 {entry.fingerprint}")
    say(f"  for {' '.join(entry.authority.scope.words)}")
    say(f"  until {certificate.not_valid_after_utc:%Y-%m-%d}, in {entry.authority.certificate}")


# Pins.


def _list(parsed: argparse.Namespace) -> int:
    pins = make_pins(settings_of(parsed)).all()
    if parsed.json:
        for pin in pins:
            say_json(_as_json(pin))
    elif not pins:
        say("No host is known by its key.")
    else:
        rows = [
            (pin.place, local_time(pin.since), pin.key[:16], "CHANGED" if pin.offered else "")
            for pin in pins
        ]
        table(rows, ("host", "since", "key", ""))
    return EXIT_YES


def _show(parsed: argparse.Namespace) -> int:
    pin = _find(parsed)
    if pin is None:
        return EXIT_NO
    if parsed.json:
        say_json(_as_json(pin))
        return EXIT_YES
    say(pin.place)
    say(f"  known by {pin.key} since {local_time(pin.since)}")
    if pin.offered is not None:
        say(f"  but shows {pin.offered} since {local_time(pin.offered_at)}, so mail for it waits")
    return EXIT_YES


def _accept(parsed: argparse.Namespace) -> int:
    pin = _find(parsed)
    if pin is None:
        return EXIT_NO
    wanted = None if parsed.key is None else parsed.key.replace(":", "").lower()
    if pin.offered is None or wanted not in (None, pin.offered):
        complain(
            f"{pin.place} shows the key it is known by"
            if pin.offered is None
            else f"{pin.place} shows {pin.offered}"
        )
        return EXIT_NO
    pins = make_pins(settings_of(parsed))
    if not pins.accept(pin.place, pin.offered):
        complain(f"{pin.place} shows yet another key by now; see: waypost tls pins show")
        return EXIT_NO
    if parsed.json:
        found = pins.find(pin.place)
        say_json({} if found is None else _as_json(found))
    else:
        say(f"{pin.place} is known by {pin.offered} now; {_RETRY}")
    return EXIT_YES


def _forget(parsed: argparse.Namespace) -> int:
    pin = _find(parsed)
    if pin is None or not make_pins(settings_of(parsed)).forget(pin.place):
        return EXIT_NO
    if parsed.json:
        say_json(_as_json(pin))
    else:
        say(f"{pin.place} is known no more; {_RETRY}")
    return EXIT_YES


def _find(parsed: argparse.Namespace) -> Pin | None:
    """The pin that was asked for; None: there is none, and it was said."""
    pin = make_pins(settings_of(parsed)).find(parsed.place)
    if pin is None:
        complain(f"{parsed.place} is not known by its key; see: waypost tls pins list")
    return pin


def _as_json(pin: Pin) -> dict[str, object]:
    return {
        "place": pin.place,
        "key": pin.key,
        "since": iso_time(pin.since),
        "offered": pin.offered,
        "offered_at": iso_time(pin.offered_at),
    }
