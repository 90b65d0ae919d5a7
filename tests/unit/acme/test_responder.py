"""The certificate of tls-alpn-01, and who is shown it."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from waypost.acme.responder import (
    ALPN,
    Proof,
    alpn_context,
    server_name,
    validation_certificate,
)

DIGEST = hashlib.sha256(b"token.thumbprint").digest()
ADDRESS = Proof(ip_address("192.0.2.7"), "/a", b"", DIGEST)
NAME = Proof("mail.example", "/b", b"", DIGEST)


def test_names_of_addresses() -> None:
    """RFC 8738 §6."""
    assert server_name(ip_address("192.0.2.7")) == "7.2.0.192.in-addr.arpa"
    assert server_name(ip_address("2001:db8::1")) == (
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
    )
    assert server_name("mail.example") == "mail.example"


def test_the_certificate_holds_the_identifier_alone_and_the_digest_critical() -> None:
    """RFC 8737 §3."""
    found = validation_certificate(ADDRESS, ec.generate_private_key(ec.SECP256R1()))
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.IPAddress(ip_address("192.0.2.7"))]
    identifier = found.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert identifier.critical
    assert isinstance(identifier.value, x509.UnrecognizedExtension)
    assert identifier.value.value == bytes([4, 32]) + DIGEST


def shown(server: ssl.SSLContext, name: str | None, alpn: str) -> tuple[bytes | None, str | None]:
    """What a client is shown, and the protocol agreed on."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.set_alpn_protocols([alpn])
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, there, server_hostname=name)
    answering = server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (asking, answering):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return asking.getpeercert(binary_form=True), asking.selected_alpn_protocol()


def test_each_is_shown_under_its_name_and_others_see_nothing() -> None:
    server = alpn_context([ADDRESS, NAME])
    for proof, name in ((ADDRESS, "7.2.0.192.in-addr.arpa"), (NAME, "MAIL.example")):
        octets, protocol = shown(server, name, ALPN)
        assert protocol == ALPN
        assert octets is not None
        names = (
            x509.load_der_x509_certificate(octets)
            .extensions.get_extension_for_class(x509.SubjectAlternativeName)
            .value
        )
        assert proof.identifier in (
            *names.get_values_for_type(x509.IPAddress),
            *names.get_values_for_type(x509.DNSName),
        )
    for name in ("other.example", None):
        with pytest.raises(ssl.SSLError):
            shown(server, name, ALPN)
