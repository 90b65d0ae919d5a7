"""What the operator may say of a device."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from waypost.devices.device import Device, DeviceSettings, Quiet
from waypost.devices.expected import judged, silence_is_due_at
from waypost.routing.targets import Target
from waypost.smtp.quirks import Quirk, quirk_words

HOUR_S = 3_600.0


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(hour: float, day: int = 0) -> float:
    return day * 86_400.0 + hour * HOUR_S


ALL = {
    "name": "front-door",
    "kind": "camera",
    "mailbox": "door",
    "expect_s": 86_400.0,
    "quiet": "22:00-06:00",
    "hush": "21:00-07:30",
    "failure": ["failed", "no space"],
    "success": ["done"],
    "alarm": "mailbox:ops",
    "command_topic": "plant/door/set#line",
}


def test_settings_survive_json_and_can_be_taken_away() -> None:
    settings = DeviceSettings().changed(ALL)
    assert settings.quiet == Quiet(22 * 60, 6 * 60)
    assert settings.alarm == Target("mailbox", "ops")
    assert settings.as_json() == ALL
    assert DeviceSettings().changed(json.loads(json.dumps(settings.as_json()))) == settings
    assert settings.changed({"name": "other"}).kind == "camera"
    assert settings.changed(dict.fromkeys(ALL)) == DeviceSettings()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", " front door", "blanks"),
        ("name", "192.0.2.1", "IP address"),
        ("name", "192 0 2 1", "IP address"),
        ("name", "::1", "IP address"),
        ("name", "Bridge", "the hub's own"),
        ("name", "", "text"),
        ("name", "a\u202eb", "text"),
        ("name", "x" * 64, "63"),
        ("command_topic", "a/#", "one of: text, line"),
        ("command_topic", "a/+", "many topics"),
        ("command_topic", "$SYS/x", "broker's own"),
        ("kind", "a\nb", "text"),
        ("kind", "x" * 201, "text"),
        ("expect_s", 0, "every second"),
        ("expect_s", "1h", "seconds"),
        ("expect_s", float("nan"), "every second"),
        ("quiet", "22-06", "22:00-06:00"),
        ("quiet", "24:00-06:00", "22:00-06:00"),
        ("quiet", "06:00-06:00", "begins when it ends"),
        ("hush", "21-07", "22:00-06:00"),
        ("failure", [" "], "spaces"),
        ("failure", ["x"] * 21, "20 words"),
        ("alarm", "pigeon:1", "no target"),
        ("alarm", "discard", "keeps or carries"),
        ("colour", "red", "no setting"),
    ],
)
def test_what_is_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DeviceSettings().changed({key: value})


def test_a_device_survives_json() -> None:
    device = Device(ip_address("2001:db8::1"), DeviceSettings().changed(ALL), first_at=1.5)
    device.messages, device.tls = 7, "TLSv1.3 X"
    device.quirks = Quirk.EMPTY_HELO | Quirk.NO_QUIT
    device.is_silent = True
    settings = json.loads(json.dumps(device.settings.as_json()))
    seen = json.loads(json.dumps(device.seen_as_json()))
    again = Device.of_json("2001:db8::1", settings, seen)
    assert again.settings == device.settings
    assert again.seen_as_json() == device.seen_as_json()
    assert again.quirks is Quirk.EMPTY_HELO | Quirk.NO_QUIT


def test_every_quirk_has_words() -> None:
    assert len(quirk_words(sum(Quirk))) == len(Quirk)


# Silence.


def test_silence_is_due_when_the_interval_is_over() -> None:
    assert silence_is_due_at(at(1), 2 * HOUR_S, None) == at(3)
    assert silence_is_due_at(at(1), 2 * HOUR_S, Quiet.parse("22:00-06:00")) == at(8)


@pytest.mark.parametrize(
    ("since", "hours", "quiet", "due"),
    [
        (at(20), 1, "22:00-06:00", at(21)),
        (at(21, 0), 1, "22:00-06:00", at(6, 1)),  # at its first moment
        (at(21.5), 2, "22:00-06:00", at(7.5, 1)),
        (at(4, 1), 2, "22:00-06:00", at(6, 1)),  # it is over by then
        (at(12), 24, "22:00-06:00", at(12, 1)),
        (at(10), 4, "12:00-13:00", at(14)),
        (at(10), 2.5, "12:00-13:00", at(13.5)),
        (at(0.5), 22, "01:00-23:00", at(0.5, 11)),  # it comes to an end
    ],
)
def test_quiet_hours_put_it_off(since: float, hours: float, quiet: str, due: float) -> None:
    assert silence_is_due_at(since, hours * HOUR_S, Quiet.parse(quiet)) == due


# Words.


@pytest.mark.parametrize(
    ("failure", "success", "subject", "text", "is_failure"),
    [
        (["failed"], [], "Backup FAILED", "", True),
        (["failed"], [], "Backup", "disk 2\nhas failed", True),
        (["failed"], [], "Backup", "all is well", False),
        (["failed"], ["done"], "done", "1 of 3 failed", True),  # failure wins
        (["failed"], ["done"], "Job done", "", False),
        (["failed"], ["done"], "Job", "nobody foresaw this", True),
        ([], ["done"], "Job", "", True),
        ([], ["done"], "Job Done", "", False),
        (["ÄRGER"], [], "ärger", "", True),
        (["a b"], [], "a", "b", False),  # no word reaches from the subject into the text
    ],
)
def test_what_words_mean(
    failure: list[str], success: list[str], subject: str, text: str, is_failure: bool
) -> None:
    settings = DeviceSettings().changed({"failure": failure, "success": success})
    assert judged(settings, subject, text).is_failure is is_failure
