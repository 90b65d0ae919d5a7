"""The gate: every outgoing connection, of every kind, asks here at the moment it is made.

Judged is the packed address about to be connected to, never a text or a name, so neither odd
spellings nor DNS rebinding get past. `connect()` below is the only place in Waypost that opens
an outgoing IP connection; a test reads the source to see that it stays so.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from enum import Enum

from waypost.errors import ConnectForbidden
from waypost.mail.address import AddressLiteral, IPAddress
from waypost.mail.envelope import Arrival
from waypost.net.interfaces import OwnAddresses
from waypost.net.networks import NOWHERE, Networks
from waypost.net.special import describe, parse_packed, special_block, unwrap


class Origin(Enum):
    """On whose word a connection is made."""

    OPERATOR = "operator"  # the configuration names the target
    NAMED = "named"  # it names a host that may be anywhere in the Internet, or in listed networks
    ROUTED = "routed"  # a trusted client's recipient, sent on by a route of the operator
    TRUSTED = "trusted"  # a trusted client's recipient, and no route says more
    PROVEN = "proven"  # a report to the very host the message came from
    CHECK = "check"  # an address somebody asked about, whoever that is
    STRANGER = "stranger"  # anything a stranger could have caused


def origin_of(arrival: Arrival) -> Origin:
    """On whose word mail that came in so is sent on, where no rule of the operator says more."""
    if arrival.is_report:
        return Origin.PROVEN
    return Origin.TRUSTED if arrival.trusted else Origin.STRANGER


class Gate:
    """Says whether a connection may be made."""

    def __init__(
        self,
        *,
        trusted: Networks,
        own: OwnAddresses,
        listening: Callable[[], frozenset[tuple[IPAddress | None, int]]],
        probed: Networks = NOWHERE,
    ) -> None:
        """`listening` gives address and port of our listeners; None as address: every one.

        `probed` are networks that are not global and that checks, and hosts the configuration
        only names, may be connected to in.
        """
        self.trusted = trusted  # replaced when settings are read again
        self._probed = probed
        self._own = own
        self._listening = listening

    def refusal(self, packed: bytes, port: int, origin: Origin) -> str | None:
        """Why a connection must not be made, in words for the log; None: it may.

        `packed` is the address in network order, 4 or 16 octets.
        """
        if len(packed) not in (4, 16) or not 0 < port < 65536:
            return "not an address and a port"
        ip = parse_packed(packed)
        inner = unwrap(ip)
        if inner != ip and AddressLiteral(ip).ip != inner:
            # NAT64, 6to4 and the like reach an IPv4 host by a way this host does not control.
            return f"{ip} wraps {inner}"
        block = special_block(inner)
        kind = block.kind if block is not None else "global"
        if kind in _NEVER:
            return f"{inner} is {describe(inner)}"
        is_own = inner in self._own
        if (is_own or kind == "loopback") and self.is_listener(inner, port):
            return f"{inner} port {port} is this hub"
        if origin is Origin.OPERATOR:
            return None
        if origin in (Origin.CHECK, Origin.NAMED) and inner in self._probed:
            return None
        if is_own:
            return f"{inner} is an address of this host"
        if origin is Origin.ROUTED and block is None:
            return None
        if origin in (Origin.ROUTED, Origin.TRUSTED):
            if inner in self.trusted and kind != "link-local":
                return None
            return f"{inner} ({kind}) is in no trusted network"
        if origin is Origin.PROVEN:
            return f"{inner} is loopback" if kind == "loopback" else None
        return None if block is None else f"{inner} is {describe(inner)}"

    def may_connect(self, packed: bytes, port: int, origin: Origin) -> bool:
        """True when `refusal()` finds nothing."""
        return self.refusal(packed, port, origin) is None

    def is_listener(self, ip: IPAddress, port: int) -> bool:
        """True where this hub itself would answer, for an address of this host."""
        listening = self._listening()
        return (ip, port) in listening or (None, port) in listening


# Nothing listens there for unicast mail, whoever asks.
_NEVER = frozenset({"multicast", "broadcast", "this network", "unspecified", "reserved"})


async def connect(
    gate: Gate,
    ip: IPAddress,
    port: int,
    origin: Origin,
    *,
    source_ip: IPAddress | None = None,
) -> socket.socket:
    """A connected, non-blocking socket; the caller sets the time limit.

    `source_ip` None: the kernel chooses. Raises ConnectForbidden or OSError.
    """
    reason = gate.refusal(ip.packed, port, origin)
    if reason is not None:
        raise ConnectForbidden(reason)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source_ip is not None:
            connection.bind((str(source_ip), 0))
        await asyncio.get_running_loop().sock_connect(connection, (str(ip), port))
    except BaseException:
        connection.close()
        raise
    return connection


async def connect_unix(path: str) -> socket.socket:
    """A connected Unix socket; only the operator's configuration names such paths.

    Raises OSError.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection
