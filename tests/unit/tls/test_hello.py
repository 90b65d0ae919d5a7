"""What a ClientHello offers, read off the hellos OpenSSL says."""

from __future__ import annotations

import contextlib
import ssl
import warnings

import pytest

from waypost.tls.hello import offered_versions


def hello(lowest: ssl.TLSVersion, highest: ssl.TLSVersion) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = lowest
        context.maximum_version = highest
    said = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="hub.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()


V = ssl.TLSVersion


@pytest.mark.parametrize(
    ("lowest", "highest", "offered"),
    [
        (V.TLSv1, V.TLSv1, ("up to 1.0",)),
        (V.TLSv1, V.TLSv1_1, ("up to 1.1",)),
        (V.TLSv1, V.TLSv1_2, ("up to 1.2",)),
        (V.TLSv1_2, V.TLSv1_3, ("1.2", "1.3")),
        (V.TLSv1_3, V.TLSv1_3, ("1.3",)),
    ],
)
def test_versions(lowest: V, highest: V, offered: tuple[str, ...]) -> None:
    octets = hello(lowest, highest)
    assert offered_versions(octets) == offered
    # Cut off, nothing is said that might be wrong.
    assert {offered_versions(octets[:cut]) for cut in range(len(octets))} == {()}


@pytest.mark.parametrize(
    "octets", [b"", b"EHLO x\r\n", b"\x16\x03\x01\x00\x02\x02\x28", b"\x16" * 99]
)
def test_no_hello(octets: bytes) -> None:
    assert offered_versions(octets) == ()
