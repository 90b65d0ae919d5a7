"""Contexts for sessions on their way out."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from waypost.errors import TemporaryError

# What is spoken outward up to TLS 1.2: forward secrecy, and neither SHA-1 nor anonymous peers. The
# suites of TLS 1.3 are all sound.
_CIPHERS = (
    "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES"
    ":!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
)


def client_context(*, verifies: bool, ca: Path | Sequence[Path] | None) -> ssl.SSLContext:
    """A context of TLS 1.2 and later. `ca` None or empty: those this system trusts. Blocks.

    With `verifies` the peer proves the name or the IP address it is connected by (RFC 9525; IP
    addresses by an iPAddress SAN). Raises TemporaryError for a `ca` that cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    files = [ca] if isinstance(ca, Path) else ca or []
    for file in files:
        try:
            context.load_verify_locations(file)
        except OSError as error:
            raise TemporaryError(f"{file}: {error.strerror or error}") from error
    if verifies and not files:
        context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    # RFC 9525 §6.3: only what stands in a SAN counts.
    context.hostname_checks_common_name = False
    # An authority that was named may be one below another (RFC 5280 §6.1: any trust anchor).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
