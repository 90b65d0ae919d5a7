"""What devices are called: no name leads to another topic, and none is without one."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.devices.names import (
    RESERVED,
    DeviceNames,
    DeviceSettings,
    address_slug,
    check_name,
    slug,
)
from waypost.mail.address import IPAddress
from waypost.mail.envelope import Arrival

NAMES = DeviceNames(
    [DeviceSettings((ip_address("10.0.0.5"), ip_address("fd00::5")), "Front door", "camera")]
)


def arrival(ip: str | None, *, trusted: bool = True, login: str | None = None) -> Arrival:
    client = None if ip is None else ip_address(ip)
    return Arrival("ESMTP", client, client, "x", "smtp", trusted, login)


@given(st.text())
def test_a_slug_is_one_level_of_topics(text: str) -> None:
    made = slug(text)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", made)
    assert made == slug(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Front door", "Front-door"),
        ("../bridge/state", "bridge-state"),
        ("a/+/#", "a"),
        ("Tür", "Tur"),
        ("cam_1", "cam_1"),
        ("192.168.1.50", "192-168-1-50"),
        ("fd00::5", "fd00-5"),
        ("a\0b\n", "a-b"),
    ],
)
def test_slugs(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_names_in_other_scripts_stay_apart() -> None:
    assert slug("東門") != slug("西門")


@given(st.ip_addresses(), st.ip_addresses())
def test_addresses_stay_apart(one: IPAddress, other: IPAddress) -> None:
    assert (address_slug(one) == address_slug(other)) is (one == other)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", address_slug(one))


def test_zeros_that_are_left_out_count() -> None:
    one, other = (ip_address(text) for text in ("2001:db8::1:0:0:2", "2001:db8:0:0:1::2"))
    assert one == other
    one, other = (ip_address(text) for text in ("2001:db8::1:2", "2001:db8:1::2"))
    assert address_slug(one) != address_slug(other)


@given(st.text(), st.ip_addresses())
def test_no_name_takes_an_address(text: str, ip: IPAddress) -> None:
    for name in (text, str(ip), address_slug(ip), str(ip).replace(".", " ")):
        try:
            check_name(name)
        except ValueError:
            continue
        assert slug(name) != address_slug(ip)
        assert slug(name).lower() not in RESERVED


@pytest.mark.parametrize("name", ["Front Door", "Tür / Höhe #1 +", "東門", "-", "x"])
def test_any_text_is_a_name(name: str) -> None:
    check_name(name)


def test_a_name_of_the_configuration_wins() -> None:
    names = DeviceNames(
        [DeviceSettings((ip_address("10.0.0.5"),), "Front door")],
        {"10.0.0.6": "front DOOR", "10.0.0.7": "Yard"}.get,
    )
    found = [names.called(f"10.0.0.{number}").slug for number in (5, 6, 7)]
    assert found == ["Front-door", "10-0-0-6", "Yard"]


def test_who_is_who() -> None:
    found = {
        (device := NAMES.device_of(one)).slug: device.name
        for one in (
            arrival("10.0.0.5"),
            arrival("fd00::5"),
            arrival("10.0.0.6"),
            arrival(None),
            arrival("203.0.113.1", trusted=False),
            arrival("203.0.113.2", trusted=False),
            arrival("203.0.113.3", trusted=False, login="bridge"),
        )
    }
    assert found == {
        "Front-door": "Front door",
        "10-0-0-6": "10.0.0.6",
        "local": "local",
        "strangers": "strangers",
        "login-bridge": "login bridge",
    }
    assert "login-bridge" not in RESERVED


def test_a_device_of_several_addresses_is_one() -> None:
    one, other = (NAMES.device_of(arrival(ip)) for ip in ("10.0.0.5", "fd00::5"))
    assert one == other
    assert NAMES.called(one.source) == one


def test_a_named_device_may_be_far_away() -> None:
    assert NAMES.device_of(arrival("10.0.0.5", trusted=False)).name == "Front door"
