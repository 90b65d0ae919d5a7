"""tls acme: how the public certificate stands, and a new one now."""

from __future__ import annotations

import argparse
from typing import Any

from waypost.app import make_own_addresses
from waypost.cli.context import settings_of
from waypost.cli.output import (
    EXIT_LATER,
    EXIT_NO,
    EXIT_YES,
    complain,
    iso_time,
    local_time,
    printable,
    say,
    say_json,
)
from waypost.config.settings import Settings
from waypost.control import ask_hub
from waypost.errors import HubUnreachable


def add_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add it to those of `tls`."""
    acme = actions.add_parser(
        "acme", parents=[common], help="the certificate for public addresses, by ACME"
    )
    acme.add_argument("--now", action="store_true", help="have the running hub order one now")
    acme.add_argument("--json", action="store_true", help="as JSON")
    acme.set_defaults(run=_acme)


def _acme(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    if settings.acme is None:
        complain("there is no [acme] in the configuration, so no public certificate is asked for")
        return EXIT_NO
    try:
        standing = {**ask_hub(settings.data_dir, "acme", now=parsed.now), "running": True}
    except HubUnreachable:
        if parsed.now:
            raise
        standing = {**_from_files(settings), "running": False, "done": True}
    _show(standing, parsed.json)
    if not standing["done"]:
        complain("the order is still under way; look again in a minute")
        return EXIT_LATER
    is_well = standing["certificate"] is not None and standing["problem"] is None
    return EXIT_YES if is_well else EXIT_NO


def _from_files(settings: Settings) -> dict[str, Any]:
    """What can be said while no hub runs."""
    from waypost.acme.identifiers import wanted_subjects
    from waypost.acme.standing import read_held, read_tries, report

    assert settings.acme is not None
    directory = settings.data_dir / "tls"
    own = make_own_addresses(settings).current
    wanted = wanted_subjects(settings.acme, own, settings.hostname)
    return report(wanted, settings.acme.directory, read_held(directory), read_tries(directory))


def _show(standing: dict[str, Any], as_json: bool) -> None:
    certificate = standing["certificate"]
    if as_json:
        if certificate is not None:
            times = ("not_before", "not_after")
            certificate = {**certificate, **{key: iso_time(certificate[key]) for key in times}}
        moments = {key: iso_time(standing[key]) for key in ("renewal_at", "failed_at", "again_at")}
        known = {key: value for key, value in standing.items() if key != "done"}
        say_json({**known, "certificate": certificate, **moments})
        return
    say(f"server       {standing['directory']}")
    say(f"asked for    {' '.join(standing['identifiers']) or 'nothing: see acme.identifiers'}")
    if certificate is None:
        say("certificate  none yet")
    else:
        say(f"certificate  {' '.join(certificate['identifiers'])}")
        say(f"ends         {local_time(certificate['not_after'])}")
        say(f"renewal      {local_time(standing['renewal_at'])}")
    if standing["problem"] is not None:
        say(f"problem      {printable(standing['problem'])}")
        say(f"seen         {local_time(standing['failed_at'])}")
        say(f"tried again  {local_time(standing['again_at'])}")
    if not standing["running"]:
        say("No hub is running: nothing is ordered.")
