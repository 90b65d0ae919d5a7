"""What routes match by: shell-style patterns over addresses and texts, and sizes of networks."""

from __future__ import annotations

import re
from fnmatch import translate
from ipaddress import ip_network

from waypost.mail.address import Address, AddressLiteral
from waypost.net.special import IPNetwork

# A literal has no "/" in it, so this cannot be meant otherwise.
_NETWORK = re.compile(r"(.*)@\[(?:IPv6:)?([^\[\]]*/[^\[\]]*)\]", re.IGNORECASE | re.DOTALL)


class Glob:
    """A pattern with ``*`` and ``?``, without case, over a whole text."""

    __slots__ = ("_pattern", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # "[" stands for itself, as addresses have literals: *@[10.*] means what it shows.
        self._pattern = re.compile(translate(text.replace("[", "[[]")), re.IGNORECASE)

    def matches(self, text: str) -> bool:
        """True when it is of this form."""
        return self._pattern.match(text) is not None

    def __str__(self) -> str:
        return self.text


class AddressGlob:
    """A pattern over whole addresses; ``<>`` is the null sender, ``*@[10.0.0.0/8]`` a network."""

    __slots__ = ("_glob", "_network", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError for what looks like a network and is none."""
        self.text = text
        self._network: IPNetwork | None = None
        match = _NETWORK.fullmatch(text)
        if match is not None:
            self._network = ip_network(match[2])
            text = match[1]
        self._glob = Glob(text)

    def matches(self, address: Address | None) -> bool:
        """True for an address of this form. None: the null reverse-path."""
        if self._network is None:
            return self._glob.matches("<>" if address is None else str(address))
        if address is None or not isinstance(address.domain, AddressLiteral):
            return False
        ip = address.domain.ip
        return (
            ip.version == self._network.version
            and ip in self._network
            and self._glob.matches(str(address).rpartition("@")[0])
        )

    def __str__(self) -> str:
        return self.text
