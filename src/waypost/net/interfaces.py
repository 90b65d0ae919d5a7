"""This host's own addresses, followed as interfaces change.

With "auto", ours is every address of every interface and all of 127.0.0.0/8 (RFC 1122: it never
leaves the host); NAT addresses come from the configuration. The address a client connected to is
judged where the connection is known (routing/table).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, ip_address

import psutil

from waypost.mail.address import IPAddress, as_value

_LOOPBACK = IPv4Network("127.0.0.0/8")
# rtnetlink(7) groups for address changes; the messages are only a hint to look again.
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100
# Where no notice comes (other systems, a lost message) changes are seen after this long.
POLL_S = 15.0


def interface_addresses() -> frozenset[IPAddress]:
    """Every IPv4 and IPv6 address of every interface of this host, now."""
    found: set[IPAddress] = set()
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family in (socket.AF_INET, socket.AF_INET6):
                found.add(as_value(ip_address(address.address.partition("%")[0])))
    return frozenset(found)


def source_towards(ip: IPAddress) -> IPAddress:
    """Our address on the way to `ip`: the kernel knows, and no packet is sent to ask it.

    Raises OSError when there is no way.
    """
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(ip), 9))
        return ip_address(probe.getsockname()[0].partition("%")[0])


class OwnAddresses:
    """The live set of our addresses; ask with ``in``."""

    def __init__(self, *, follow_interfaces: bool, extra: Iterable[IPAddress] = ()) -> None:
        self.current: frozenset[IPAddress] = frozenset()
        self.reconfigure(follow_interfaces=follow_interfaces, extra=extra)

    def reconfigure(self, *, follow_interfaces: bool, extra: Iterable[IPAddress]) -> None:
        """Hold what new settings say from now on."""
        self._follow = follow_interfaces
        self._extra = frozenset(as_value(ip) for ip in extra)
        self.refresh()

    def refresh(self) -> bool:
        """Look at the interfaces again; True when the set changed."""
        seen = self._extra | (interface_addresses() if self._follow else frozenset())
        changed = seen != self.current
        self.current = seen
        return changed

    def __contains__(self, ip: IPAddress) -> bool:
        value = as_value(ip)
        return value in self.current or (self._follow and value.version == 4 and value in _LOOPBACK)

    async def follow(self, on_change: Callable[[frozenset[IPAddress]], None]) -> None:
        """Until cancelled, refresh on each notice of the kernel, and every POLL_S anyway."""
        loop = asyncio.get_running_loop()
        noticed = asyncio.Event()
        with contextlib.ExitStack() as stack:
            notices = _open_notices()
            if notices is not None:
                stack.callback(notices.close)
                loop.add_reader(notices, _drain, notices, noticed)
                stack.callback(loop.remove_reader, notices)
            while True:
                if self.refresh():
                    on_change(self.current)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(noticed.wait(), POLL_S)
                noticed.clear()


def _open_notices() -> socket.socket | None:
    """A socket that becomes readable when addresses change; None: this system has none."""
    if not sys.platform.startswith("linux"):
        return None
    notices = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    notices.setblocking(False)
    notices.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return notices


def _drain(notices: socket.socket, noticed: asyncio.Event) -> None:
    # ENOBUFS means notices were lost, which is a notice too.
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                notices.recv(65536)
            except BlockingIOError:
                raise
            except OSError:
                break
    noticed.set()
