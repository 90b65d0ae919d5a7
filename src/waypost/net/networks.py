"""Sets of networks as the configuration names them: words or CIDRs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_network

from waypost.mail.address import IPAddress, as_value
from waypost.net.special import IPNetwork

# The words `networks = […]` knows.
WORDS: dict[str, tuple[str, ...]] = {
    "any": ("0.0.0.0/0", "::/0"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    # RFC 1918; unique-local (RFC 4193) and link-local (RFC 4291) IPv6.
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"),
}


class Networks:
    """An immutable set of networks."""

    __slots__ = ("_cache", "_networks", "_without", "words")

    def __init__(self, words: Iterable[str], without: Iterable[IPAddress] = ()) -> None:
        """Raises ValueError, naming the word, for anything but a known word or a CIDR.

        `without` are addresses that do not belong, whatever the words say.
        """
        self._without = frozenset(map(as_value, without))
        self.words = tuple(words)
        networks: list[IPNetwork] = []
        for word in self.words:
            for text in WORDS.get(word, (word,)):
                try:
                    networks.append(ip_network(text))
                except ValueError as error:
                    raise ValueError(f"{word!r} is no network: {error}") from None
        self._networks = tuple(networks)
        self._cache: dict[IPAddress, bool] = {}

    def __contains__(self, ip: IPAddress) -> bool:
        if not self._networks:
            return False
        known = self._cache.get(ip)
        if known is None:
            if len(self._cache) >= 4096:
                self._cache.clear()
            value = as_value(ip)
            known = value not in self._without and any(
                value.version == network.version and value in network for network in self._networks
            )
            self._cache[ip] = known
        return known

    def __repr__(self) -> str:
        return f"Networks({list(self.words)!r})"


def only_host(word: str) -> IPAddress | None:
    """The one address a CIDR stands for; None: it stands for more."""
    network = ip_network(word)
    return as_value(network.network_address) if network.num_addresses == 1 else None


NOWHERE = Networks(())


@lru_cache(maxsize=8192)
def client_key(ip: IPAddress) -> str:
    """What a client counts as: its address, of IPv6 the /64.

    Whoever has an IPv6 address has 2^64 of them (RFC 6177).
    """
    if ip.version == 4:
        return str(ip)
    return f"{IPv6Address(int(ip) >> 64 << 64)}/64"
