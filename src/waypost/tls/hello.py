"""What a TLS client offers, read off its ClientHello (RFC 8446 §4.1.2), for the log."""

from __future__ import annotations

# The first octet of what a TLS client sends (RFC 8446 §5.1); no SMTP command begins with it.
HANDSHAKE = 0x16
# Most hellos are shorter; what lies beyond is not looked at.
HELLO_BYTES = 2_048

_CLIENT_HELLO = 1
_SUPPORTED_VERSIONS = 43
_NAMES = {0x0300: "SSLv3", 0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3"}


def offered_versions(octets: bytes) -> tuple[str, ...]:
    """The versions offered, lowest first; empty: it cannot be read."""
    try:
        return _versions(octets)
    except IndexError:
        return ()  # too short for a hello


def is_old(versions: tuple[str, ...]) -> bool:
    """True for a client that knows nothing of TLS 1.2, the oldest that is safe (RFC 8996)."""
    return bool(versions) and versions[-1].removeprefix("up to ") in ("SSLv3", "1.0", "1.1")


def _versions(octets: bytes) -> tuple[str, ...]:
    if octets[0] != HANDSHAKE or octets[5] != _CLIENT_HELLO:
        return ()
    if len(octets) < 5 + int.from_bytes(octets[3:5], "big"):
        return ()  # cut off, perhaps before what it says of TLS 1.3
    highest = int.from_bytes(octets[9:11], "big")
    at = 43  # behind record, message, version and random
    at += 1 + octets[at]  # session id
    at += 2 + (octets[at] << 8 | octets[at + 1])  # cipher suites
    at += 1 + octets[at]  # compression
    while at + 4 <= len(octets):
        kind = octets[at] << 8 | octets[at + 1]
        size = octets[at + 2] << 8 | octets[at + 3]
        at += 4
        if kind == _SUPPORTED_VERSIONS:
            listed = octets[at + 1 : at + 1 + octets[at]]
            values = {listed[i] << 8 | listed[i + 1] for i in range(0, len(listed) - 1, 2)}
            return tuple(_NAMES[value] for value in sorted(values) if value in _NAMES)
        at += size
    # Before TLS 1.3 a client named the highest it knows, and knew all below.
    return (f"up to {_NAMES[highest]}",) if highest in _NAMES else ()
