"""What the operator says of the MQTT broker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from waypost.http.url import host_of, split_url
from waypost.mail.address import Address, Domain, IPAddress
from waypost.mail.template import Template
from waypost.smtp.auth import Secret

VERSIONS = ("5", "3.1.1")
# What a motion detector is thought to see after its mail, as other bridges have it.
RESET_AFTER_S = 300.0

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_LEVEL = re.compile(r"[A-Za-z0-9_-]{1,48}")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,48}(/[A-Za-z0-9_-]{1,48}){0,3}")


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where the broker is."""

    is_secure: bool  # mqtts
    host: Domain | IPAddress
    port: int

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Raises ValueError."""
        if "@" in text:
            raise ValueError("a URL must not hold a user name or a password: see mqtt.username")
        parts, port = split_url(text)
        if parts.scheme not in _PORTS:
            raise ValueError('expected "mqtt://" or "mqtts://" in front')
        if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("expected a host and perhaps a port, as in mqtt://192.168.1.5:1883")
        return cls(parts.scheme == "mqtts", host_of(parts.hostname), port or _PORTS[parts.scheme])

    @property
    def name(self) -> str:
        """The host as its certificate has it."""
        return self.host.ascii if isinstance(self.host, Domain) else str(self.host)

    def __str__(self) -> str:
        host = f"[{self.name}]" if ":" in self.name else self.name
        return f"{'mqtts' if self.is_secure else 'mqtt'}://{host}:{self.port}"


# What templates of [[mqtt.subscribe]] may name, and what may have a dot behind.
NAMES = ("topic", "payload")
TREES = ("topic", "json")


@dataclass(frozen=True, slots=True)
class Subscription:
    """[[mqtt.subscribe]]: messages of these topics become mail."""

    topic: str  # a filter
    qos: int
    sender: Address | None  # None: the hub's own, for what comes by MQTT
    to: tuple[Address, ...]  # empty: the route says
    route: str | None  # None: `to` says
    subject: Template
    text: Template


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """[mqtt]."""

    url: BrokerUrl
    base: str = "waypost"
    discovery: str = "homeassistant"  # the prefix; empty: Home Assistant is told nothing
    username: str | None = None  # None: no login
    password: Secret | None = None  # None: none
    ca: Path | None = None  # None: whom this system trusts
    certificate: Path | None = None  # of the hub, for the broker; None: none
    key: Path | None = None  # None: as above
    version: str = "5"  # one of VERSIONS
    retain: bool = True  # states and pictures stay with the broker
    reset_after_s: float = RESET_AFTER_S
    mailbox: str = ""  # in front of topics in addresses; empty: mail names none
    topics: tuple[str, ...] = ()  # filters: which topics those may be
    requests: bool = False  # whoever may publish below the base may send mail
    subscribe: tuple[Subscription, ...] = ()

    @property
    def hears_mail(self) -> bool:
        """True when messages become mail: then the broker is to keep them while we are away."""
        return self.requests or bool(self.subscribe)


def read_base(text: str) -> str:
    """One level of topics. Raises ValueError."""
    if _LEVEL.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no base: up to 48 letters, digits, - and _")
    return text


def read_prefix(text: str) -> str:
    """The first levels of discovery topics, or nothing. Raises ValueError."""
    if text and _PREFIX.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no prefix: letters, digits, - and _, or / between levels")
    return text
