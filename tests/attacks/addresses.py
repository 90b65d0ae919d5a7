"""Addresses worth attacking: every special block with its edges, in every wrapping and spelling.

Who may reach which is said here anew, from tables of the tests' own: the code under test is not
asked what it thinks of an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from tests.attacks.world import OWN
from tests.unit.net.test_special import SPECIAL
from waypost.mail.address import IPAddress

_NEVER = ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8")
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
_TRUSTED = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
# What is known to be worth it: metadata of clouds, routers, the hub itself.
_WELL_KNOWN = (
    *("127.0.0.1", "127.1.2.3", "169.254.169.254", "100.100.100.200", "192.168.0.1", "10.0.0.1"),
    *("::1", "fd00:ec2::254", "fe80::1", "fe80::a9fe:a9fe", *OWN),
)
# What anybody may reach.
GLOBAL = ("8.8.8.8", "1.1.1.1", "93.184.216.35", "2606:4700:4700::1111", "2a00:1450::5")


def _wrapped(v4: IPv4Address) -> Iterator[IPv6Address]:
    """Every IPv6 form that means, or once meant, an IPv4 address."""
    number = int(v4)
    yield IPv6Address(0xFFFF << 32 | number)  # v4-mapped, RFC 4291 §2.5.5.2
    yield IPv6Address(number)  # v4-compatible, RFC 4291 §2.5.5.1
    yield IPv6Address(0xFFFF << 48 | number)  # v4-translated, RFC 2765 §2.1
    yield IPv6Address(0x64FF9B << 96 | number)  # NAT64, RFC 6052 §2.1
    yield IPv6Address(0x64FF9B_0001 << 80 | number)  # NAT64 of one's own, RFC 8215
    yield IPv6Address(0x2002 << 112 | number << 80)  # 6to4, RFC 3056
    yield IPv6Address(0x2002 << 112 | number << 80 | 1)
    yield IPv6Address(0x2001_0000 << 96 | number << 64)  # Teredo's server, RFC 4380 §4
    yield IPv6Address(0x2001_0000 << 96 | 0x0808_0808 << 64 | (number ^ 0xFFFF_FFFF))  # its client


def around(text: str) -> list[IPAddress]:
    """The first, middle and last address of a block, and those before and behind it."""
    network = ip_network(text)
    kind = type(network[0])
    first, last = int(network[0]), int(network[-1])
    numbers = {first - 1, first, (first + last) // 2, last, last + 1}
    return [kind(number) for number in sorted(numbers) if 0 <= number < 1 << network.max_prefixlen]


def addresses() -> list[IPAddress]:
    """All of them, each once."""
    plain = [ip for text, _ in SPECIAL for ip in around(text)]
    plain += [ip_address(text) for text in (*_WELL_KNOWN, *GLOBAL)]
    wrapped = [form for ip in plain if isinstance(ip, IPv4Address) for form in _wrapped(ip)]
    return list(dict.fromkeys([*plain, *wrapped]))


def meant(ip: IPAddress) -> IPAddress | None:
    """The host an address reaches; None: by a way that nobody here controls."""
    if isinstance(ip, IPv4Address) or int(ip) < 2:
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    ways = ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "2002::/16")
    return None if _is_in(ip, ways) else ip


def is_global(ip: IPAddress) -> bool:
    """True for an ordinary host of the Internet."""
    return not _is_in(ip, tuple(text for text, _ in SPECIAL))


def may_reach(ip: IPAddress, who: str) -> bool:
    """Whether mail may go to port 25 of an address; docs/explanation/security.md has the table.

    `who` is operator, routed (a trusted client's, by a route), trusted, proven, named (by a
    webhook's URL), or stranger.
    """
    host = meant(ip)
    if host is None or _is_in(host, _NEVER):
        return False
    if who == "operator":
        return True
    if _is_in(host, _LOOPBACK) or str(host) in OWN:
        return False
    if who == "proven" or (who in ("routed", "stranger", "named") and is_global(host)):
        return True
    return who in ("routed", "trusted") and _is_in(host, _TRUSTED)


def _is_in(ip: IPAddress, networks: tuple[str, ...]) -> bool:
    return any(
        ip.version == network.version and ip in network
        for network in (ip_network(text) for text in networks)
    )


def literal(ip: IPAddress) -> str:
    """As it stands behind an @."""
    return f"[IPv6:{ip}]" if ip.version == 6 else f"[{ip}]"


def target(ip: IPAddress, port: int = 25) -> str:
    """As the watch of a namespace names a connection to it: v4-mapped is IPv4 on the wire."""
    host = meant(ip)
    assert host is not None
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def spellings(v4: IPv4Address) -> list[str]:
    """Texts the C library takes for an IPv4 address, and others that somebody might."""
    one, two, three, four = v4.packed
    number = int(v4)
    full_width = str(v4).translate({48 + digit: 0xFF10 + digit for digit in range(10)})
    texts = [
        f"0{one:o}.0{two:o}.0{three:o}.0{four:o}",
        f"{one:04o}.{two:04o}.{three:04o}.{four:04o}",
        f"0x{one:x}.0x{two:x}.0x{three:x}.0x{four:x}",
        f"0x{number:08x}",
        f"0X{number:X}",
        f"0{number:o}",
        f"{number}",
        f"{number + (1 << 32)}",
        f"{one}.{number & 0xFF_FFFF}",
        f"{one}.{two}.{number & 0xFFFF}",
        f"{one}.0x{number & 0xFF_FFFF:x}",
        f"{one:03}.{two:03}.{three:03}.{four:03}",
        f"{one}.{two}.{three}.0{four}",
        f"{v4}.",
        f"{one}..{three}.{four}",
        f"{one + 256}.{two}.{three}.{four}",
        f"{v4}:25",
        f"{v4}/32",
        f"{v4}%1",
        f"{v4}%25lo",
        f"-{v4}",
        f"+{v4}",
        f"{one}.{two}.{three}.{four} ",
        f" {v4}",
        f"{v4}\t",
        full_width,
        f"{one}\u3002{two}\u3002{three}\u3002{four}",
        f"{one}\u2024{two}\u2024{three}\u2024{four}",
        f"IPv4:{v4}",
        f"IPv6:{v4}",
        f"::ffff:{v4}",
        f"::{v4}",
        f"IPv6:::ffff:{v4}%lo",
        f"IPv6:::ffff:{v4}%25lo",
        f"IPv6:::ffff:0x{one:x}.{two}.{three}.{four}",
        f"IPv6:::ffff:0{one}.{two}.{three}.{four}",
        f"IPv6:0::0::ffff:{v4}",
        f"IPv6:00000:0:0:0:0:ffff:{v4}",
        f"IPv6:[::ffff:{v4}]",
        f"http://{v4}",
        f"localhost@{v4}",
        f"{v4}\\",
    ]
    return [text for text in texts if text != str(v4)]
