"""Who may make the hub connect where: every special block, every wrapper, every origin."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.net.test_special import INNER, NETWORKS, SPECIAL, WRAPPERS, edges, neighbours
from waypost.mail.address import IPAddress, as_value
from waypost.mail.envelope import REPORT, Arrival
from waypost.net.gate import Gate, Origin, origin_of
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import Networks

OWN = ("192.168.1.5", "203.0.113.7", "fd00::5")
LISTENING: frozenset[tuple[IPAddress | None, int]] = frozenset(
    {(None, 2525), (ip_address("192.168.1.5"), 2587)}
)
# Nobody's unicast mail is there, whoever asks.
NEVER = [
    *("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"),
    *("::/128", "ff00::/8"),
]


def gate(*trusted: str) -> Gate:
    own = OwnAddresses(follow_interfaces=False, extra=[ip_address(text) for text in OWN])
    return Gate(
        trusted=Networks(trusted or ("loopback", "private")),
        own=own,
        listening=lambda: LISTENING,
    )


def may(ip: IPAddress | str, origin: Origin, port: int = 25, *trusted: str) -> bool:
    packed = (ip_address(ip) if isinstance(ip, str) else ip).packed
    answer = gate(*trusted).may_connect(packed, port, origin)
    assert answer == (gate(*trusted).refusal(packed, port, origin) is None)
    return answer


def is_special(ip: IPAddress) -> bool:
    return any(ip.version == block.version and ip in block for block in NETWORKS)


@pytest.mark.parametrize("text", [text for text, _ in SPECIAL])
def test_strangers_reach_no_special_block(text: str) -> None:
    for ip in edges(text):
        assert not may(ip, Origin.STRANGER)


@pytest.mark.parametrize("text", [text for text, _ in SPECIAL])
def test_beside_a_block_strangers_reach_what_is_global(text: str) -> None:
    for ip in neighbours(text):
        wraps = ip.version == 6 and (
            int(ip) >> 32 in (0, 0x64FF9B << 64) or int(ip) >> 112 == 0x2002
        )
        assert may(ip, Origin.STRANGER) == (not is_special(ip) and not wraps), ip


@pytest.mark.parametrize("form", WRAPPERS)
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("origin", Origin)
def test_a_wrapper_is_never_a_way_round(form: str, inner: str, origin: Origin) -> None:
    """Only the v4-mapped form is the host itself; others go a way this host does not control."""
    wrapped = WRAPPERS[form](IPv4Address(inner))
    if form.startswith("v4-mapped"):
        assert may(wrapped, origin) == may(inner, origin)
    else:
        assert not may(wrapped, origin)


@given(st.ip_addresses(v=4), st.sampled_from(sorted(WRAPPERS)))
def test_no_stranger_gets_to_a_special_address_in_any_wrapping(v4: IPv4Address, form: str) -> None:
    wrapped = WRAPPERS[form](v4)
    if may(wrapped, Origin.STRANGER):
        assert form.startswith("v4-mapped")
        assert not is_special(v4)


@pytest.mark.parametrize("text", NEVER)
@pytest.mark.parametrize("origin", Origin)
def test_some_blocks_are_closed_to_all(text: str, origin: Origin) -> None:
    for ip in edges(text):
        assert not may(ip, origin, 25, "any")


@pytest.mark.parametrize(
    ("ip", "allowed"),
    [
        # origins that may: O operator, T trusted (loopback, private), P proven, S stranger
        ("8.8.8.8", "OPS"),
        ("2606:4700::1111", "OPS"),
        ("10.9.0.2", "OTP"),
        ("172.31.0.1", "OTP"),
        ("192.168.1.6", "OTP"),
        ("fd00:9::2", "OTP"),
        ("127.0.0.1", "OT"),
        ("127.9.9.9", "OT"),
        ("::1", "OT"),
        # 169.254.169.254 is where clouds keep their secrets: nobody but the operator.
        ("169.254.169.254", "OP"),
        ("fe80::1", "OP"),
        ("100.64.0.1", "OP"),
        ("224.0.0.1", ""),
        ("255.255.255.255", ""),
        ("0.0.0.0", ""),
        ("0.1.2.3", ""),
        ("240.0.0.1", ""),
        ("::", ""),
        ("ff02::1", ""),
    ],
)
def test_each_origin(ip: str, allowed: str) -> None:
    found = "".join(
        letter
        for letter, origin in (
            ("O", Origin.OPERATOR),
            ("T", Origin.TRUSTED),
            ("P", Origin.PROVEN),
            ("S", Origin.STRANGER),
        )
        if may(ip, origin)
    )
    assert found == allowed


def test_a_route_opens_the_world_but_not_the_inside() -> None:
    assert may("8.8.8.8", Origin.ROUTED)
    assert may("10.9.0.2", Origin.ROUTED, 25, "10.9.0.0/24")
    assert not may("10.9.1.2", Origin.ROUTED, 25, "10.9.0.0/24")
    assert not may("169.254.169.254", Origin.ROUTED)
    assert not may("127.0.0.1", Origin.ROUTED, 25, "10.9.0.0/24")


def test_trusted_clients_reach_trusted_networks_and_no_others() -> None:
    assert may("10.9.0.2", Origin.TRUSTED, 25, "10.9.0.0/24")
    assert not may("10.9.1.2", Origin.TRUSTED, 25, "10.9.0.0/24")
    assert not may("127.0.0.1", Origin.TRUSTED, 25, "10.9.0.0/24")
    assert may("8.8.8.8", Origin.TRUSTED, 25, "any")
    assert not may("169.254.169.254", Origin.TRUSTED, 25, "any")
    assert not may("fe80::1", Origin.TRUSTED, 25, "any")


@pytest.mark.parametrize("ip", OWN)
@pytest.mark.parametrize("origin", [Origin.TRUSTED, Origin.PROVEN, Origin.STRANGER])
def test_own_addresses_are_closed_to_all_but_the_operator(ip: str, origin: Origin) -> None:
    """Whatever the range: a global address of ours, and a NAT address, just as well."""
    assert not may(ip, origin, 25, "any")
    assert not may(f"::ffff:{ip}" if "." in ip else ip, origin, 25, "any")


def test_nobody_makes_the_hub_talk_to_itself() -> None:
    for ip in OWN:
        assert may(ip, Origin.OPERATOR, 26)
        assert not may(ip, Origin.OPERATOR, 2525)
    # A listener on one address is on that one only.
    assert not may("192.168.1.5", Origin.OPERATOR, 2587)
    assert may("203.0.113.7", Origin.OPERATOR, 2587)
    # The port of a listener means nothing on another host.
    assert may("192.168.1.6", Origin.OPERATOR, 2525)


def test_with_auto_every_loopback_address_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 1122 §3.2.1.3: all of 127.0.0.0/8 is this host."""
    monkeypatch.setattr(
        "waypost.net.interfaces.interface_addresses",
        lambda: frozenset({ip_address("127.0.0.1"), ip_address("192.0.2.5")}),
    )
    own = OwnAddresses(follow_interfaces=True, extra=[ip_address("::ffff:198.51.100.7")])
    for text in ("127.0.0.1", "127.3.2.1", "192.0.2.5", "::ffff:192.0.2.5", "198.51.100.7"):
        assert ip_address(text) in own
    for text in ("::2", "192.0.2.6", "128.0.0.1"):
        assert ip_address(text) not in own
    looped = Gate(trusted=Networks(("any",)), own=own, listening=lambda: LISTENING)
    assert not looped.may_connect(ip_address("127.3.2.1").packed, 2525, Origin.OPERATOR)
    assert looped.may_connect(ip_address("127.3.2.1").packed, 25, Origin.OPERATOR)
    assert not looped.may_connect(ip_address("127.3.2.1").packed, 25, Origin.TRUSTED)


def test_own_addresses_follow_the_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {ip_address("192.0.2.5")}
    monkeypatch.setattr("waypost.net.interfaces.interface_addresses", lambda: frozenset(addresses))
    own = OwnAddresses(follow_interfaces=True)
    addresses.add(ip_address("192.0.2.6"))
    assert own.refresh()
    assert ip_address("192.0.2.6") in own
    assert not own.refresh()
    addresses.discard(ip_address("192.0.2.5"))
    assert own.refresh()
    assert ip_address("192.0.2.5") not in own


@pytest.mark.parametrize("port", [0, -1, 65_536, 1 << 40])
def test_what_is_no_port_is_refused(port: int) -> None:
    assert not may("8.8.8.8", Origin.OPERATOR, port)


@pytest.mark.parametrize(
    "packed", [b"", b"\x08", b"\x08" * 5, b"\x08" * 15, b"8.8.8.8", b"\0" * 17]
)
def test_what_is_no_packed_address_is_refused(packed: bytes) -> None:
    for origin in Origin:
        assert gate().refusal(packed, 25, origin) is not None


@given(st.binary(max_size=20), st.integers(-10, 70_000), st.sampled_from(Origin))
def test_anything_may_be_asked(packed: bytes, port: int, origin: Origin) -> None:
    refusal = gate().refusal(packed, port, origin)
    assert refusal is None or refusal


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_an_operator_may_whatever_others_may(ip: IPAddress, port: int) -> None:
    for origin in (Origin.TRUSTED, Origin.PROVEN, Origin.STRANGER):
        if may(ip, origin, port):
            assert may(ip, Origin.OPERATOR, port)
    if may(ip, Origin.STRANGER, port):
        assert not is_special(as_value(ip))
        assert may(ip, Origin.PROVEN, port)


def test_origin_follows_from_the_arrival() -> None:
    client = ip_address("192.168.1.7")
    assert origin_of(Arrival("SMTP", client, None, "", "smtp", trusted=True)) is Origin.TRUSTED
    assert origin_of(Arrival("SMTP", client, None, "", "smtp", trusted=False)) is Origin.STRANGER
    for trusted in (True, False):
        assert origin_of(Arrival("local", None, None, "", REPORT, trusted)) is Origin.PROVEN


def test_the_table_of_edges_is_large() -> None:
    """So many addresses are asked above, for each origin."""
    assert sum(len(edges(text)) + len(neighbours(text)) for text, _ in SPECIAL) > 150
    assert ip_network("2000::/3") not in NETWORKS
    assert IPv6Address("2000::") not in ip_network("::/3")


# A webhook's host, given by name.


def test_a_name_leads_to_the_internet_and_to_what_is_listed() -> None:
    listed = gate_that_lists("192.168.1.0/24", "127.0.0.0/8")
    for text, port, answer in (
        *(("8.8.8.8", 80, True), ("192.168.1.60", 80, True), ("192.168.2.60", 80, False)),
        *(("169.254.169.254", 80, False), ("224.0.0.1", 80, False), ("127.0.0.1", 8080, True)),
        ("127.0.0.1", 25, False),  # a listener of this hub
    ):
        assert listed.may_connect(packed_of(text), port, Origin.NAMED) == answer, text
    assert not gate_that_lists().may_connect(packed_of("127.0.0.1"), 8080, Origin.NAMED)


def packed_of(text: str) -> bytes:
    return ip_address(text).packed


def gate_that_lists(*words: str) -> Gate:
    own = OwnAddresses(follow_interfaces=False, extra=[ip_address("127.0.0.1")])
    return Gate(
        trusted=Networks(()),
        own=own,
        listening=lambda: frozenset({(None, 25)}),
        probed=Networks(words),
    )
