"""Readers of single values: from what TOML gives to what the hub uses.

Each raises ValueError that says what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from waypost.acme.settings import AUTO, LETS_ENCRYPT
from waypost.delivery.notice import FIELDS
from waypost.devices.names import check_name
from waypost.dns.resolver import SYSTEM, split_server
from waypost.errors import AddressError
from waypost.http.url import Url
from waypost.intake.smtp_listener import split_bind
from waypost.mail.address import (
    Address,
    AddressLiteral,
    Domain,
    DomainPart,
    IPAddress,
    as_value,
)
from waypost.mail.template import Template
from waypost.mqtt.filters import read_filter
from waypost.mqtt.publication import Publication
from waypost.mqtt.settings import NAMES, TREES, BrokerUrl, read_base, read_prefix
from waypost.net.networks import Networks
from waypost.routing.hours import Hours
from waypost.routing.patterns import AddressGlob, Glob
from waypost.routing.targets import parse_host, parse_target
from waypost.smtp.auth import Secret
from waypost.tls.policy import Level, Rule, Scope

Read = Callable[[Any], Any]  # the TOML value into ours

# Names that stand in targets and, for a list, in addresses.
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,47}")


def read_text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected a text that is not empty")
    if not value.isprintable():
        raise ValueError("expected a text without control characters")
    return value


def read_any_text(value: Any) -> str:
    if value == "":
        return ""
    return read_text(value)


def read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def read_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("expected a whole number above 0")
    return value


def read_port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise ValueError("expected a port, 1 to 65535")
    return value


def read_seconds(value: Any) -> float:
    # TOML has nan and inf, too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise ValueError("expected seconds, a number above 0")
    return float(value)


def read_delay(value: Any) -> float:
    # Clients wait five minutes for a greeting, if they keep to RFC 5321 §4.5.3.2.1.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 60:
        raise ValueError("expected seconds, 0 to 60")
    return float(value)


def choice_of(*words: str) -> Read:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"expected one of: {', '.join(words)}")
        return str(value)

    return read


def list_of(read: Read, *, may_be_empty: bool = True) -> Read:
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


def read_domain(value: Any) -> Domain:
    try:
        return Domain.parse(read_text(value))
    except AddressError as error:
        raise ValueError(f"expected a domain name: {error}") from None


def read_address(value: Any) -> Address:
    try:
        return Address.parse(read_text(value))
    except AddressError as error:
        raise ValueError(f"expected an address: {error}") from None


def read_helo(value: Any) -> str:
    """A name or a literal (RFC 5321 §4.1.1.1)."""
    text = read_text(value)
    if text.startswith("["):
        literal = Address.parse(f"x@{text}").domain
        return str(literal)
    return read_domain(text).ascii


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


def read_groups(value: Any) -> tuple[tuple[IPAddress, tuple[Domain, ...]], ...]:
    return _by_ip(value, list_of(read_domain, may_be_empty=False))


def read_host_names(value: Any) -> tuple[tuple[IPAddress, Domain], ...]:
    return _by_ip(value, read_domain)


def read_moved(value: Any) -> tuple[tuple[IPAddress, DomainPart], ...]:
    return _by_ip(value, read_new_place)


def read_new_place(value: Any) -> DomainPart:
    """An IP address or a name."""
    try:
        return AddressLiteral(as_value(ip_address(read_text(value))))
    except ValueError:
        return read_domain(value)


def read_path(value: Any) -> Path:
    return Path(read_text(value))


def read_secret(value: Any) -> Secret:
    return Secret(read_text(value))


def read_secret_file(value: Any) -> Secret:
    """The first line of a file nobody else may read."""
    return Secret(read_text(_private_text(value).partition("\n")[0].rstrip("\r")))


def _private_text(value: Any) -> str:
    """What a file holds that nobody else may read."""
    path = Path(read_text(value))
    try:
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} may be read by others than its owner; chmod 600 it")
        return path.read_text("utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def read_scope(value: Any) -> str:
    """A scope token (RFC 6749 §3.3)."""
    text = read_text(value)
    if not text.isascii() or " " in text or '"' in text or "\\" in text:
        raise ValueError(f"{text!r} is no scope: one entry for each, without blanks")
    return text


def read_tenant(value: Any) -> str:
    text = read_text(value)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.\-]*", text) is None:
        raise ValueError("expected a tenant's id or domain: letters, digits, dots and -")
    return text


def read_password_hash(value: Any) -> Secret:
    """An Argon2 hash; who has it can guess at leisure, so it is kept as passwords are."""
    # argon2 takes a while to load, and most configurations have no accounts.
    from waypost.accounts.passwords import check_hash

    return Secret(check_hash(read_text(value)))


def read_password_hash_file(value: Any) -> Secret:
    return read_password_hash(read_secret_file(value).revealed)


def read_url(value: Any) -> str:
    """A URL that is asked over TLS."""
    Url.parse(read_text(value))
    return str(value)


def read_hosts(value: Any) -> tuple[Domain | AddressLiteral, ...]:
    """One host, or several that are tried in order."""
    entries = value if isinstance(value, list) else [value]
    hosts: tuple[Domain | AddressLiteral, ...] = list_of(read_host, may_be_empty=False)(entries)
    return hosts


def read_host(value: Any) -> Domain | AddressLiteral:
    return parse_host(read_text(value))


def read_server(value: Any) -> str:
    if value != SYSTEM:
        try:
            split_server(read_text(value))
        except ValueError as error:
            raise ValueError(f'expected "system" or an address with a port: {error}') from None
    return str(value)


def read_own(value: Any) -> str:
    if value == "auto":
        return "auto"
    try:
        ip = ip_address(read_text(value))
        if "%" not in str(ip):  # a zone id has no meaning outside this host
            return str(ip)
    except ValueError:
        pass
    raise ValueError(f'expected "auto" or an IP address, not {value!r}')


def read_network(value: Any) -> str:
    Networks((read_text(value),))
    return str(value)


def read_networks(value: Any) -> tuple[str, ...]:
    words: tuple[str, ...] = list_of(read_network)(value)
    return words


def read_bind(value: Any) -> str:
    split_bind(read_text(value))
    return str(value)


def read_target(value: Any) -> str:
    target = parse_target(read_text(value))
    if target.kind == "direct" and target.argument:
        raise ValueError("'direct' takes no argument")
    return str(value)


def read_size_limit(value: Any) -> int:
    """A size in octets, as a number or as "10M"."""
    if isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            raise ValueError(f'{value!r} is no size: expected octets, or as "10M"')
        return int(found[1]) * _UNITS[found[2].upper()]
    return read_count(value)


_SIZE = re.compile(r"([0-9]{1,12}) ?([kKmMgG]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read_header_globs(value: Any) -> tuple[tuple[str, Glob], ...]:
    if not isinstance(value, dict) or not value:
        raise ValueError('expected a table, as in { "X-Kind" = "alarm*" }')
    return tuple((name, Glob(read_text(glob))) for name, glob in value.items())


def read_tls_policy(value: Any) -> tuple[Rule, ...]:
    """[[tls.policy]]: tables of match, level, ca and hosts."""
    if not isinstance(value, list):
        raise ValueError("expected [[tls.policy]], a list of tables")
    rules: list[Rule] = []
    problems: list[str] = []
    for number, entry in enumerate(value, 1):
        try:
            rules.append(_tls_rule(entry))
        except ValueError as error:
            problems.append(f"[[tls.policy]] {number}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(rules)


def _tls_rule(value: Any) -> Rule:
    if not isinstance(value, dict):
        raise ValueError('expected match = […] and level = "…"')
    unknown = sorted(set(value) - {"match", "level", "ca", "hosts"})
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; expected: match, level, ca, hosts")
    missing = sorted({"match", "level"} - set(value))
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing")
    words = list_of(read_text, may_be_empty=False)(value["match"])
    level = Level(choice_of(*Level)(value["level"]))
    ca = Path(read_text(value["ca"])) if "ca" in value else None
    hosts = Scope(list_of(read_text)(value.get("hosts", [])))
    if ca is not None and level is not Level.VERIFY:
        raise ValueError('ca is for level = "verify"')
    if hosts.words and level not in (Level.VERIFY, Level.PIN):
        raise ValueError('hosts is for level = "verify" or "pin"')
    return Rule(Scope(words), level, ca, hosts.domains)


def read_hours(value: Any) -> tuple[Hours, ...]:
    """One time of the week, or several."""
    entries = value if isinstance(value, list) else [value]
    hours: tuple[Hours, ...] = list_of(lambda text: Hours.parse(read_text(text)))(entries)
    if not hours:
        raise ValueError("expected a time, or several")
    return hours


def read_match(value: Any) -> dict[str, Any]:
    reads: dict[str, Read] = {
        "recipient": lambda glob: AddressGlob(read_text(glob)),
        "sender": lambda glob: AddressGlob(read_text(glob)),
        "client": lambda words: Networks(read_networks(words)),
        "listener": read_text,
        "login": lambda glob: Glob(read_text(glob)),
        "subject": lambda glob: Glob(read_text(glob)),
        "header": read_header_globs,
        "larger_than": read_size_limit,
        "has_attachment": read_flag,
        "helo": lambda glob: Glob(read_text(glob)),
        "time": read_hours,
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


def read_broker(value: Any) -> BrokerUrl:
    return BrokerUrl.parse(read_text(value))


def read_topic_base(value: Any) -> str:
    return read_base(read_text(value))


def read_topic_prefix(value: Any) -> str:
    return read_prefix(read_any_text(value))


def read_topic_filter(value: Any) -> str:
    return read_filter(read_text(value))


def read_publication(value: Any) -> str:
    return str(Publication.parse(read_text(value)))


def read_mailbox_label(value: Any) -> str:
    text = read_text(value)
    if LABEL.fullmatch(text) is None:
        raise ValueError(f"{text!r}: expected letters, digits, - and _, 48 at most")
    return text


def read_device_name(value: Any) -> str:
    text = read_text(value)
    check_name(text)
    return text


def read_addresses(value: Any) -> tuple[IPAddress, ...]:
    """One IP address, or several."""
    entries = value if isinstance(value, list) else [value]
    addresses: tuple[IPAddress, ...] = list_of(read_ip, may_be_empty=False)(entries)
    return addresses


def read_ip(value: Any) -> IPAddress:
    try:
        return as_value(ip_address(read_text(value)))
    except ValueError:
        raise ValueError(f"expected an IP address, not {value!r}") from None


def read_acme_directory(value: Any) -> str:
    if value == "letsencrypt":
        return LETS_ENCRYPT
    text = read_text(value)
    Url.parse(text)
    return text


def read_identifier(value: Any) -> str:
    """What a certificate may stand for."""
    if value == AUTO:
        return AUTO
    text = read_text(value)
    try:
        ip = as_value(ip_address(text.removeprefix("[").removesuffix("]").removeprefix("IPv6:")))
    except ValueError:
        return read_domain(text).ascii
    if "%" in str(ip):
        raise ValueError(f"{text!r}: a zone has no meaning outside this host")
    return str(ip)


def read_place(value: Any) -> tuple[str, int]:
    """An address and a port to listen at."""
    host, port = split_bind(read_text(value))
    if not port:
        raise ValueError(f"{value!r}: expected address:port or [v6]:port")
    return host, port


def read_hook_url(value: Any) -> Secret:
    """A URL that events go to; its path may be all that keeps others out."""
    text = read_text(value)
    Url.parse(text, allows_clear=True)
    return Secret(text)


def read_hook_url_file(value: Any) -> Secret:
    return read_hook_url(read_secret_file(value).revealed)


def read_web_url(value: Any) -> str:
    """Where people reach the web page; paths are put behind it."""
    text = read_text(value)
    Url.parse(text, allows_clear=True)
    if "?" in text or "#" in text:
        raise ValueError("expected a URL without ? and #: paths are put behind it")
    return text.rstrip("/")


def read_type_glob(value: Any) -> Glob:
    """A media type, as in image/*."""
    text = read_text(value)
    if re.fullmatch(r"[a-z0-9*?.+\-]+/[a-z0-9*?.+\-]+|\*", text) is None:
        raise ValueError(f"{text!r} is no media type: expected one as image/* or application/pdf")
    return Glob(text)


def read_notify_url(value: Any) -> Secret:
    """A URL of Apprise; its own process says which of the services it means."""
    text = read_text(value)
    scheme, colon, rest = text.partition("://")
    if not colon or not rest or re.fullmatch(r"[A-Za-z][A-Za-z0-9+.\-]*", scheme) is None:
        # Not the text: it may hold a password.
        raise ValueError("expected an Apprise URL, as in ntfy://ntfy.example/alarms")
    if scheme.lower() in ("mailto", "mailtos"):
        raise ValueError("mail is sent by the hub itself: use a target relay:… or smtp:…")
    return Secret(text)


def read_notify_urls_file(value: Any) -> tuple[Secret, ...]:
    """A URL on each line of a file nobody else may read; # begins a comment."""
    lines = [line.strip() for line in _private_text(value).splitlines()]
    given = [line for line in lines if line and not line.startswith("#")]
    urls: tuple[Secret, ...] = list_of(read_notify_url, may_be_empty=False)(given)
    return urls


def read_pixels(value: Any) -> int | None:
    """A width and height; None: none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10_000:
        raise ValueError("expected pixels, 0 to 10000")
    return value or None


def read_template(value: Any) -> Template:
    """A text with $fields; it may have several lines."""
    if not isinstance(value, str) or not value.replace("\n", "").isprintable():
        raise ValueError("expected a text without control characters")
    return Template.parse(value, FIELDS)


def read_qos(value: Any) -> int:
    # Not 2: by its rules what has come is ours before it can be durable.
    if isinstance(value, bool) or value not in (0, 1):
        raise ValueError("expected 0 or 1")
    return int(value)


def read_topic_template(value: Any) -> Template:
    """A text with $topic, $payload and what lies below them; it may have several lines."""
    if not isinstance(value, str) or not value.replace("\n", "").isprintable():
        raise ValueError("expected a text without control characters")
    return Template.parse(value, NAMES, TREES)
