"""What a peer shows in a TLS handshake, and the digest its key is known by."""

from __future__ import annotations

import hashlib
import ssl
from typing import Any, NamedTuple

_DER = 2  # _ssl.ENCODING_DER


class Evidence(NamedTuple):
    """Of one session."""

    version: str  # as "TLSv1.3"
    cipher: str
    chain: tuple[bytes, ...]  # DER, the peer's own certificate first, as it was sent

    def __str__(self) -> str:
        return f"{self.version} {self.cipher}"


def evidence_of(session: ssl.SSLObject) -> Evidence:
    """Of a session whose handshake is done."""
    cipher = session.cipher()
    return Evidence(session.version() or "?", "?" if cipher is None else cipher[0], _chain(session))


def _chain(session: Any) -> tuple[bytes, ...]:
    if hasattr(session, "get_unverified_chain"):  # Python 3.13
        return tuple(session.get_unverified_chain() or ())
    # Before it the same method is there, one floor below.
    found = session._sslobj.get_unverified_chain() or ()
    return tuple(certificate.public_bytes(_DER) for certificate in found)


def key_of(certificate: bytes) -> str:
    """SHA-256 of the SubjectPublicKeyInfo (RFC 7469 §2.4), in hex. Raises ValueError."""
    # It takes a while to load, and most sessions need no digest.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(f"its key is of a kind not known here: {error}") from error
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()
