"""One device: what the operator says of it, and what its mail and its sessions have shown."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from ipaddress import ip_address
from typing import Any

from waypost.devices.names import DeviceSettings as Configured
from waypost.devices.names import check_name
from waypost.mail.address import IPAddress, as_value
from waypost.mqtt.publication import Publication
from waypost.routing.targets import Target, parse_target
from waypost.smtp.quirks import NO_QUIRK, Quirk

MAX_WORDS = 20
MAX_TEXT = 200  # characters
# A moment of silence shorter than this is no matter for anybody.
MIN_EXPECT_S = 1.0
MAX_EXPECT_S = 366 * 86_400.0

_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_DAY_MINUTES = 1_440
# Targets that have no place for an alarm, or no recipient.
_NOWHERE = frozenset({"direct", "discard", "reject"})


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours of each day, by the hub's local time."""

    from_minute: int  # of the day
    to_minute: int  # may be smaller: then the next day's

    @classmethod
    def parse(cls, text: str) -> Quiet:
        """Read "22:00-06:00". Raises ValueError."""
        begin, _, end = text.partition("-")
        minutes = []
        for moment in (begin, end):
            match = _CLOCK.fullmatch(moment.strip())
            if match is None:
                raise ValueError(f"{text!r}: expected hours as 22:00-06:00")
            minutes.append(int(match[1]) * 60 + int(match[2]))
        if minutes[0] == minutes[1]:
            raise ValueError(f"{text!r}: it begins when it ends")
        return cls(*minutes)

    def __str__(self) -> str:
        begin, end = self.from_minute, self.to_minute
        return f"{begin // 60:02d}:{begin % 60:02d}-{end // 60:02d}:{end % 60:02d}"

    @property
    def lasts_s(self) -> float:
        """How long it is."""
        return (self.to_minute - self.from_minute) % _DAY_MINUTES * 60.0

    def lasted_s(self, at: float) -> float | None:
        """How long it has lasted at a moment in it; None: the moment is not in it."""
        local = time.localtime(at)
        minute = local.tm_hour * 60 + local.tm_min
        lasted_s = (minute - self.from_minute) % _DAY_MINUTES * 60.0 + local.tm_sec
        return lasted_s if lasted_s < self.lasts_s else None


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """What the operator says; None and empty: nothing."""

    name: str | None = None
    kind: str | None = None
    mailbox: str | None = None  # an id, for mail to addresses of ours without one
    expect_s: float | None = None  # mail comes at least this often
    quiet: Quiet | None = None  # nobody minds its silence in these hours
    hush: Quiet | None = None  # its notifications wait for the end of these hours
    failure: tuple[str, ...] = ()
    success: tuple[str, ...] = ()
    alarm: Target | None = None  # None: the mailbox of postmaster
    command_topic: str | None = None  # see mqtt/publication; None: mail to it is sent to it

    @property
    def judges_mail(self) -> bool:
        """True where words in its mail mean something."""
        return bool(self.failure or self.success)

    def changed(self, wanted: Mapping[str, Any]) -> DeviceSettings:
        """With some of them as JSON gives them; null takes one away. Raises ValueError."""
        read: dict[str, Any] = {}
        for key, value in wanted.items():
            if key not in _READ:
                raise ValueError(f"a device has no setting {key!r}")
            read[key] = _DEFAULTS[key] if value is None else _READ[key](value)
        return replace(self, **read)

    def as_json(self) -> dict[str, Any]:
        """As `changed` reads it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "mailbox": self.mailbox,
            "expect_s": self.expect_s,
            "quiet": None if self.quiet is None else str(self.quiet),
            "hush": None if self.hush is None else str(self.hush),
            "failure": list(self.failure) or None,
            "success": list(self.success) or None,
            "alarm": None if self.alarm is None else str(self.alarm),
            "command_topic": self.command_topic,
        }


def _name(value: Any) -> str:
    text = _text(value)
    check_name(text)
    return text


def _text(value: Any, key: str = "") -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_TEXT:
        said = f"{key} {value!r}".lstrip()
        raise ValueError(f"{said}: expected a text of 1 to {MAX_TEXT} characters")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_WORDS:
        raise ValueError(f"expected {MAX_WORDS} words at most")
    words = tuple(_text(word) for word in value)
    if not all(word.strip() for word in words):
        raise ValueError("a word of spaces alone would be in every mail")
    return words


def _alarm(value: Any) -> Target:
    target = parse_target(_text(value))
    if target.kind in _NOWHERE:
        raise ValueError(f"alarm {value!r}: expected a target that keeps or carries mail")
    return target


def _command(value: Any) -> str:
    text = _text(value)
    try:
        return str(Publication.parse(text))
    except ValueError as error:
        raise ValueError(f"command topic {text!r}: {error}") from None


def _expect(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected seconds")
    if not MIN_EXPECT_S <= value <= MAX_EXPECT_S:
        raise ValueError("mail can be expected every second at most, and once a year at least")
    return float(value)


_READ: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "kind": partial(_text, key="kind"),
    "mailbox": partial(_text, key="mailbox"),
    "expect_s": _expect,
    "quiet": lambda value: Quiet.parse(_text(value)),
    "hush": lambda value: Quiet.parse(_text(value)),
    "failure": _words,
    "success": _words,
    "alarm": _alarm,
    "command_topic": _command,
}
_DEFAULTS = {field.name: field.default for field in fields(DeviceSettings)}


@dataclass(slots=True, eq=False)
class Device:
    """What is known of one client. Changed on the hub's loop only."""

    ip: IPAddress
    settings: DeviceSettings = DeviceSettings()
    configured: Configured | None = None  # what [[device]] says, which counts first; None: nothing
    first_at: float | None = None  # None: never seen
    last_at: float | None = None  # a session or a message; None: as above
    mail_at: float | None = None  # None: it has never brought mail
    sessions: int = 0
    messages: int = 0
    held_back: int = 0  # of these, by storm control or for the hush
    duplicates: int = 0  # of these, the same as one before
    sender: str = ""  # of the last message
    subject: str = ""
    helo: str = ""
    protocol: str = ""
    tls: str | None = None  # None: in clear
    quirks: Quirk = NO_QUIRK
    is_silent: bool = False  # and an alarm was raised
    is_failing: bool = False  # its last mail said failure
    # These are of one run of the hub.
    waited_from: float = 0.0  # monotonic: what silence counts from
    head: bytes | None = None  # the beginning of the last message; None: its subject is known
    is_changed: bool = False  # since it was written

    @property
    def name(self) -> str | None:
        """What it is called; None: nobody has said."""
        return self.settings.name if self.configured is None else self.configured.name

    @property
    def kind(self) -> str | None:
        """What it is, for people; None: as above."""
        given = None if self.configured is None else self.configured.kind
        return given or self.settings.kind

    @property
    def command_topic(self) -> str | None:
        """See DeviceSettings."""
        given = None if self.configured is None else self.configured.command_topic
        return given or self.settings.command_topic

    @property
    def label(self) -> str:
        """Its name, else its address."""
        return self.name or str(self.ip)

    def seen_as_json(self) -> dict[str, Any]:
        """What it has shown, for the file and for programs."""
        return {key: getattr(self, key) for key in _SEEN} | {"quirks": int(self.quirks)}

    @classmethod
    def of_json(cls, ip: str, settings: Any, seen: Any) -> Device:
        """As it was kept. Raises ValueError, TypeError."""
        shown = {key: seen[key] for key in _SEEN if key in seen}
        shown["quirks"] = Quirk(shown.get("quirks", 0))
        return cls(as_value(ip_address(ip)), DeviceSettings().changed(settings), **shown)


_SEEN = (
    *("first_at", "last_at", "mail_at", "sessions", "messages", "sender", "subject", "helo"),
    *("protocol", "tls", "quirks", "is_silent", "is_failing"),
    *("held_back", "duplicates"),
)
