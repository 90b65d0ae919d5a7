"""What is asked for, and what is left out."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from waypost.acme.identifiers import (
    is_public,
    is_public_name,
    temporary_addresses,
    wanted_subjects,
)
from waypost.acme.settings import AcmeSettings
from waypost.tls.authority import Subjects

OWN = frozenset(map(ip_address, ("127.0.0.1", "10.0.0.1", "8.8.4.4", "fe80::1", "2a00::1")))


def wanted(*identifiers: str, hostname: str | None = None) -> Subjects:
    settings = AcmeSettings("https://ca.example/", identifiers=identifiers)
    return wanted_subjects(settings, OWN, hostname)


def test_auto_is_what_is_public() -> None:
    assert wanted("auto").ips == {ip_address("8.8.4.4"), ip_address("2a00::1")}
    assert wanted("auto", hostname="mail.plant.com").names == {"mail.plant.com"}
    assert not wanted("auto", hostname="hub.lan").names


def test_what_is_named_is_asked_for_whatever_it_is() -> None:
    found = wanted("10.0.0.7", "hub.internal", hostname="mail.plant.com")
    assert found == Subjects(frozenset({ip_address("10.0.0.7")}), frozenset({"hub.internal"}))
    assert wanted("auto", "10.0.0.7").ips == wanted("auto").ips | {ip_address("10.0.0.7")}


@pytest.mark.parametrize("text", ["192.0.2.1", "100.64.0.1", "2001:db8::1", "64:ff9b::808:808"])
def test_special_addresses_are_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mail.plant.com", True),
        ("localhost", False),
        ("a.local", False),
        ("1.0.10.in-addr.arpa", False),
    ],
)
def test_names(name: str, expected: bool) -> None:
    assert is_public_name(name) is expected


def test_temporary_addresses_are_told_by_the_kernel(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    assert temporary_addresses(table) == frozenset()
    table.write_text(
        "2a000000000000000000000000000001 02 40 00 80     eth0\n"
        "2a000000000000000000000000000002 02 40 00 01     eth0\n"
        "fe800000000000000000000000000001 02 40 20 80     eth0\n"
    )
    assert temporary_addresses(table) == {ip_address("2a00::2")}
