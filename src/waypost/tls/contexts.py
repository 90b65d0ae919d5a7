"""Contexts for sessions on their way out."""

from __future__ import annotations

import ssl
from pathlib import Path

from waypost.errors import TemporaryError


def client_context(*, verifies: bool, ca: Path | None) -> ssl.SSLContext:
    """A context of TLS 1.2 and later. `ca` None: those this system trusts. Blocks.

    With `verifies` the peer proves the name or the IP address it is connected by (RFC 9525; IP
    addresses by an iPAddress SAN). Raises TemporaryError for a `ca` that cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except OSError as error:
        raise TemporaryError(f"{ca}: {error.strerror or error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
