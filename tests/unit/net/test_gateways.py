"""Default gateways out of the kernel's tables, and what they do to trust."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from waypost.config import composing
from waypost.config.load import load_settings
from waypost.errors import ConfigError
from waypost.net import gateways
from waypost.net.gateways import masking_gateways, read_gateways_v4, read_gateways_v6
from waypost.net.networks import Networks, only_host

GATEWAY = ip_address("172.17.0.1")

HEAD = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"


def as_kept(address: str) -> str:
    return f"{int.from_bytes(IPv4Address(address).packed, sys.byteorder):08X}"


TABLE_V4 = (
    f"{HEAD}eth0\t00000000\t{as_kept('172.17.0.1')}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    f"eth0\t{as_kept('172.17.0.0')}\t00000000\t0001\t0\t0\t0\t{as_kept('255.255.0.0')}\t0\t0\t0\n"
    f"eth1\t{as_kept('10.0.0.0')}\t{as_kept('10.9.9.9')}\t0003\t0\t0\t0\t"
    f"{as_kept('255.0.0.0')}\t0\t0\t0\n"
)
ZERO = "0" * 32
TABLE_V6 = (
    f"{ZERO} 00 {ZERO} 00 {'fd00' + '0' * 27 + '1'} 00000400 00000001 00000000 00000003     eth0\n"
    f"{'fd00' + '0' * 28} 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0\n"
    f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo\n"
)


def test_the_kernels_tables() -> None:
    assert read_gateways_v4(TABLE_V4) == [GATEWAY]
    assert read_gateways_v4(HEAD) == []
    assert read_gateways_v6(TABLE_V6) == [ip_address("fd00::1")]
    assert read_gateways_v6("") == []


@pytest.mark.parametrize("is_container", [True, False])
def test_only_a_containers_gateway_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_container: bool
) -> None:
    routes = tmp_path / "route"
    routes.write_text(TABLE_V4)
    mark = tmp_path / "mark"
    if is_container:
        mark.touch()
    monkeypatch.setattr(gateways, "_MARKS", (mark,))
    monkeypatch.setattr(gateways, "_ROUTES_V4", routes)
    monkeypatch.setattr(gateways, "_ROUTES_V6", tmp_path / "none")
    assert masking_gateways() == ({GATEWAY} if is_container else frozenset())


def test_networks_without() -> None:
    networks = Networks(["private"], without=[GATEWAY])
    assert GATEWAY not in networks
    assert ip_address("172.17.0.2") in networks
    assert ip_address("::ffff:172.17.0.1") not in networks
    assert only_host("172.17.0.1") == only_host("172.17.0.1/32") == GATEWAY
    assert only_host("172.17.0.0/31") is None


@pytest.fixture
def in_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composing, "masking_gateways", lambda: frozenset({GATEWAY}))


@pytest.mark.usefixtures("in_container")
@pytest.mark.parametrize("word", ["172.17.0.1", "172.17.0.1/32"])
def test_to_trust_the_gateway_alone_is_a_fault(tmp_path: Path, word: str) -> None:
    file = tmp_path / "waypost.toml"
    file.write_text(f'[networks]\ntrusted = ["loopback", "{word}"]\n')
    with pytest.raises(ConfigError) as raised:
        load_settings(file, tmp_path, {})
    (fault,) = raised.value.faults
    assert fault.line == 2
    assert "172.17.0.1 is this container's gateway" in fault.problem
    assert "proxy_protocol" in fault.problem
    file.write_text(f'[networks]\ntrusted = ["{word}"]\ntrust_gateway = true\n')
    assert load_settings(file, tmp_path, {}).masked == frozenset()


@pytest.mark.usefixtures("in_container")
def test_wider_networks_stand_without_the_gateway(tmp_path: Path) -> None:
    settings = load_settings(None, tmp_path, {})
    assert settings.masked == {GATEWAY}
