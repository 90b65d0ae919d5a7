"""The PROXY protocol's header, versions 1 and 2, without I/O.

What a proxy says before anything else about the connection it carries on (HAProxy's
proxy-protocol.txt). Nothing behind the header is taken: what follows may be TLS.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

from waypost.mail.address import IPAddress, as_value

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16  # of version 2: signature, command, family, length
# The longest line of version 1, CRLF included (§2.1).
_MAX_LINE = 107
# The addresses, and whatever a proxy may want to tell in TLVs, which are skipped.
_MAX_V2_BYTES = 4_096


class BadProxyHeader(Exception):
    """What came is no PROXY header; says why."""


class ProxyHeader(NamedTuple):
    """Whom the proxy speaks for."""

    client_ip: IPAddress | None  # None: nobody (LOCAL), or it does not know (UNKNOWN)
    local_ip: IPAddress | None  # where that client connected to; None: as above


class ProxyHeaderReader:
    """Puts the header together from octets as they come."""

    def __init__(self) -> None:
        self._taken = b""
        self.header: ProxyHeader | None = None  # None: not complete yet

    def receive(self, octets: bytes) -> int:
        """Look at octets; how many of them belong to the header. Raises BadProxyHeader."""
        before = len(self._taken)
        seen = self._taken + octets
        if seen.startswith(b"PROXY ") or b"PROXY ".startswith(seen):
            end = self._line_end(seen)
        elif seen.startswith(_SIGNATURE) or _SIGNATURE.startswith(seen):
            end = self._block_end(seen)
        else:
            raise BadProxyHeader("it does not begin with a PROXY header")
        self._taken = seen[:end]
        return end - before

    def _line_end(self, seen: bytes) -> int:
        end = seen.find(b"\n") + 1
        if (end or len(seen)) > _MAX_LINE:
            raise BadProxyHeader("a PROXY line longer than 107 octets")
        if end:
            self.header = _read_line(seen[:end])
        return end or len(seen)

    def _block_end(self, seen: bytes) -> int:
        if len(seen) < _FIXED:
            return len(seen)
        end = _FIXED + int.from_bytes(seen[14:16], "big")
        if end > _MAX_V2_BYTES:
            raise BadProxyHeader(f"a PROXY header of {end} octets")
        if len(seen) >= end:
            self.header = _read_block(seen[12], seen[13], seen[_FIXED:end])
        return min(end, len(seen))


def _read_line(line: bytes) -> ProxyHeader:
    """Version 1 (§2.1): ``PROXY TCP4 source destination port port``."""
    if not line.endswith(b"\r\n"):
        raise BadProxyHeader("a PROXY line that does not end in CRLF")
    words = line[:-2].split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return ProxyHeader(None, None)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise BadProxyHeader(f"not a PROXY line: {line!r}")
    if not all(word.isdigit() and len(word) <= 5 and int(word) < 65536 for word in words[4:]):
        raise BadProxyHeader(f"a PROXY line with bad ports: {line!r}")
    read = IPv4Address if words[1] == b"TCP4" else IPv6Address
    try:
        client, local = (read(word.decode("ascii")) for word in words[2:4])
    except (AddressValueError, UnicodeDecodeError):
        raise BadProxyHeader(f"a PROXY line with bad addresses: {line!r}") from None
    if any(ip.version == 6 and ip.scope_id for ip in (client, local)):
        raise BadProxyHeader(f"a PROXY line with a zone: {line!r}")
    return ProxyHeader(as_value(client), as_value(local))


def _read_block(command: int, family: int, block: bytes) -> ProxyHeader:
    """Version 2 (§2.2): addresses in network order, then TLVs."""
    if command >> 4 != 2 or command & 15 > 1:
        raise BadProxyHeader(f"a PROXY header with version and command {command:#04x}")
    if command & 15 == 0:
        return ProxyHeader(None, None)  # LOCAL: the proxy itself, looking whether we are there
    if family == 0x11 and len(block) >= 12:
        return ProxyHeader(IPv4Address(block[:4]), IPv4Address(block[4:8]))
    if family == 0x21 and len(block) >= 36:
        return ProxyHeader(
            as_value(IPv6Address(block[:16])),
            as_value(IPv6Address(block[16:32])),
        )
    if family in (0x00, 0x31):
        return ProxyHeader(None, None)  # not known, or a Unix socket
    raise BadProxyHeader(f"a PROXY header for family {family:#04x} with {len(block)} octets")
