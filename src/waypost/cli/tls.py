"""tls: the hub's own certificate authority, and what it issues."""

from __future__ import annotations

import argparse
import datetime
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from waypost.app import make_keeper, make_own_addresses, make_subjects
from waypost.cli import acme, tls_peers
from waypost.cli.context import settings_of
from waypost.cli.output import EXIT_NO, EXIT_USAGE, EXIT_YES, complain, say, say_json
from waypost.errors import AddressError
from waypost.mail.address import Domain, IPAddress, as_value
from waypost.tls.settings import TlsSettings

if TYPE_CHECKING:
    from waypost.tls.authority import Authority, Subjects


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    tls = verbs.add_parser("tls", help="certificates for IP addresses, from the hub's own CA")
    actions = tls.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show", parents=[common], help="the authority's certificate, for devices to trust"
    )
    show.add_argument("--der", action="store_true", help="as DER, which some upload forms want")
    show.add_argument("--output", type=Path, metavar="FILE", help="where to (default: here)")
    show.add_argument("--json", action="store_true", help="what it is, as JSON")
    show.set_defaults(run=_show)
    init = actions.add_parser(
        "init", parents=[common], help="make the authority and the hub's certificates"
    )
    init.add_argument(
        "--force",
        action="store_true",
        help="make a new one; whoever trusts the old one has to be told",
    )
    init.set_defaults(run=_init)
    issue = actions.add_parser(
        "issue", parents=[common], help="a certificate for another host or device"
    )
    issue.add_argument("subjects", metavar="IP|NAME", nargs="+")
    issue.add_argument("--rsa", action="store_true", help="RSA, for old devices (default: ECDSA)")
    issue.add_argument("--days", type=_days, default=397, metavar="N", help="default: 397")
    issue.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="default: here")
    issue.set_defaults(run=_issue)
    tls_peers.add_actions(actions, common)
    acme.add_action(actions, common)


def _days(text: str) -> int:
    days = int(text)
    if not 0 < days <= 3_650:
        raise argparse.ArgumentTypeError("expected days, 1 to 3650")
    return days


def _show(parsed: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives import hashes, serialization

    authority = _authority(parsed)
    if authority is None:
        return EXIT_NO
    certificate = authority.certificate
    if parsed.json:
        say_json(
            {
                "subject": certificate.subject.rfc4514_string(),
                "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
                "not_after": certificate.not_valid_after_utc.isoformat(),
                "permitted": authority.permitted(),
            }
        )
        return EXIT_YES
    encoding = serialization.Encoding.DER if parsed.der else serialization.Encoding.PEM
    octets = certificate.public_bytes(encoding)
    if parsed.output is not None:
        parsed.output.write_bytes(octets)
        say(f"wrote {parsed.output}")
    elif parsed.der and sys.stdout.isatty():
        complain("DER is no text: name a file with --output")
        return EXIT_USAGE
    else:
        sys.stdout.buffer.write(octets)
    return EXIT_YES


def _init(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    directory = settings.data_dir / "tls"
    if (directory / "ca.pem").exists() and not parsed.force:
        complain(f"{directory}/ca.pem is there already; --force makes a new one")
        return EXIT_NO
    # With new keys, too: a new authority may be wanted because the old ones are no secret any more.
    for name in ("ca.pem", "ca.key", "hub-ecdsa.key", "hub-rsa.key"):
        (directory / name).unlink(missing_ok=True)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    subjects = make_subjects(settings, make_own_addresses(settings))
    # Also where the hub shows a certificate from elsewhere: its authority may serve other hosts.
    prepared = make_keeper(settings).prepare(TlsSettings(), subjects)
    if prepared.trouble is not None:
        complain(prepared.trouble)
    say(f"made {directory}/ca.pem; `waypost tls show` gives it out, `waypost reload` uses it")
    return EXIT_YES


def _issue(parsed: argparse.Namespace) -> int:
    from waypost.durable import write_public, write_secret

    try:
        subjects = _subjects(parsed.subjects)
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    authority = _authority(parsed)
    if authority is None:
        return EXIT_NO
    now = datetime.datetime.now(datetime.UTC)
    leaf = authority.issue(subjects, is_rsa=parsed.rsa, now=now, days=parsed.days)
    parsed.output.mkdir(parents=True, exist_ok=True)
    stem = parsed.subjects[0].replace(":", "-")
    write_secret(parsed.output / f"{stem}.key", leaf.key)
    write_public(parsed.output / f"{stem}.pem", leaf.certificate)
    say(f"wrote {parsed.output / stem}.pem and {stem}.key")
    return EXIT_YES


def _subjects(texts: list[str]) -> Subjects:
    from waypost.tls.authority import Subjects

    ips: set[IPAddress] = set()
    names: set[str] = set()
    for text in texts:
        try:
            ips.add(as_value(ip_address(text.strip("[]").removeprefix("IPv6:"))))
        except ValueError:
            try:
                names.add(Domain.parse(text).ascii)
            except AddressError as error:
                raise ValueError(f"{text!r} is neither an IP address nor a name: {error}") from None
    return Subjects(frozenset(ips), frozenset(names))


def _authority(parsed: argparse.Namespace) -> Authority | None:
    """The authority of these settings; None: there is none, and it was said."""
    from waypost.tls.authority import Authority

    directory = settings_of(parsed).data_dir / "tls"
    authority = Authority.load(directory)
    if authority is None:
        complain(f"there is no authority in {directory}; make one with: waypost tls init")
    return authority
