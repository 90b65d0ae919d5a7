"""What the device a mail comes from is called, for people and in topics."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import NamedTuple

from waypost.mail.address import IPAddress, as_value, ip_text
from waypost.mail.envelope import Arrival

MAX_SLUG = 64
MAX_NAME = 63
# Clients by a Unix socket, and those nobody knows.
LOCAL = "local"
STRANGERS = "strangers"
# No device may be called so: topics beside those of devices, and the names above.
RESERVED = frozenset({"bridge", "send", LOCAL, STRANGERS})

_OTHER = re.compile(r"[^A-Za-z0-9_]")
_OTHERS = re.compile(r"[^A-Za-z0-9_]+")


def slug(text: str) -> str:
    """`text` of letters, digits, - and _ only, which is what topics and Home Assistant take.

    Never empty: what has no such letter gets a name of its own, the same each time.
    """
    plain = unicodedata.normalize("NFKD", text)
    letters = "".join(one for one in plain if not unicodedata.combining(one))
    made = _OTHERS.sub("-", letters).strip("-")[:MAX_SLUG]
    return made or f"device-{sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def address_slug(ip: IPAddress) -> str:
    """The same of an address. No two share one: the :: that stands for zeros stays two signs."""
    return _OTHER.sub("-", ip_text(ip))[:MAX_SLUG]


def check_name(text: str) -> None:
    """Raises ValueError for what no device can be called."""
    if not text.isprintable() or not 0 < len(text) <= MAX_NAME or text != text.strip():
        raise ValueError(
            f"name {text!r}: expected a text of {MAX_NAME} characters at most, without blanks at"
            " its ends"
        )
    made = slug(text)
    if made.lower() in RESERVED:
        raise ValueError(f"name {text!r}: {made!r} is the hub's own")
    for address in (text, made.replace("-", "."), made.replace("-", ":")):
        try:
            ip_address(address)
        except ValueError:
            continue
        raise ValueError(f"name {text!r}: an IP address is no name")


class DeviceName(NamedTuple):
    """One device, as others see it."""

    slug: str  # in topics
    name: str  # for people
    source: str  # what it is known by: its (first) address, or who logs in
    kind: str | None = None  # what it is, for people; None: nobody has said


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """A device the operator has named."""

    addresses: tuple[IPAddress, ...]
    name: str
    kind: str | None = None  # None: not said
    command_topic: str | None = None  # see mqtt/publication; None: it has none


class DeviceNames:
    """The names the operator gave, those of the configuration first; all others are addresses."""

    def __init__(
        self,
        devices: Sequence[DeviceSettings] = (),
        name_of: Callable[[str], str | None] = lambda source: None,
    ) -> None:
        """`name_of` gives the name that `waypost device set` gave an address; None: none."""
        self._name_of = name_of
        self._by_source = {
            ip_text(ip): DeviceName(
                *(slug(device.name), device.name, ip_text(device.addresses[0]), device.kind)
            )
            for device in devices
            for ip in device.addresses
        }
        # A name of the configuration wins over one that was set before.
        self._taken = {found.slug.lower() for found in self._by_source.values()}

    def device_of(self, arrival: Arrival) -> DeviceName:
        """Who sent a mail that came in so.

        Strangers share one name: each could otherwise make as many devices as it has addresses.
        """
        source = LOCAL if arrival.client_ip is None else ip_text(arrival.client_ip)
        if not arrival.trusted and source not in self._by_source:
            source = STRANGERS if arrival.login is None else f"login {arrival.login}"
        return self.called(source)

    def called(self, source: str) -> DeviceName:
        """The device known by `source`, see DeviceName."""
        found = self._by_source.get(source)
        if found is not None:
            return found
        name = self._name_of(source)
        if name is not None and slug(name).lower() not in self._taken:
            return DeviceName(slug(name), name, source)
        try:
            return DeviceName(address_slug(as_value(ip_address(source))), source, source)
        except ValueError:  # a login, or nobody known
            return DeviceName(slug(source), source, source)
