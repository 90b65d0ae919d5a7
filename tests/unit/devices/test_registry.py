"""The devices, in memory and on disk."""

from __future__ import annotations

import asyncio
import stat
from ipaddress import ip_address
from pathlib import Path

import pytest

from waypost.devices.desk import device_row
from waypost.devices.names import DeviceSettings as Configured
from waypost.devices.registry import NoSuchDevice, Registry
from waypost.mail.address import Address
from waypost.mail.envelope import Arrival, Envelope, QueueId
from waypost.mail.message import QueuedMessage
from waypost.queue.spool import InlineContent
from waypost.smtp.quirks import Quirk
from waypost.tls.kept import KeptUnavailable

CAMERA, NVR = ip_address("192.0.2.7"), ip_address("2001:db8::7")


def message(client: object = CAMERA, content: bytes = b"Subject: motion\r\n\r\n") -> QueuedMessage:
    ip = ip_address(str(client))
    return QueuedMessage(
        QueueId("q1"),
        Envelope(Address.parse("cam@x.example")),
        Arrival("ESMTPS", ip, ip, "cam", "smtp", trusted=True, tls="TLSv1.2 X"),
        InlineContent(content),
        b"",
        1_000.0,
        False,
        False,
        (),
    )


def take(registry: Registry, taken: QueuedMessage) -> None:
    registry.took(taken, taken.content.inline or b"")


def test_what_was_seen_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "devices.db"
    registry = Registry(path)
    device = registry.meet(CAMERA)
    assert device is not None
    registry.meet(CAMERA)
    take(registry, message(content=b"X: y\r\nSubject: =?utf-8?q?w=C3=B6rld?=\r\n\r\nhi"))
    registry.forgave(device, Quirk.EMPTY_HELO)
    registry.change("2001:db8::7", {"name": "NVR", "expect_s": 60})
    asyncio.run(registry.write())
    assert device.subject == "wörld"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Registry(path)
    again.load()
    assert len(again) == 2
    found = again.find("192.0.2.7")
    assert found.seen_as_json() == device.seen_as_json()
    assert (found.sessions, found.messages, found.mail_at) == (2, 1, 1_000.0)
    assert (found.sender, found.helo, found.protocol) == ("cam@x.example", "cam", "ESMTPS")
    assert found.quirks is Quirk.EMPTY_HELO
    assert again.find("nvr").ip == NVR
    assert again.find("[IPv6:2001:DB8::7]").ip == NVR
    assert again.name_of(NVR) == "NVR"
    assert again.name_of(CAMERA) is None
    assert again.mailbox_of(NVR) is None


def test_nothing_is_written_for_nothing_and_forgetting_lasts(tmp_path: Path) -> None:
    path = tmp_path / "devices.db"
    registry = Registry(path)
    asyncio.run(registry.write())
    assert not path.exists()
    registry.change("192.0.2.7", {"name": "cam"})
    registry.write_now()
    registry.forget("CAM")
    with pytest.raises(NoSuchDevice):
        registry.find("192.0.2.7")
    asyncio.run(registry.write())
    again = Registry(path)
    again.load()
    assert len(again) == 0
    # The name is free, and a device that comes back is a new one, also within one write.
    registry.change("2001:db8::7", {"name": "cam"})
    registry.meet(CAMERA)
    registry.forget("192.0.2.7")
    registry.meet(CAMERA)
    asyncio.run(registry.write())
    again.load()
    assert again.find("192.0.2.7").sessions == 1


def test_any_text_is_a_name_and_topics_tell_them_apart(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "devices.db")
    registry.change("192.0.2.7", {"name": "Front Door"})
    assert registry.find("front door").ip == CAMERA
    with pytest.raises(ValueError, match="has the name 'Front Door'"):
        registry.change("192.0.2.8", {"name": "front-door"})
    registry.change("192.0.2.8", {"name": "Front Door 2"})
    registry.change("front door", {"name": "FRONT DOOR", "kind": "camera"})
    assert registry.find("Front Door").name == "FRONT DOOR"


def test_what_the_configuration_says_counts_first(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "devices.db")
    registry.meet(CAMERA)
    registry.change("192.0.2.7", {"name": "cam", "kind": "camera", "command_topic": "a/b"})
    yard = Configured((CAMERA, NVR), "Yard Gate", None, "yard/set#line")
    registry.configure([yard])
    device = registry.find("yard gate")
    assert device is registry.find("192.0.2.7")
    row = device_row(device)
    assert (row["name"], row["kind"]) == ("Yard Gate", "camera")
    assert row["command_topic"] == registry.command_of(CAMERA) == "yard/set#line"
    # Also of what has never been here.
    assert registry.command_of(NVR) == "yard/set#line"
    with pytest.raises(ValueError, match=r"\[\[device\]\] gives 192\.0\.2\.7 the name"):
        registry.change("192.0.2.9", {"name": "yard-gate"})
    met = registry.meet(NVR)
    assert met is not None
    assert met.label == "Yard Gate"
    registry.configure([])
    assert (device.label, met.label) == ("cam", "2001:db8::7")
    assert (registry.command_of(CAMERA), registry.command_of(NVR)) == ("a/b", None)


def test_a_name_belongs_to_one(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "devices.db")
    registry.change("192.0.2.7", {"name": "cam"})
    with pytest.raises(ValueError, match=r"192\.0\.2\.7 has the name"):
        registry.change("192.0.2.8", {"name": "CAM"})
    assert len(registry) == 1
    registry.change("cam", {"name": "Cam"})
    registry.change("cam", {"name": "door"})
    registry.change("192.0.2.8", {"name": "cam"})
    with pytest.raises(NoSuchDevice):
        registry.change("nobody", {"name": "x"})


def test_strangers_are_no_devices(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "devices.db")
    take(registry, message())
    assert len(registry) == 0


def test_the_oldest_without_settings_go(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "devices.db", max_devices=40)
    registry.change("192.0.2.1", {"kind": "camera"})
    for number in range(2, 60):
        device = registry.meet(ip_address(f"192.0.2.{number}"))
        assert device is not None
        device.last_at = float(number)
    assert len(registry) <= 40
    registry.find("192.0.2.1")
    registry.find("192.0.2.59")
    with pytest.raises(NoSuchDevice):
        registry.find("192.0.2.2")
    for device in registry.all():
        registry.change(str(device.ip), {"kind": "camera"})
    while len(registry) < 40:
        registry.change(f"198.51.100.{len(registry)}", {"kind": "x"})
    assert registry.meet(ip_address("203.0.113.1")) is None
    with pytest.raises(ValueError, match="devices already"):
        registry.change("203.0.113.1", {"kind": "x"})


def test_a_file_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "devices.db"
    path.write_bytes(b"no database at all, whatever its name says" * 50)
    registry = Registry(path)
    with pytest.raises(KeptUnavailable):
        registry.load()
    registry.meet(CAMERA)
    with pytest.raises(KeptUnavailable):
        asyncio.run(registry.write())
    assert path.read_bytes().startswith(b"no database")
    assert registry.find("192.0.2.7").sessions == 1


def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "devices.db"
    registry = Registry(path)
    registry.meet(CAMERA)
    path.mkdir()
    with pytest.raises(KeptUnavailable):
        asyncio.run(registry.write())
    registry.meet(CAMERA)
    path.rmdir()
    asyncio.run(registry.write())
    again = Registry(path)
    again.load()
    assert again.find("192.0.2.7").sessions == 2
