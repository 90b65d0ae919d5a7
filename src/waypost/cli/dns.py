"""dns zone, dns dnsmasq: names for the addresses in use, and whether a resolver knows them."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from waypost.app import make_own_addresses
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
from waypost.config.settings import Settings
from waypost.dns.resolver import Answer, ResolverUnavailable, split_server
from waypost.dns.zone import (
    MADE_BY,
    MAX_SERIAL,
    TTL_S,
    Compared,
    Extras,
    InUse,
    Record,
    State,
    Zone,
    compare,
    dkim_text,
    dnsmasq_lines,
    in_dnsmasq,
    lies_in,
    serial_after,
    serial_in,
    zones_of,
)
from waypost.durable import sync_directory, write_all
from waypost.errors import WaypostError
from waypost.intake.smtp_listener import split_bind
from waypost.mail.address import Domain, IPAddress, as_value
from waypost.net.special import special_block

# Asks for the records of a name and type.
_Ask = Callable[[str, str], Awaitable[Answer[str]]]

# Addresses of interfaces that others do not come to us by.
_NOT_FOR_OTHERS = frozenset({"loopback", "link-local", "documentation"})

# RFC 7208 §4.6.1: a mechanism, not "all", which comes last anyway, and no modifier.
_SPF_TERM = re.compile(r"[+?~-]?(?:include|exists|ip4|ip6|a|mx)(?:[:/][!-~]+)?", re.IGNORECASE)

_COLOURS = {
    State.OK: "green",
    State.MISSING: "red",
    State.DIFFERENT: "red",
    State.EXTRA: "red",
    State.UNKNOWN: "yellow",
}
_WIDTH = max(map(len, State))


def add_commands(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add this module's verbs."""
    names = argparse.ArgumentParser(add_help=False)
    names.add_argument(
        "--dkim",
        type=_dkim,
        action="append",
        default=[],
        metavar="SELECTOR=FILE",
        help="a DKIM record for each domain, from a public key in PEM; may be repeated",
    )
    names.add_argument(
        "--spf",
        type=_spf_term,
        action="append",
        default=[],
        metavar="TERM",
        help="mail also leaves by these, as in include:_spf.google.com; may be repeated",
    )
    names.add_argument(
        "--check",
        action="store_true",
        help="write nothing: ask a resolver for each record and say what differs",
    )
    names.add_argument(
        "--server",
        type=_server,
        metavar="IP:PORT",
        help="with --check, who to ask (default: dns.servers)",
    )
    names.add_argument("--json", action="store_true", help="as JSON")
    dns = verbs.add_parser("dns", help="names for the addresses and domains in use")
    actions = dns.add_subparsers(dest="action", metavar="ACTION", required=True)
    zone = actions.add_parser(
        "zone", parents=[common, names], help="zone files, forward and reverse, for BIND and NSD"
    )
    zone.add_argument(
        "--zone",
        type=_name,
        action="append",
        metavar="NAME",
        help="only this one; may be repeated (default: all)",
    )
    zone.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write NAME.zone files there, and what loads them",
    )
    zone.add_argument(
        "--ns",
        type=_name,
        action="append",
        default=[],
        metavar="NAME",
        help="the name server; may be repeated (default: the host that takes the mail)",
    )
    zone.add_argument(
        "--ttl",
        type=_whole(1, 2**31 - 1),  # RFC 2181 §8
        default=TTL_S,
        metavar="SECONDS",
        help=f"how long others may keep an answer (default: {TTL_S})",
    )
    zone.add_argument(
        "--serial",
        type=_whole(1, MAX_SERIAL),
        metavar="N",
        help="the serial (default: today's date and 01; above that of the file, if it changes)",
    )
    zone.set_defaults(run=_zone)
    dnsmasq = actions.add_parser(
        "dnsmasq", parents=[common, names], help="the same records as lines for dnsmasq"
    )
    dnsmasq.add_argument(
        "--output", type=Path, metavar="FILE", help="where they go (default: standard output)"
    )
    dnsmasq.set_defaults(run=_dnsmasq)


def _name(text: str) -> str:
    """A name of DNS; those of reverse zones and selectors are names like others."""
    try:
        return Domain.parse(text.rstrip(".")).ascii
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _dkim(text: str) -> tuple[str, Path]:
    selector, equals, file = text.partition("=")
    if not equals or not file:
        raise argparse.ArgumentTypeError("expected SELECTOR=FILE")
    return _name(selector), Path(file)


def _spf_term(text: str) -> str:
    if _SPF_TERM.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("expected a term of SPF, as in include:_spf.example.com")
    return text


def _server(text: str) -> str:
    try:
        split_server(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a number from {least} to {most}")
        return int(text)

    return read


def _zone(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    try:
        zones = _zones(parsed, settings, parsed.ns)
        if parsed.zone is not None:
            zones = _chosen(zones, parsed.zone)
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    if parsed.check:
        return asyncio.run(
            _check(parsed, settings, [r for z in zones for r in (z.soa, *z.records)])
        )
    written = [_written(zone, parsed) for zone in zones]
    if parsed.output is not None:
        _write_all(parsed.output, written, has_all=parsed.zone is None)
    for entry in written:
        if parsed.json:
            say_json(entry.as_json(parsed.ttl))
        elif entry.path is None:
            say(entry.text)
        else:
            say(f"{entry.path}: serial {entry.serial}{'' if entry.is_new else ', as it was'}")
    return EXIT_YES


def _dnsmasq(parsed: argparse.Namespace) -> int:
    settings = settings_of(parsed)
    try:
        zones = _zones(parsed, settings, ())
        lines = [f"# {MADE_BY} dnsmasq; changes here are lost", *dnsmasq_lines(zones)]
    except ValueError as error:
        complain(str(error))
        return EXIT_USAGE
    if parsed.check:
        records = [record for zone in zones for record in zone.records if in_dnsmasq(record)]
        return asyncio.run(_check(parsed, settings, records))
    if parsed.output is not None:
        _own_text(parsed.output)
        parsed.output.parent.mkdir(parents=True, exist_ok=True)
        _write(parsed.output, "\n".join(lines) + "\n")
    if parsed.json:
        say_json({"file": parsed.output, "lines": lines})
    elif parsed.output is None:
        for line in lines:
            say(line)
    else:
        say(f"{parsed.output}: {len(lines)} lines")
    return EXIT_YES


# What the zones are made of.


def _zones(
    parsed: argparse.Namespace, settings: Settings, name_servers: Sequence[str]
) -> list[Zone]:
    """Raises ValueError, saying what to change."""
    if parsed.server is not None and not parsed.check:
        raise ValueError("--server goes with --check")
    dkim: dict[str, str] = {}
    for selector, file in parsed.dkim:
        try:
            dkim[selector] = dkim_text(file.read_text("ascii", "replace"))
        except OSError as error:
            raise ValueError(f"--dkim {file}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"--dkim {file} {error}") from None
    zones = zones_of(_in_use(settings), Extras(dkim, parsed.spf, name_servers))
    _tell_of_far_names(zones)
    return zones


def _in_use(settings: Settings) -> InUse:
    routing = settings.routing
    hostname = settings.hostname
    if hostname is not None and "." not in hostname:
        hostname = None  # it is in no domain
    own = make_own_addresses(settings).current
    return InUse(
        groups={ip: [d.ascii for d in domains] for ip, domains in routing.groups.groups},
        domains=[
            domain.ascii
            for domain in routing.domains
            if domain.as_ip() is None and ("." in domain.ascii or domain.ascii != settings.hostname)
        ],
        own=[ip for ip in own if ip in settings.extra_own or _comes_from_others(ip)],
        hostname=hostname,
        names={ip: name.ascii for ip, name in routing.groups.names},
        submission=[
            (as_value(ip_address(host)), port)
            for listener in settings.listeners
            if listener.role == "submission"
            for host, port in map(split_bind, listener.bind)
            if port
        ],
    )


def _comes_from_others(ip: IPAddress) -> bool:
    block = special_block(ip)
    return block is None or block.kind not in _NOT_FOR_OTHERS


def _chosen(zones: Sequence[Zone], names: Sequence[str]) -> list[Zone]:
    by_name = {zone.name: zone for zone in zones}
    for name in names:
        if name not in by_name:
            raise ValueError(f"there is no zone {name}; there are: {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(names)]


def _tell_of_far_names(zones: Sequence[Zone]) -> None:
    """Names of addresses.names or --ns that lie elsewhere need their records there."""
    ours = [zone.name for zone in zones]
    targets = {record.target: None for zone in zones for record in zone.records if record.target}
    for target in targets:
        if not any(lies_in(target, name) for name in ours):
            complain(f"{target} is in none of these zones: its addresses have to be in its own")


# Writing.


@dataclass(frozen=True, slots=True)
class _Written:
    """A zone as it is in its file, or is going to be."""

    zone: Zone
    serial: int
    text: str
    path: Path | None  # None: it goes to standard output
    is_new: bool  # False: the file is there already, just so

    def as_json(self, ttl_s: int) -> dict[str, Any]:
        return {
            "zone": self.zone.name,
            "serial": self.serial,
            "ttl": ttl_s,
            "file": self.path,
            "changed": self.is_new,
            "records": [_record_as_json(record) for record in self.zone.records],
        }


def _record_as_json(record: Record) -> dict[str, str]:
    return {"name": record.name, "type": record.kind, "data": record.data}


def _written(zone: Zone, parsed: argparse.Namespace) -> _Written:
    """Raises WaypostError where a file must not be written over."""
    if parsed.output is None:
        serial = parsed.serial or serial_after(None, date.today())
        return _Written(zone, serial, zone.text(serial, parsed.ttl), None, is_new=True)
    path = parsed.output.absolute() / f"{zone.name}.zone"
    text = _own_text(path)
    old = None if text is None else serial_in(text)
    if old is not None and text == zone.text(old, parsed.ttl) and parsed.serial in (None, old):
        return _Written(zone, old, text, path, is_new=False)
    try:
        serial = parsed.serial or serial_after(old, date.today())
    except ValueError as error:
        raise WaypostError(f"{path}: {error}") from None
    if old is not None and serial <= old:
        # RFC 1912 §2.2: whoever has a copy would keep it.
        raise WaypostError(f"{path} has serial {old}: what is changed needs one above it")
    return _Written(zone, serial, zone.text(serial, parsed.ttl), path, is_new=True)


def _write_all(directory: Path, written: Sequence[_Written], *, has_all: bool) -> None:
    """`has_all` False: what loads them stays as it is."""
    places = [(entry.zone.name, entry.path) for entry in written]
    nsd = [f'zone:\n  name: "{name}"\n  zonefile: "{path}"' for name, path in places]
    bind = [f'zone "{name}" {{ type primary; file "{path}"; }};' for name, path in places]
    loaders = {
        directory / "zones.nsd.conf": [f"# For NSD, {MADE_BY} zone", *nsd],
        directory / "zones.bind.conf": [f"// For BIND, {MADE_BY} zone", *bind],
    }
    for path in loaders:
        _own_text(path)
    directory.mkdir(parents=True, exist_ok=True)
    for entry in written:
        if entry.is_new and entry.path is not None:
            _write(entry.path, entry.text)
    if has_all:
        for path, lines in loaders.items():
            _write(path, "\n".join(lines) + "\n")


def _own_text(path: Path) -> str | None:
    """What was written there before; None: nothing. Raises WaypostError for another's file."""
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    if MADE_BY not in text:
        raise WaypostError(f"{path} was not made by this command; it was left alone")
    return text


def _write(path: Path, text: str) -> None:
    """All of it or nothing, also when the power fails; others may read it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        try:
            write_all(descriptor, text.encode())
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_directory(path.parent)


# Comparing.


async def _check(parsed: argparse.Namespace, settings: Settings, records: Sequence[Record]) -> int:
    servers = settings.dns_servers if parsed.server is None else (parsed.server,)
    sets: dict[tuple[str, str], list[Record]] = {}
    for record in dict.fromkeys(records):
        sets.setdefault((record.name, record.kind), []).append(record)
    ask = _asking(servers)
    answers = await asyncio.gather(*(_compared(ask, wanted) for wanted in sets.values()))
    compared = [entry for entries in answers for entry in entries]
    for entry in compared:
        if parsed.json:
            say_json(
                {
                    "state": entry.state.value,
                    **_record_as_json(entry.record),
                    "found": entry.found,
                    "why": entry.why or None,
                }
            )
            continue
        because = "; ".join(entry.found) + " instead" if entry.found else entry.why
        said = paint(entry.state.value.ljust(_WIDTH), _COLOURS[entry.state])
        say(f"{said}  {printable(entry.text)}{printable(f'  ({because})') if because else ''}")
    states = {entry.state for entry in compared}
    if states <= {State.OK}:
        return EXIT_YES
    return EXIT_LATER if states <= {State.OK, State.UNKNOWN} else EXIT_NO


def _asking(servers: Sequence[str]) -> _Ask:
    # dnspython takes a while to load, which no other command should wait for.
    from waypost.dns.caching import CachingResolver

    return CachingResolver(servers).data


async def _compared(ask: _Ask, wanted: Sequence[Record]) -> list[Compared]:
    """All records of one name and type."""
    try:
        answer = await ask(wanted[0].name, wanted[0].kind)
    except ResolverUnavailable as error:
        return [Compared(record, State.UNKNOWN, why=str(error)) for record in wanted]
    return compare(wanted, answer.records, exists=answer.exists)
