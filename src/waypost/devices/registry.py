"""All devices: in memory while a hub runs, and in devices.db of the data directory.

What sessions and messages show is noted at once and written a little later, in a thread; what the
operator sets is on disk before the command ends.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from waypost.devices.device import MAX_TEXT, Device, DeviceSettings
from waypost.devices.names import DeviceSettings as Configured
from waypost.devices.names import slug
from waypost.errors import WaypostError
from waypost.mail.address import IPAddress, as_value
from waypost.mail.message import QueuedMessage, decoded_fields
from waypost.mail.standing import is_duplicate
from waypost.observe import Log
from waypost.smtp.quirks import Quirk, quirk_words
from waypost.tls.kept import KeptUnavailable, kept

FILE = "devices.db"
MAX_DEVICES = 10_000
# When there are too many, so many are forgotten at once: finding the oldest takes a while.
_FORGET_AT_ONCE = 500
WRITE_S = 5.0
# What is taken for one write, between which the loop does other things.
_BATCH = 500
# The subject is nearly always in here.
_HEAD_BYTES = 2_048
_MAX_HELO = 255

_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (
    ip TEXT PRIMARY KEY,
    settings TEXT NOT NULL,
    seen TEXT NOT NULL
) WITHOUT ROWID
"""

OnMail = Callable[[Device, QueuedMessage, bytes], None]


class NoSuchDevice(WaypostError):
    """No device has this address or name."""


class _Row(NamedTuple):
    """A device to be written, with the head its subject is in."""

    device: Device
    settings: dict[str, Any]
    seen: dict[str, Any]
    head: bytes | None


class Registry:
    """See the module text."""

    def __init__(
        self, path: Path, log: Log | None = None, *, max_devices: int = MAX_DEVICES
    ) -> None:
        """Empty until `load`. `log` None: a command's, which hears of trouble by exceptions."""
        self._path = path
        self._log = log
        self._max_devices = max_devices
        self._devices: dict[IPAddress, Device] = {}
        self._names: dict[str, Device] = {}  # given by `change`; in lower case
        self._configured: dict[IPAddress, Configured] = {}
        self._changed: list[Device] = []
        self._gone: list[IPAddress] = []
        self._writing: asyncio.Lock = asyncio.Lock()
        self._is_in_trouble = False
        # Why the file could not be read: it is not written then, as that would take what it has.
        self._unread: KeptUnavailable | None = None  # None: it was read, or is not there
        self._is_full = False
        # Called for mail of a device that is awaited, or whose words mean something.
        self.on_mail: OnMail | None = None

    # What holds.

    def __len__(self) -> int:
        return len(self._devices)

    def all(self) -> Collection[Device]:
        """All devices, in no order."""
        return self._devices.values()

    def find(self, text: str) -> Device:
        """By address or name. Raises NoSuchDevice."""
        ip = self._ip_of(text)
        device = self._names.get(text.lower()) if ip is None else self._devices.get(ip)
        if device is None:
            raise NoSuchDevice(f"there is no device {text!r}; see: waypost device list")
        return device

    def at(self, ip: IPAddress) -> Device | None:
        """By address; None: it is not known."""
        return self._devices.get(ip)

    def _ip_of(self, text: str) -> IPAddress | None:
        """The address meant by itself or by a name of the configuration; None: by neither."""
        addresses = [
            ip for ip, entry in self._configured.items() if entry.name.lower() == text.lower()
        ]
        known = [ip for ip in addresses if ip in self._devices]
        return next(iter(known or addresses), _as_ip(text))

    def configure(self, devices: Iterable[Configured]) -> None:
        """What [[device]] says from now on."""
        self._configured = {ip: entry for entry in devices for ip in entry.addresses}
        for device in self.all():
            device.configured = self._configured.get(device.ip)

    def name_of(self, ip: IPAddress) -> str | None:
        """The name an address was given; None: it has none."""
        device = self._devices.get(ip)
        return None if device is None else device.settings.name

    def mailbox_of(self, ip: IPAddress) -> str | None:
        """The mailbox of a device; None: it has none of its own."""
        device = self._devices.get(ip)
        return None if device is None else device.settings.mailbox

    def command_of(self, ip: IPAddress) -> str | None:
        """What mail to a device's own address is published as; None: it is sent there."""
        device = self._devices.get(ip)
        if device is not None:
            return device.command_topic
        entry = self._configured.get(ip)
        return None if entry is None else entry.command_topic

    # What is seen.

    def meet(self, ip: IPAddress) -> Device | None:
        """A session of a client has begun; None: there is no room for another device."""
        device = self._devices.get(ip)
        if device is None:
            device = self._add(ip)
            if device is None:
                return None
        now = time.time()
        if device.first_at is None:
            device.first_at = now
        device.last_at = now
        device.sessions += 1
        self._note(device)
        return device

    def took(self, message: QueuedMessage, head: bytes) -> None:
        """A message is ours; `head` is the beginning of its content."""
        arrival = message.arrival
        device = None if arrival.client_ip is None else self._devices.get(arrival.client_ip)
        if device is None:
            return  # a stranger, or one that has been forgotten meanwhile
        device.messages += 1
        device.duplicates += is_duplicate(message.prepend)
        device.last_at = device.mail_at = message.accepted_at
        device.waited_from = time.monotonic()
        reverse_path = message.envelope.reverse_path
        device.sender = "<>" if reverse_path is None else str(reverse_path)
        device.head = head[:_HEAD_BYTES]
        device.helo = arrival.helo[:_MAX_HELO]
        device.protocol = arrival.protocol
        device.tls = arrival.tls
        self._note(device)
        if self.on_mail is not None and (device.is_silent or device.settings.judges_mail):
            self.on_mail(device, message, head)

    def forgave(self, device: Device, quirks: Quirk) -> None:
        """A session has shown these."""
        if int(quirks) & ~int(device.quirks):  # as flags that would take ten times as long
            new = quirks & ~device.quirks
            device.quirks |= new
            self._note(device)
            if self._log is not None:
                forgiven = "; ".join(quirk_words(new))
                self._log.event(
                    "device-quirk", client=device.ip, device=device.label, forgiven=forgiven
                )

    def note(self, device: Device) -> None:
        """Something of it has changed."""
        self._note(device)

    # What the operator says.

    def change(self, text: str, wanted: dict[str, Any]) -> Device:
        """Set some of a device's settings; one that was never seen may be named by its address.

        Raises NoSuchDevice, ValueError.
        """
        try:
            device = self.find(text)
        except NoSuchDevice:
            ip = self._ip_of(text)
            if ip is None:
                raise
            settings = self._checked(None, DeviceSettings().changed(wanted))
            added = self._add(ip)
            if added is None:
                raise ValueError(
                    f"there are {len(self)} devices already, all with settings"
                ) from None
            device = added
        else:
            settings = self._checked(device, device.settings.changed(wanted))
        old = device.settings
        if old.name is not None:
            self._names.pop(old.name.lower(), None)
        if settings.name is not None:
            self._names[settings.name.lower()] = device
        device.settings = settings
        if settings.expect_s != old.expect_s:
            device.waited_from = time.monotonic()
            device.is_silent = False
        if not settings.judges_mail:
            device.is_failing = False
        self._note(device)
        return device

    def _checked(self, device: Device | None, settings: DeviceSettings) -> DeviceSettings:
        if settings.name is None or (device is not None and settings.name == device.settings.name):
            return settings
        # Topics know a name by its slug.
        wanted = slug(settings.name).lower()
        for name, other in self._names.items():
            if other is not device and wanted == slug(name).lower():
                raise ValueError(f"{other.ip} has the name {other.label!r} already")
        for ip, entry in self._configured.items():
            if (device is None or ip != device.ip) and wanted == slug(entry.name).lower():
                raise ValueError(f"[[device]] gives {ip} the name {entry.name!r}")
        return settings

    def forget(self, text: str) -> Device:
        """Know nothing of it any more; it comes back with its next session. Raises NoSuchDevice."""
        device = self.find(text)
        self._remove(device)
        return device

    # On disk.

    def load(self) -> None:
        """Read the file, if there is one. Blocks. Raises KeptUnavailable."""
        if not self._path.exists():
            return
        try:
            self._read()
        except (ValueError, TypeError, AttributeError) as error:
            self._unread = KeptUnavailable(f"{self._path}: {error}")
            raise self._unread from error
        except KeptUnavailable as error:
            self._unread = error
            raise

    def _read(self) -> None:
        now = time.monotonic()
        with kept(self._path, _SCHEMA) as database:
            rows = database.execute("SELECT ip, settings, seen FROM device").fetchall()
        for ip, settings, seen in rows:
            device = Device.of_json(ip, json.loads(settings), json.loads(seen))
            device.waited_from = now
            device.configured = self._configured.get(device.ip)
            self._devices[device.ip] = device
            if device.settings.name is not None:
                self._names[device.settings.name.lower()] = device

    async def keep(self) -> None:
        """Until cancelled: write what has changed, now and then."""
        while True:
            await asyncio.sleep(WRITE_S)
            try:
                await self.write()
            except KeptUnavailable as error:
                self._say_trouble(error)

    async def write(self) -> None:
        """What has changed is on disk when this returns. Raises KeptUnavailable."""
        async with self._writing:
            if self._unread is not None:
                raise self._unread
            while self._changed or self._gone:
                rows, gone = self._take()
                try:
                    subjects = await asyncio.to_thread(_write, self._path, rows, gone)
                except KeptUnavailable:
                    for row in rows:
                        self._note(row.device)
                    self._gone += gone
                    raise
                for row, subject in zip(rows, subjects, strict=True):
                    if row.device.head is row.head and subject is not None:
                        row.device.head = None
                        row.device.subject = subject
        self._is_in_trouble = False

    async def close(self) -> None:
        """Write the last."""
        try:
            await self.write()
        except KeptUnavailable as error:
            self._say_trouble(error)

    def write_now(self) -> None:
        """As `write`, for a command: blocks."""
        rows, gone = self._take(len(self._changed))
        _write(self._path, rows, gone)

    # Within.

    def _take(self, count: int = _BATCH) -> tuple[list[_Row], list[IPAddress]]:
        taken, self._changed = self._changed[:count], self._changed[count:]
        gone, self._gone = self._gone, []
        rows = []
        for device in taken:
            device.is_changed = False
            if self._devices.get(device.ip) is device:
                settings, seen = device.settings.as_json(), device.seen_as_json()
                rows.append(_Row(device, settings, seen, device.head))
        return rows, [ip for ip in gone if ip not in self._devices]

    def _note(self, device: Device) -> None:
        if not device.is_changed:
            device.is_changed = True
            self._changed.append(device)

    def _add(self, ip: IPAddress) -> Device | None:
        if len(self._devices) >= self._max_devices and not self._make_room():
            if not self._is_full and self._log is not None:
                self._log.event("devices-full", client=ip, devices=len(self._devices))
            self._is_full = True
            return None
        self._is_full = False
        device = self._devices[ip] = Device(ip, waited_from=time.monotonic())
        device.configured = self._configured.get(ip)
        return device

    def _make_room(self) -> bool:
        """Forget those not seen for longest, never one that has settings."""
        loose = (entry for entry in self.all() if entry.settings == DeviceSettings())
        count = max(1, min(_FORGET_AT_ONCE, self._max_devices // 20))
        oldest = heapq.nsmallest(count, loose, key=lambda entry: entry.last_at or 0.0)
        for device in oldest:
            self._remove(device)
        return bool(oldest)

    def _remove(self, device: Device) -> None:
        del self._devices[device.ip]
        if device.settings.name is not None:
            del self._names[device.settings.name.lower()]
        self._gone.append(device.ip)

    def _say_trouble(self, error: KeptUnavailable) -> None:
        """Once, until it works again."""
        if not self._is_in_trouble and self._log is not None:
            self._log.event("devices-trouble", why=error)
        self._is_in_trouble = True


def _as_ip(text: str) -> IPAddress | None:
    try:
        return as_value(ip_address(text.removeprefix("[").removesuffix("]").removeprefix("IPv6:")))
    except ValueError:
        return None


def _write(path: Path, rows: Iterable[_Row], gone: Iterable[IPAddress]) -> list[str | None]:
    """In one transaction; gives the subject of each row that came with a head. Blocks."""
    subjects: list[str | None] = []
    with kept(path, _SCHEMA) as database:
        database.executemany("DELETE FROM device WHERE ip = ?", [(str(ip),) for ip in gone])
        for row in rows:
            subject = None if row.head is None else subject_of(row.head)
            seen = row.seen if subject is None else {**row.seen, "subject": subject}
            _keep(database, row, seen)
            subjects.append(subject)
    return subjects


def _keep(database: sqlite3.Connection, row: _Row, seen: dict[str, Any]) -> None:
    database.execute(
        "INSERT OR REPLACE INTO device VALUES (?, ?, ?)",
        (str(row.device.ip), json.dumps(row.settings), json.dumps(seen)),
    )


def subject_of(head: bytes) -> str:
    """The subject of a message, decoded and bounded; empty: it has none."""
    for name, text in decoded_fields(head):
        if name == "subject":
            return text[:MAX_TEXT]
    return ""
