"""Every key of the configuration: what it takes, its default, and what it means.

The reference (docs/reference/config.md) is generated from this table, and reading is driven by
it, so the two cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from waypost.dns.resolver import SYSTEM, split_server
from waypost.errors import AddressError
from waypost.intake.smtp_listener import split_bind
from waypost.mail.address import (
    Address,
    AddressLiteral,
    Domain,
    DomainPart,
    IPAddress,
    as_value,
)
from waypost.net.networks import Networks
from waypost.routing.patterns import AddressGlob, Glob
from waypost.routing.targets import parse_host, parse_target

Read = Callable[[Any], Any]  # the TOML value into ours; raises ValueError: what was expected


@dataclass(frozen=True, slots=True)
class Key:
    """One key."""

    name: str
    read: Read
    default: Any  # REQUIRED: there is none
    expected: str  # in words, for errors and the reference
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """A [table], or an array of [[tables]]."""

    name: str  # empty: the top of the file
    keys: tuple[Key, ...]
    meaning: str
    is_array: bool = False  # [[name]]
    is_named: bool = False  # [name.SOMETHING], as many as there are; SOMETHING is the key "name"

    def key(self, name: str) -> Key | None:
        """The key of this name; None: there is none."""
        return next((key for key in self.keys if key.name == name), None)


REQUIRED: Any = object()

# Names that stand in targets and, for a list, in addresses.
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,47}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text that is not empty")
    if not value.isprintable():
        raise ValueError("expected a text without control characters")
    return value


def _any_text(value: Any) -> str:
    if value == "":
        return ""
    return _text(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("expected a whole number above 0")
    return value


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise ValueError("expected a port, 1 to 65535")
    return value


def _seconds(value: Any) -> float:
    # TOML has nan and inf, too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise ValueError("expected seconds, a number above 0")
    return float(value)


def _choice(*words: str) -> Read:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"expected one of: {', '.join(words)}")
        return str(value)

    return read


def _list_of(read: Read, *, may_be_empty: bool = True) -> Read:
    def read_list(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not (value or may_be_empty):
            raise ValueError("expected a list" + ("" if may_be_empty else " with an entry"))
        entries: list[Any] = []
        problems: list[str] = []
        for entry in value:
            try:
                entries.append(read(entry))
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return tuple(entries)

    return read_list


def _domain(value: Any) -> Domain:
    try:
        return Domain.parse(_text(value))
    except AddressError as error:
        raise ValueError(f"expected a domain name: {error}") from None


def _address(value: Any) -> Address:
    try:
        return Address.parse(_text(value))
    except AddressError as error:
        raise ValueError(f"expected an address: {error}") from None


def _helo(value: Any) -> str:
    """A name or a literal (RFC 5321 §4.1.1.1)."""
    text = _text(value)
    if text.startswith("["):
        literal = Address.parse(f"x@{text}").domain
        return str(literal)
    return _domain(text).ascii


def _by_ip(value: Any, read: Read) -> tuple[tuple[IPAddress, Any], ...]:
    """A table with IP addresses as keys."""
    if not isinstance(value, dict):
        raise ValueError('expected a table, as in "192.168.1.10" = …')
    found: dict[IPAddress, Any] = {}
    problems: list[str] = []
    for key, entry in value.items():
        try:
            ip = as_value(ip_address(key))
            if ip in found:
                problems.append(f"{key}: is here twice")
            found[ip] = read(entry)
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(found.items())


def _groups(value: Any) -> tuple[tuple[IPAddress, tuple[Domain, ...]], ...]:
    return _by_ip(value, _list_of(_domain, may_be_empty=False))


def _host_names(value: Any) -> tuple[tuple[IPAddress, Domain], ...]:
    return _by_ip(value, _domain)


def _moved(value: Any) -> tuple[tuple[IPAddress, DomainPart], ...]:
    return _by_ip(value, _new_place)


def _new_place(value: Any) -> DomainPart:
    """An IP address or a name."""
    try:
        return AddressLiteral(as_value(ip_address(_text(value))))
    except ValueError:
        return _domain(value)


def _hosts(value: Any) -> tuple[Domain | AddressLiteral, ...]:
    """One host, or several that are tried in order."""
    entries = value if isinstance(value, list) else [value]
    hosts: tuple[Domain | AddressLiteral, ...] = _list_of(_host, may_be_empty=False)(entries)
    return hosts


def _host(value: Any) -> Domain | AddressLiteral:
    return parse_host(_text(value))


def _server(value: Any) -> str:
    if value != SYSTEM:
        try:
            split_server(_text(value))
        except ValueError as error:
            raise ValueError(f'expected "system" or an address with a port: {error}') from None
    return str(value)


def _own(value: Any) -> str:
    if value == "auto":
        return "auto"
    try:
        ip = ip_address(_text(value))
        if "%" not in str(ip):  # a zone id has no meaning outside this host
            return str(ip)
    except ValueError:
        pass
    raise ValueError(f'expected "auto" or an IP address, not {value!r}')


def _network(value: Any) -> str:
    Networks((_text(value),))
    return str(value)


def _networks(value: Any) -> tuple[str, ...]:
    words: tuple[str, ...] = _list_of(_network)(value)
    return words


def _bind(value: Any) -> str:
    split_bind(_text(value))
    return str(value)


def _target(value: Any) -> str:
    target = parse_target(_text(value))
    if target.kind == "direct" and target.argument:
        raise ValueError("'direct' takes no argument")
    return str(value)


def _size_limit(value: Any) -> int:
    """A size in octets, as a number or as "10M"."""
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            raise ValueError(f'{value!r} is no size: expected octets, or as "10M"')
        return int(found[1]) * _UNITS[found[2].upper()]
    return _count(value)


_SIZE = re.compile(r"([0-9]{1,12}) ?([kKmMgG]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _header_globs(value: Any) -> tuple[tuple[str, Glob], ...]:
    if not isinstance(value, dict) or not value:
        raise ValueError('expected a table, as in { "X-Kind" = "alarm*" }')
    return tuple((name, Glob(_text(glob))) for name, glob in value.items())


def _match(value: Any) -> dict[str, Any]:
    reads: dict[str, Read] = {
        "recipient": lambda glob: AddressGlob(_text(glob)),
        "sender": lambda glob: AddressGlob(_text(glob)),
        "client": lambda words: Networks(_networks(words)),
        "listener": _text,
        "subject": lambda glob: Glob(_text(glob)),
        "header": _header_globs,
        "larger_than": _size_limit,
    }
    if not isinstance(value, dict):
        raise ValueError('expected a table, as in { recipient = "cam*@*" }')
    found: dict[str, Any] = {}
    problems: list[str] = []
    for key, entry in value.items():
        if key not in reads:
            problems.append(f"unknown: {key}; expected: {', '.join(reads)}")
            continue
        try:
            found[key] = reads[key](entry)
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return found


SECTIONS: tuple[Section, ...] = (
    Section(
        "",
        (
            Key(
                "data_dir",
                _text,
                None,
                "a directory",
                "Where queue, content and mailboxes lie. `--data` wins over it; without either:"
                " `$WAYPOST_DATA`, else `/var/lib/waypost` as root, else"
                " `$XDG_DATA_HOME/waypost`.",
            ),
            Key(
                "hostname",
                lambda value: _domain(value).ascii,
                None,
                "a domain name",
                "What the hub calls itself. Absent: the literal of the connection's local address.",
            ),
        ),
        "The top of the file.",
    ),
    Section(
        "addresses",
        (
            Key(
                "own",
                _list_of(_own, may_be_empty=False),
                ("auto",),
                'list of "auto" and IP addresses',
                'Addresses whose literals are ours. "auto" is every address of every interface,'
                " followed as they change; add NAT addresses beside it.",
            ),
            Key("domains", _list_of(_domain), (), "list of domain names", "Names that are ours."),
            Key(
                "bare_ip",
                _choice("trusted", "never"),
                "trusted",
                '"trusted" or "never"',
                "Who may write `user@10.0.0.5` without brackets and mean the literal.",
            ),
            Key(
                "groups",
                _groups,
                (),
                "table: local IP = list of domain names",
                "[Domain groups](../how-to/domain-groups.md): an address of ours stands for these"
                " domains, which then have mailboxes of their own.",
            ),
            Key(
                "names",
                _host_names,
                (),
                "table: local IP = host name",
                "What the hub calls itself on connections from that address. Absent: `hostname`,"
                " or the literal where a group's address is used.",
            ),
            Key(
                "moved",
                _moved,
                (),
                "table: old IP = new IP or name",
                "Mail of trusted clients that still says the old address goes to the new one.",
            ),
        ),
        "Which addresses are ours.",
    ),
    Section(
        "networks",
        (
            Key(
                "trusted",
                _networks,
                ("loopback", "private"),
                'list of "any", "loopback", "private" and CIDRs',
                "Clients that may send without a login, and hosts mail may go straight to."
                ' "private" is RFC 1918, unique-local and link-local IPv6.',
            ),
            Key(
                "accept_from_strangers",
                _flag,
                False,
                "true or false",
                "true: anyone may mail mailboxes that exist here. Nobody untrusted may relay,"
                " ever.",
            ),
        ),
        "Who may do what, by address.",
    ),
    Section(
        "listener",
        (
            Key("name", _text, REQUIRED, "a text", "How logs, traces and routes call it."),
            Key(
                "bind",
                _list_of(_bind, may_be_empty=False),
                REQUIRED,
                "list of address:port, [v6]:port or /path/to/socket",
                "Where it listens.",
            ),
            Key(
                "role",
                _choice("hub", "submission", "lmtp"),
                "hub",
                '"hub", "submission" or "lmtp"',
                "hub: SMTP for everyone. submission: for trusted clients only. lmtp: RFC 2033.",
            ),
            Key(
                "networks",
                _networks,
                ("any",),
                "as networks.trusted",
                "Who may connect at all.",
            ),
        ),
        "Where mail comes in. Without any: `smtp` on port 2525 and `submission` on port 2587, all"
        " addresses.",
        is_array=True,
    ),
    Section(
        "mailboxes",
        (
            Key(
                "auto_create",
                _flag,
                True,
                "true or false",
                "A trusted client makes a mailbox by mailing it.",
            ),
            Key("root", _text, "mail", "a directory", "Where Maildirs lie, below data_dir."),
            Key(
                "case",
                _choice("fold", "exact"),
                "fold",
                '"fold" or "exact"',
                "Whether Alerts@ and alerts@ are one mailbox.",
            ),
            Key(
                "subaddress",
                _any_text,
                "+",
                "a text",
                "alerts+motion@ goes to alerts; empty: it does not.",
            ),
        ),
        "Mailboxes in general.",
    ),
    Section(
        "mailbox",
        (
            Key("name", _text, REQUIRED, "a text", "The local part."),
            Key(
                "domain",
                _domain,
                None,
                "a domain name of ours",
                "The domain it belongs to. Absent: it belongs to the hub, under all its names.",
            ),
            Key(
                "aliases",
                _list_of(_text),
                (),
                "list of local parts",
                "Other names of this mailbox.",
            ),
            Key(
                "catch_all",
                _flag,
                False,
                "true or false",
                "true: it takes what no other mailbox, alias or list of its domain does.",
            ),
        ),
        "A mailbox that exists from the start.",
        is_array=True,
    ),
    Section(
        "route",
        (
            Key("name", _text, REQUIRED, "a text", "How logs and traces call it."),
            Key(
                "match",
                _match,
                {},
                "table of recipient, sender, client, listener, subject, header, larger_than",
                "All that are given must match. recipient, sender and subject are patterns with *"
                " and ?, without case; client is a list of networks; listener a name; header a"
                " table of fields and patterns; larger_than a size.",
            ),
            Key(
                "to",
                _list_of(_target, may_be_empty=False),
                REQUIRED,
                "list of targets",
                "mailbox:NAME or mailbox:NAME@DOMAIN, smtp:[IP]:PORT or smtp:NAME:PORT, lmtp:/PATH"
                " or lmtp:[IP]:PORT, relay:NAME, direct, list:NAME, discard, reject:X.Y.Z TEXT."
                " Each is tried and retried on its own.",
            ),
            Key(
                "continue",
                _flag,
                False,
                "true or false",
                "true: a copy beside the rest; later routes count too, and if none of them has"
                " the last word so does the usual way.",
            ),
        ),
        "Where mail goes, in order; the first that matches wins. Strangers reach routes only"
        " with recipients of ours.",
        is_array=True,
    ),
    Section(
        "relay",
        (
            Key(
                "host",
                _hosts,
                REQUIRED,
                "a name, an IP address, or a list of them",
                "The smart host; of several the next is tried when one cannot be used.",
            ),
            Key("port", _port, 25, "a port", "Its port."),
        ),
        "A host that takes mail for elsewhere, for the target `relay:NAME`.",
        is_named=True,
    ),
    Section(
        "list",
        (
            Key(
                "members",
                _list_of(_address),
                REQUIRED,
                "list of addresses",
                "Who gets a copy: anywhere a route leads to, lists included.",
            ),
            Key(
                "domain",
                _domain,
                None,
                "a domain name of ours",
                "The domain it belongs to. Absent: it belongs to the hub, under all its names.",
            ),
            Key(
                "owner",
                _address,
                None,
                "an address",
                "Who gets what comes back from members. Absent: postmaster here.",
            ),
            Key(
                "strangers_may_post",
                _flag,
                False,
                "true or false",
                "true: strangers may, where `networks.accept_from_strangers` lets them mail us.",
            ),
        ),
        "A list: `NAME@` an address of ours goes to all members.",
        is_named=True,
    ),
    Section(
        "delivery",
        (
            Key(
                "port",
                _port,
                25,
                "a port",
                "The port of hosts mail goes straight to; a literal never carries one.",
            ),
        ),
        "Mail on its way out.",
    ),
    Section(
        "dns",
        (
            Key(
                "servers",
                _list_of(_server),
                (SYSTEM,),
                'list of "system", addresses, address:port and [v6]:port',
                'Which name servers are asked. "system" is what /etc/resolv.conf names, followed as'
                " it changes; an empty list: no DNS at all, which is a way to run.",
            ),
        ),
        "The name service. Mail to address literals never needs it.",
    ),
    Section(
        "policy",
        (
            Key(
                "dnsbl_zones",
                _list_of(lambda value: _domain(value).ascii),
                (),
                "list of domain names",
                "DNS blocklists (RFC 5782) that `waypost check` asks. Most want to be asked by the"
                " terms they state.",
            ),
        ),
        "What is asked about hosts.",
    ),
    Section(
        "check",
        (
            Key(
                "probe",
                _flag,
                False,
                "true or false",
                "true: `waypost check --depth smtp` may ask hosts about mailboxes. Read"
                " [how](../how-to/check-addresses.md) first: sites list those who ask too much.",
            ),
            Key(
                "sender",
                _address,
                None,
                "an address",
                "Where somebody reads mail: the sender shown to hosts that refuse the null one."
                " Needed with `probe`.",
            ),
            Key(
                "helo",
                _helo,
                None,
                "a domain name or a literal",
                "What probes call themselves. Absent: `hostname`, else the literal others see.",
            ),
            Key(
                "networks",
                _networks,
                (),
                "as networks.trusted",
                "Networks that are not of the Internet, and may be probed.",
            ),
            Key("host_per_minute", _count, 6, "a number", "Probes of one host."),
            Key("network_per_minute", _count, 12, "a number", "Probes of one /24 or /64."),
            Key("per_minute", _count, 60, "a number", "Probes in all."),
            Key("per_day", _count, 10_000, "a number", "Probes in all, in 24 hours."),
            Key(
                "retry_s",
                _list_of(_seconds, may_be_empty=False),
                (300.0, 900.0, 3600.0),
                "list of seconds",
                "When a host that asked to come back is asked again: after its first such answer,"
                " its second, any later one.",
            ),
        ),
        "Checks of addresses.",
    ),
    Section(
        "limits",
        (
            Key("message_bytes", _count, 52_428_800, "octets", "The largest message (SIZE)."),
            Key("recipients", _count, 1_000, "a number", "Recipients of one message (RCPTMAX)."),
            Key("connections", _count, 12_000, "a number", "Sessions of one listener at once."),
        ),
        "Limits.",
    ),
    Section(
        "retry",
        (
            Key("first_s", _seconds, 60.0, "seconds", "The wait after the first failed attempt."),
            Key("max_s", _seconds, 14_400.0, "seconds", "The longest wait; each doubles."),
            Key(
                "warn_after_s",
                _seconds,
                14_400.0,
                "seconds",
                "When the sender is told, once, that mail is late.",
            ),
            Key(
                "give_up_after_s",
                _seconds,
                432_000.0,
                "seconds",
                "When mail goes back to the sender.",
            ),
        ),
        "When delivery is tried again.",
    ),
    Section(
        "log",
        (
            Key(
                "format",
                _choice("text", "json"),
                "text",
                '"text" or "json"',
                "How log lines look; they go to standard error.",
            ),
        ),
        "The log.",
    ),
)
