"""Where mail may be sent, as `[[route]] to = […]` writes it, read into values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from waypost.errors import AddressError
from waypost.mail.address import AddressLiteral, Domain, parse_literal
from waypost.mail.reply import Reply
from waypost.mqtt.publication import Publication

KINDS = (
    *("mailbox", "smtp", "lmtp", "relay", "direct", "list", "mqtt", "discard", "reject"),
    *("webhook", "notify", "publish"),
)
# `direct:list` is written by lists only: the operator named the recipient, no client did.
LISTED = "list"
# `list:NAME:owner` is what NAME-bounces and NAME-owner mean.
OWNER = "owner"
BOUNCES = "-bounces"
# What a mail says of its device, as in `mqtt:motion`; a level of topics.
_EVENT_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")
# Levels that are there for every device.
_NO_EVENT_KINDS = frozenset({"availability", "event", "image", "state"})
_HOST_PORT = re.compile(r"(\[[^\]]+\]|[^\[\]:/]+)(?::([0-9]{1,5}))?")
_REJECTION = re.compile(r"(?:([45])\.([0-9]{1,3})\.([0-9]{1,3})\s*)?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host by its literal or its name, and a port. A name's MX does not count."""

    host: AddressLiteral | Domain
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixPath:
    """A Unix socket."""

    path: str

    def __str__(self) -> str:
        return self.path


NextHop = HostPort | UnixPath


@dataclass(frozen=True, slots=True)
class Target:
    """One target; `str()` gives back what `parse_target` reads."""

    kind: str  # one of KINDS
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind


@lru_cache(maxsize=1024)
def parse_target(text: str) -> Target:
    """Read a target; raises ValueError that says what was expected."""
    kind, colon, argument = text.partition(":")
    if kind not in KINDS:
        raise ValueError(f"{text!r} is no target: expected {', '.join(KINDS)}")
    if kind in ("direct", "discard"):
        if colon and text != f"direct:{LISTED}":
            raise ValueError(f"{kind!r} takes no argument")
    elif not argument and kind != "reject":
        raise ValueError(f"{kind!r} needs an argument, as in {kind}:…")
    target = Target(kind, argument)
    if kind in ("smtp", "lmtp"):
        parse_next_hop(target)
    if kind == "mqtt" and (_EVENT_KIND.fullmatch(argument) is None or argument in _NO_EVENT_KINDS):
        raise ValueError(
            f"{text!r}: expected mqtt: and a kind of event, as in mqtt:motion: up to 48 letters,"
            f" digits, - and _, and none of {', '.join(sorted(_NO_EVENT_KINDS))}"
        )
    if kind == "publish":
        try:
            Publication.parse(argument)
        except ValueError as error:
            raise ValueError(f"{text!r}: expected publish: and a topic: {error}") from None
    return target


@lru_cache(maxsize=1024)
def parse_next_hop(target: Target) -> NextHop:
    """The host or socket of an smtp: or lmtp: target; raises ValueError."""
    if target.kind == "lmtp" and target.argument.startswith("/"):
        return UnixPath(target.argument)
    match = _HOST_PORT.fullmatch(target.argument)
    port = int(match[2] or (24 if target.kind == "lmtp" else 25)) if match else 0
    if match is None or not 0 < port < 65536:
        where = "[address]:port or name:port"
        where += ", or /path/to/socket" if target.kind == "lmtp" else ""
        raise ValueError(f"{str(target)!r}: expected {target.kind}: and {where}")
    try:
        return HostPort(parse_host(match[1]), port)
    except ValueError as error:
        raise ValueError(f"{str(target)!r}: {error}") from None


def parse_host(text: str) -> AddressLiteral | Domain:
    """A literal, a bare IP address or a name; raises ValueError."""
    try:
        literal = parse_literal(text) if text.startswith("[") else AddressLiteral(ip_address(text))
    except AddressError as error:
        raise ValueError(str(error)) from None
    except ValueError:
        try:
            return Domain.parse(text)
        except AddressError as error:
            raise ValueError(f"{text!r} is no host: {error}") from None
    if not isinstance(literal, AddressLiteral):
        raise ValueError(f"{text!r}: only an IP address can be reached")
    return literal


def rejection(target: Target) -> Reply:
    """The reply of a reject: target, as in ``reject:5.7.1 not here``."""
    match = _REJECTION.fullmatch(target.argument)
    assert match is not None  # the pattern takes any text
    code = 450 if match[1] == "4" else 550
    status = (int(match[2]), int(match[3])) if match[2] else (7, 1)
    return Reply(code, " ".join(match[4].split()) or "Refused by the rules here", status)
